//! qemu's `key=value,key=value` lists: escapes, implied first keys, bare flags, nesting by dots.
use super::json::Value;
use super::stop::{Complaint, Note};

/// A list in the order of writing; with the remarks earned by bare flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keys and values.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Warnings about bare flags, each with the number of its entry.
    pub warnings: Vec<(usize, Note)>,
}

impl Options {
    /// The last value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.entries.iter().rev().find(|(k, _)| k == key.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// Removes `key` and tells its last value.
    pub fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        let value = self.get(key)?.to_vec();
        self.entries.retain(|(k, _)| k != key.as_bytes());
        Some(value)
    }
}

/// Whether a `-o` text is a list: not empty, no comma in front, no unescaped comma at the end.
pub fn is_list(text: &[u8]) -> bool {
    let commas = text.iter().rev().take_while(|b| **b == b',').count();
    !text.is_empty() && text[0] != b',' && commas % 2 == 0
}

/// Reads the older kind of list: `key=value`, `flag`, `noflag`; the first may be a value of `implied`.
///
/// `warn` tells whether bare flags earn a warning.
pub fn options(text: &[u8], implied: Option<&str>, warn: bool) -> Options {
    let mut out = Options::default();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let key_len = rest.iter().position(|b| matches!(b, b'=' | b',')).unwrap_or(rest.len());
        if rest.get(key_len) == Some(&b'=') {
            let (value, after) = value(&rest[key_len + 1..]);
            out.entries.push((rest[..key_len].to_vec(), value));
            rest = after;
        } else {
            let (word, after) = value(rest);
            match implied.filter(|_| first) {
                Some(key) => out.entries.push((key.as_bytes().to_vec(), word)),
                None => out.flag(&word, warn),
            }
            rest = after;
        }
        first = false;
    }
    out
}

impl Options {
    fn flag(&mut self, word: &[u8], warn: bool) {
        let (key, value): (&[u8], &[u8]) = match word {
            [b'n', b'o', key @ ..] => (key, b"off"),
            key => (key, b"on"),
        };
        if warn && !matches!(word, b"help" | b"?") {
            let said = super::stop::say(&[b"short-form boolean option '", word, b"' deprecated"]);
            let use_instead = super::stop::say(&[b"Please use ", key, b"=", value, b" instead"]);
            let at = self.entries.len();
            self.warnings.extend([(at, Note::Warned(said)), (at, Note::Bare(use_instead))]);
        }
        match word {
            b"help" | b"?" => self.entries.push((word.to_vec(), b"on".to_vec())),
            _ => self.entries.push((key.to_vec(), value.to_vec())),
        }
    }
}

/// What the newer kind of list holds: a tree, and whether help was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// The dictionary written.
    pub root: Vec<(Vec<u8>, Value)>,
    /// `help` or `?` stood among the parameters.
    pub help: bool,
}

/// Reads the newer kind of list, where dots nest: `a.b=x`; the first may be a value of `implied`.
pub fn tree(text: &[u8], implied: &str) -> Result<Tree, Complaint> {
    let mut out = Tree { root: Vec::new(), help: false };
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let len = rest.iter().position(|b| matches!(b, b'=' | b',')).unwrap_or(rest.len());
        let word = &rest[..len];
        let assigned = rest.get(len) == Some(&b'=');
        if !assigned && matches!(word, b"help" | b"?") {
            out.help = true;
            rest = rest.get(len + 1..).unwrap_or_default();
        } else if !assigned && first && !word.is_empty() {
            let (word, after) = value(rest);
            put(&mut out.root, &[implied.as_bytes()], Value::Text(word));
            rest = after;
        } else {
            check_key(word)?;
            if !assigned {
                return Err(Complaint::new(&[b"Expected '=' after parameter '", word, b"'"]));
            }
            let path: Vec<&[u8]> = word.split(|b| *b == b'.').collect();
            let (text, after) = value(&rest[len + 1..]);
            put(&mut out.root, &path, Value::Text(text));
            rest = after;
        }
        first = false;
    }
    Ok(out)
}

