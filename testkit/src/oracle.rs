//! The real qemu-img in several versions: found, or fetched once.

use crate::place::{shared, skipped, target};
use crate::run::{Held, Run};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One version of the real programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oracle {
    /// As in the name of the program: `10.0.2`.
    pub version: String,
    bin: PathBuf,
}

impl Oracle {
    /// Its qemu-img.
    pub fn img(&self) -> Run {
        Run::new(self.program("qemu-img")).narrow()
    }

    /// Its qemu-io.
    pub fn io(&self) -> Run {
        Run::new(self.program("qemu-io")).narrow()
    }

    /// Its qemu-io with an image open, for as long as the value lives: it has answered a question about it.
    pub fn holding<S: AsRef<OsStr>>(&self, folder: &Path, words: impl IntoIterator<Item = S>) -> Held {
        let mut held = self.io().folder(folder).args(words).hold();
        held.stdin.as_mut().expect("its input").write_all(b"length\n").expect("a question");
        let (mut heard, mut piece) = (Vec::new(), [0; 256]);
        // The prompt and the answer are each one line's worth; nothing else is said before.
        while !heard.windows(2).any(|w| w == b"B\n") {
            let n = held.child.stdout.as_mut().expect("its output").read(&mut piece).expect("an answer");
            assert_ne!(n, 0, "qemu-io {} ends: {}", self.version, heard.escape_ascii());
            heard.extend_from_slice(&piece[..n]);
        }
        held
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(format!("{name}-{}", self.version))
    }

    /// Whether it is at least this version.
    pub fn since(&self, version: &str) -> bool {
        numbers(&self.version) >= numbers(version)
    }
}

/// A version, fit to be compared.
pub fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

/// Every version there is, oldest first.
pub fn oracles() -> &'static [Oracle] {
    static FOUND: OnceLock<Vec<Oracle>> = OnceLock::new();
    FOUND.get_or_init(find)
}

/// The version that makes the images.
pub fn maker() -> &'static Oracle {
    version("10.0.2").or(oracles().last()).expect("an oracle")
}

/// The oracle of this version.
pub fn version(version: &str) -> Option<&'static Oracle> {
    oracles().iter().find(|oracle| oracle.version == version)
}

/// The newest oracle.
pub fn newest() -> &'static Oracle {
    oracles().last().expect("an oracle")
}

fn find() -> Vec<Oracle> {
    let own = target().join("oracles");
    let folder = match std::env::var_os("INSTAR_ORACLES") {
        Some(named) => PathBuf::from(named),
        None if Path::new("/var/cache/instar-oracles/bin").is_dir() => PathBuf::from("/var/cache/instar-oracles"),
        None => own,
    };
    if list(&folder.join("bin")).is_empty() {
        fetch(&folder);
    }
    let mut found = list(&folder.join("bin"));
    found.sort_by_key(|oracle| numbers(&oracle.version));
    assert!(!found.is_empty(), "no qemu-img in {}: set INSTAR_ORACLES", folder.display());
    for missing in ["5.2", "7.2", "10.0.2"].iter().filter(|v| !found.iter().any(|o| o.version == **v)) {
        skipped(&format!("no qemu-img {missing} in {}: nothing is compared with it", folder.display()));
    }
    found
}

fn list(bin: &Path) -> Vec<Oracle> {
    let entries = std::fs::read_dir(bin).into_iter().flatten().flatten();
    let proper = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = proper.filter_map(|entry| entry.file_name().into_string().ok());
    let versions = names.filter_map(|name| name.strip_prefix("qemu-img-").map(str::to_owned));
    versions.map(|version| Oracle { version, bin: bin.to_owned() }).collect()
}

/// Runs the script that downloads them. Tests may run side by side, so one fetches and the others wait.
fn fetch(folder: &Path) {
    let script = shared().join("oracles/get-oracles.sh");
    assert!(script.exists(), "no oracles in {} and no {} to fetch them", folder.display(), script.display());
    std::fs::create_dir_all(folder).expect("a folder for the oracles");
    let lock = std::fs::File::create(folder.join(".lock")).expect("a lock file");
    lock.lock().expect("the lock");
    if list(&folder.join("bin")).is_empty() {
        let status = std::process::Command::new(&script).arg(folder).status();
        eprintln!("{}: {status:?}", script.display());
    }
}
