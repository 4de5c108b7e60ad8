//! What it takes to make an image, for all verbs that do.

use crate::Told;
use crate::args::creation::{Entry, Schema};
use crate::args::node::{Named, describe};
use crate::args::{Complaint, Parsed};
use crate::opening::{self, Plain};
use crate::settings::{Face, Settings};
use crate::setup::system_words;
use crate::stderr_text;
use instar_broker::publish::{Hints, Refused, Wish};
use instar_wire::code::{Secret, encode};
use instar_wire::fact::Fact;
use instar_wire::io::Granted;
use instar_wire::op::{New, Part, Recipe, Source};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// The names under which a plain file can be written.
pub const PLAIN: &[&[u8]] = &[b"raw", b"file", b"host_device", b"host_cdrom"];
/// What is told to the file system, or is known otherwise, and is nothing to the format.
const NOT_THE_FORMATS: &[&[u8]] = &[b"size", b"nocow", b"extent_size_hint"];
/// The options of the native face that stand for options of a format: their keys, and whether they take a value.
const SHORT: &[(&str, &str, bool)] = &[
    ("cluster-size", "cluster_size", true),
    ("refcount-bits", "refcount_bits", true),
    ("extended-l2", "extended_l2", false),
    ("lazy-refcounts", "lazy_refcounts", false),
    ("compat", "compat", true),
    ("subformat", "subformat", true),
    ("grain-size", "grain_size", true),
    ("block-size", "block_size", true),
    ("preallocation", "preallocation", true),
];
/// When this is set, the same command is to make the same bytes.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What was asked for beside the format, as it was written. What stands in lists wins.
pub fn entries(parsed: &Parsed) -> Vec<Entry> {
    let short = SHORT.iter().filter(|(key, ..)| parsed.has(key)).map(|(key, option, takes)| {
        let value = if *takes { parsed.bytes(key).unwrap_or_default() } else { b"on" };
        (option.as_bytes().to_vec(), value.to_vec())
    });
    let lists = parsed.values("options").map(|list| list.as_bytes());
    short.chain(Schema::entries(lists)).collect()
}

/// What was asked for of the image below, as options of a format.
pub fn below(parsed: &Parsed, schema: Option<&Schema>, format: &[u8]) -> Result<Vec<Entry>, Complaint> {
    let words = [("backing", "backing_file", "Backing file"), ("backing-format", "backing_fmt", "Backing file format")];
    let mut entries = Vec::new();
    for (key, option, what) in words {
        let Some(value) = parsed.bytes(key) else { continue };
        if !schema.is_some_and(|schema| schema.has(option)) {
            return Err(Complaint::new(&[what.as_bytes(), b" not supported for file format '", format, b"'"]));
        }
        entries.push((option.as_bytes().to_vec(), value.to_vec()));
    }
    Ok(entries)
}

/// The file that a word names in which an image is to be made; none if what it names does not make files.
pub fn place(name: &[u8], settings: &Settings) -> Result<Option<Plain>, Complaint> {
    if name.is_empty() {
        return Ok(Some(Plain { path: Vec::new(), part: Part::default(), is_device: false }));
    }
    if name.starts_with(b"json:") {
        return Err(Complaint::new(&[b"Unknown protocol 'json'"]));
    }
    let named = Named { format: Some(b"raw"), ..Named::plain(name) };
    let described = describe(&named, &settings.profile).map_err(|complaint| {
        // Nothing is opened: what is wrong is wrong with the name.
        let opening = Complaint::new(&[b""]).not_opened(name).sentence;
        let sentence = complaint.sentence.strip_prefix(&opening[..]).map(<[u8]>::to_vec);
        Complaint { sentence: sentence.unwrap_or(complaint.sentence.clone()), ..complaint }
    })?;
    Ok(opening::plain_file(&described.node))
}

/// What the file system is to be told about the file.
pub fn hints(recipe: &Recipe) -> Hints {
    Hints { no_copy_on_write: recipe.is_on("nocow"), extent: recipe.number("extent_size_hint") }
}

/// The secret that the image is to be kept under.
pub fn secret_name(recipe: &Recipe) -> Option<&[u8]> {
    recipe.text("encrypt.key-secret").or_else(|| recipe.text("key-secret"))
}

/// The path of a file that is named from where another one is, as qemu-img finds it: what names a protocol is named from
/// where the user is.
pub fn beside(path: &[u8], name: &[u8]) -> Vec<u8> {
    if instar_broker::policy::has_protocol(name) {
        return name.to_vec();
    }
    let folder = Path::new(OsStr::from_bytes(path)).parent().unwrap_or(Path::new(""));
    folder.join(OsStr::from_bytes(name)).as_os_str().as_bytes().to_vec()
}

