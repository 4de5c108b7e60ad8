//! Things of a kind look the same inside: a verb has its five places, a format folder only known file names.

use super::settings::Settings;
use super::{Finding, Found};
use crate::rust::Source;
use crate::tree::Tree;

const OPS: &str = "boundary/wire/src/op/mod.rs";
const FORMATS: &str = "untrusted/formats/src/";

/// Every verb of qemu-img: a file of this name is a verb's, wherever verbs have files.
const VERBS: &[&str] = &[
    "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info", "map", "measure",
    "rebase", "resize", "snapshot",
];

/// What a format may consist of.
const NOUNS: &[&str] = &["mod", "disk", "open", "locate", "reserve", "create", "edit", "census", "tests"];

/// The verbs that exist: the modules of `wire::op`.
pub fn verbs(tree: &Tree) -> Vec<&str> {
    let Some(text) = tree.text(OPS) else { return Vec::new() };
    let source = Source::new(OPS, text);
    let modules = source.all("mod").filter(|&at| source.before(at, 1) == "pub" && source.word(at + 2) == ";");
    modules.map(|at| source.word(at + 1)).collect()
}

/// Judges verbs and formats.
pub fn check(tree: &Tree, settings: &mut Settings) -> Found {
    let mut found = check_verbs(tree);
    found.extend(check_formats(tree, settings));
    found
}

fn check_verbs(tree: &Tree) -> Found {
    let verbs = verbs(tree);
    let mut found = Vec::new();
    for verb in &verbs {
        let files = [
            format!("trusted/cli/src/{verb}.rs"),
            format!("boundary/wire/src/op/{verb}.rs"),
            format!("untrusted/ops/src/{verb}.rs"),
            format!("docs/commands/{verb}.md"),
        ];
        let missing = files.iter().filter(|file| !tree.has(file));
        found.extend(missing.map(|file| Finding::new(file, 0, format!("the verb `{verb}` lacks this file"))));
        if tree.below(&format!("tests/cmd/{verb}")).next().is_none() {
            found.push(Finding::new(OPS, 0, format!("the verb `{verb}` has no tests/cmd/{verb}*")));
        }
    }
    let places = [
        ("trusted/cli/src/", ".rs"),
        ("boundary/wire/src/op/", ".rs"),
        ("untrusted/ops/src/", ".rs"),
        ("docs/commands/", ".md"),
    ];
    for (folder, end) in places {
        for name in tree.names_in(folder) {
            let stem = name.strip_suffix(end).unwrap_or_default();
            if VERBS.contains(&stem) && !verbs.contains(&stem) {
                let path = format!("{folder}{name}");
                found.push(Finding::new(&path, 0, format!("there is no verb `{stem}` in {OPS}")));
            }
        }
    }
    found
}

fn check_formats(tree: &Tree, settings: &mut Settings) -> Found {
    let mut found = Vec::new();
    for format in tree.folders_in(FORMATS) {
        let folder = format!("{FORMATS}{format}/");
        if !tree.has(&format!("{folder}mod.rs")) {
            found.push(Finding::new(&folder, 0, "a format has a mod.rs"));
        }
        for (path, _) in tree.below(&folder) {
            let name = path.strip_prefix(&folder).unwrap_or_default();
            // What a noun needs more files for lies in a folder of its name.
            let noun = name.split_once('/').map(|(noun, _)| noun).or_else(|| name.strip_suffix(".rs"));
            let owner = format!("{folder}{}.rs", noun.unwrap_or_default());
            let is_part = name.contains('/') && tree.has(&owner);
            let known = is_part || noun.is_some_and(|noun| !name.contains('/') && NOUNS.contains(&noun));
            if !known && !name.starts_with("testdata/") && !settings.allows("noun", path, None) {
                let what =
                    format!("a format consists of {}; another noun needs a reason in tidy.toml", NOUNS.join(", "));
                found.push(Finding::new(path, 0, what));
            }
        }
    }
    found
}
