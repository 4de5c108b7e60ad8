//! The target of a copy: what the user wants made, and its making.

use crate::args::keyval;
use crate::args::node::{Named, describe};
use crate::args::number;
use crate::args::{Complaint, Parsed};
use crate::opening;
use crate::settings::Settings;
use crate::setup::system_words;
use crate::{Told, stderr_text};
use instar_broker::Session;
use instar_broker::publish::{Hints, Refused, Target, Wish};
use instar_wire::io::Granted;
use instar_wire::op::convert::{Preallocation, Target as Asked};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The names under which a plain file can be written.
const PLAIN: &[&[u8]] = &[b"raw", b"file", b"host_device"];
/// What can be asked of a plain file.
const OPTIONS: &[(&str, &str)] = &[
    ("extent_size_hint=<size>", "Extent size hint for the image file, 0 to disable"),
    ("nocow=<bool (on/off)>", "Turn off copy-on-write (valid only on btrfs)"),
    ("preallocation=<str>", "Preallocation mode (allowed values: off, falloc, full)"),
    ("size=<size>", "Virtual disk size"),
];

/// A target, from the word on the command line to the file that appears.
pub struct Making<'a> {
    name: Vec<u8>,
    parsed: &'a Parsed,
    settings: &'a Settings,
    promised: Granted,
    /// The file and its part, or why there can be none; told when its turn has come.
    aim: Result<Aim, Told>,
    target: Option<Target>,
}

/// What is to be written.
struct Aim {
    path: Vec<u8>,
    /// First byte of the file that is written.
    at: u64,
    /// Bytes from there on, if they are limited.
    size: Option<u64>,
    preallocation: Preallocation,
    hints: Hints,
}

impl<'a> Making<'a> {
    /// The target that the user named.
    pub fn new(name: &[u8], parsed: &'a Parsed, session: &Session, settings: &'a Settings) -> Self {
        let mut making = Making {
            name: name.to_vec(),
            parsed,
            settings,
            promised: session.promise(name),
            aim: Err(Told::default()),
            target: None,
        };
        making.aim = making.aim();
        making
    }

    /// Its name on the command line.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What the worker has to know of it.
    pub fn request(&self) -> Asked {
        Asked {
            file: self.promised.clone(),
            at: self.aim.as_ref().map_or(0, |aim| aim.at),
            exists: self.parsed.has("no-create"),
            is_zero: self.parsed.has("target-is-zero"),
            preallocation: self.aim.as_ref().map_or(Preallocation::Off, |aim| aim.preallocation.clone()),
        }
    }

    fn format(&self) -> &[u8] {
        self.parsed.bytes("target-format").unwrap_or(b"raw")
    }

    fn aim(&self) -> Result<Aim, Told> {
        let plain = Aim {
            path: self.name.clone(),
            at: 0,
            size: None,
            preallocation: Preallocation::Off,
            hints: Hints::default(),
        };
        if self.parsed.has("target-image-opts") {
            return self.described(plain);
        }
        self.check_format()?;
        if self.parsed.has("compress") {
            return Err(self.say(b"Compression not supported for this file format"));
        }
        if self.parsed.has("backing") {
            return Err(self.say(&[b"Backing file not supported for file format '", self.format(), b"'"].concat()));
        }
        self.options(plain)
    }

    /// Refuses a format that cannot be written.
    fn check_format(&self) -> Result<(), Told> {
        let format = self.format();
        if PLAIN.contains(&format) {
            return Ok(());
        }
        let known = crate::args::node::drivers::driver(format, &self.settings.profile).is_some();
        let sentence = match known {
            true => [b"Format driver '", format, b"' does not support image creation"].concat(),
            false => [b"Unknown file format '", format, b"'"].concat(),
        };
        Err(self.say(&sentence))
    }

    /// An existing image that is described by options.
    fn described(&self, aim: Aim) -> Result<Aim, Told> {
        let named = Named { image_opts: true, ..Named::plain(&self.name) };
        let refuse = |complaint: Complaint| opening::complain(&complaint, self.settings);
        let node = describe(&named, &self.settings.profile).map_err(refuse)?.node;
        let (path, part) = opening::plain_file(&node).ok_or_else(|| {
            self.say(&[b"Could not open '", &self.name[..], b"': only raw images can be written in place"].concat())
        })?;
        Ok(Aim { path, at: part.offset.unwrap_or(0), size: part.size, ..aim })
    }

    /// What `-o` asks for.
    fn options(&self, mut aim: Aim) -> Result<Aim, Told> {
        for list in self.parsed.values("options") {
            let entries = keyval::options(list.as_bytes(), None, false).entries;
            for (key, value) in entries {
                match &key[..] {
                    b"size" => {}
                    b"preallocation" => aim.preallocation = self.preallocation(&value)?,
                    b"nocow" => aim.hints.no_copy_on_write = self.flag(&key, &value)?,
                    b"extent_size_hint" => aim.hints.extent = Some(self.size(&key, &value)?),
                    _ => return Err(self.say(&[b"Invalid parameter '", &key[..], b"'"].concat())),
                }
            }
        }
        Ok(aim)
    }

