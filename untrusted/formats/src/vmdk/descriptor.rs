//! The text that describes a VMware disk, read as leniently as qemu-img reads it.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

/// The longest type of disk, the longest name of an extent and the longest name of a parent, in bytes.
const TYPE_MAX: usize = 63;
const NAME_MAX: usize = 511;
const PARENT_MAX: usize = 4095;

/// What one line says of an extent.
pub enum Line<'t> {
    /// Nothing that qemu-img heeds.
    Other,
    /// An extent that makes no sense; the line.
    Bad(&'t [u8]),
    /// An extent.
    Extent(ExtentLine<'t>),
}

/// An extent as the text names it.
pub struct ExtentLine<'t> {
    /// Sectors.
    pub sectors: u64,
    /// How it is kept.
    pub kind: ExtentKind,
    /// Its file.
    pub name: &'t [u8],
    /// The sector of the file in which it begins.
    pub start: u64,
}

/// How an extent is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentKind {
    /// As it is.
    Flat,
    /// As it is, on ESX.
    Vmfs,
    /// With a header of its own.
    Sparse,
    /// With a header of its own, on ESX.
    VmfsSparse,
    /// ESX's newer sparse disk.
    SeSparse,
}

impl ExtentKind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            ExtentKind::Flat => "FLAT",
            ExtentKind::Vmfs => "VMFS",
            ExtentKind::Sparse => "SPARSE",
            ExtentKind::VmfsSparse => "VMFSSPARSE",
            ExtentKind::SeSparse => "SESPARSE",
        }
    }

    fn from_word(word: &[u8]) -> Option<Self> {
        use ExtentKind::{Flat, SeSparse, Sparse, Vmfs, VmfsSparse};
        [Flat, Vmfs, Sparse, VmfsSparse, SeSparse].into_iter().find(|kind| kind.word().as_bytes() == word)
    }
}

/// Whether a file that begins with `text` is a descriptor: remarks and blank lines, then a version.
pub fn is_descriptor(text: &[u8]) -> bool {
    let mut rest = text;
    loop {
        let (line, after) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => rest.split_at(end),
            None => return false,
        };
        match line {
            [b'#', ..] | [b' '] | [b' ', b'\r'] => rest = after.get(1..).unwrap_or(&[]),
            _ => {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return matches!(line, b"version=1" | b"version=2" | b"version=3");
            }
        }
    }
}

/// A descriptor in the making.
pub struct Text(Vec<u8>);

impl Text {
    /// Of a disk of this type, and with these content identifiers.
    pub fn new(cid: u32, parent: Option<(u32, &[u8])>, kind: &[u8]) -> Text {
        let mut text = Text(Vec::new());
        let (parent_cid, hint) = parent.map_or((u32::MAX, None), |(cid, name)| (cid, Some(name)));
        let ids = format!("# Disk DescriptorFile\nversion=1\nCID={cid:x}\nparentCID={parent_cid:x}\ncreateType=\"");
        text.add(&[ids.as_bytes(), kind, b"\"\n"]);
        if let Some(name) = hint {
            text.add(&[b"parentFileNameHint=\"", name, b"\""]);
        }
        text.add(&[b"\n# Extent description\n"]);
        text
    }

    /// One more extent.
    pub fn extent(&mut self, sectors: u64, is_flat: bool, name: &[u8]) {
        let (kind, end) = if is_flat { ("FLAT", " 0\n") } else { ("SPARSE", "\n") };
        self.add(&[format!("RW {sectors} {kind} \"").as_bytes(), name, b"\"", end.as_bytes()]);
    }

    /// The whole of it, with what follows the extents.
    pub fn end(mut self, sectors: u64, adapter: &[u8], hardware: &[u8], tools: Option<&[u8]>) -> Vec<u8> {
        let heads = if adapter == b"ide" { 16u64 } else { 255 };
        let cylinders = sectors.checked_div(heads.saturating_mul(63)).unwrap_or(0);
        self.add(&[b"\n# The Disk Data Base\n#DDB\n\n"]);
        let mut pair = |name: &str, value: &[u8]| self.add(&[b"ddb.", name.as_bytes(), b" = \"", value, b"\"\n"]);
        pair("virtualHWVersion", hardware);
        pair("geometry.cylinders", format!("{cylinders}").as_bytes());
        pair("geometry.heads", format!("{heads}").as_bytes());
        pair("geometry.sectors", b"63");
        pair("adapterType", adapter);
        if let Some(tools) = tools {
            pair("toolsVersion", tools);
        }
        self.0
    }

    fn add(&mut self, pieces: &[&[u8]]) {
        pieces.iter().for_each(|piece| self.0.extend_from_slice(piece));
    }
}

