//! From the words of a command line to a verb with its options, or to a stop.
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::checks;
use super::getopt::{Fault, Item, Scan, Spelling, Words};
use super::help;
use super::node::Named;
use super::object::{Objects, ReadFile};
use super::stop::{Complaint, Note, Stop, say};
use super::table::{self, Verb};
use super::trace;
use super::words;
use crate::profile::{Family, Profile, Version};

/// Who is speaking: qemu-img or instar.
#[derive(Clone, Copy, Debug)]
pub struct Face<'a> {
    /// The name before ordinary sentences: `qemu-img` or `instar`.
    pub prefix: &'a str,
    /// The program's name as it was called; newer dialects repeat it in usage errors.
    pub argv0: &'a OsStr,
    /// Whether this is the native face: our own options, the new dialect, exit code 2.
    pub native: bool,
    /// The verbs that exist, for the help and, natively, for everything.
    pub verbs: &'a [&'a str],
    /// The names of the formats, separated by blanks, for the help.
    pub formats: &'a str,
    /// The answer to `--version`, with line ends.
    pub version: &'a str,
}

/// An option as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its name: see the tables.
    pub key: &'static str,
    /// Its value.
    pub value: Option<OsString>,
    /// Its value as a number, if it is one.
    pub number: Option<u64>,
}

/// A command line that can be run.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The verb.
    pub verb: &'static Verb,
    /// The version to emulate, `--qemu-version` taken into account.
    pub profile: Profile,
    /// The options before and after the verb, in order; `dd`'s operands count as options.
    pub options: Vec<Given>,
    /// The words that are no options.
    pub words: Vec<OsString>,
    /// What `--object` defined.
    pub objects: Objects,
    /// Lines to print on standard error before anything else, without line ends.
    pub warnings: Vec<Vec<u8>>,
}

impl Parsed {
    /// Whether the option was given.
    pub fn has(&self, key: &str) -> bool {
        self.options.iter().any(|given| given.key == key)
    }

    /// The last value of the option.
    pub fn value(&self, key: &str) -> Option<&OsStr> {
        self.values(key).last()
    }

    /// All values of the option, in order.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &OsStr> {
        let given = self.options.iter().filter(move |given| given.key == key);
        given.filter_map(|given| given.value.as_deref())
    }

    /// Whether `-o` asks for the list of options.
    pub fn asks_for_options(&self) -> bool {
        words::asks_for_options(&self.options)
    }

    /// The image that the word at `at` names, with the format given by the option `format`.
    pub fn named(&self, at: usize, format: &str) -> Named<'_> {
        Named {
            name: self.words.get(at).map_or(b"", |word| word.as_bytes()),
            image_opts: self.has("image-opts"),
            format: self.bytes(format),
            force_share: self.has("force-share"),
        }
    }

    /// The last value of the option as a number; also `size` of create and resize.
    pub fn number(&self, key: &str) -> Option<u64> {
        let mut given = self.options.iter().rev().filter(|given| given.key == key);
        given.find_map(|given| given.number)
    }

    /// The last value of the option as bytes.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.value(key).map(OsStrExt::as_bytes)
    }
}

/// Why a command line cannot be run.
pub(super) struct Refusal {
    pub complaint: Complaint,
    /// Whether the line that points to the help follows.
    pub usage: bool,
    pub code: u8,
}

impl Refusal {
    /// A refusal that points to the help.
    pub fn usage(sentence: &str) -> Refusal {
        Refusal { complaint: Complaint::new(&[sentence.as_bytes()]), usage: true, code: 1 }
    }

    /// A refusal that does not.
    pub fn plain(sentence: &str) -> Refusal {
        Refusal::from(Complaint::new(&[sentence.as_bytes()]))
    }
}

impl From<Complaint> for Refusal {
    fn from(complaint: Complaint) -> Refusal {
        Refusal { complaint, usage: false, code: 1 }
    }
}