/// Refuses keys that are no names.
fn check_key(key: &[u8]) -> Result<(), Complaint> {
    let name = |part: &[u8]| {
        let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        let letters = part.first().is_some_and(u8::is_ascii_alphabetic)
            && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        digits || letters
    };
    let mut parts = key.split(|b| *b == b'.');
    let first = parts.next().unwrap_or_default();
    let starts = first.first().is_some_and(u8::is_ascii_alphabetic);
    match starts && name(first) && parts.all(name) {
        true => Ok(()),
        false => Err(Complaint::new(&[b"Invalid parameter '", key, b"'"])),
    }
}

/// Puts a value at the end of a path, over whatever was there.
fn put(dict: &mut Vec<(Vec<u8>, Value)>, path: &[&[u8]], value: Value) {
    let Some((key, deeper)) = path.split_first() else { return };
    let at = dict.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
        dict.push((key.to_vec(), Value::Null));
        dict.len() - 1
    });
    if deeper.is_empty() {
        dict[at].1 = value;
        return;
    }
    if !matches!(dict[at].1, Value::Dict(_)) {
        dict[at].1 = Value::Dict(Vec::new());
    }
    if let Value::Dict(inner) = &mut dict[at].1 {
        put(inner, deeper, value);
    }
}

/// A value up to the next single comma, `,,` standing for a comma; and what follows.
fn value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == b',' {
            if text.get(at + 1) != Some(&b',') {
                return (out, &text[at + 1..]);
            }
            at += 1;
        }
        out.push(*byte);
        at += 1;
    }
    (out, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str, implied: Option<&str>) -> String {
        let options = options(text.as_bytes(), implied, false);
        let show =
            |(k, v): &(Vec<u8>, Vec<u8>)| format!("{}[{}]", String::from_utf8_lossy(k), String::from_utf8_lossy(v));
        options.entries.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_are_read() {
        for (text, implied, want) in [
            ("a=1,b=2", None, "a[1] b[2]"),
            ("a=1,,b=2", None, "a[1,b=2]"),
            ("a,nob,c=", None, "a[on] b[off] c[]"),
            ("x,a=1", Some("file"), "file[x] a[1]"),
            ("a=1,", None, "a[1]"),
            ("=x", Some("file"), "[x]"),
            ("a.b=c=d", None, "a.b[c=d]"),
            ("", Some("file"), ""),
            ("help", None, "help[on]"),
        ] {
            assert_eq!(listed(text, implied), want, "{text}");
        }
    }

    #[test]
    fn lists_of_options_have_no_loose_commas() {
        for (text, want) in [
            ("a=1", true),
            ("", false),
            ("a,", false),
            (",a", false),
            (",,a", false),
            ("a,,", true),
            ("a,,,", false),
            ("a,,,,", true),
            (",", false),
            ("a,,b", true),
        ] {
            assert_eq!(is_list(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn trees_nest_by_dots() {
        let got = tree(b"secret,id=a,x.y=1,x.z=2", "kind").unwrap();
        let text = |s: &str| Value::Text(s.as_bytes().to_vec());
        let inner = vec![(b"y".to_vec(), text("1")), (b"z".to_vec(), text("2"))];
        assert_eq!(
            got.root,
            [(b"kind".to_vec(), text("secret")), (b"id".to_vec(), text("a")), (b"x".to_vec(), Value::Dict(inner)),]
        );
        assert!(tree(b"secret,help", "kind").unwrap().help);
        let refused = |t: &[u8]| String::from_utf8(tree(t, "kind").unwrap_err().sentence).unwrap();
        assert_eq!(refused(b",id=x"), "Invalid parameter ''");
        assert_eq!(refused(b"s,1x=y"), "Invalid parameter '1x'");
        assert_eq!(refused(b"s,flag"), "Expected '=' after parameter 'flag'");
    }
}
