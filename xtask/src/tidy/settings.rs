//! The exceptions in `tidy.toml`: each with a reason, and none that nothing needs.

use super::{Finding, Found};
use crate::tree::Tree;

const PATH: &str = "xtask/tidy.toml";

/// Exceptions, and whether something has asked for them.
#[derive(Default)]
pub struct Settings {
    allowed: Vec<Allowed>,
}

struct Allowed {
    rule: String,
    file: String,
    /// Nothing: the whole file.
    function: Option<String>,
    used: bool,
}

impl Settings {
    /// Reads them from the tree; without the file there are none.
    pub fn read(tree: &Tree) -> Result<Settings, String> {
        let table: toml::Table = tree.text(PATH).unwrap_or_default().parse().map_err(|e| format!("{PATH}: {e}"))?;
        let mut settings = Settings::default();
        for entry in table.get("allow").and_then(toml::Value::as_array).into_iter().flatten() {
            let word = |key: &str| entry.get(key).and_then(toml::Value::as_str).map(str::to_owned);
            let (Some(rule), Some(file)) = (word("rule"), word("file")) else {
                return Err(format!("{PATH}: an exception names its rule and its file: {entry:?}"));
            };
            if word("reason").is_none_or(|reason| reason.split_whitespace().count() < 3) {
                return Err(format!("{PATH}: {rule} in {file} has no reason"));
            }
            settings.allowed.push(Allowed { rule, file, function: word("function"), used: false });
        }
        Ok(settings)
    }

    /// Whether a rule may be broken here.
    pub fn allows(&mut self, rule: &str, file: &str, function: Option<&str>) -> bool {
        let fits = |a: &&mut Allowed| {
            let here = a.function.is_none() || a.function.as_deref() == function;
            a.rule == rule && a.file == file && here
        };
        let found = self.allowed.iter_mut().find(fits);
        found.map(|allowed| allowed.used = true).is_some()
    }

    /// Exceptions that nothing has asked for.
    pub fn unused(&self) -> Found {
        let idle = self.allowed.iter().filter(|allowed| !allowed.used);
        let told = idle.map(|a| {
            let place = a.function.as_ref().map_or_else(|| a.file.clone(), |f| format!("{}, {f}", a.file));
            Finding::new(PATH, 0, format!("nothing needs the exception `{}` for {place}: remove it", a.rule))
        });
        told.collect()
    }
}