/// Reads a command line (without the program's name) as the version in `profile` would.
///
/// `read` fetches the files that `--object` names.
pub fn parse(argv: &[OsString], face: &Face<'_>, profile: Profile, read: ReadFile<'_>) -> Result<Parsed, Stop> {
    let argv: Vec<Vec<u8>> = [face.argv0]
        .into_iter()
        .chain(argv.iter().map(OsString::as_os_str))
        .map(|word| word.as_bytes().to_vec())
        .collect();
    let mut run = Run { face, profile, objects: Objects::default(), options: Vec::new(), warnings: Vec::new() };
    let (verb, at) = run.before_verb(&argv)?;
    run.verb(verb, &argv[at..], read)
}

/// The state of reading a command line.
pub(super) struct Run<'a> {
    pub face: &'a Face<'a>,
    pub profile: Profile,
    pub objects: Objects,
    pub options: Vec<Given>,
    pub warnings: Vec<Vec<u8>>,
}

impl Run<'_> {
    /// The version whose grammar counts: in the native face always the newest.
    pub fn grammar(&self) -> Profile {
        let newest = Version::new(11, 1, 0);
        match self.face.native {
            true => Profile { version: self.profile.version.max(newest), ..self.profile },
            false => self.profile,
        }
    }

    fn family(&self) -> Family {
        self.grammar().family()
    }

    /// Reads the options before the verb and finds the verb and its place.
    fn before_verb(&mut self, argv: &[Vec<u8>]) -> Result<(&'static Verb, usize), Stop> {
        let not_enough = Refusal::usage("Not enough arguments");
        if argv.len() < 2 {
            return Err(self.stop(not_enough, None));
        }
        let spellings = table::global_spellings(&self.grammar(), self.face.native);
        let mut scan = Scan::new(argv, &spellings, Words::Stop);
        while let Some(step) = scan.step() {
            let item = step.map_err(|fault| self.fault(fault, None))?;
            if let Item::Option(key, value) = item {
                self.global(key, value, None)?;
            }
        }
        let Some(name) = scan.rest().first() else {
            if self.family() != Family::Old {
                return Err(self.stop(not_enough, None));
            }
            return Err(Stop { stderr: std::mem::take(&mut self.warnings), ..Stop::default() });
        };
        let at = argv.len() - scan.rest().len();
        let exists = |verb: &&Verb| !self.face.native || self.face.verbs.contains(&verb.name);
        match table::verb(name, self.face.native).filter(exists) {
            Some(verb) => Ok((verb, at)),
            None => {
                let complaint = Complaint::new(&[b"Command not found: ", name]);
                Err(self.stop(Refusal { complaint, usage: true, code: 1 }, None))
            }
        }
    }

    /// An option that may stand before the verb; `verb` is set if it stands behind.
    fn global(&mut self, key: &'static str, value: Option<Vec<u8>>, verb: Option<&'static Verb>) -> Result<(), Stop> {
        let text = value.as_deref().unwrap_or_default();
        match key {
            "help" => return Err(self.help(verb)),
            "version" => return Err(Stop::text(self.face.version)),
            "trace" => match trace::warnings(text) {
                Some(warnings) => self.warn(warnings),
                None => return Err(Stop::default()),
            },
            "qemu-version" => {
                let shown = String::from_utf8_lossy(text).into_owned();
                let bad = |error: crate::profile::BadVersion| Refusal::plain(&error.to_string());
                self.profile = Profile::parse(&shown).map_err(|error| self.stop(bad(error), verb))?;
            }
            _ => {}
        }
        self.give(key, value, None);
        Ok(())
    }

    pub fn give(&mut self, key: &'static str, value: Option<Vec<u8>>, number: Option<u64>) {
        self.options.push(Given { key, value: value.map(OsString::from_vec), number });
    }

    pub fn warn(&mut self, notes: impl IntoIterator<Item = Note>) {
        self.warnings.extend(notes.into_iter().map(|note| note.line(self.face.prefix)));
    }

    fn verb(mut self, verb: &'static Verb, argv: &[Vec<u8>], read: ReadFile<'_>) -> Result<Parsed, Stop> {
        let spellings = verb.spellings(&self.grammar(), self.face.native);
        let mut words = match (verb.name, self.family()) {
            ("resize", Family::Old) => self.old_resize(verb, argv, &spellings, read)?,
            ("resize", _) => self.new_resize(verb, argv, &spellings, read)?,
            _ => self.options_and_words(verb, argv, &spellings, read)?,
        };
        let result = words::check(&mut self, verb, &mut words, read);
        let warnings = std::mem::take(&mut self.warnings);
        if let Err(refusal) = result {
            self.warnings = warnings;
            return Err(self.stop(refusal, Some(verb)));
        }
        Ok(Parsed {
            verb,
            profile: self.profile,
            options: self.options,
            words: words.into_iter().map(OsString::from_vec).collect(),
            objects: self.objects,
            warnings,
        })
    }

    fn options_and_words(
        &mut self,
        verb: &'static Verb,
        argv: &[Vec<u8>],
        spellings: &[Spelling],
        read: ReadFile<'_>,
    ) -> Result<Vec<Vec<u8>>, Stop> {
        let mut words = Vec::new();
        let mut scan = Scan::new(argv, spellings, Words::Yield);
        while let Some(step) = scan.step() {
            match step.map_err(|fault| self.fault(fault, Some(verb)))? {
                Item::Word(word) => words.push(word),
                Item::Option(key, value) => self.option(verb, key, value, read)?,
            }
        }
        Ok(words)
    }

    /// The oldest resize takes its size from the end before it looks at anything else.
    fn old_resize(
        &mut self,
        verb: &'static Verb,
        argv: &[Vec<u8>],
        spellings: &[Spelling],
        read: ReadFile<'_>,
    ) -> Result<Vec<Vec<u8>>, Stop> {
        let Some((size, argv)) = argv.split_last().filter(|(_, argv)| argv.len() >= 2) else {
            return Err(self.stop(Refusal::usage("Not enough arguments"), Some(verb)));
        };
        let mut words = self.options_and_words(verb, argv, spellings, read)?;
        if words.len() != 1 {
            return Err(self.stop(Refusal::usage("Expecting image file name and size"), Some(verb)));
        }
        words.push(size.clone());
        Ok(words)
    }

    /// The newer resize takes a word like `-1M` right behind the file's name as the size.
    fn new_resize(
        &mut self,
        verb: &'static Verb,
        argv: &[Vec<u8>],
        spellings: &[Spelling],
        read: ReadFile<'_>,
    ) -> Result<Vec<Vec<u8>>, Stop> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut scan = Scan::new(argv, spellings, Words::Yield);
        while let Some(step) = scan.step() {
            match step.map_err(|fault| self.fault(fault, Some(verb)))? {
                Item::Option(key, value) => self.option(verb, key, value, read)?,
                Item::Word(word) if !scan.options_ended() && words.len() == 2 => {
                    drop(word);
                    return Err(self.stop(Refusal::usage("Extra argument(s) in command line"), Some(verb)));
                }
                Item::Word(word) => {
                    words.push(word);
                    let negative = matches!(scan.rest().first().map(Vec::as_slice), Some([b'-', b'0'..=b'9', ..]));
                    if words.len() == 1 && negative {
                        words.extend(scan.take_word());
                    }
                }
            }
        }
        match words.len() {
            2 => Ok(words),
            _ => Err(self.stop(Refusal::usage("Expecting image file name and size"), Some(verb))),
        }
    }

    fn option(
        &mut self,
        verb: &'static Verb,
        key: &'static str,
        value: Option<Vec<u8>>,
        read: ReadFile<'_>,
    ) -> Result<(), Stop> {
        if matches!(key, "help" | "qemu-version") {
            return self.global(key, value, Some(verb));
        }
        let text = value.clone().unwrap_or_default();
        match checks::option(self, verb, key, &text, read) {
            Ok(checks::Verdict::Fine(number)) => {
                self.give(key, value, number);
                Ok(())
            }
            Ok(checks::Verdict::Help(text)) => Err(Stop::text(text)),
            Err(refusal) => Err(self.stop(refusal, Some(verb))),
        }
    }

    /// The stop for a refusal, with what was already to be said.
    fn stop(&mut self, refusal: Refusal, verb: Option<&'static Verb>) -> Stop {
        let mut stderr = std::mem::take(&mut self.warnings);
        stderr.extend(refusal.complaint.lines(self.face.prefix));
        if refusal.usage {
            stderr.push(self.try_help(verb));
        }
        let code = if self.face.native { 2 } else { refusal.code };
        Stop { stdout: Vec::new(), stderr, code }
    }

    /// The program's name in the lines that the newer dialects leave to getopt.
    fn called(&self) -> &[u8] {
        if self.face.native { self.face.prefix.as_bytes() } else { self.face.argv0.as_bytes() }
    }

    fn try_help(&self, verb: Option<&'static Verb>) -> Vec<u8> {
        let (name, info): (&[u8], &[u8]) = match self.family() {
            Family::Old => return say(&[b"Try '", self.face.prefix.as_bytes(), b" --help' for more information"]),
            Family::Interim => (self.called(), b"info"),
            Family::New => (self.called(), b"information"),
        };
        let verb = verb.map(|verb| format!(" {}", verb.name)).unwrap_or_default();
        say(&[b"Try '", name, verb.as_bytes(), b" --help' for more ", info])
    }

    fn help(&self, verb: Option<&'static Verb>) -> Stop {
        let verb = verb.filter(|_| self.family() != Family::Old);
        Stop::text(help::text(self.face, &self.grammar(), verb))
    }

    /// The stop for an option that could not be read.
    fn fault(&mut self, fault: Fault, verb: Option<&'static Verb>) -> Stop {
        let measure = verb.is_some_and(|verb| verb.name == "measure");
        match self.family() {
            Family::Old if measure => {
                let line = say(&[b"measure: ", &getopt_words(&fault)]);
                Stop { stderr: vec![line], ..self.help(None) }
            }
            Family::Old => {
                let complaint = old_words(&fault);
                self.stop(Refusal { complaint, usage: true, code: 1 }, verb)
            }
            _ => {
                let named = verb.filter(|_| !self.face.native);
                let verb_name = named.map(|verb| format!(" {}", verb.name)).unwrap_or_default();
                let line = say(&[self.called(), verb_name.as_bytes(), b": ", &getopt_words(&fault)]);
                let mut stderr = std::mem::take(&mut self.warnings);
                stderr.extend([line, self.try_help(verb)]);
                Stop { stdout: Vec::new(), stderr, code: if self.face.native { 2 } else { 1 } }
            }
        }
    }
}

