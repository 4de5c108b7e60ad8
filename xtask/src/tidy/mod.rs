//! The rules of the house, each a function that finds what breaks it.

mod comments;
mod edges;
mod panics;
mod ratchet;
mod sets;
mod settings;
mod sizes;
#[cfg(test)]
mod tests;
mod walls;
mod words;
mod zones;

use crate::tree::Tree;
use crate::{Done, shell, tables};
pub use sets::verbs;
use settings::Settings;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path below the root.
    pub file: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do instead.
    pub what: String,
}

impl Finding {
    /// A finding on a line.
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, what: what.into() }
    }
}

type Found = Vec<Finding>;

/// The task: `cargo xtask tidy [--update-ratchet]`.
pub fn run(arguments: &[String]) -> Done {
    let root = shell::root();
    let tree = Tree::read(&root)?;
    if arguments.iter().any(|word| word == "--update-ratchet") {
        let lowered = ratchet::lowered(&tree)?;
        return std::fs::write(root.join(ratchet::PATH), lowered).map_err(|e| format!("{}: {e}", ratchet::PATH));
    }
    let mut found = edges::check(&edges::packages()?);
    found.extend(all(&tree)?);
    found.sort();
    found.dedup();
    for Finding { file, line, what } in &found {
        if *line == 0 { println!("{file}: {what}") } else { println!("{file}:{line}: {what}") }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("{} findings", found.len())) }
}

/// What the text of the tree alone tells.
fn all(tree: &Tree) -> Result<Found, String> {
    let mut settings = Settings::read(tree)?;
    let mut found = zones::check(tree);
    found.extend(edges::check_paths(tree));
    found.extend(sets::check(tree, &mut settings));
    found.extend(words::check(tree));
    found.extend(sizes::check(tree)?);
    found.extend(panics::check(tree, &mut settings));
    found.extend(comments::check(tree));
    found.extend(walls::check(tree));
    found.extend(tables::check(tree));
    found.extend(settings.unused());
    Ok(found)
}
