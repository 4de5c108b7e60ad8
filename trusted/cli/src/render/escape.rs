//! Bytes that came out of an image, made safe for a terminal or a log line.

use std::borrow::Cow;
use std::fmt::Write;

/// What happens to bytes before they are shown. JSON has its own escapes and never passes through here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// As they are: for byte-exact output that does not go to a terminal.
    Raw,
    /// Whatever is not plain text becomes a visible escape.
    Safe,
}

impl Text {
    /// The bytes as they may be shown.
    pub fn show(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Text::Raw => Cow::Borrowed(bytes),
            Text::Safe => safe(bytes),
        }
    }
}

/// Escapes control characters, bytes that are not UTF-8, and characters that reorder or break a line.
fn safe(bytes: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_plain)) {
        return Cow::Borrowed(bytes);
    }
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if is_plain(c) => out.push(c),
                c if c.is_ascii() => hex(&mut out, c as u8),
                c => push(&mut out, format_args!("\\u{{{:x}}}", u32::from(c))),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(&mut out, *byte));
    }
    Cow::Owned(out.into_bytes())
}

fn is_plain(c: char) -> bool {
    let breaks_line = matches!(c, '\u{2028}' | '\u{2029}');
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let unseen = matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    !(c.is_control() || breaks_line || reorders || unseen)
}

fn hex(out: &mut String, byte: u8) {
    push(out, format_args!("\\x{byte:02x}"));
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_terminal_is_made_visible() {
        for (bytes, shown) in [
            (&b"plain \\ text"[..], "plain \\ text"),
            ("Grüße 😀".as_bytes(), "Grüße 😀"),
            (b"a\nb\r\t", "a\\nb\\r\\t"),
            (b"\x1b[2J\x07\x7f\0", "\\x1b[2J\\x07\\x7f\\x00"),
            (b"\xc2\x9b31m", "\\u{9b}31m"),
            (b"\x9b31m\xff", "\\x9b31m\\xff"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
            (b"\xe2\x82", "\\xe2\\x82"),
            ("\u{202e}cod.exe\u{2028}".as_bytes(), "\\u{202e}cod.exe\\u{2028}"),
        ] {
            assert_eq!(String::from_utf8(Text::Safe.show(bytes).into_owned()).unwrap(), shown);
            assert_eq!(Text::Raw.show(bytes), bytes);
        }
    }
}
