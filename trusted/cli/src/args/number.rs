//! Sizes and counts as qemu-img reads them, and what each version says of a bad one.
use std::ops::RangeInclusive;

use super::stop::{Complaint, Note, say};
use crate::profile::{Family, Profile};

/// The largest number that an image size may have.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// The largest number that a count may have.
pub const COUNT_MAX: u64 = i32::MAX as u64;

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It does not read as one.
    Syntax,
    /// It is too large or negative.
    Range,
}

/// A size as read, with the remark that one range of versions makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The number of bytes.
    pub value: Result<u64, Bad>,
    /// A hexadecimal number had a suffix, which earns a warning.
    pub hex_suffix: bool,
}

impl Read {
    fn new(value: Result<u64, Bad>) -> Read {
        Read { value, hex_suffix: false }
    }

    /// The warning about `text`, if one is due.
    pub fn warning(&self, text: &[u8]) -> Option<Note> {
        const WARNING: &[u8] = b"Using a multiplier suffix on hex numbers is deprecated: ";
        self.hex_suffix.then(|| Note::Warned(say(&[WARNING, text])))
    }
}

/// A size with an optional suffix `b k M G T P E`.
pub fn size(text: &[u8], profile: &Profile) -> Read {
    let text = skip_blanks(text);
    if profile.exact_sizes() { exact(text, profile) } else { Read::new(floating(text)) }
}

/// A size inside `range`, complained of as `name`; the note is a warning to print in any case.
pub fn named_size(
    text: &[u8],
    name: &str,
    range: RangeInclusive<u64>,
    profile: &Profile,
) -> (Result<u64, Complaint>, Option<Note>) {
    let read = size(text, profile);
    let warning = read.warning(text);
    let value = match read.value {
        Ok(value) if range.contains(&value) => Ok(value),
        Err(Bad::Syntax) => Err(not_a_size(text, name, profile)),
        _ => Err(not_in_range(name, &range)),
    };
    (value, warning)
}

/// A whole number inside `range`, complained of as `name`.
pub fn named_count(text: &[u8], name: &str, range: RangeInclusive<u64>, profile: &Profile) -> Result<u64, Complaint> {
    let short = || Complaint::new(&[b"Invalid ", name.as_bytes(), b" specified"]);
    match (whole(text), profile.family()) {
        (Ok(value), _) if range.contains(&value) => Ok(value),
        (_, Family::Old) => Err(short()),
        (Err(Bad::Syntax), _) => Err(quoted(text, name, profile)),
        _ => Err(not_in_range(name, &range)),
    }
}

/// The size of an option `key` in a list, as complained of inside lists.
pub fn listed_size(text: &[u8], key: &[u8], profile: &Profile) -> (Result<u64, Complaint>, Option<Note>) {
    let read = size(text, profile);
    let warning = read.warning(text);
    let value = read.value.map_err(|bad| match bad {
        Bad::Syntax => Complaint::new(&[b"Parameter '", key, b"' expects a non-negative number below 2^64"])
            .then(Note::Bare(b"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-".into()))
            .then(Note::Bare(b"and exabytes, respectively.".into())),
        Bad::Range => Complaint::new(&[b"Value '", text, b"' is out of range for parameter '", key, b"'"]),
    });
    (value, warning)
}

/// The number of an option `key` in a list; negative numbers wrap as they do in qemu-img.
pub fn listed_number(text: &[u8], key: &[u8]) -> Result<u64, Complaint> {
    let (negative, digits) = match skip_blanks(text) {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match whole(digits) {
        Ok(value) if negative => Ok(value.wrapping_neg()),
        Ok(value) => Ok(value),
        Err(Bad::Syntax) => Err(Complaint::new(&[b"Parameter '", key, b"' expects a number"])),
        Err(Bad::Range) => Err(Complaint::new(&[b"Value '", text, b"' is too large for parameter '", key, b"'"])),
    }
}

/// The switch of an option `key` in a list.
pub fn listed_switch(text: &[u8], key: &[u8]) -> Result<bool, Complaint> {
    match text {
        b"on" | b"yes" | b"true" | b"y" => Ok(true),
        b"off" | b"no" | b"false" | b"n" => Ok(false),
        _ => Err(Complaint::new(&[b"Parameter '", key, b"' expects 'on' or 'off'"])),
    }
}

/// A whole number, decimal, octal after `0` or hexadecimal after `0x`; negative ones are out of range.
pub fn whole(text: &[u8]) -> Result<u64, Bad> {
    let (negative, digits) = signed(skip_blanks(text));
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => (16, rest),
        [b'0', _, ..] => (8, digits),
        _ => (10, digits),
    };
    let (value, rest) = accumulate(digits, base);
    match (digits.is_empty() || !rest.is_empty(), negative, value) {
        (true, ..) => Err(Bad::Syntax),
        (_, false, Some(value)) => Ok(value),
        (_, true, Some(0)) => Ok(0),
        _ => Err(Bad::Range),
    }
}

