//! The wall is the same in every build, and every hole in it has a reason and a test.

use super::{Finding, Found};
use crate::tree::Tree;

const POLICY: &str = "trusted/sandbox/src/process/policy.toml";
const SANDBOX: &str = "trusted/sandbox/";
const DEBUG_ONLY: &[&str] = &["debug_assertions", "debug_assert", "debug_assert_eq", "debug_assert_ne"];

/// Judges the sandbox.
pub fn check(tree: &Tree) -> Found {
    let mut found = policy(tree);
    for source in tree.sources(SANDBOX) {
        for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| DEBUG_ONLY.contains(&token.text)) {
            if !source.is_test(at) {
                let what = format!("`{}`: debug and release carry the same wall", token.text);
                found.push(Finding::new(source.path, token.line, what));
            }
        }
    }
    found
}

fn policy(tree: &Tree) -> Found {
    let Some(text) = tree.text(POLICY) else {
        return vec![Finding::new(POLICY, 0, "the process cell has its policy here")];
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(e) => return vec![Finding::new(POLICY, 0, format!("is not TOML: {e}"))],
    };
    let mut found = Vec::new();
    for (call, rule) in &table {
        let line = text.lines().position(|line| line.trim() == format!("[{call}]")).map_or(0, |at| at + 1);
        let reason = rule.get("reason").and_then(toml::Value::as_str).unwrap_or_default();
        if reason.split_whitespace().count() < 4 {
            found.push(Finding::new(POLICY, line, format!("the call `{call}` has no reason")));
        }
        if !is_tested(tree, call) {
            found.push(Finding::new(POLICY, line, format!("the call `{call}` is named in no wall test")));
        }
    }
    found
}

/// Whether a file of the wall tests names the call.
fn is_tested(tree: &Tree, call: &str) -> bool {
    let tests = tree.below("tests/").filter(|(path, _)| path.contains("wall") || path.contains("rogue"));
    tests.into_iter().any(|(_, text)| text.contains(call))
}
