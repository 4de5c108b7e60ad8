//! What an option's value must look like, checked while options are read.
use super::keyval;
use super::number::{self, COUNT_MAX, SIZE_MAX};
use super::object::{Defined, ReadFile};
use super::parse::{Refusal, Run};
use super::stop::{Complaint, Note, say};
use super::table::Verb;
use crate::profile::{Family, Profile};

/// An option that takes a number.
pub struct Number {
    verb: &'static str,
    key: &'static str,
    /// Its name in sentences, in the oldest dialect and in the newer ones.
    names: [&'static str; 2],
    /// Its smallest value, in the oldest dialect and in the newer ones.
    low: [u64; 2],
    high: u64,
    kind: Kind,
}

/// How a number is read, in the oldest dialect, the draft and the new one.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Size,
    Count,
    /// A size, but a count in the draft.
    Blocks,
    /// A count with a sentence of its own in the oldest dialect.
    Coroutines,
    /// A size that must be a multiple of 512.
    Sparse,
}

const fn size(verb: &'static str, key: &'static str, name: &'static str) -> Number {
    Number { verb, key, names: [name, name], low: [0, 0], high: SIZE_MAX, kind: Kind::Size }
}

const fn count(key: &'static str, name: &'static str, low: u64, high: u64) -> Number {
    Number { verb: "bench", key, names: [name, name], low: [0, low], high, kind: Kind::Count }
}

const NUMBERS: &[Number] = &[
    count("count", "request count", 1, COUNT_MAX),
    count("depth", "queue depth", 1, COUNT_MAX),
    count("flush-interval", "flush interval", 0, COUNT_MAX),
    count("pattern", "pattern byte", 0, 255),
    size("bench", "offset", "offset"),
    Number { low: [0, 1], high: COUNT_MAX, ..size("bench", "buffer-size", "buffer size") },
    Number { names: ["step_size", "step size"], high: COUNT_MAX, ..size("bench", "step-size", "") },
    size("bitmap", "granularity", "granularity"),
    size("commit", "rate-limit", "rate limit"),
    size("convert", "rate-limit", "rate limit"),
    Number { kind: Kind::Sparse, ..size("convert", "sparse-size", "buffer size for sparse output") },
    Number { verb: "convert", low: [1, 1], kind: Kind::Coroutines, ..count("parallel", "number of coroutines", 1, 16) },
    size("create", "size", "image size"),
    Number { low: [1, 1], high: COUNT_MAX, ..size("dd", "bs", "bs") },
    Number { kind: Kind::Blocks, ..size("dd", "count", "count") },
    Number { kind: Kind::Blocks, ..size("dd", "skip", "skip") },
    Number { kind: Kind::Blocks, ..size("dd", "seek", "seek") },
    size("dd", "isize", "isize"),
    size("dd", "osize", "osize"),
    size("map", "start-offset", "start offset"),
    size("map", "max-length", "max length"),
    size("measure", "size", "image size"),
];

/// What became of an option.
pub enum Verdict {
    /// It stands; with its number if it is one.
    Fine(Option<u64>),
    /// It asked for a text and an orderly end.
    Help(Vec<u8>),
}

/// Checks an option as far as the version does so while it reads options.
pub fn option(
    run: &mut Run<'_>,
    verb: &'static Verb,
    key: &'static str,
    text: &[u8],
    read: ReadFile<'_>,
) -> Result<Verdict, Refusal> {
    let profile = run.grammar();
    match (verb.name, key) {
        (_, "object") => return object(run, verb, text, read),
        ("info" | "check" | "map", "output") if profile.family() == Family::Old => {}
        (_, "output") => output(text, &profile)?,
        ("check", "repair") => repair(text, &profile)?,
        ("amend" | "convert" | "create" | "measure", "options") if !keyval::is_list(text) => {
            return Err(Complaint::new(&[b"Invalid option list: ", text]).into());
        }
        ("convert" | "dd" | "measure", "snapshot") => snapshot(run, text)?,
        ("resize", "preallocation") => {
            one_of(text, &["off", "metadata", "falloc", "full"], &[b"Invalid preallocation mode '", text, b"'"])?;
        }
        ("bench", "aio") => {
            one_of(text, &["threads", "native", "io_uring"], &[b"Invalid aio option: ", text])?;
        }
        ("bench", "cache") => one_of(text, CACHE_MODES, &[b"Invalid cache mode"])?,
        ("snapshot", "list" | "apply" | "create" | "delete") => {
            let actions = ["list", "apply", "create", "delete"];
            if run.options.iter().any(|given| actions.contains(&given.key)) {
                return Err(Refusal::usage("Cannot mix '-l', '-a', '-c', '-d'"));
            }
        }
        _ => return numbered(run, verb, key, text).map(Verdict::Fine),
    }
    Ok(Verdict::Fine(None))
}

