//! What must be said: what a module is, why unsafe code is sound, what an unsafe function asks of its caller.

use super::{Finding, Found};
use crate::rust::Source;
use crate::tree::Tree;

/// Judges every Rust file.
pub fn check(tree: &Tree) -> Found {
    tree.sources("").flat_map(|source| file(&source)).collect()
}

/// Judges one.
pub fn file(source: &Source<'_>) -> Found {
    let mut found = Vec::new();
    if !source.text.trim_start().starts_with("//!") {
        found.push(Finding::new(source.path, 1, "a module begins with a `//!` sentence that says what it is"));
    }
    for at in source.all("unsafe") {
        let line = source.line(at);
        match source.word(at + 1) {
            "{" if !is_argued(source, at) => {
                found.push(Finding::new(source.path, line, "an unsafe block without a SAFETY comment directly above"));
            }
            "impl" if !source.above(line).contains("SAFETY:") => {
                found.push(Finding::new(source.path, line, "an unsafe impl without a SAFETY comment directly above"));
            }
            _ if is_function(source, at) && !promises(source, at) => {
                found.push(Finding::new(source.path, line, "an unsafe fn without a `# Safety` section"));
            }
            _ => {}
        }
    }
    found
}

/// Whether SAFETY stands above the block, above the statement it is part of, or in its first lines.
fn is_argued(source: &Source<'_>, at: usize) -> bool {
    let line = source.line(at);
    let inside = source.line(at + 1)..=source.line(at + 2);
    let within =
        |comment: &&crate::rust::Comment<'_>| inside.contains(&comment.line) && comment.line <= source.line(at + 2);
    let statement = source.line(source.statement(at));
    source.above(line).contains("SAFETY:")
        || source.above(statement).contains("SAFETY:")
        || source.comments.iter().filter(within).any(|comment| comment.text.contains("SAFETY:"))
}

/// Whether `unsafe` begins a function with a name, outside the implementation of a trait, which has said it already.
fn is_function(source: &Source<'_>, at: usize) -> bool {
    let mut next = at + 1;
    if source.word(next) == "extern" {
        next += if source.word(next + 1).starts_with('"') { 2 } else { 1 };
    }
    let named = source.word(next) == "fn" && source.word(next + 1) != "(";
    named && !in_trait_impl(source, at)
}

fn in_trait_impl(source: &Source<'_>, at: usize) -> bool {
    let around = source.all("impl").filter(|&from| (from..=source.item_end(from)).contains(&at));
    let heads = around.map(|from| (from, (from..at).find(|&i| source.word(i) == "{").unwrap_or(at)));
    heads.into_iter().any(|(from, open)| {
        let is_higher_ranked = |i: usize| source.word(i + 1) == "<";
        (from..open).any(|i| source.word(i) == "for" && !is_higher_ranked(i))
    })
}

fn promises(source: &Source<'_>, at: usize) -> bool {
    source.above(source.line(source.statement(at))).contains("# Safety")
        || source.above(source.line(at)).contains("# Safety")
}
