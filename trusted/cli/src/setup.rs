//! Setting up a run: settings from the command line, a session for files, a cell for the worker.

use crate::args::Parsed;
use crate::render::escape::Text;
use crate::settings::{Face, Origin, Settings};
use crate::{Told, stderr_text};
use instar_broker::policy::Policy;
use instar_broker::session::Why;
use instar_broker::{Mishap, Session};
use instar_sandbox::{Budget, Cell, WORKER, processors, start};
use instar_wire::boot::{LANES_MAX, STAGE_LEN, STAGE_MARKS, Shape};
use instar_wire::op::Rules;
use instar_wire::op::convert::{Named, Pick};
use std::path::PathBuf;

/// Lanes of a worker that moves data, where there are as many processors and nobody asks for another number.
const LANES: usize = 8;
/// Bytes that such a worker reads or writes at once, and its stage.
const SLOT_LEN: usize = (1 << 20) + STAGE_LEN + STAGE_MARKS;
/// The options that are settings.
const SETTINGS: &[&str] = &["cell", "qemu-version", "unsafe-quirks", "ignore-quirks", "allow"];

/// Takes over the settings that the command line gives; the error is a sentence.
pub fn from_command_line(settings: &mut Settings, parsed: &Parsed) -> Result<(), String> {
    for given in &parsed.options {
        if let Some(name) = SETTINGS.iter().find(|name| **name == given.key) {
            let value = given.value.as_deref();
            if *name == "allow" {
                let directory = std::path::absolute(value.unwrap_or_default()).unwrap_or_default();
                settings.allow_directory(directory, &Origin::CommandLine)?;
                continue;
            }
            let value = value.map_or("true".into(), |v| v.to_string_lossy());
            settings.set(name, &value, &Origin::CommandLine)?;
        }
    }
    Ok(())
}

/// A session in which images may name what the settings allow.
pub fn session(settings: &Settings, locking: bool) -> Session {
    // Under both their names: images may use the one with links that the user knows.
    let real = |d: &PathBuf| d.canonicalize().ok().map(|real| [real, d.clone()]);
    let roots = settings.allow.iter().filter_map(real).flatten().collect();
    let mut session = Session::new(Policy { roots, named: Vec::new(), as_qemu: settings.unsafe_quirks }, locking);
    let profile = settings.profile;
    session.interpret_names(Box::new(move |role, name| crate::opening::interpret(role, name, &profile)));
    session
}

/// Whether the cache mode given by the option reads past the page cache.
pub fn cache_is_direct(parsed: &Parsed, key: &str, settings: &Settings) -> Result<bool, Told> {
    match parsed.bytes(key) {
        Some(b"none" | b"off" | b"directsync") => Ok(true),
        None | Some(b"writeback" | b"writethrough" | b"unsafe") => Ok(false),
        Some(mode) => {
            let mode = stderr_text(settings).show(mode).into_owned();
            Err(Told::failure(settings, &[b"Invalid cache option: ", &mode[..]].concat()))
        }
    }
}

/// Whether what is written to a target has to last at the end. Unless asked otherwise, nothing waits for a disk: so it is
/// with qemu-img.
pub fn target_lasts(parsed: &Parsed) -> bool {
    !matches!(parsed.bytes("target-cache"), None | Some(b"unsafe"))
}

/// What a worker may take for a format.
pub fn rules(settings: &Settings) -> Rules {
    let version = settings.profile.version;
    Rules { as_qemu: settings.unsafe_quirks, version: u32::from(version.major) * 100 + u32::from(version.minor) }
}

/// A cell as the settings want it.
pub fn cell(parsed: &Parsed, settings: &Settings) -> Result<(Box<dyn Cell>, Vec<u8>), Told> {
    start_cell(parsed, settings, Budget::default())
}

fn start_cell(parsed: &Parsed, settings: &Settings, budget: Budget) -> Result<(Box<dyn Cell>, Vec<u8>), Told> {
    let budget = Budget { heap_len: settings.memory_mib << 20, cpu: settings.cpu, ..budget };
    let cell = start(settings.cell, &WORKER, budget)
        .map_err(|no_wall| Told::failure(settings, no_wall.to_string().as_bytes()))?;
    let mut note = Vec::new();
    if parsed.has("verbose") && settings.face == Face::Native {
        note = format!("instar: wall: {}\n", cell.wall()).into_bytes();
    }
    Ok((cell, note))
}

/// A cell for a worker that moves data: with several lanes, and time for as much as it moves.
pub fn moving_cell(
    parsed: &Parsed,
    settings: &Settings,
    lanes: Option<usize>,
) -> Result<(Box<dyn Cell>, Vec<u8>), Told> {
    let lanes = match lanes {
        Some(1) => 1,
        wanted => processors().min(wanted.unwrap_or(LANES)),
    };
    let lanes = lanes.clamp(1, LANES_MAX);
    start_cell(
        parsed,
        settings,
        Budget { shape: Shape { lanes, slot_len: SLOT_LEN }, earns: true, ..Budget::default() },
    )
}

/// The snapshot that a word of the command line means.
pub fn pick(word: &[u8]) -> Pick {
    if !word.starts_with(b"snapshot.") {
        return Pick::Either(word.into());
    }
    let list = crate::args::keyval::options(word, None, false);
    let get = |key: &str| list.get(key).map(Into::into);
    Pick::Both(Named { id: get("snapshot.id"), name: get("snapshot.name") })
}

/// A mishap as qemu-img would word it, for an image called `image`.
pub fn mishap_sentence(image: &[u8], mishap: &Mishap, settings: &Settings) -> Vec<u8> {
    let text = stderr_text(settings);
    [b"Could not open '", &text.show(image)[..], b"': ", &mishap_words(mishap, settings, text)].concat()
}

/// What happened to a file, without the image it happened for.
pub fn mishap_words(mishap: &Mishap, settings: &Settings, text: Text) -> Vec<u8> {
    let name = text.show(&mishap.name);
    match &mishap.why {
        Why::System(errno) => [b"Could not open '", &name[..], b"': ", system_words(*errno).as_bytes()].concat(),
        Why::NotRegular => {
            let phrase =
                crate::render::sentence::worded(b"'file' driver requires '{}' to be a regular file", &settings.profile);
            fill(phrase, &name)
        }
        Why::Said(sentence) => text.show(sentence).into_owned(),
        Why::NoLength(errno) => [b"Could not refresh total sector count: ", system_words(*errno).as_bytes()].concat(),
        Why::NotDevice => {
            let phrase = b"'host_device' driver requires '{}' to be either a character or block device";
            fill(crate::render::sentence::worded(phrase, &settings.profile), &name)
        }
        Why::InUse(conflict) => conflict.to_string().into_bytes(),
        Why::Source => [b"'", &name[..], b"' is one of the files that are read"].concat(),
        Why::Refused(refusal) => refusal.to_string().into_bytes(),
        Why::TooMany => b"the image consists of more files than one command may open".to_vec(),
    }
}

/// The operating system's words; the standard library adds the number, qemu-img does not.
pub fn system_words(errno: rustix::io::Errno) -> String {
    let error = std::io::Error::from(errno).to_string();
    error.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The phrase with its one placeholder filled.
fn fill(phrase: &[u8], name: &[u8]) -> Vec<u8> {
    match phrase.windows(2).position(|w| w == b"{}") {
        Some(at) => [&phrase[..at], name, &phrase[at + 2..]].concat(),
        None => phrase.to_vec(),
    }
}