/// The text up to its first zero.
pub fn text_of(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// What follows `mark` and the `skip` bytes behind it, whatever they are: a sign, a quote, even a zero.
fn after<'t>(bytes: &'t [u8], mark: &[u8], skip: usize) -> Option<&'t [u8]> {
    let place = text_of(bytes).windows(mark.len()).position(|window| window == mark)?;
    let rest = bytes.get(place.checked_add(mark.len())?.checked_add(skip)?..);
    Some(text_of(rest.unwrap_or(&[])))
}

/// The text with another content identifier, and not a byte longer or shorter: it is one sector that changes. Where there is
/// less room than for all of the identifier, it has its last digits.
pub fn renewed(text: &[u8], cid: u32) -> Option<Vec<u8>> {
    let (at, end) = digits(text, b"CID=")?;
    let digits = end.checked_sub(at).filter(|digits| *digits > 0)?;
    let bits = u32::try_from(digits).ok()?.saturating_mul(4);
    let fits = |cid: u32| cid & 1u32.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
    let is_other = |new: &u32| Some(*new) != self::cid(text) && *new != u32::MAX;
    let new = [fits(cid), fits(cid.wrapping_add(1)), fits(cid.wrapping_add(2))].into_iter().find(is_other)?;
    Some([text.get(..at)?, format!("{new:0digits$x}").as_bytes(), text.get(end..)?].concat())
}

/// From where to where the rest of the line goes that follows `mark`.
fn value(text: &[u8], mark: &[u8]) -> Option<(usize, usize)> {
    let at = text.windows(mark.len()).position(|window| window == mark)?.checked_add(mark.len())?;
    let rest = text.get(at..)?;
    let len = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
    Some((at, at.saturating_add(len)))
}

/// From where to where the number goes that follows `mark`; whatever else stands in the line stays.
fn digits(text: &[u8], mark: &[u8]) -> Option<(usize, usize)> {
    let (at, end) = value(text, mark)?;
    let line = text.get(at..end)?;
    let len = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    Some((at, at.saturating_add(len)))
}

/// What names the parent.
const HINT: &[u8] = b"parentFileNameHint";

/// A line that names a parent.
fn hint(name: &[u8]) -> Vec<u8> {
    [HINT, b"=\"", name, b"\"\n"].concat()
}

/// From where to where the line goes that names the parent.
fn hint_line(text: &[u8]) -> Option<(usize, usize)> {
    let at = text.windows(HINT.len()).position(|window| window == HINT)?;
    let name_at = at.saturating_add(HINT.len()).saturating_add(2);
    let closed = text.get(name_at..)?.iter().position(|byte| *byte == b'"')?.saturating_add(name_at);
    let rest = text.get(closed..)?;
    let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end.saturating_add(1));
    Some((at, closed.saturating_add(end)))
}

/// The text of a disk that stands on another one, with the line that names it where it was, or would be in a new text.
pub fn standing(text: &[u8], cid: u32, name: Option<&[u8]>) -> Option<Vec<u8>> {
    let (at, end) = digits(text, b"parentCID=")?;
    let digits = end.checked_sub(at)?;
    let mut text = [text.get(..at)?, format!("{cid:0digits$x}").as_bytes(), text.get(end..)?].concat();
    let (from, to) = match hint_line(&text) {
        Some(line) => line,
        None => {
            let (_, end) = value(&text, b"createType=")?;
            let rest = text.get(end..)?.iter().position(|byte| *byte == b'\n')?;
            let at = end.saturating_add(rest).saturating_add(1);
            (at, at)
        }
    };
    text.splice(from..to, name.map(hint).unwrap_or_default());
    Some(text)
}

/// The text with a second line that names a parent, behind all others: as long as the first is there, it says nothing.
pub fn heralding(text: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    hint_line(text)?;
    let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
    Some([text, end, &hint(name)].concat())
}

/// The text in which the first line that names a parent has become a remark, and not a byte has moved.
pub fn retiring(text: &[u8], cid: u32) -> Option<Vec<u8>> {
    let (at, end) = digits(text, b"parentCID=")?;
    let digits = end.checked_sub(at)?;
    let number = format!("{cid:0digits$x}");
    let more = number.len().checked_sub(digits)?;
    let (from, to) = hint_line(text)?;
    let line = text.get(from..to)?;
    let shorter = [b"#".as_slice(), line.get(more.checked_add(1)?..)?].concat();
    match end <= from {
        true => Some([text.get(..at)?, number.as_bytes(), text.get(end..from)?, &shorter, text.get(to..)?].concat()),
        // The other way round all between them would move.
        false if more > 0 => None,
        false => Some([text.get(..from)?, &shorter, text.get(to..at)?, number.as_bytes(), text.get(end..)?].concat()),
    }
}