    fn preallocation(&self, word: &[u8]) -> Result<Preallocation, Told> {
        match word {
            b"off" => Ok(Preallocation::Off),
            b"falloc" => Ok(Preallocation::Falloc),
            b"full" => Ok(Preallocation::Full),
            b"metadata" => Err(self.not_made(b"Unsupported preallocation mode: metadata")),
            word => Err(self.not_made(&[b"invalid parameter value: ", word].concat())),
        }
    }

    fn flag(&self, key: &[u8], value: &[u8]) -> Result<bool, Told> {
        match value {
            b"on" | b"yes" | b"true" | b"y" => Ok(true),
            b"off" | b"no" | b"false" | b"n" => Ok(false),
            _ => Err(self.say(&[b"Parameter '", key, b"' expects 'on' or 'off'"].concat())),
        }
    }

    fn size(&self, key: &[u8], value: &[u8]) -> Result<u64, Told> {
        let read = number::listed_size(value, key, &self.settings.profile).0;
        read.map_err(|complaint| opening::complain(&complaint, self.settings))
    }

    fn say(&self, sentence: &[u8]) -> Told {
        let shown = stderr_text(self.settings).show(sentence).into_owned();
        Told::failure(self.settings, &shown)
    }

    /// The sentence for a target that could not be made.
    fn not_made(&self, words: &[u8]) -> Told {
        let text = stderr_text(self.settings);
        let about =
            [&text.show(&self.name)[..], b": error while converting ", &text.show(self.format()), b": "].concat();
        Told::failure(self.settings, &[&about[..], words].concat())
    }

    fn not_opened(&self, words: &[u8]) -> Told {
        let name = stderr_text(self.settings).show(&self.name).into_owned();
        Told::failure(self.settings, &[b"Could not open '", &name[..], b"': ", words].concat())
    }

    /// Makes it, or opens it, now that it is known how large it has to be.
    pub fn make(&mut self, session: &Session, total: u64) -> Result<(), Told> {
        let aim = std::mem::replace(&mut self.aim, Err(Told::default()))?;
        let mode = self.parsed.bytes("target-cache");
        let wish = Wish {
            locking: session.is_locking(),
            direct: matches!(mode, Some(b"none" | b"off" | b"directsync")),
            sync: matches!(mode, Some(b"writethrough" | b"directsync")),
            hints: aim.hints,
            is_source: &|identity| session.has_open(identity),
        };
        let path = Path::new(OsStr::from_bytes(&aim.path));
        let exists = self.parsed.has("no-create");
        let target = if exists { Target::open(path, &wish) } else { Target::create(path, &wish) };
        let target = target.map_err(|refused| self.refusal(&refused, exists))?;
        if exists {
            let have = target.len().saturating_sub(aim.at).min(aim.size.unwrap_or(u64::MAX));
            if have.next_multiple_of(512) < total {
                return Err(self.say(b"output file is smaller than input file"));
            }
        }
        session.fulfil(self.promised.id, target.file());
        self.target = Some(target);
        Ok(())
    }

    fn refusal(&self, refused: &Refused, exists: bool) -> Told {
        let name = stderr_text(self.settings).show(&self.name).into_owned();
        let act: &[u8] = if exists { b"open" } else { b"create" };
        let words = match refused {
            Refused::System(errno) => {
                [b"Could not ", act, b" '", &name, b"': ", system_words(*errno).as_bytes()].concat()
            }
            Refused::InUse(conflict) => {
                let why = conflict.to_string();
                [why.as_bytes(), b"\nIs another process using the image [", &name, b"]?"].concat()
            }
            Refused::Source => {
                let why = b"Failed to get \"write\" lock\nIs another process using the image [";
                [&why[..], &name, b"]?"].concat()
            }
        };
        if exists { self.not_opened(&words) } else { self.not_made(&words) }
    }

    /// Lets it appear.
    pub fn publish(&mut self) -> Result<(), Told> {
        // Unless asked otherwise, nothing waits for a disk: so it is with qemu-img.
        let durable = !matches!(self.parsed.bytes("target-cache"), None | Some(b"unsafe"));
        let published = self.target.take().map_or(Ok(()), |target| target.publish(durable));
        published.map_err(|errno| self.not_made(system_words(errno).as_bytes()))
    }
}

/// The list of what can be asked of a plain file.
pub fn options_help() -> Vec<u8> {
    let lines = OPTIONS.iter().map(|(key, about)| format!("  {key:<22} - {about}\n"));
    ["Supported options:\n".to_owned()].into_iter().chain(lines).collect::<String>().into_bytes()
}
