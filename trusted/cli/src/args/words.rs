//! What is checked once all options are read: the number of words, and options against each other.
use super::checks::{self, CACHE_MODES};
use super::keyval;
use super::node::drivers;
use super::number;
use super::object::ReadFile;
use super::parse::{Given, Refusal, Run};
use super::stop::Complaint;
use super::table::Verb;
use std::os::unix::ffi::OsStrExt;

type Check = Result<(), Refusal>;

/// Checks a command line whose options are read; `words` are what is left.
pub fn check(run: &mut Run<'_>, verb: &'static Verb, words: &mut Vec<Vec<u8>>, read: ReadFile<'_>) -> Check {
    match verb.name {
        "info" | "check" | "map" | "commit" | "rebase" | "bench" | "snapshot" => {
            exactly(words, 1, "Expecting one image file name")?;
        }
        "compare" => exactly(words, 2, "Expecting two image file names")?,
        "amend" => amend(run, words)?,
        "bitmap" => bitmap(run, words)?,
        "convert" => convert(run, words)?,
        "create" => create(run, verb, words, read)?,
        "dd" => dd(run, verb, words)?,
        "measure" => measure(run, words)?,
        "config" => exactly(words, 0, "Expecting no words")?,
        _ => {}
    }
    if verb.name == "rebase" && !given(run, "backing") && !given(run, "backing-unsafe") {
        return Err(Refusal::usage("Must specify backing file (-b) or use unsafe mode (-u)"));
    }
    late_output(run, verb)?;
    if verb.name != "create" {
        late_objects(run, read)?;
    }
    match verb.name {
        "bench" => bench(run)?,
        "resize" => resize(run, words)?,
        _ => {}
    }
    caches(run, verb)?;
    formats(run, verb)
}

fn given(run: &Run<'_>, key: &str) -> bool {
    run.options.iter().any(|given| given.key == key)
}

fn value<'r>(run: &'r Run<'_>, key: &str) -> Option<&'r [u8]> {
    let last = run.options.iter().rev().find(|given| given.key == key);
    last.and_then(|given| given.value.as_ref()).map(|value| value.as_encoded_bytes())
}

fn exactly(words: &[Vec<u8>], count: usize, sentence: &str) -> Check {
    if words.len() == count { Ok(()) } else { Err(Refusal::usage(sentence)) }
}

/// Whether `-o` asks for the list of options.
fn options_help(run: &Run<'_>) -> bool {
    asks_for_options(&run.options)
}

/// Whether `-o` among these options asks for the list of options.
pub fn asks_for_options(options: &[Given]) -> bool {
    let lists = options.iter().filter(|given| given.key == "options");
    lists.filter_map(|given| given.value.as_ref()).any(|list| {
        let entries = keyval::options(list.as_encoded_bytes(), None, false).entries;
        entries.iter().any(|(key, _)| key == b"help" || key == b"?")
    })
}

fn amend(run: &Run<'_>, words: &[Vec<u8>]) -> Check {
    if !given(run, "options") {
        return Err(Refusal::usage("Must specify options (-o)"));
    }
    let only_help = words.is_empty() && given(run, "format") && options_help(run);
    match only_help || words.len() == 1 {
        true => Ok(()),
        false => Err(Refusal::plain("Expecting one image file name")),
    }
}

fn bitmap(run: &Run<'_>, words: &[Vec<u8>]) -> Check {
    let removal = if run.grammar().bitmap_remove_all() { " --remove-all," } else { "" };
    let actions = ["add", "remove", "clear", "enable", "disable", "merge"].iter().filter(|a| given(run, a)).count();
    let all = given(run, "remove-all");
    let checks = [
        (
            actions == 0 && !all,
            &*format!("Need at least one of --add, --remove,{removal} --clear, --enable, --disable, or --merge"),
        ),
        (given(run, "granularity") && !given(run, "add"), "granularity only supported with --add"),
        (given(run, "source-format") && !given(run, "source-file"), "-F only supported with -b"),
        (given(run, "source-file") && !given(run, "merge"), "Merge bitmap source file only supported with --merge"),
        (actions == 0 && words.len() != 1, "Expecting filename"),
        (actions > 0 && words.len() != 2, "Expecting filename and bitmap name"),
    ];
    first(&checks)
}

