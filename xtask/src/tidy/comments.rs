//! What comments and names must not say: history, dates, hosts; and tests that are not run or only hope for a panic.

use super::{Finding, Found};
use crate::rust::Source;
use crate::tree::Tree;

/// Hosts of package registries, split so that this file does not name them either.
const HOSTS: &[(&str, &str)] = &[
    ("static.crates", ".io"),
    ("index.crates", ".io"),
    ("//crates", ".io"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("registry.npmjs", ".org"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
    ("proxy.golang", ".org"),
];

/// Words that tell when something was written instead of what it is; lower case.
const HISTORY: &[&str] =
    &["in this session", "previous session", "last session", "earlier session", "next session", "pull request #"];

/// Judges every text file.
pub fn check(tree: &Tree) -> Found {
    let mut found: Found = tree.sources("").flat_map(|source| file(&source)).collect();
    for (path, text) in tree.below("") {
        found.extend(hosts(path, text));
        if path.ends_with(".toml") || path.ends_with(".sh") || path.starts_with(".ci/") {
            let lines = text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, hash_comment(line)?)));
            found.extend(lines.flat_map(|(line, comment)| said(path, line, comment)));
        }
    }
    found
}

/// Judges a Rust file.
pub fn file(source: &Source<'_>) -> Found {
    let mut found = Vec::new();
    for at in source.all("ignore").filter(|&at| source.before(at, 1) == "[" && source.before(at, 2) == "#") {
        found.push(Finding::new(source.path, source.line(at), "a test is run or it is not there: no #[ignore]"));
    }
    let attribute = "should_panic";
    for at in source.all(attribute) {
        found.push(Finding::new(source.path, source.line(at), format!("no {attribute}: assert what happens")));
    }
    for comment in &source.comments {
        for (offset, line) in comment.text.lines().enumerate() {
            found.extend(said(source.path, comment.line + offset, line));
        }
    }
    found
}

fn hash_comment(line: &str) -> Option<&str> {
    let whole = line.trim_start().starts_with('#').then_some(line);
    whole.or_else(|| line.split_once(" # ").map(|(_, comment)| comment))
}

/// Judges one line of a comment.
fn said(path: &str, line: usize, comment: &str) -> Found {
    let lower = comment.to_lowercase();
    let mut what = Vec::new();
    for word in HISTORY.iter().filter(|word| lower.contains(**word)) {
        what.push(format!("`{word}` is history: say what is"));
    }
    for word in ["phase", "pr", "issue"].into_iter().filter(|word| is_numbered(&lower, word)) {
        what.push(format!("a comment has no {word} number: say what is"));
    }
    if has_date(comment) {
        what.push("a comment has no date: say what is".to_owned());
    }
    for mark in ["TODO", "FIXME"].into_iter().filter(|mark| is_bare(comment, mark)) {
        what.push(format!("{mark} says what is to be done"));
    }
    what.into_iter().map(|what| Finding::new(path, line, what)).collect()
}

/// The text after every place where a word stands by itself.
fn after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).filter_map(move |(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        let rest = text.get(at + word.len()..)?;
        let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        (alone(before) && alone(rest.chars().next())).then_some(rest)
    })
}

/// The word and a number behind it, but not the word alone.
fn is_numbered(lower: &str, word: &str) -> bool {
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    after(lower, word).any(|rest| rest.strip_prefix([' ', '-']).is_some_and(|rest| digit(rest.trim_start_matches('#'))))
}

/// A year of this project's life, a dash and a month.
fn has_date(text: &str) -> bool {
    text.match_indices("20").any(|(at, _)| {
        let alone = at == 0 || !text.as_bytes().get(at - 1).is_some_and(u8::is_ascii_alphanumeric);
        let shape = text.as_bytes().get(at + 2..at + 7);
        alone && matches!(shape, Some([b'2' | b'3', b'0'..=b'9', b'-', b'0' | b'1', b'0'..=b'9']))
    })
}

fn is_bare(comment: &str, mark: &str) -> bool {
    after(comment, mark).any(|rest| {
        let rest = rest.trim_start_matches([':', ' ', '/', '*']);
        // Part of a list of such words, as here, is no mark.
        !rest.starts_with(['`', ',', '"']) && rest.split_whitespace().count() < 2
    })
}

fn hosts(path: &str, text: &str) -> Found {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // The lock file names the index by its well-known address, whichever host serves it.
        if path.ends_with("Cargo.lock") && line.contains("registry+") {
            continue;
        }
        for (name, end) in HOSTS.iter().filter(|(name, end)| line.contains(&format!("{name}{end}"))) {
            found.push(Finding::new(path, at + 1, format!("names the host of a package registry ({name}…{end})")));
        }
    }
    found
}
