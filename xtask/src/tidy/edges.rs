//! Which crate may depend on which: nothing of `trusted/` on anything of `untrusted/`, by whatever way round.

use super::{Finding, Found};
use crate::rust::Kind;
use crate::shell;
use crate::tree::Tree;
use serde_json::Value;
use std::collections::BTreeMap;

/// A crate of the workspace.
#[derive(Debug, Default)]
pub struct Package {
    /// Folder below the root.
    pub folder: String,
    /// What it is built from, tests left out: a folder of the workspace, or the name of a foreign crate.
    pub needs: Vec<Need>,
}

/// A dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A crate of the workspace, by its folder.
    Own(String),
    /// A crate from elsewhere, by its name.
    Foreign(String),
}

/// The crates of the workspace, from `cargo metadata`. Nothing is resolved, so nothing is fetched.
pub fn packages() -> Result<Vec<Package>, String> {
    let text = shell::output(shell::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let below = |path: &str| path.strip_prefix(root).unwrap_or(path).trim_start_matches('/').to_owned();
    let packages = metadata["packages"].as_array().into_iter().flatten().map(|package| {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let folder = below(manifest.trim_end_matches("/Cargo.toml"));
        let all = package["dependencies"].as_array().into_iter().flatten();
        let needs = all.filter(|need| need["kind"] != "dev").map(|need| match need["path"].as_str() {
            Some(path) => Need::Own(below(path)),
            None => Need::Foreign(need["name"].as_str().unwrap_or_default().to_owned()),
        });
        Package { folder, needs: needs.collect() }
    });
    Ok(packages.collect())
}

/// Judges the edges. A way through a third crate counts as an edge.
pub fn check(packages: &[Package]) -> Found {
    let by_folder: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.folder.as_str(), p)).collect();
    let mut found = Vec::new();
    for package in packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let mut say = |what: String| found.push(Finding::new(&manifest, 0, what));
        let zone = package.folder.split('/').next().unwrap_or_default();
        let across = match zone {
            "trusted" => "untrusted/",
            "untrusted" => "trusted/",
            _ => "",
        };
        if let Some(way) = way_to(package, across, &by_folder).filter(|_| !across.is_empty()) {
            say(format!("{} must not depend on {across}*: {}", package.folder, way.join(" → ")));
        }
        if package.folder == "boundary/wire" {
            for need in package.needs.iter().filter(|need| **need != Need::Foreign("zerocopy".into())) {
                let (Need::Own(name) | Need::Foreign(name)) = need;
                say(format!("boundary/wire depends on zerocopy alone, not on {name}"));
            }
        }
    }
    found
}

fn way_to(from: &Package, prefix: &str, all: &BTreeMap<&str, &Package>) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.folder.clone()]];
    let mut seen = vec![from.folder.clone()];
    while let Some(way) = ways.pop() {
        let needs = way.last().and_then(|last| all.get(last.as_str())).map_or(&[][..], |p| &p.needs);
        for need in needs {
            let Need::Own(folder) = need else { continue };
            let mut longer = way.clone();
            longer.push(folder.clone());
            if folder.starts_with(prefix) {
                return Some(longer);
            }
            if !seen.contains(folder) {
                seen.push(folder.clone());
                ways.push(longer);
            }
        }
    }
    None
}

/// No source of `trusted/` takes in a source of `untrusted/` by its path.
pub fn check_paths(tree: &Tree) -> Found {
    let mut found = Vec::new();
    for source in tree.sources("trusted/") {
        for (at, token) in source.tokens.iter().enumerate() {
            let taken =
                source.before(at, 2) == "path" || source.before(at, 1) == "(" && source.before(at, 3) == "include";
            if token.kind == Kind::Text && taken && token.text.contains("untrusted") {
                found.push(Finding::new(source.path, token.line, "takes in a source of untrusted/ by its path"));
            }
        }
    }
    found
}
