//! The recorded answers of real qemu-img versions, unpacked for tests.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use super::json::{self, Value};
use crate::profile::Profile;

/// The recorded versions.
pub const VERSIONS: &[&str] = &[
    "5.2",
    "6.2",
    "7.2",
    "8.2.2",
    "9.2.1",
    "10.0.2-upstream",
    "10.0.2",
    "10.0.13",
    "10.1.0",
    "10.2.1",
    "11.0.3",
    "11.1.3",
];

/// A recorded invocation.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// Its arguments.
    pub argv: Vec<String>,
}

/// What a version answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code.
    pub code: String,
}

fn shared() -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/baselines");
    shared.is_dir().then_some(shared)
}

/// The folder of the records; unpacked once per archive, and kept for the next run.
fn unpacked() -> Option<&'static Path> {
    static UNPACKED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let place = UNPACKED.get_or_init(|| {
        let archive = shared()?.join("records.tar.xz");
        let about = fs::metadata(&archive).ok()?;
        let age = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let place = std::env::temp_dir().join(format!("instar-records-{}-{age}", about.len()));
        if place.is_dir() {
            return Some(place);
        }
        let fresh = place.with_extension(std::process::id().to_string());
        fs::create_dir_all(&fresh).ok()?;
        let tar = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&fresh).status();
        tar.ok()?.success().then_some(())?;
        if fs::rename(&fresh, &place).is_err() {
            fs::remove_dir_all(&fresh).ok()?;
        }
        Some(place)
    });
    place.as_deref()
}

/// The cases whose name passes `wanted`; none where the records are not at hand.
pub fn cases(wanted: impl Fn(&str) -> bool) -> Vec<Case> {
    let Some(text) = shared().and_then(|place| fs::read(place.join("cases.json")).ok()) else {
        return Vec::new();
    };
    let Ok(Value::List(all)) = json::parse(&text, &Profile::default()) else { return Vec::new() };
    let cases = all.iter().filter_map(|case| {
        let Value::Dict(entries) = case else { return None };
        let entry = |key: &str| entries.iter().find(|(k, _)| k == key.as_bytes()).map(|(_, v)| v);
        let string = |value: &Value| String::from_utf8(value.text()?.to_vec()).ok();
        let Value::List(argv) = entry("argv")? else { return None };
        Some(Case { id: string(entry("id")?)?, argv: argv.iter().filter_map(string).collect() })
    });
    cases.filter(|case| wanted(&case.id)).collect()
}

/// What `version` answered to the case.
pub fn answer(version: &str, id: &str) -> Option<Answer> {
    let part = |ending: &str| {
        let bytes = fs::read(unpacked()?.join(version).join(format!("{id}.{ending}"))).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    Some(Answer { stdout: part("stdout")?, stderr: part("stderr")?, code: part("rc")?.trim().to_owned() })
}