/// The words for cache modes.
pub const CACHE_MODES: &[&str] = &["none", "off", "directsync", "writeback", "unsafe", "writethrough"];

fn one_of(text: &[u8], words: &[&str], sentence: &[&[u8]]) -> Result<(), Refusal> {
    match words.iter().any(|word| word.as_bytes() == text) {
        true => Ok(()),
        false => Err(Complaint::new(sentence).into()),
    }
}

/// Reads the number of an option, if it takes one.
pub fn numbered(run: &mut Run<'_>, verb: &'static Verb, key: &str, text: &[u8]) -> Result<Option<u64>, Refusal> {
    let Some(spec) = NUMBERS.iter().find(|spec| spec.verb == verb.name && spec.key == key) else {
        return Ok(None);
    };
    let profile = run.grammar();
    let newer = usize::from(profile.family() != Family::Old);
    let (name, range) = (spec.names[newer], spec.low[newer]..=spec.high);
    let counts = match spec.kind {
        Kind::Size | Kind::Sparse => false,
        Kind::Count | Kind::Coroutines => true,
        Kind::Blocks => profile.family() == Family::Interim,
    };
    if counts {
        let value = number::named_count(text, name, range, &profile);
        return match value {
            Err(_) if spec.kind == Kind::Coroutines && newer == 0 => {
                Err(Refusal::plain("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16"))
            }
            value => Ok(Some(value?)),
        };
    }
    let (value, warning) = number::named_size(text, name, range, &profile);
    run.warn(warning);
    let value = value?;
    if spec.kind == Kind::Sparse && (value % 512 != 0 || value > 16 << 20) {
        return Err(Refusal::plain(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to 16777216. \
             Select 0 to disable sparse detection (fully allocates output).",
        ));
    }
    Ok(Some(value))
}

fn object(run: &mut Run<'_>, verb: &'static Verb, text: &[u8], read: ReadFile<'_>) -> Result<Verdict, Refusal> {
    let profile = run.grammar();
    if !profile.schema_objects() {
        run.objects.announce(text)?;
        return Ok(Verdict::Fine(None));
    }
    let old_compare = verb.name == "compare" && profile.family() != Family::New;
    match run.objects.define(text, &profile, read) {
        Ok(Defined::Made) => Ok(Verdict::Fine(None)),
        Ok(Defined::Help(text)) => Ok(Verdict::Help(text)),
        Err(complaint) => Err(Refusal { code: if old_compare { 2 } else { 1 }, ..complaint.into() }),
    }
}

/// Checks the value of `--output`.
pub fn output(text: &[u8], profile: &Profile) -> Result<(), Refusal> {
    if matches!(text, b"human" | b"json") {
        return Ok(());
    }
    Err(match profile.family() {
        Family::Old => Refusal::plain("--output must be used with human or json as argument."),
        _ => expects("--output", ["human", "json"], text, profile),
    })
}

fn repair(text: &[u8], profile: &Profile) -> Result<(), Refusal> {
    const OLD: &[u8] = b"Unknown option value for -r (expecting 'leaks' or 'all'): ";
    if matches!(text, b"leaks" | b"all") {
        return Ok(());
    }
    Err(match profile.family() {
        Family::Old => Refusal { usage: true, ..Complaint::new(&[OLD, text]).into() },
        _ => expects("--repair (-r)", ["leaks", "all"], text, profile),
    })
}

fn expects(option: &str, words: [&str; 2], text: &[u8], profile: &Profile) -> Refusal {
    let comma = if profile.family() == Family::New { "," } else { "" };
    let wanted = format!("{option} expects '{}' or '{}'{comma} not '", words[0], words[1]);
    Refusal { usage: true, ..Complaint::new(&[wanted.as_bytes(), text, b"'"]).into() }
}

/// A snapshot is named plainly or by `snapshot.id=` and `snapshot.name=`.
fn snapshot(run: &mut Run<'_>, text: &[u8]) -> Result<(), Refusal> {
    if !text.starts_with(b"snapshot.") {
        return Ok(());
    }
    let list = keyval::options(text, None, run.grammar().flag_warning());
    let known = |key: &[u8]| matches!(key, b"snapshot.id" | b"snapshot.name" | b"id");
    let bad = list.entries.iter().position(|(key, _)| !known(key));
    run.warn(list.warnings.into_iter().filter(|(at, _)| bad.is_none_or(|bad| *at <= bad)).map(|(_, note)| note));
    match bad.map(|bad| &list.entries[bad]) {
        None => Ok(()),
        Some((key, _)) => {
            let about = Note::Said(say(&[b"Failed in parsing snapshot param '", text, b"'"]));
            Err(Complaint::new(&[b"Invalid parameter '", key, b"'"]).then(about).into())
        }
    }
}