fn convert(run: &Run<'_>, words: &[Vec<u8>]) -> Check {
    let on = |key| given(run, key);
    let checks = [
        (on("no-create") && on("options"), "-o has no effect when skipping image creation"),
        (on("skip-broken-bitmaps") && !on("bitmaps"), "Use of --skip-broken-bitmaps requires --bitmaps"),
        (on("target-image-opts") && !on("no-create"), "--target-image-opts requires use of -n flag"),
        (on("target-is-zero") && !on("no-create"), "--target-is-zero requires use of -n flag"),
        (on("compress") && on("copy-range-offloading"), "Cannot enable copy offloading when -c is used"),
        (on("sparse-size") && on("copy-range-offloading"), "Cannot enable copy offloading when -S is used"),
        (on("salvage") && on("copy-range-offloading"), "Cannot use copy offloading in salvaging mode"),
        (words.len() < 2 && !options_help(run), "Must specify image file name"),
    ];
    first(&checks)
}

fn create(run: &mut Run<'_>, verb: &'static Verb, words: &[Vec<u8>], read: ReadFile<'_>) -> Check {
    if words.is_empty() && !options_help(run) {
        return Err(Refusal::usage("Expecting image file name"));
    }
    late_objects(run, read)?;
    if let Some(size) = words.get(1) {
        let number = checks::numbered(run, verb, "size", size)?;
        run.give("size", None, number);
    }
    if let Some(extra) = words.get(2) {
        let complaint = Complaint::new(&[b"Unexpected argument: ", extra]);
        return Err(Refusal { usage: true, ..complaint.into() });
    }
    listed_size_of_create(run, words)
}

/// The size among the options of a format that there is.
fn listed_size_of_create(run: &Run<'_>, words: &[Vec<u8>]) -> Check {
    let profile = run.grammar();
    let values =
        |key| run.options.iter().filter(move |given| given.key == key).filter_map(|given| given.value.as_deref());
    let known = values("format").next_back().is_none_or(|name| drivers::driver(name.as_bytes(), &profile).is_some());
    for list in values("options").filter(|_| known) {
        let options = keyval::options(list.as_bytes(), None, false);
        if let (Some(size), Some(file)) = (options.get("size"), words.first()) {
            number::listed_size(size, b"size", &profile).0.map_err(|complaint| complaint.about(file))?;
        }
    }
    Ok(())
}

fn dd(run: &mut Run<'_>, verb: &'static Verb, words: &mut Vec<Vec<u8>>) -> Check {
    const OPERANDS: &[&str] = &["bs", "count", "if", "of", "skip"];
    const NATIVE: &[&str] = &["isize", "osize", "seek"];
    let more = if run.face.native { NATIVE } else { &[] };
    for word in words.drain(..) {
        let at = word.iter().position(|b| *b == b'=');
        let name = &word[..at.unwrap_or(word.len())];
        let unknown = || Refusal::from(Complaint::new(&[b"unrecognized operand ", name]));
        let operand = OPERANDS.iter().chain(more).find(|operand| operand.as_bytes() == name && at.is_some());
        let operand = operand.ok_or_else(unknown)?;
        let value = &word[name.len() + 1..];
        let number = checks::numbered(run, verb, operand, value)?;
        run.give(operand, Some(value.to_vec()), number);
    }
    // Natively, what is not named is standard input or output.
    match run.face.native || given(run, "if") && given(run, "of") {
        true => Ok(()),
        false => Err(Refusal::plain("Must specify both input and output files")),
    }
}

fn measure(run: &Run<'_>, words: &[Vec<u8>]) -> Check {
    let named = ["image-opts", "format", "snapshot"].iter().any(|key| given(run, key));
    let sized = given(run, "size");
    let checks = [
        (words.len() > 1, "At most one filename argument is allowed."),
        (words.is_empty() && named, "--image-opts, -f, and -l require a filename argument."),
        (words.is_empty() && !sized, "Either --size N or one filename must be specified."),
        (!words.is_empty() && sized, "--size N cannot be used together with a filename."),
    ];
    first(&checks)
}

