//! Code that reads images does not stop in the middle: no panics, no unchecked indexing, no silent cuts of numbers.

use super::settings::Settings;
use super::{Finding, Found};
use crate::rust::{Kind, Source};
use crate::tree::Tree;

const PLACES: &[&str] = &["untrusted/image/", "untrusted/formats/", "untrusted/ops/", "untrusted/codec/"];

const METHODS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err", "unwrap_unchecked"];
const MACROS: &[&str] = &["panic", "unreachable", "todo", "unimplemented"];
const ASSERTS: &[&str] = &["assert", "assert_eq", "assert_ne", "debug_assert", "debug_assert_eq", "debug_assert_ne"];
const NUMBERS: &[&str] =
    &["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64"];
/// Words after which a `[` begins something of its own.
const OPENERS: &[&str] = &[
    "as", "break", "const", "dyn", "else", "for", "if", "impl", "in", "let", "loop", "match", "move", "mut", "ref",
    "return", "static", "unsafe", "where", "while", "yield",
];

/// Judges the zone.
pub fn check(tree: &Tree, settings: &mut Settings) -> Found {
    let mut found = Vec::new();
    for source in PLACES.iter().flat_map(|place| tree.sources(place)) {
        found.extend(file(&source, settings));
    }
    found
}

/// Judges one file.
pub fn file(source: &Source<'_>, settings: &mut Settings) -> Found {
    let mut found = Vec::new();
    for at in 0..source.tokens.len() {
        let broken = panic(source, at).or_else(|| index(source, at)).or_else(|| cast(source, at));
        let Some((rule, what)) = broken else { continue };
        if !source.is_test(at) && !settings.allows(rule, source.path, source.function_at(at)) {
            found.push(Finding::new(source.path, source.line(at), what));
        }
    }
    found
}

type Broken = Option<(&'static str, String)>;

fn panic(source: &Source<'_>, at: usize) -> Broken {
    let word = source.word(at);
    let is_method = METHODS.contains(&word) && [".", ":"].contains(&source.before(at, 1));
    let is_macro = source.word(at + 1) == "!" && source.word(at + 2) != "=" && MACROS.contains(&word);
    let is_assert = source.word(at + 1) == "!" && ASSERTS.contains(&word) && !is_constant(source, at);
    let what = || format!("`{word}` may panic on what an image says: return an error");
    (is_method || is_macro || is_assert).then(|| ("panic", what()))
}

/// Whether a token is part of what is computed at compile time.
fn is_constant(source: &Source<'_>, at: usize) -> bool {
    let from = source.statement(at);
    let words = from..at;
    let item = words.into_iter().any(|i| ["const", "static"].contains(&source.word(i)) && source.word(i + 1) != "fn");
    item || source.before(from, 1) == "{" && source.before(from, 2) == "const"
}

fn index(source: &Source<'_>, at: usize) -> Broken {
    if source.word(at) != "[" {
        return None;
    }
    let before = source.before(at, 1);
    let is_place = match source.kind_before(at)? {
        Kind::Word => !OPENERS.contains(&before),
        Kind::Number => source.before(at, 2) == ".",
        Kind::Mark => [")", "]", "?"].contains(&before) && !ends_attribute(source, at - 1),
        Kind::Text => true,
        Kind::Lifetime => false,
    };
    let is_all = source.reads(at + 1, &[".", ".", "]"]);
    let broken = is_place && !is_all && !is_constant(source, at);
    broken
        .then(|| ("index", format!("`{before}[…]` may panic on what an image says: use get, a pattern or an iterator")))
}

/// Whether a `]` closes an attribute, after which a `[` is an array's.
fn ends_attribute(source: &Source<'_>, at: usize) -> bool {
    source.word(at) == "]" && ["#", "!"].contains(&source.before(source.partner(at), 1))
}

fn cast(source: &Source<'_>, at: usize) -> Broken {
    let to = source.word(at + 1);
    if source.word(at) != "as" || !NUMBERS.contains(&to) || is_harmless(source, at, to) || is_constant(source, at) {
        return None;
    }
    let what = format!("`as {to}` may cut a number silently: use {to}::from or {to}::try_from");
    Some(("as", what))
}

/// What fits by its nature: a length or a size in 64 bits, and a named constant, which anyone can look up.
fn is_harmless(source: &Source<'_>, at: usize, to: &str) -> bool {
    let before = source.before(at, 1);
    if before == ")" {
        let open = source.partner(at - 1);
        let called = [1, 2].map(|count| source.before(open, count));
        let is_size = called.contains(&"len") || called == ["!", "offset_of"] || is_size_of(source, open);
        return is_size && ["u64", "u128", "usize"].contains(&to);
    }
    let is_name = before.len() > 1 && before.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    is_name && before.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Whether `size_of::<T>` or `align_of::<T>` stands before an opening parenthesis.
fn is_size_of(source: &Source<'_>, open: usize) -> bool {
    if source.before(open, 1) != ">" {
        return false;
    }
    let from = open.saturating_sub(16);
    (from..open).rev().find(|&i| source.reads(i + 1, &[":", ":", "<"])).is_some_and(|i| {
        let of = ["size_of", "align_of"].contains(&source.word(i));
        // Nothing but the type lies between.
        of && !(i + 4..open).any(|i| ["(", ";", "{"].contains(&source.word(i)) && source.partner(i) > open)
    })
}