/// The text with other sizes of its extents, in their order; those without one are left out, and the geometry follows if
/// that is wanted. Nothing if it does not have as many extents.
pub fn resized(text: &[u8], sizes: &[Option<u64>], with_geometry: bool) -> Option<Vec<u8>> {
    let (mut out, mut sizes_left) = (Vec::new(), sizes.iter());
    let sectors = sizes.iter().flatten().fold(0u64, |sum, size| sum.saturating_add(*size));
    for piece in text.split_inclusive(|byte| *byte == b'\n') {
        match line(piece, piece) {
            Line::Extent(_) => {
                let Some(size) = sizes_left.next()? else { continue };
                let (before, rest) = piece.split_at_checked(piece.iter().position(u8::is_ascii_digit)?)?;
                let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
                out.extend([before, format!("{size}").as_bytes(), rest.get(end..)?].concat());
            }
            _ if with_geometry && piece.starts_with(b"ddb.geometry.cylinders") => {
                out.extend(cylinders(text, piece, sectors))
            }
            _ => out.extend_from_slice(piece),
        }
    }
    sizes_left.next().is_none().then_some(out)
}

/// Lines, and where each begins.
fn pieces(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split_inclusive(|byte| *byte == b'\n').scan(0usize, |end, piece| {
        let at = *end;
        *end = end.saturating_add(piece.len());
        Some((at, piece))
    })
}

/// Where the lines begin that name extents.
pub fn extents(text: &[u8]) -> impl Iterator<Item = usize> {
    pieces(text).filter(|(_, piece)| matches!(line(piece, piece), Line::Extent(_))).map(|(at, _)| at)
}

/// Where the words are of remarks that nobody needs, behind their signs: by the first line a descriptor is known.
pub fn remarks(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let all = pieces(text).skip(1).filter(|(_, piece)| piece.starts_with(b"#") && !piece.starts_with(b"#DDB"));
    all.map(|(at, piece)| at.saturating_add(1)..at.saturating_add(piece.trim_ascii_end().len()))
}

/// The same with not a byte in another place, and nothing but the extents changed: those without a size become remarks. Nothing
/// if a size needs more digits than the old one.
pub fn remarked(text: &[u8], sizes: &[Option<u64>]) -> Option<Vec<u8>> {
    let (mut out, mut sizes_left) = (Vec::new(), sizes.iter());
    for piece in text.split_inclusive(|byte| *byte == b'\n') {
        let Line::Extent(_) = line(piece, piece) else {
            out.extend_from_slice(piece);
            continue;
        };
        let Some(size) = sizes_left.next()? else {
            out.push(b'#');
            out.extend_from_slice(piece.get(1..)?);
            continue;
        };
        let (before, rest) = piece.split_at_checked(piece.iter().position(u8::is_ascii_digit)?)?;
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        let number = format!("{size:digits$}");
        out.extend([before, number.as_bytes(), rest.get(digits..)?].concat());
    }
    (sizes_left.next().is_none() && out.len() == text.len()).then_some(out)
}

/// The line of the cylinders for so many sectors, if that can be told.
fn cylinders(text: &[u8], line: &[u8], sectors: u64) -> Vec<u8> {
    let number = |name: &[u8]| Scan(after(text, name, b" = \"".len())?).number().map(i64::unsigned_abs);
    let heads = number(b"ddb.geometry.heads").zip(number(b"ddb.geometry.sectors"));
    match heads.and_then(|(heads, per_track)| sectors.checked_div(heads.saturating_mul(per_track))) {
        Some(count) if line.ends_with(b"\n") => format!("ddb.geometry.cylinders = \"{count}\"\n").into_bytes(),
        _ => line.to_vec(),
    }
}

/// What stands between the quotes after `name=`.
fn quoted<'t>(bytes: &'t [u8], name: &[u8], max: usize) -> Option<Result<&'t [u8], ()>> {
    let rest = after(bytes, name, 2)?;
    let end = rest.iter().position(|byte| *byte == b'"');
    let value = end.and_then(|end| rest.get(..end)).filter(|value| value.len() <= max);
    Some(value.ok_or(()))
}

/// The type of the disk.
pub fn create_type(bytes: &[u8]) -> Option<&[u8]> {
    quoted(bytes, b"createType", TYPE_MAX)?.ok()
}

/// The name of the parent, if there is one; nothing if that cannot be told.
pub fn parent(bytes: &[u8]) -> Option<Option<&[u8]>> {
    quoted(bytes, b"parentFileNameHint", PARENT_MAX).transpose().ok()
}