/// Where the second file of a new image at `path` is made, if there is one. To qemu-img its name starts from where the
/// user is.
pub fn data_file(recipe: &Recipe, path: &[u8], settings: &Settings) -> Option<Vec<u8>> {
    let name = recipe.text("data_file").filter(|name| !name.is_empty() && recipe.format.0 == b"qcow2")?;
    let is_native = settings.face == Face::Native && !settings.unsafe_quirks;
    Some(if is_native { beside(path, name) } else { name.to_vec() })
}

/// The files of a new image.
pub struct Files {
    /// The one that it is opened by.
    pub own: Granted,
    /// A second one that the user named.
    pub beside: Option<Granted>,
    /// What it stands on, if that is looked at.
    pub backing: Option<Source>,
}

/// What a worker has to know of a new image that will be at `path`.
pub fn new(recipe: &Recipe, files: Files, path: &[u8], parsed: &Parsed, settings: &Settings) -> Result<New, Told> {
    let format = if PLAIN.contains(&&recipe.format.0[..]) { "raw".into() } else { recipe.format.clone() };
    let mut options = recipe.options.clone();
    if let Fact::Fields(fields) = &mut options {
        fields.retain(|field| !NOT_THE_FORMATS.contains(&&field.name.0[..]));
    }
    let recipe = Recipe { format, size: recipe.size, options };
    let secret = secret_name(&recipe).and_then(|id| parsed.objects.secret(id));
    let key = secret.map(|secret| Secret(secret.bytes.expose().to_vec()));
    let seed = seed(&recipe, key.is_some(), parsed, settings)?;
    let name = Path::new(OsStr::from_bytes(path)).file_name().unwrap_or_default().as_bytes().into();
    let Files { own, beside, backing } = files;
    let time = time(parsed, settings);
    Ok(New { recipe, file: own, beside, backing, key, name, seed, time })
}

/// The day that the surroundings want everything to be of, if they do.
fn epoch(settings: &Settings) -> Option<OsString> {
    std::env::var_os(EPOCH).filter(|_| settings.face == Face::Native)
}

/// When an image is made: seconds since 1970.
fn time(parsed: &Parsed, settings: &Settings) -> u64 {
    let wanted = epoch(settings).and_then(|text| text.to_str()?.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    wanted.unwrap_or_else(|| if parsed.has("reproducible") { 0 } else { now() })
}

/// What identifiers and keys are drawn from.
fn seed(recipe: &Recipe, is_sealed: bool, parsed: &Parsed, settings: &Settings) -> Result<Secret, Told> {
    let asked = parsed.has("reproducible");
    if asked && is_sealed {
        let sentence = b"--reproducible is not for encrypted images: whoever knows the command would know their keys";
        return Err(Told::failure(settings, sentence));
    }
    let epoch = epoch(settings);
    if (asked || epoch.is_some()) && !is_sealed {
        let epoch = epoch.unwrap_or_default();
        return Ok(Secret([&encode(recipe)[..], epoch.as_bytes()].concat()));
    }
    entropy(settings)
}

/// What nobody can foretell.
pub fn entropy(settings: &Settings) -> Result<Secret, Told> {
    let mut bytes = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Told::failure(settings, format!("no random bytes can be had: {error}").as_bytes()))?;
    Ok(Secret(bytes.to_vec()))
}

/// How files are made; nothing of it is known to be read.
pub fn wish(hints: Hints, locking: bool) -> Wish<'static> {
    Wish { locking, direct: false, sync: false, hints, is_source: &|_| false }
}

/// Why a file could not be made, or opened if `opens`, in qemu-img's words.
pub fn refusal(refused: &Refused, path: &[u8], opens: bool, settings: &Settings) -> Vec<u8> {
    let name = stderr_text(settings).show(path).into_owned();
    let act: &[u8] = if opens { b"open" } else { b"create" };
    let used = b"\nIs another process using the image [";
    match refused {
        Refused::System(errno) => [b"Could not ", act, b" '", &name, b"': ", system_words(*errno).as_bytes()].concat(),
        Refused::InUse(conflict) => [conflict.to_string().as_bytes(), used, &name, b"]?"].concat(),
        Refused::Source => [&b"Failed to get \"write\" lock"[..], used, &name, b"]?"].concat(),
    }
}

/// A device that is to be written to is not there, for these reasons.
pub fn no_device(words: &[u8], settings: &Settings) -> Vec<u8> {
    let before: &[u8] = match settings.profile.device_words() {
        true => {
            b"Protocol driver 'host_device' does not support creating new images, so an existing image must be selected \
              as the target; however, opening the given target as an existing image failed: "
        }
        false => b"Protocol driver 'host_device' does not support image creation, and opening the image failed: ",
    };
    [before, words].concat()
}