fn first(checks: &[(bool, &str)]) -> Check {
    match checks.iter().find(|(wrong, _)| *wrong) {
        None => Ok(()),
        Some((_, sentence)) => Err(Refusal::plain(sentence)),
    }
}

/// The oldest dialect looks at `--output` of some verbs only now.
fn late_output(run: &Run<'_>, verb: &Verb) -> Check {
    let late = matches!(verb.name, "info" | "check" | "map");
    match value(run, "output") {
        Some(text) if late => checks::output(text, &run.grammar()),
        _ => Ok(()),
    }
}

/// The oldest versions make objects only now.
fn late_objects(run: &mut Run<'_>, read: ReadFile<'_>) -> Check {
    let profile = run.grammar();
    if profile.schema_objects() {
        return Ok(());
    }
    let texts: Vec<&Given> = run.options.iter().filter(|given| given.key == "object").collect();
    for text in texts.into_iter().filter_map(|given| given.value.as_ref()) {
        run.objects.define(text.as_encoded_bytes(), &profile, read)?;
    }
    Ok(())
}

fn bench(run: &Run<'_>) -> Check {
    let number = |key| run.options.iter().rev().find(|given| given.key == key).and_then(|given| given.number);
    let depth = number("depth").unwrap_or(64);
    let flush = number("flush-interval").unwrap_or(0);
    let checks = [
        (flush > 0 && !given(run, "write"), "--flush-interval is only available in write tests"),
        (flush > 0 && flush < depth, "Flush interval can't be smaller than depth"),
    ];
    first(&checks)
}

fn resize(run: &mut Run<'_>, words: &[Vec<u8>]) -> Check {
    let text = words.last().map_or(b"".as_slice(), Vec::as_slice);
    let amount = match text {
        [b'+' | b'-', amount @ ..] => amount,
        amount => amount,
    };
    let (size, warning) = number::listed_size(amount, b"size", &run.grammar());
    run.warn(warning);
    run.give("size", None, Some(size?));
    Ok(())
}

/// The cache modes that are looked at late: verb, option, what is said.
const CACHES: &[(&str, &str, &[u8])] = &[
    ("amend", "cache", b"Invalid cache option: "),
    ("check", "cache", b"Invalid source cache option: "),
    ("commit", "cache", b"Invalid cache option: "),
    ("compare", "cache", b"Invalid source cache option: "),
    ("convert", "source-cache", b"Invalid source cache option: "),
    ("convert", "target-cache", b"Invalid cache option: "),
    ("info", "cache", b"Invalid cache option: "),
    ("rebase", "cache", b"Invalid cache option: "),
    ("rebase", "backing-cache", b"Invalid source cache option: "),
];

fn caches(run: &Run<'_>, verb: &Verb) -> Check {
    for (_, key, sentence) in CACHES.iter().filter(|(name, ..)| *name == verb.name) {
        let Some(mode) = value(run, key) else { continue };
        if !CACHE_MODES.iter().any(|word| word.as_bytes() == mode) {
            let complaint = Complaint::new(&[sentence, mode]);
            return Err(Refusal { code: failure(verb), ..complaint.into() });
        }
    }
    Ok(())
}

fn formats(run: &Run<'_>, verb: &Verb) -> Check {
    let formats = ["format", "a-format", "b-format", "source-format"];
    let pinned = formats.iter().any(|key| given(run, key)) && verb.name != "bitmap" || given(run, "format");
    match given(run, "image-opts") && pinned {
        false => Ok(()),
        true => {
            let refusal = Refusal::plain("--image-opts and --format are mutually exclusive");
            Err(Refusal { code: failure(verb), ..refusal })
        }
    }
}

/// The code for "it did not work".
fn failure(verb: &Verb) -> u8 {
    if verb.name == "compare" { 2 } else { 1 }
}
