//! JSON in the two shapes that qemu-img writes: indented, and on one line.

use crate::args::qdict;
use instar_wire::code::Bytes;
use instar_wire::fact::{Fact, Field};

/// Indented by four, an empty list or object still on two lines, a line end at the end.
pub fn pretty(value: &Fact) -> Vec<u8> {
    let mut out = Writer { bytes: Vec::new(), indent: Some(0) };
    out.value(value);
    out.bytes.push(b'\n');
    out.bytes
}

/// On one line, as in the names that begin with `json:`.
pub fn line(value: &Fact) -> Vec<u8> {
    let mut out = Writer { bytes: Vec::new(), indent: None };
    out.value(value);
    out.bytes
}

/// The same facts with all fields in the order in which qemu-img prints them.
pub fn arranged(value: &Fact) -> Fact {
    match value {
        Fact::List(items) => Fact::List(items.iter().map(arranged).collect()),
        Fact::Fields(fields) => {
            let mut entries: Vec<(&[u8], Fact)> = fields.iter().map(|f| (&f.name.0[..], arranged(&f.value))).collect();
            qdict::order(&mut entries);
            Fact::Fields(entries.into_iter().map(|(name, value)| Field { name: Bytes::from(name), value }).collect())
        }
        plain => plain.clone(),
    }
}

/// A number of millionths, with its decimals.
pub fn millionths(number: u64) -> String {
    format!("{}.{:06}", number / 1_000_000, number % 1_000_000)
}

struct Writer {
    bytes: Vec<u8>,
    /// Depth of the value being written, unless all goes on one line.
    indent: Option<usize>,
}

impl Writer {
    fn value(&mut self, value: &Fact) {
        match value {
            Fact::Truth(truth) => self.word(if *truth { "true" } else { "false" }),
            Fact::Count(number) => self.word(&number.to_string()),
            Fact::Signed(number) => self.word(&number.to_string()),
            Fact::Millionths(number) => self.word(&millionths(*number)),
            Fact::Text(text) => self.string(&text.0),
            Fact::List(items) => self.group(b"[]", items, Writer::value),
            Fact::Fields(fields) => self.group(b"{}", fields, |out, field| {
                out.string(&field.name.0);
                out.word(": ");
                out.value(&field.value);
            }),
        }
    }

    fn group<T>(&mut self, brackets: &[u8; 2], items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.bytes.push(brackets[0]);
        self.indent = self.indent.map(|depth| depth + 1);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.word(if self.indent.is_some() { "," } else { ", " });
            }
            self.break_line();
            each(self, item);
        }
        self.indent = self.indent.map(|depth| depth - 1);
        self.break_line();
        self.bytes.push(brackets[1]);
    }

    fn break_line(&mut self) {
        if let Some(depth) = self.indent {
            self.bytes.push(b'\n');
            self.bytes.resize(self.bytes.len() + 4 * depth, b' ');
        }
    }

    fn word(&mut self, word: &str) {
        self.bytes.extend_from_slice(word.as_bytes());
    }

    /// Printable ASCII as it is, everything else as UTF-16 escapes; what is no character becomes U+FFFD.
    fn string(&mut self, text: &[u8]) {
        self.bytes.push(b'"');
        let mut rest = text;
        while !rest.is_empty() {
            let (found, len) = code_point(rest);
            rest = &rest[len..];
            match found.unwrap_or(0xfffd) {
                0x22 => self.word("\\\""),
                0x5c => self.word("\\\\"),
                0x08 => self.word("\\b"),
                0x0c => self.word("\\f"),
                0x0a => self.word("\\n"),
                0x0d => self.word("\\r"),
                0x09 => self.word("\\t"),
                plain @ 0x20..=0x7e => self.bytes.push(plain as u8),
                far @ 0x1_0000.. => {
                    let bits = far - 0x1_0000;
                    self.word(&format!("\\u{:04X}\\u{:04X}", 0xd800 + (bits >> 10), 0xdc00 + (bits & 0x3ff)));
                }
                other => self.word(&format!("\\u{other:04X}")),
            }
        }
        self.bytes.push(b'"');
    }
}

/// The first code point of bytes that are not empty, and how many bytes it takes.
///
/// The lead byte says how long the sequence wants to be, up to six bytes; a sequence that is cut short, overlong, or no
/// character is one mistake as a whole. `C0 80` alone is taken although it is overlong: it stands for NUL.
fn code_point(bytes: &[u8]) -> (Option<u32>, usize) {
    let lead = bytes[0];
    let (want, bits) = match lead {
        0x00..=0x7f => return (Some(lead.into()), 1),
        0xc0..=0xdf => (2, lead & 0x1f),
        0xe0..=0xef => (3, lead & 0x0f),
        0xf0..=0xf7 => (4, lead & 0x07),
        0xf8..=0xfb => (5, lead & 0x03),
        0xfc..=0xfd => (6, lead & 0x01),
        0x80..=0xbf | 0xfe..=0xff => return (None, 1),
    };
    let tail = bytes[1..].iter().take(want - 1).take_while(|byte| **byte & 0xc0 == 0x80);
    let len = 1 + tail.clone().count();
    let code = tail.fold(u32::from(bits), |code, byte| code << 6 | u32::from(byte & 0x3f));
    let smallest = match want {
        2 => 0x80,
        3 => 0x800,
        4 => 0x1_0000,
        _ => u32::MAX,
    };
    let overlong = code < smallest && !(want == 2 && code == 0);
    let noncharacter = matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe;
    let character = len == want && !overlong && !noncharacter && char::from_u32(code).is_some();
    (character.then_some(code), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of files in hexadecimal, and how qemu-img 11.1.3 writes `./NAME`.
    const SEEN: &str = include_str!("testdata/strings.tsv");

    #[test]
    fn strings_are_escaped_as_the_oracle_does() {
        for row in SEEN.lines() {
            let (hex, said) = row.split_once('\t').unwrap();
            let mut name = b"./".to_vec();
            name.extend((0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()));
            assert_eq!(String::from_utf8(line(&Fact::from(&name[..]))).unwrap(), said, "{hex}");
        }
    }

    #[test]
    fn both_shapes() {
        let value = Fact::fields([
            ("none", Vec::new().into()),
            ("empty", Fact::fields([])),
            ("list", vec![Fact::from(-1i64), true.into(), "x".into()].into()),
        ]);
        let wide = "{\n    \"none\": [\n    ],\n    \"empty\": {\n    },\n    \"list\": [\n        -1,\n        true,\n        \"x\"\n    ]\n}\n";
        assert_eq!(String::from_utf8(pretty(&value)).unwrap(), wide);
        assert_eq!(
            String::from_utf8(line(&value)).unwrap(),
            "{\"none\": [], \"empty\": {}, \"list\": [-1, true, \"x\"]}"
        );
    }

    #[test]
    fn fields_are_walked_in_the_order_of_the_hash() {
        let value = arranged(&Fact::fields([
            ("file", Fact::fields([("filename", "x".into()), ("driver", "file".into())])),
            ("driver", "raw".into()),
        ]));
        assert_eq!(line(&value), br#"{"driver": "raw", "file": {"driver": "file", "filename": "x"}}"#);
    }
}
