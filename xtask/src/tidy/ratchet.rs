//! Today's exceptions from the length rules: a list that only shrinks.

use super::sizes;
use crate::tree::Tree;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where it is kept.
pub const PATH: &str = "xtask/ratchet.toml";

const HEAD: &str = "# What is longer than the rules allow, and how long it may stay. Entries are lowered or removed, never raised:\n\
                    # `cargo xtask tidy --update-ratchet`.\n";

/// `path` or `path::function` → lines.
#[derive(Default)]
pub struct Ratchet {
    /// The exceptions.
    pub entries: BTreeMap<String, usize>,
}

impl Ratchet {
    /// Reads it from the tree; without the file there are no exceptions.
    pub fn read(tree: &Tree) -> Result<Ratchet, String> {
        let table: toml::Table = tree.text(PATH).unwrap_or_default().parse().map_err(|e| format!("{PATH}: {e}"))?;
        let mut ratchet = Ratchet::default();
        for (key, value) in table {
            let lines = value.as_integer().and_then(|lines| usize::try_from(lines).ok());
            ratchet.entries.insert(key.clone(), lines.ok_or_else(|| format!("{PATH}: {key} is no number of lines"))?);
        }
        Ok(ratchet)
    }

    /// The same with every entry as low as it can be.
    pub fn lower(&mut self, long: &[sizes::Long]) {
        let lines = |key: &str| long.iter().filter(|long| long.key == key).map(|long| long.lines).max();
        self.entries.retain(|key, _| lines(key).is_some());
        for (key, held) in &mut self.entries {
            *held = lines(key).map_or(*held, |now| now.min(*held));
        }
    }
}

/// The file as it should be.
pub fn lowered(tree: &Tree) -> Result<String, String> {
    let mut ratchet = Ratchet::read(tree)?;
    ratchet.lower(&sizes::long(tree));
    let mut text = HEAD.to_owned();
    for (key, lines) in &ratchet.entries {
        let _ = writeln!(text, "\"{key}\" = {lines}");
    }
    Ok(text)
}