/// The C library's words for a fault.
fn getopt_words(fault: &Fault) -> Vec<u8> {
    match fault {
        Fault::UnknownShort(letter, _) => say(&[b"invalid option -- '", &[*letter], b"'"]),
        Fault::UnknownLong(typed) => say(&[b"unrecognized option '", typed, b"'"]),
        Fault::Needless(name, _) => say(&[b"option '--", name.as_bytes(), b"' doesn't allow an argument"]),
        Fault::MissingShort(letter, _) => say(&[b"option requires an argument -- '", &[*letter], b"'"]),
        Fault::MissingLong(name, _) => say(&[b"option '--", name.as_bytes(), b"' requires an argument"]),
        Fault::Ambiguous(typed, names) => {
            let names: String = names.iter().map(|name| format!(" '--{name}'")).collect();
            say(&[b"option '", typed, b"' is ambiguous; possibilities:", names.as_bytes()])
        }
    }
}

/// The oldest dialect's words for a fault.
fn old_words(fault: &Fault) -> Complaint {
    let (what, typed): (&[u8], &[u8]) = match fault {
        Fault::UnknownShort(_, shown) => (b"unrecognized option", shown),
        Fault::UnknownLong(typed) | Fault::Ambiguous(typed, _) | Fault::Needless(_, typed) => {
            (b"unrecognized option", typed)
        }
        Fault::MissingShort(_, typed) | Fault::MissingLong(_, typed) => (b"missing argument for option", typed),
    };
    Complaint::new(&[what, b" '", typed, b"'"])
}