fn not_a_size(text: &[u8], name: &str, profile: &Profile) -> Complaint {
    const UNITS: &[u8] = b"kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.";
    const SUFFIXES: &[u8] = b" specified. You may use k, M, G, T, P or E suffixes for";
    match profile.family() {
        Family::Old => Complaint::new(&[b"Invalid ", name.as_bytes(), SUFFIXES]).then(Note::Said(UNITS.into())),
        _ => quoted(text, name, profile),
    }
}

fn quoted(text: &[u8], name: &str, profile: &Profile) -> Complaint {
    let stop: &[u8] = if profile.family() == Family::Interim { b"." } else { b"" };
    Complaint::new(&[b"Invalid ", name.as_bytes(), b" specified: '", text, b"'", stop])
}

fn not_in_range(name: &str, range: &RangeInclusive<u64>) -> Complaint {
    let (low, high) = (range.start(), range.end());
    Complaint::new(&[format!("Invalid {name} specified. Must be between {low} and {high}.").as_bytes()])
}

/// The size of versions that read whole numbers with an exact fraction.
fn exact(text: &[u8], profile: &Profile) -> Read {
    if !profile.loose_sizes() && text.contains(&b'-') {
        return Read::new(Err(Bad::Syntax));
    }
    let (negative, digits) = signed(text);
    if let [b'0', b'x' | b'X', hex @ ..] = digits
        && hex.first().is_some_and(u8::is_ascii_hexdigit)
    {
        return hexadecimal(hex, negative, profile);
    }
    let (mut value, rest) = accumulate(digits, 10);
    let whole_digits = digits.len() - rest.len();
    let (fraction, rest) = fraction(rest);
    let bare_fraction = whole_digits == 0 && (!profile.loose_sizes() || fraction.is_none());
    let Some((unit, after)) = unit(rest).filter(|_| !bare_fraction) else {
        return Read::new(Err(Bad::Syntax));
    };
    let mut part = fraction.unwrap_or(0.0);
    if part >= 1.0 {
        part = 0.0;
        value = value.and_then(|v| v.checked_add(u64::from(profile.loose_sizes())));
    }
    if part != 0.0 && unit == 1 && !(negative && after == rest) {
        return Read::new(Err(Bad::Syntax));
    }
    if negative {
        return Read::new(Err(if after == rest { Bad::Range } else { Bad::Syntax }));
    }
    let extra = (part * unit as f64 + 0.5) as u64;
    let total = value.and_then(|v| v.checked_mul(unit)).and_then(|v| v.checked_add(extra));
    Read::new(total.ok_or(Bad::Range))
}

fn hexadecimal(hex: &[u8], negative: bool, profile: &Profile) -> Read {
    let (value, rest) = accumulate(hex, 16);
    let suffixed = !rest.is_empty();
    let warned = suffixed && rest[0] != b'.' && !profile.hex_suffix_refused();
    let refused = negative || (suffixed && !warned);
    let value = match unit(rest).filter(|_| !refused) {
        Some((unit, _)) => value.and_then(|v| v.checked_mul(unit)).ok_or(Bad::Range),
        None => Err(Bad::Syntax),
    };
    Read { value, hex_suffix: warned }
}

