//! What becomes of a damaged image when it is changed: nothing that could be read before is lost by it.

use crate::trial::{LONG, Trial, same_bytes};
use instar_testkit::run::{End, Ran};
use std::fs;
use std::path::{Path, PathBuf};

/// What is asked for; `@` stands for the image.
const CHANGES: &[&[&str]] = &[
    &["check", "-q", "-r", "leaks", "@"],
    &["check", "-q", "-r", "all", "@"],
    &["resize", "-q", "@", "+192K"],
    &["resize", "-q", "--shrink", "@", "-64K"],
    &["amend", "-q", "-o", "compat=0.10", "@"],
    &["amend", "-q", "-o", "refcount_bits=64", "@"],
    &["snapshot", "-c", "new", "@"],
    &["snapshot", "-d", "one", "@"],
    &["bitmap", "--add", "@", "marks"],
    &["bitmap", "--remove", "@", "b0"],
    &[WRITES, "-w", "-q", "-c", "8", "-s", "3000", "-S", "70000", "@"],
];
/// The verb that writes to the disk itself.
const WRITES: &str = "bench";

/// How an image stands.
struct State {
    /// A check finds nothing wrong but space that is lost.
    is_sound: bool,
    /// There is nothing that a check could go by.
    is_bare: bool,
    /// Where its bytes are, if it can be read and is not too long.
    bytes: Option<PathBuf>,
}

/// Has an image changed in every way, anew each time.
pub fn change(trial: &Trial<'_>) {
    if trial.options.is_some() {
        return;
    }
    let scratch = trial.folder.with_extension("changed");
    let [first, then] = ["first", "then"].map(|name| scratch.join(name));
    lay(trial.folder, &first);
    let before = state(trial, &first);
    for words in CHANGES {
        lay(trial.folder, &then);
        let own = trial.words();
        let words: Vec<&str> =
            words.iter().flat_map(|word| if *word == "@" { named(&own) } else { vec![*word] }).collect();
        let run = trial.native().folder(&then).args(&words);
        let about = format!("{:?}", words.join(" "));
        let ran = trial.calm(&run);
        let after = state(trial, &then);
        if before.is_sound && !after.is_sound && !after.is_bare {
            trial.fault(&format!("{about}: it was sound, and is not any more: {}", last(&ran)));
        }
        let is_promised = (before.is_sound || before.is_bare) && words[0] != WRITES;
        if let Some(bytes) = before.bytes.as_ref().filter(|_| is_promised) {
            let len = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
            // What has become shorter has the first bytes still.
            let shrinks = words.contains(&"--shrink") && ran.end == End::Code(0);
            let is_kept = after.bytes.as_ref().is_some_and(|now| match shrinks {
                true => len(now) <= len(bytes) && same_bytes(now, bytes),
                false => same_bytes(bytes, now),
            });
            if !is_kept {
                trial.fault(&format!("{about}: it reads otherwise now: {}", last(&ran)));
            }
        }
    }
    let _ = fs::remove_dir_all(scratch);
}

fn named(own: &[String]) -> Vec<&str> {
    own.iter().map(String::as_str).collect()
}

fn last(ran: &Ran) -> String {
    format!("{:?} {}", ran.end, ran.err().lines().last().unwrap_or_default())
}

/// The files, copied to an empty folder.
fn lay(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn state(trial: &Trial<'_>, folder: &Path) -> State {
    let check = trial.native().folder(folder).args(["check", "-q"]).args(trial.words()).go();
    let copied = trial.native().folder(folder).args(["convert", "-O", "raw"]).args(trial.words()).arg("o.raw").go();
    let path = folder.join("o.raw");
    let is_short = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= LONG);
    State {
        is_sound: matches!(check.end, End::Code(0 | 3)),
        is_bare: check.end == End::Code(63),
        bytes: (copied.end == End::Code(0) && is_short).then_some(path),
    }
}