/// The content identifier.
pub fn cid(bytes: &[u8]) -> Option<u32> {
    Scan(after(bytes, b"CID", 1)?).hex()
}

/// The content identifier that the parent has to have.
pub fn parent_cid(bytes: &[u8]) -> Option<u32> {
    Scan(after(bytes, b"parentCID", 1)?).hex()
}

/// Every line of the text, with what it says.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let here = rest.take()?;
        let end = here.iter().position(|byte| *byte == b'\n');
        rest = end.and_then(|end| here.get(end.checked_add(1)?..)).filter(|rest| !rest.is_empty());
        Some(line(here, here.get(..end.unwrap_or(here.len())).unwrap_or(here)))
    })
}

/// An extent reads `RW SECTORS KIND "NAME" START`. Blanks may be line ends: what follows the line is in reach.
fn line<'t>(here: &'t [u8], whole: &'t [u8]) -> Line<'t> {
    let mut scan = Scan(here);
    let (Some(access), Some(sectors), Some(word)) = (scan.word(), scan.number(), scan.word()) else {
        return Line::Other;
    };
    scan.blanks();
    let name = if scan.literal(b'"') { scan.name() } else { None };
    let Some(name) = name.filter(|_| access == b"RW") else {
        return Line::Other;
    };
    let start = if scan.literal(b'"') { scan.number() } else { None };
    let kind = ExtentKind::from_word(word);
    let start = match (kind, start) {
        (Some(ExtentKind::Flat), Some(start)) if start >= 0 => start.unsigned_abs(),
        (Some(ExtentKind::Flat), _) | (_, Some(_)) => return Line::Bad(whole),
        (_, None) => 0,
    };
    match (kind, u64::try_from(sectors)) {
        (Some(kind), Ok(sectors)) if sectors > 0 => Line::Extent(ExtentLine { sectors, kind, name, start }),
        _ => Line::Other,
    }
}

/// A text read from its front, with the manners of C's `scanf`.
struct Scan<'t>(&'t [u8]);

impl<'t> Scan<'t> {
    fn blanks(&mut self) {
        while let [b' ' | b'\t'..=b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn literal(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn run(&mut self, max: usize, mut belongs: impl FnMut(u8) -> bool) -> &'t [u8] {
        let len = self.0.iter().take(max).take_while(|byte| belongs(**byte)).count();
        let (run, rest) = self.0.split_at_checked(len).unwrap_or((self.0, &[]));
        self.0 = rest;
        run
    }

    /// At most ten bytes that are not blank.
    fn word(&mut self) -> Option<&'t [u8]> {
        self.blanks();
        Some(self.run(10, |byte| !matches!(byte, b' ' | b'\t'..=b'\r'))).filter(|word| !word.is_empty())
    }

    fn name(&mut self) -> Option<&'t [u8]> {
        Some(self.run(NAME_MAX, |byte| !matches!(byte, b'\n' | b'\r' | b'"'))).filter(|name| !name.is_empty())
    }

    fn sign(&mut self) -> bool {
        self.blanks();
        let minus = self.literal(b'-');
        if !minus {
            self.literal(b'+');
        }
        minus
    }

    /// A decimal number; what is too large for it becomes the largest.
    fn number(&mut self) -> Option<i64> {
        let minus = self.sign();
        let digits = self.run(usize::MAX, |byte| byte.is_ascii_digit());
        if digits.is_empty() {
            return None;
        }
        let number = digits.iter().fold(0i64, |sum, digit| {
            let digit = i64::from(digit.wrapping_sub(b'0'));
            let sum = sum.saturating_mul(10);
            if minus { sum.saturating_sub(digit) } else { sum.saturating_add(digit) }
        });
        Some(number)
    }

    /// A hexadecimal number, of which the lower 32 bits count.
    fn hex(&mut self) -> Option<u32> {
        let minus = self.sign();
        if let [b'0', b'x' | b'X', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let digits: Vec<u32> = self
            .run(usize::MAX, |byte| byte.is_ascii_hexdigit())
            .iter()
            .filter_map(|d| char::from(*d).to_digit(16))
            .collect();
        if digits.is_empty() {
            return None;
        }
        let number = digits.iter().try_fold(0u64, |sum, digit| sum.checked_mul(16)?.checked_add(u64::from(*digit)));
        let number = match number {
            Some(number) if minus => number.wrapping_neg(),
            Some(number) => number,
            None => u64::MAX,
        };
        Some(u32::try_from(number & 0xffff_ffff).unwrap_or(u32::MAX))
    }
}
