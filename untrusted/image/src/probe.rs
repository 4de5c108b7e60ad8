//! Deciding which format a file is, from its bytes alone.

use crate::file::File;
use crate::format::Format;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};
use instar_wire::op::Rules;

/// What a format says of a file it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Not one of mine.
    No,
    /// One of mine, by a mark that qemu-img does not look for.
    Quiet,
    /// One of mine.
    Yes,
}

/// Finds the format of a file among `formats`.
///
/// `raw` is the format that takes what no other claims, if the rules allow it: it then carries a partition table, or
/// the user asked for qemu-img's ways. The first claim in the order of `formats` wins.
pub fn probe<'f>(
    file: &File<'_>,
    formats: &[&'f dyn Format],
    raw: &'f dyn Format,
    rules: &Rules,
) -> Result<&'f dyn Format> {
    for format in formats {
        match format.probe(file)? {
            Claim::Yes => return Ok(*format),
            Claim::Quiet if !rules.as_qemu => return Ok(*format),
            Claim::Quiet | Claim::No => {}
        }
    }
    if rules.as_qemu || raw.probe(file)? != Claim::No {
        return Ok(raw);
    }
    Err(Kind::Unrecognised
        .what("no known image format and no partition table: say -f raw if this is a raw disk")
        .file(file.id()))
}

/// The names of all formats that claim the file; more than one is suspicious.
pub fn claims(file: &File<'_>, formats: &[&dyn Format]) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for format in formats {
        if format.probe(file)? != Claim::No {
            names.push(format.name());
        }
    }
    Ok(names)
}
