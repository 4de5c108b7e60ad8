//! What `map` shows: rows of a disk, as text or as JSON, written as they are read.

use super::escape::Text;
use crate::profile::Profile;
use instar_wire::op::map::{DATA, PACKED, PLACED, PRESENT, Row, ZERO};
use std::io::{self, Write};

/// So many bytes are written at once.
const FULL: usize = 256 << 10;

/// How rows are to be shown.
pub struct Manner<'a> {
    /// The version emulated.
    pub profile: &'a Profile,
    /// Names as they are, or made safe. JSON has none.
    pub text: Text,
    /// The name that stands for a file's number.
    pub display: &'a dyn Fn(u32) -> Vec<u8>,
    /// A file of which the image is a part only, and where that begins: offsets count from there.
    pub part: Option<(u32, u64)>,
    /// A file that is not there: nothing can be said of it.
    pub blank: Option<u32>,
}

/// Rows on their way to the reader.
pub struct Page<'a> {
    manner: Manner<'a>,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    /// Where the row under way begins, and the row; there is none before the first.
    at: u64,
    row: Option<Row>,
    json: bool,
    /// Something has been written.
    begun: bool,
    /// What the row last shown was, and the words for it.
    state: Option<u32>,
    words: Vec<u8>,
    /// The file last named, and its name.
    file: Option<u32>,
    name: Vec<u8>,
    /// A row has come that text has no words for: none is shown any more.
    is_over: bool,
}

impl<'a> Page<'a> {
    /// A page of rows that begin at `start`.
    pub fn new(manner: Manner<'a>, json: bool, start: u64, out: &'a mut dyn Write) -> Self {
        let heading = format!("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to");
        let buffer = if json { b"[".to_vec() } else { heading.into_bytes() };
        Page {
            manner,
            out,
            buffer,
            at: start,
            row: None,
            json,
            begun: false,
            state: None,
            words: Vec::new(),
            file: None,
            name: Vec::new(),
            is_over: false,
        }
    }

    /// Takes the next row. It becomes one with the row before if the version cannot tell them apart.
    #[inline]
    pub fn add(&mut self, row: Row) -> io::Result<()> {
        let row = self.seen(row);
        if let Some(last) = &mut self.row {
            let same_place = last.file == row.file && last.offset.wrapping_add(last.len) == row.offset;
            if last.state == row.state && (!row.is(PLACED) || same_place) {
                last.len = last.len.saturating_add(row.len);
                return Ok(());
            }
            self.show()?;
        }
        self.row = Some(row);
        Ok(())
    }

    /// The row, with nothing in it that will not be shown.
    fn seen(&self, mut row: Row) -> Row {
        if self.manner.blank == Some(row.file) && row.is(PLACED) {
            return Row::new(row.len, 0, 0);
        }
        if let Some((_, from)) = self.manner.part.filter(|(file, _)| row.is(PLACED) && *file == row.file) {
            row.offset = row.offset.wrapping_sub(from);
        }
        if !self.manner.profile.map_present() {
            row.state &= !PRESENT;
        }
        if !self.manner.profile.map_compressed() {
            row.state &= !PACKED;
        }
        row
    }