/// The size of versions that read sizes as floating point.
fn floating(text: &[u8]) -> Result<u64, Bad> {
    const LIMIT: f64 = 0xffff_ffff_ffff_fc00_u64 as f64;
    let (number, rest) = float_prefix(text).ok_or(Bad::Syntax)?;
    let (unit, _) = unit(rest).ok_or(Bad::Syntax)?;
    if number.fract() != 0.0 && unit == 1 {
        return Err(Bad::Syntax);
    }
    let bytes = number * unit as f64;
    if number < 0.0 || bytes >= LIMIT { Err(Bad::Range) } else { Ok(bytes as u64) }
}

/// The floating point number at the beginning, as strtod finds it.
fn float_prefix(text: &[u8]) -> Option<(f64, &[u8])> {
    let (negative, body) = signed(text);
    let sign = if negative { -1.0 } else { 1.0 };
    let (number, rest) = match body {
        [b'0', b'x' | b'X', hex @ ..] if hex.first().is_some_and(u8::is_ascii_hexdigit) => hex_float(hex),
        _ => decimal_float(body)?,
    };
    Some((sign * number, rest))
}

fn decimal_float(body: &[u8]) -> Option<(f64, &[u8])> {
    let digits = |from: usize| body[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    let mut seen = end;
    if body.get(end) == Some(&b'.') {
        let more = digits(end + 1);
        seen += more;
        end += if seen > 0 { 1 + more } else { 0 };
    }
    if seen == 0 {
        return None;
    }
    if matches!(body.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(body.get(end + 1), Some(b'+' | b'-')));
        let more = digits((end + 1 + sign).min(body.len()));
        end += if more > 0 { 1 + sign + more } else { 0 };
    }
    let number = str::from_utf8(&body[..end]).ok()?.parse().ok()?;
    Some((number, &body[end..]))
}

fn hex_float(hex: &[u8]) -> (f64, &[u8]) {
    let mut number = 0.0;
    let mut scale = 0;
    let mut at = 0;
    let mut pointed = false;
    while let Some(byte) = hex.get(at) {
        match (char::from(*byte).to_digit(16), byte) {
            (Some(digit), _) => {
                number = number * 16.0 + f64::from(digit);
                scale -= if pointed { 4 } else { 0 };
            }
            (None, b'.') if !pointed => pointed = true,
            _ => break,
        }
        at += 1;
    }
    if let [b'p' | b'P', exponent @ ..] = &hex[at..] {
        let (negative, digits) = signed(exponent);
        let (value, rest) = accumulate(digits, 10);
        if rest.len() < digits.len() {
            let power = value.unwrap_or(u64::MAX).min(4096) as i32;
            scale += if negative { -power } else { power };
            at = hex.len() - rest.len();
        }
    }
    (number * 2f64.powi(scale), &hex[at..])
}

/// The digits of a fraction after a point; a point alone counts as none.
fn fraction(rest: &[u8]) -> (Option<f64>, &[u8]) {
    let [b'.', digits @ ..] = rest else { return (None, rest) };
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 {
        return (None, digits);
    }
    let text = format!("0.{}", String::from_utf8_lossy(&digits[..len]));
    (text.parse().ok(), &digits[len..])
}

/// The unit named by what is left, and what is left behind the number if it names none.
fn unit(rest: &[u8]) -> Option<(u64, &[u8])> {
    const LETTERS: &[u8] = b"bkmgtpe";
    match rest {
        [] => Some((1, rest)),
        [letter] => {
            let power = LETTERS.iter().position(|l| *l == letter.to_ascii_lowercase())?;
            Some((1 << (10 * power), &[]))
        }
        _ => None,
    }
}

fn accumulate(text: &[u8], base: u32) -> (Option<u64>, &[u8]) {
    let digit = |b: &u8| char::from(*b).to_digit(base);
    let len = text.iter().take_while(|b| digit(b).is_some()).count();
    let step = |sum: Option<u64>, d: u32| sum?.checked_mul(u64::from(base))?.checked_add(u64::from(d));
    (text[..len].iter().filter_map(digit).fold(Some(0), step), &text[len..])
}

fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    &text[text.iter().take_while(|b| blank(b)).count()..]
}

#[cfg(test)]
#[path = "number_tests.rs"]
mod tests;
