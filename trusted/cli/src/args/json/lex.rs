//! The words of qemu's JSON dialect: cut, unescaped and escaped again.
use super::Value;

/// A word with the place where it begins, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The line.
    pub line: usize,
    /// The column, in bytes.
    pub column: usize,
    /// The word.
    pub what: What,
}

/// The kinds of words.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// One of `{}[]:,`.
    Mark(u8),
    /// Small letters.
    Word(Vec<u8>),
    /// A number.
    Number(Value),
    /// A string with its quotes and escapes.
    Text(Vec<u8>),
    /// Bytes that begin no word; nothing follows.
    Stray(Vec<u8>),
    /// The end.
    End,
}

/// Cuts a text into words; the last one is `Stray` or `End`.
pub fn tokens(text: &[u8]) -> Vec<Token> {
    let mut out = Vec::new();
    let (mut at, mut line, mut line_start) = (0, 1, 0);
    // A word that only its successor ends makes qemu count one column more for what touches it.
    let mut open_end = 0;
    loop {
        while let Some(blank) = text.get(at).filter(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            (at, open_end) = (at + 1, 0);
            if *blank == b'\n' {
                (line, line_start) = (line + 1, at);
            }
        }
        let (what, len) = word(&text[at..]);
        let last = matches!(what, What::Stray(_) | What::End);
        let ends_open = usize::from(matches!(what, What::Word(_) | What::Number(_)));
        out.push(Token { line, column: at - line_start + 1 + open_end, what });
        open_end = ends_open;
        if last {
            return out;
        }
        at += len;
    }
}

fn word(text: &[u8]) -> (What, usize) {
    let Some(first) = text.first() else { return (What::End, 0) };
    match first {
        b'{' | b'}' | b'[' | b']' | b':' | b',' => (What::Mark(*first), 1),
        b'a'..=b'z' => {
            let len = text.iter().take_while(|b| b.is_ascii_lowercase()).count();
            (What::Word(text[..len].to_vec()), len)
        }
        b'"' | b'\'' => string(text, *first),
        b'-' | b'0'..=b'9' => number(text),
        _ => stray(text, 1),
    }
}

fn stray(text: &[u8], len: usize) -> (What, usize) {
    (What::Stray(text[..len.min(text.len())].to_vec()), len)
}

fn string(text: &[u8], quote: u8) -> (What, usize) {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            _ if *byte == quote => return (What::Text(text[..=at].to_vec()), at + 1),
            0..0x20 | 0xfe.. => return stray(text, at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    stray(text, text.len())
}

fn number(text: &[u8]) -> (What, usize) {
    let digits = |from: usize| text.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(text[0] == b'-');
    let whole = digits(start);
    if whole == 0 {
        return stray(text, start + 1);
    }
    if whole > 1 && text[start] == b'0' {
        return stray(text, start + 2);
    }
    let mut end = start + whole;
    let mut float = false;
    if text.get(end) == Some(&b'.') {
        let more = digits(end + 1);
        if more == 0 {
            return stray(text, end + 2);
        }
        (end, float) = (end + 1 + more, true);
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let more = digits(end + 1 + sign);
        if more == 0 {
            return stray(text, end + 2 + sign);
        }
        (end, float) = (end + 1 + sign + more, true);
    }
    let shown = str::from_utf8(&text[..end]).unwrap_or_default();
    let fallback = || Value::Float(shown.parse().unwrap_or(0.0));
    let whole = || shown.parse().map(Value::Int).or_else(|_| shown.parse().map(Value::Uint)).ok();
    let value = if float { None } else { whole() };
    (What::Number(value.unwrap_or_else(fallback)), end)
}

/// The bytes of a string; the error says what is wrong with it.
pub fn unescape(raw: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    const ESCAPES: &[(u8, u8)] = &[
        (b'"', b'"'),
        (b'\'', b'\''),
        (b'\\', b'\\'),
        (b'/', b'/'),
        (b'b', 8),
        (b'f', 12),
        (b'n', 10),
        (b'r', 13),
        (b't', 9),
    ];
    let inner = &raw[1..raw.len() - 1];
    let mut out = Vec::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        if inner[at] != b'\\' {
            at += plain(&inner[at..], &mut out)?;
            continue;
        }
        let letter = inner.get(at + 1).copied().unwrap_or(0);
        if letter == b'u' {
            let (scalar, len) = unicode(&inner[at..], &raw[at + 1..])?;
            encode(scalar, &mut out);
            at += len;
            continue;
        }
        let found = ESCAPES.iter().find(|(escape, _)| *escape == letter);
        let (_, byte) = found.ok_or_else(|| b"invalid escape sequence in string".to_vec())?;
        out.push(*byte);
        at += 2;
    }
    Ok(out)
}

/// Copies one character; `C0 80` stands for a zero byte, as qemu has it.
fn plain(inner: &[u8], out: &mut Vec<u8>) -> Result<usize, Vec<u8>> {
    let len = match inner[0] {
        0..0x80 => 1,
        0xc0 if inner.get(1) == Some(&0x80) => 2,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    let bytes = &inner[..len.min(inner.len())];
    let zero = bytes == [0xc0, 0x80];
    let scalar = str::from_utf8(bytes).ok().and_then(|s| s.chars().next());
    if !zero && !scalar.is_some_and(|c| is_character(u32::from(c))) {
        return Err(b"invalid UTF-8 sequence in string".to_vec());
    }
    out.extend(bytes);
    Ok(len)
}

/// The character of a `\u` escape and how many bytes it took; `shown` is the text to blame.
fn unicode(inner: &[u8], shown: &[u8]) -> Result<(u32, usize), Vec<u8>> {
    let invalid = || [&shown[..shown.len().min(6)], b" is not a valid Unicode character"].concat();
    let high = hex4(inner).ok_or_else(invalid)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((high, 6)).filter(|(c, _)| is_character(*c)).ok_or_else(invalid);
    }
    let low = inner.get(6..).filter(|rest| rest.starts_with(b"\\u")).and_then(hex4);
    let low = low.filter(|low| (0xdc00..0xe000).contains(low)).ok_or_else(invalid)?;
    let scalar = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    Some((scalar, 12)).filter(|(c, _)| is_character(*c)).ok_or_else(invalid)
}

fn hex4(escape: &[u8]) -> Option<u32> {
    let digits = escape.get(2..6).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether a number is a character and none of the reserved non-characters.
fn is_character(scalar: u32) -> bool {
    let reserved = (0xfdd0..=0xfdef).contains(&scalar) || scalar & 0xfffe == 0xfffe;
    char::from_u32(scalar).is_some() && !reserved
}

fn encode(scalar: u32, out: &mut Vec<u8>) {
    match char::from_u32(scalar) {
        Some('\0') => out.extend([0xc0, 0x80]),
        Some(c) => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        None => {}
    }
}

/// Writes a string in quotes, everything but printable ASCII escaped.
pub fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend(b"\\\""),
                '\\' => out.extend(b"\\\\"),
                '\u{8}' => out.extend(b"\\b"),
                '\u{c}' => out.extend(b"\\f"),
                '\n' => out.extend(b"\\n"),
                '\r' => out.extend(b"\\r"),
                '\t' => out.extend(b"\\t"),
                ' '..='~' => out.push(c as u8),
                _ => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.extend(format!("\\u{unit:04X}").bytes());
                    }
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend(b"\\uFFFD");
        }
    }
    out.push(b'"');
}
