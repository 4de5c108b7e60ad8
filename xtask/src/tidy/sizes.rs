//! How long a function and a file may be.

use super::ratchet::{self, Ratchet};
use super::{Finding, Found};
use crate::tree::Tree;

/// Lines of a function.
pub const FUNCTION_MAX: usize = 70;
/// Lines of a file.
pub const FILE_MAX: usize = 500;

/// Something with a length and a limit.
#[derive(Debug, PartialEq, Eq)]
pub struct Long {
    /// Its name in the ratchet file.
    pub key: String,
    /// Where it begins.
    pub file: String,
    /// Where it begins.
    pub line: usize,
    /// Its length.
    pub lines: usize,
    /// What the rule allows.
    pub limit: usize,
}

/// All that is longer than it may be.
pub fn long(tree: &Tree) -> Vec<Long> {
    let mut all = Vec::new();
    for source in tree.sources("") {
        let (file, lines) = (source.path.to_owned(), source.text.lines().count());
        if lines > FILE_MAX {
            all.push(Long { key: file.clone(), file: file.clone(), line: 1, lines, limit: FILE_MAX });
        }
        for function in source.functions().into_iter().filter(|function| function.lines > FUNCTION_MAX) {
            let key = format!("{file}::{}", function.name);
            let (line, lines) = (function.line, function.lines);
            all.push(Long { key, file: file.clone(), line, lines, limit: FUNCTION_MAX });
        }
    }
    all
}

/// Judges lengths against the limits and today's exceptions.
pub fn check(tree: &Tree) -> Result<Found, String> {
    let ratchet = Ratchet::read(tree)?;
    Ok(judge(&long(tree), &ratchet))
}

/// Judges lengths against the limits and exceptions.
pub fn judge(long: &[Long], ratchet: &Ratchet) -> Found {
    let mut found = Vec::new();
    for Long { key, file, line, lines, limit } in long {
        match ratchet.entries.get(key) {
            None => found.push(Finding::new(file, *line, format!("{key} has {lines} lines, {limit} are allowed"))),
            Some(held) if lines > held => {
                found.push(Finding::new(
                    file,
                    *line,
                    format!("{key} grew to {lines} lines, the ratchet holds it at {held}"),
                ));
            }
            Some(_) => {}
        }
    }
    for (key, held) in &ratchet.entries {
        let now = long.iter().filter(|long| long.key == *key).map(|long| long.lines).max();
        let advice = match now {
            None => format!("{key} is within the rules now: remove its entry"),
            Some(now) if now < *held => format!("{key} has {now} lines now: lower its entry from {held} to {now}"),
            Some(_) => continue,
        };
        found.push(Finding::new(ratchet::PATH, 0, format!("{advice} (cargo xtask tidy --update-ratchet)")));
    }
    found
}
