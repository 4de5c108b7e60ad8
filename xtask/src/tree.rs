//! The repository's text files, as the rules see them.

use crate::rust::Source;
use std::collections::BTreeMap;
use std::path::Path;

/// Folders in which nothing of the project's own lies.
const FOREIGN: &[&str] = &[".git", "target", "corpus", "artifacts", "node_modules"];

/// Path below the root → text.
#[derive(Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads every text file below `root`.
    pub fn read(root: &Path) -> Result<Tree, String> {
        let mut tree = Tree::default();
        tree.walk(root, "")?;
        Ok(tree)
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> Result<(), String> {
        let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !FOREIGN.contains(&name.as_str()) => {
                    self.walk(&entry.path(), &format!("{path}/"))?;
                }
                Ok(kind) if kind.is_file() => {
                    // What is no text, or has just gone, is nothing for a rule about text.
                    if let Some(text) = std::fs::read(entry.path()).ok().and_then(|b| String::from_utf8(b).ok()) {
                        self.files.insert(path, text);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A tree of made-up files.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        Tree { files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect() }
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Every path and text below a prefix.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let from = self.files.range(prefix.to_owned()..);
        from.take_while(move |(path, _)| path.starts_with(prefix)).map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files directly in a folder (`a/b/`), by name.
    pub fn names_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.below(folder).filter_map(move |(path, _)| path.strip_prefix(folder)).filter(|rest| !rest.contains('/'))
    }

    /// The folders directly in a folder (`a/b/`), by name.
    pub fn folders_in(&self, folder: &str) -> Vec<&str> {
        let paths = self.files.keys().filter_map(|path| path.strip_prefix(folder)?.split_once('/'));
        let mut names: Vec<&str> = paths.map(|(name, _)| name).collect();
        names.dedup();
        names
    }

    /// The Rust files below a prefix, taken apart.
    pub fn sources<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Source<'a>> {
        self.below(prefix).filter(|(path, _)| path.ends_with(".rs")).map(|(path, text)| Source::new(path, text))
    }
}
