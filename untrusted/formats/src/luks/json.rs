//! A small reader of JSON for the text in a LUKS2 header: bounded in depth and in the number of values.

use alloc::vec::Vec;

/// Lists and objects may lie this deep in each other.
const DEPTH_MAX: u32 = 16;
/// More values than this are refused; a full header of 4 MiB with 32 key slots has a few thousand.
const VALUES_MAX: u32 = 1 << 16;

/// A value.
pub enum Json {
    /// `null`, `true` or `false`: nothing that a header needs.
    Word,
    /// A number, as it is written.
    Number(Vec<u8>),
    /// A string.
    Text(Vec<u8>),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(Vec<u8>, Json)>),
}

impl Json {
    /// Reads a text that holds one value and nothing else.
    pub fn parse(text: &[u8]) -> Option<Json> {
        let mut reader = Reader { rest: text, values: 0 };
        let value = reader.value(0)?;
        reader.skip();
        reader.rest.is_empty().then_some(value)
    }

    /// The value of a key of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.members().iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value)
    }

    /// The members of an object, in their order; none for any other value.
    pub fn members(&self) -> &[(Vec<u8>, Json)] {
        if let Json::Object(members) = self { members } else { &[] }
    }

    /// The elements of a list; none for any other value.
    pub fn elements(&self) -> &[Json] {
        if let Json::List(list) = self { list } else { &[] }
    }

    /// The bytes of a string.
    pub fn text(&self) -> Option<&[u8]> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// A whole number without a sign; LUKS2 writes large ones as strings.
    pub fn count(&self) -> Option<u64> {
        let (Json::Number(digits) | Json::Text(digits)) = self else {
            return None;
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        core::str::from_utf8(digits).ok()?.parse().ok()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    values: u32,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Takes `byte`, if it is the next one that is not blank.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip();
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        self.values = self.values.checked_add(1)?;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return None;
        }
        self.skip();
        match self.rest.first()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Json::Text),
            b'-' | b'0'..=b'9' => Some(self.number()),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: u32) -> Option<Json> {
        let mut members = Vec::new();
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.skip();
            let name = self.string()?;
            self.take(b':')?;
            members.push((name, self.value(depth.checked_add(1)?)?));
            if self.take(b'}').is_some() {
                return Some(Json::Object(members));
            }
            self.take(b',')?;
        }
    }

    fn list(&mut self, depth: u32) -> Option<Json> {
        let mut list = Vec::new();
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(Json::List(list));
        }
        loop {
            list.push(self.value(depth.checked_add(1)?)?);
            if self.take(b']').is_some() {
                return Some(Json::List(list));
            }
            self.take(b',')?;
        }
    }

    fn number(&mut self) -> Json {
        let is_part = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
        let len = self.rest.iter().take_while(|b| is_part(b)).count();
        let (digits, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, &[]));
        self.rest = rest;
        Json::Number(digits.to_vec())
    }

    fn word(&mut self) -> Option<Json> {
        for word in ["null", "true", "false"] {
            if let Some(rest) = self.rest.strip_prefix(word.as_bytes()) {
                self.rest = rest;
                return Some(Json::Word);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.rest = self.rest.strip_prefix(b"\"")?;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => self.escape(&mut text)?,
                byte if byte < 0x20 => return None,
                byte => text.push(byte),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        match self.next()? {
            b'u' => {
                let (digits, rest) = self.rest.split_at_checked(4)?;
                self.rest = rest;
                let code = u32::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
                // Half of a surrogate pair stands for nothing that a header says.
                let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            byte @ (b'"' | b'\\' | b'/') => text.push(byte),
            _ => return None,
        }
        Some(())
    }
}