    /// Shows the row under way.
    fn show(&mut self) -> io::Result<()> {
        let Some(row) = self.row.take() else { return Ok(()) };
        match self.json {
            true => self.object(&row),
            false => self.line(&row),
        }
        self.at = self.at.saturating_add(row.len);
        self.begun = true;
        if self.buffer.len() >= FULL {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// A row as JSON.
    fn object(&mut self, row: &Row) {
        if self.state != Some(row.state) {
            self.words = words(row, self.manner.profile);
            self.state = Some(row.state);
        }
        let out = &mut self.buffer;
        out.extend_from_slice(if self.begun { b",\n{ \"start\": " } else { b"{ \"start\": " });
        decimal(out, self.at);
        out.extend_from_slice(b", \"length\": ");
        decimal(out, row.len);
        out.extend_from_slice(&self.words);
        if row.is(PLACED) {
            out.extend_from_slice(b", \"offset\": ");
            decimal(out, row.offset);
        }
        out.push(b'}');
    }

    /// A row as text, if there is anything to be found at its place.
    fn line(&mut self, row: &Row) {
        self.is_over |= row.is(DATA) && !row.is(PLACED);
        if self.is_over || !row.is(DATA) || row.is(ZERO) {
            return;
        }
        if self.file != Some(row.file) {
            self.name = self.manner.text.show(&(self.manner.display)(row.file)).into_owned();
            self.file = Some(row.file);
        }
        for number in [self.at, row.len, row.offset] {
            let end = self.buffer.len() + 16;
            hexadecimal(&mut self.buffer, number);
            self.buffer.resize(self.buffer.len().max(end), b' ');
        }
        self.buffer.extend_from_slice(&self.name);
        self.buffer.push(b'\n');
    }

    /// Shows what is left. JSON has a row in any case.
    pub fn end(mut self) -> io::Result<()> {
        if self.json && self.row.is_none() && !self.begun {
            self.row = Some(Row::default());
        }
        self.show()?;
        if self.json {
            self.buffer.extend_from_slice(b"]\n");
        }
        self.out.write_all(&self.buffer)
    }

    /// Shows no more, as something went wrong: of the row under way it is not known where it would have ended.
    pub fn stop(mut self) -> io::Result<()> {
        if self.json && self.begun {
            self.buffer.extend_from_slice(b",\n");
        }
        self.out.write_all(&self.buffer)
    }
}

/// What a row is, as JSON has it between length and offset.
fn words(row: &Row, profile: &Profile) -> Vec<u8> {
    let mut words = format!(", \"depth\": {}", row.depth());
    let facts = [
        ("present", PRESENT, profile.map_present()),
        ("zero", ZERO, true),
        ("data", DATA, true),
        ("compressed", PACKED, profile.map_compressed()),
    ];
    for (name, flag, _) in facts.iter().filter(|(.., told)| *told) {
        words += &format!(", \"{name}\": {}", row.is(*flag));
    }
    words.into_bytes()
}

/// Pairs of digits, from `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Appends a number. Millions of them are written, which is what the formatting of the standard library is too slow for.
fn decimal(out: &mut Vec<u8>, mut number: u64) {
    const DIGITS: usize = 20;
    let mut digits = [0; DIGITS];
    let mut at = DIGITS;
    while number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    // One digit is left, or none but the zero of a pair, or the number is zero.
    if number > 0 || at == DIGITS {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    let leading = usize::from(digits[at] == b'0' && at < DIGITS - 1);
    out.extend_from_slice(&digits[at + leading..]);
}

/// Appends a number as C's `%#x` does.
fn hexadecimal(out: &mut Vec<u8>, number: u64) {
    if number == 0 {
        return out.push(b'0');
    }
    out.extend_from_slice(b"0x");
    let first = number.ilog2() / 4;
    out.extend((0..=first).rev().map(|place| b"0123456789abcdef"[(number >> (4 * place) & 15) as usize]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_wire::io::FileId;

    fn page(version: &str, json: bool, rows: &[Row]) -> String {
        let profile = Profile::parse(version).unwrap();
        let display = |id: u32| format!("file\n{id}").into_bytes();
        let manner =
            Manner { profile: &profile, text: Text::Safe, display: &display, part: Some((3, 512)), blank: None };
        let mut out = Vec::new();
        let mut page = Page::new(manner, json, 512, &mut out);
        rows.iter().for_each(|row| page.add(*row).unwrap());
        page.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn rows() -> Vec<Row> {
        let data = |len, at| Row::new(len, 1, DATA | PRESENT).placed(FileId(1), at);
        vec![
            data(512, 4096),
            data(1024, 4608),
            data(512, 0),
            Row::new(512, 0, ZERO | PRESENT),
            Row::new(512, 0, ZERO),
            Row::new(65536, 0, DATA | PACKED | PRESENT),
            Row::new(512, 0, DATA | PRESENT),
            Row::new(7, 0, DATA | PRESENT).placed(FileId(3), 1024),
        ]
    }

    #[test]
    fn rows_are_joined_as_the_version_sees_them() {
        let new = page("10.0.2", true, &rows());
        assert_eq!(new.lines().count(), 7, "{new}");
        let first = "[{ \"start\": 512, \"length\": 1536, \"depth\": 1, \"present\": true, \"zero\": false, \
                     \"data\": true, \"compressed\": false, \"offset\": 4096},\n";
        assert!(new.starts_with(first), "{new}");
        assert!(new.ends_with("\"compressed\": false, \"offset\": 512}]\n"), "{new}");
        let old = page("5.2", true, &rows());
        assert!(old.contains("{ \"start\": 2560, \"length\": 1024, \"depth\": 0, \"zero\": true, \"data\": false},\n"));
        assert!(
            old.contains("{ \"start\": 3584, \"length\": 66048, \"depth\": 0, \"zero\": false, \"data\": true},\n")
        );
    }

    #[test]
    fn text_has_what_lies_somewhere() {
        let rows: Vec<Row> = rows().into_iter().filter(|row| row.is(PLACED) || row.is(ZERO)).collect();
        let seen = "Offset          Length          Mapped to       File\n\
                    0x200           0x600           0x1000          file\\n1\n\
                    0x800           0x200           0               file\\n1\n\
                    0xe00           0x7             0x200           file\\n3\n";
        assert_eq!(page("10.0.2", false, &rows), seen);
    }

    #[test]
    fn what_went_wrong_ends_after_the_last_whole_row() {
        let stopped = |json: bool| {
            let profile = Profile::parse("10.0.2").unwrap();
            let manner =
                Manner { profile: &profile, text: Text::Safe, display: &|_| b"x".to_vec(), part: None, blank: None };
            let mut out = Vec::new();
            let mut page = Page::new(manner, json, 512, &mut out);
            rows().into_iter().try_for_each(|row| page.add(row)).unwrap();
            page.stop().unwrap();
            String::from_utf8(out).unwrap()
        };
        let seen = "Offset          Length          Mapped to       File\n\
                    0x200           0x600           0x1000          x\n\
                    0x800           0x200           0               x\n";
        assert_eq!(stopped(false), seen);
        assert!(stopped(true).ends_with("\"data\": true, \"compressed\": false},\n"), "{}", stopped(true));
    }

    #[test]
    fn nothing_is_still_a_document() {
        assert_eq!(page("10.0.2", false, &[]), "Offset          Length          Mapped to       File\n");
        let row = "[{ \"start\": 512, \"length\": 0, \"depth\": 0, \"present\": false, \"zero\": false, \
                   \"data\": false, \"compressed\": false}]\n";
        assert_eq!(page("10.0.2", true, &[]), row);
    }

    #[test]
    fn numbers_are_written_as_the_library_does() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        let tens = (0..20).flat_map(|n| [10u64.pow(n) - 1, 10u64.pow(n), 10u64.pow(n) + 1]);
        for number in edges.chain(tens).chain([u64::MAX]) {
            let (mut ours, mut hex) = (Vec::new(), Vec::new());
            decimal(&mut ours, number);
            hexadecimal(&mut hex, number);
            assert_eq!(String::from_utf8(ours).unwrap(), number.to_string());
            let plain = if number == 0 { "0".to_owned() } else { format!("{number:#x}") };
            assert_eq!(String::from_utf8(hex).unwrap(), plain);
        }
    }
}
