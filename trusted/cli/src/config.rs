//! `config`: where settings come from, and whether they can be understood.

use crate::Told;
use crate::args::Parsed;
use crate::settings::Settings;

/// Settings that could not be understood never get this far, so validating is done.
pub fn run(parsed: &Parsed, settings: &Settings) -> Result<Told, Told> {
    let mut stdout = Vec::new();
    if parsed.has("show-sources") || !parsed.has("validate") {
        stdout.extend(settings.show().into_bytes());
    }
    if parsed.has("validate") {
        stdout.extend(b"The configuration is valid.\n");
    }
    Ok(Told { stdout, ..Told::default() })
}
