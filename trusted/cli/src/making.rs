//! The target of a copy: what the user wants made, and its making.

mod files;

use crate::args::creation::{Ground, Schema};
use crate::args::node::{Named, describe, drivers};
use crate::args::number;
use crate::args::{Complaint, Parsed};
use crate::asking::{Asking, Heard};
use crate::opening::{self, Plain};
use crate::recipe::{self, Files, PLAIN};
use crate::settings::Settings;
use crate::setup::system_words;
use crate::{Told, stderr_text};
use instar_broker::publish::{FileType, Hints, Refused, Target, Wish};
use instar_broker::{Session, Spares};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::{Fact, Field};
use instar_wire::io::{FileId, Granted};
use instar_wire::op::convert::{Goal, Stream, Target as Asked};
use instar_wire::op::{New, Recipe, Source};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The formats that can be compressed.
const PACKED: &[&[u8]] = &[b"qcow2", b"qcow", b"vmdk"];
/// Lengths of images are multiples of this.
const SECTOR: u64 = 512;

/// A target as the command line names it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The word, or what stands for it.
    pub name: Vec<u8>,
    /// It is standard output.
    pub is_stream: bool,
    /// Bytes of it that are passed over.
    pub seek: u64,
    /// How long it shall be, if that is said.
    pub len: Option<u64>,
}

/// A target, from the word on the command line to the file that appears.
pub struct Making<'a> {
    wanted: Wanted,
    parsed: &'a Parsed,
    settings: &'a Settings,
    promised: Granted,
    /// The file and its part, or why there can be none; told when its turn has come.
    aim: Result<Aim, Told>,
    target: Option<Target>,
    /// Further files that appear with it.
    beside: Vec<Target>,
    /// Where a stream was when it was found, and the bytes it gets.
    base: u64,
    total: u64,
}

/// What is to be written.
struct Aim {
    path: Vec<u8>,
    /// First byte of the file that is written.
    at: u64,
    /// Bytes from there on, if they are limited.
    size: Option<u64>,
    /// It has to be a device.
    is_device: bool,
    /// The image that is there, or the one that is made.
    image: Image,
    /// A second file: where it will stand, its number, and whether what is there stays.
    beside: Option<(Vec<u8>, FileId, bool)>,
    hints: Hints,
    /// Which space that the image gives back goes back to the file system.
    spares: Spares,
}

/// The image that is written to.
enum Image {
    /// A file that takes whatever comes.
    Stream,
    /// One that is there.
    There(Box<Source>),
    /// A new one.
    New(Box<New>),
}

impl Aim {
    fn at(path: &[u8]) -> Aim {
        Aim {
            path: path.to_vec(),
            at: 0,
            size: None,
            is_device: false,
            image: Image::Stream,
            beside: None,
            hints: Hints::default(),
            spares: Spares::default(),
        }
    }

    fn recipe(&self) -> Option<&Recipe> {
        match &self.image {
            Image::New(new) => Some(&new.recipe),
            _ => None,
        }
    }

    /// Whether its file is the disk and nothing else.
    fn is_raw(&self) -> bool {
        match &self.image {
            Image::Stream => true,
            Image::There(source) => source.file.pinned == Some("raw".into()),
            Image::New(new) => new.recipe.format.0 == b"raw",
        }
    }
}

/// Whether a device stands there.
pub fn is_device(path: &[u8]) -> bool {
    let kind = std::fs::metadata(OsStr::from_bytes(path)).map(|about| about.file_type());
    kind.is_ok_and(|kind| kind.is_block_device() || kind.is_char_device())
}

impl<'a> Making<'a> {
    /// The target that the user named.
    pub fn new(wanted: Wanted, parsed: &'a Parsed, session: &mut Session, settings: &'a Settings) -> Self {
        let promised = session.promise(&wanted.name);
        let aim = Err(Told::default());
        let mut making =
            Making { wanted, parsed, settings, promised, aim, target: None, beside: Vec::new(), base: 0, total: 0 };
        making.aim = making.aim(session);
        if let Ok(aim) = &making.aim {
            session.place(making.promised.id, Path::new(OsStr::from_bytes(&aim.path)));
        }
        making
    }

    /// Its name on the command line.
    pub fn name(&self) -> &[u8] {
        &self.wanted.name
    }

    /// Whether bytes have to come one after the other.
    pub fn is_stream(&self) -> bool {
        self.wanted.is_stream
    }

    /// What the worker has to know of it.
    pub fn request(&self) -> Asked {
        let aim = self.aim.as_ref().ok();
        let standing = aim.is_some_and(|aim| {
            let path = Path::new(OsStr::from_bytes(&aim.path));
            std::fs::metadata(path).is_ok_and(|about| !about.is_file())
        });
        Asked {
            goal: self.goal(aim),
            at: self.wanted.seek,
            len: self.wanted.len.map(|len| len.saturating_add(SECTOR - 1) / SECTOR * SECTOR),
            // What is on a device stays there until it is written over.
            is_zero: self.parsed.has("target-is-zero") || !(self.exists() || self.wanted.is_stream || standing),
            is_clean: !standing,
            compress: self.parsed.has("compress"),
        }
    }

    fn goal(&self, aim: Option<&Aim>) -> Goal {
        let at = aim.map_or(0, |aim| aim.at);
        match aim.map(|aim| &aim.image) {
            None | Some(Image::Stream) => Goal::Stream(Stream { file: self.promised.clone(), at }),
            Some(Image::There(source)) => Goal::There(source.clone()),
            Some(Image::New(new)) => Goal::New(new.clone()),
        }
    }

    /// Whether it is there already.
    fn exists(&self) -> bool {
        self.parsed.has("no-create")
    }

    fn is_dd(&self) -> bool {
        self.parsed.verb.name == "dd"
    }

    /// Its format.
    pub fn format(&self) -> &[u8] {
        self.parsed.bytes("target-format").unwrap_or(b"raw")
    }

    fn aim(&mut self, session: &mut Session) -> Result<Aim, Told> {
        if self.wanted.is_stream {
            self.check_format()?;
            let (target, at) = Target::stream().map_err(|errno| self.not_made(system_words(errno).as_bytes()))?;
            session.fulfil(self.promised.id, &target);
            (self.target, self.base) = (Some(target), at);
            return Ok(Aim { at, ..Aim::at(b"") });
        }
        if self.exists() {
            return self.existing();
        }
        self.check_format()?;
        if !PLAIN.contains(&self.format()) {
            return self.image(session);
        }
        if self.parsed.has("compress") {
            return Err(self.say(b"Compression not supported for this file format"));
        }
        let below = recipe::below(self.parsed, None, self.format());
        below.map_err(|complaint| opening::complain(&complaint, self.settings))?;
        let aim = self.named()?;
        let on_device = is_device(&aim.path);
        let aim = Aim { is_device: aim.is_device || self.format() == b"host_device", ..aim };
        let recipe = Recipe { format: "raw".into(), size: 0, options: Fact::Fields(self.options(on_device)?) };
        self.new_image(&recipe, aim, session)
    }

    /// Refuses a format that cannot be written.
    fn check_format(&self) -> Result<(), Told> {
        let format = self.format();
        if PLAIN.contains(&format) || (Schema::of(format, &self.settings.profile).is_some() && !self.wanted.is_stream) {
            return Ok(());
        }
        let known = drivers::driver(format, &self.settings.profile).is_some();
        let sentence = match (known, self.is_dd()) {
            (true, _) => [b"Format driver '", format, b"' does not support image creation"].concat(),
            (false, true) => b"Unknown file format".to_vec(),
            (false, false) => [b"Unknown file format '", format, b"'"].concat(),
        };
        Err(self.say(&sentence))
    }

    /// A new image of a format that has options of its own.
    fn image(&self, session: &mut Session) -> Result<Aim, Told> {
        let (format, profile) = (self.format(), &self.settings.profile);
        let aim = self.named()?;
        let ground = if is_device(&aim.path) { Ground::Device } else { Ground::File };
        let schema = Schema::on(format, ground, profile).ok_or_else(|| self.say(b"Unknown file format"))?;
        let schema = schema.of_face(self.settings.face);
        let mut entries = recipe::entries(self.parsed);
        let refuse = |complaint: Complaint| opening::complain(&complaint, self.settings);
        entries.extend(recipe::below(self.parsed, Some(&schema), format).map_err(refuse)?);
        let options = schema.facts(&entries, profile).0.map_err(refuse)?;
        let recipe = Recipe { format: format.into(), size: 0, options };
        self.check_packed(&recipe)?;
        self.new_image(&recipe, aim, session)
    }

    /// Refuses what nobody can have of an image that is packed.
    fn check_packed(&self, recipe: &Recipe) -> Result<(), Told> {
        let is_sealed = recipe.is_on("encryption") || recipe.text("encrypt.format").is_some();
        let is_prepared = recipe.text("preallocation").is_some_and(|how| how != b"off");
        let wrong = [
            (!PACKED.contains(&&recipe.format.0[..]), "Compression not supported for this file format"),
            (is_sealed, "Compression and encryption not supported at the same time"),
            (is_prepared, "Compression and preallocation not supported at the same time"),
        ];
        let wrong = wrong.iter().find(|(is_so, _)| *is_so && self.parsed.has("compress"));
        wrong.map_or(Ok(()), |(_, sentence)| Err(self.say(sentence.as_bytes())))
    }

    /// A new image by this recipe.
    fn new_image(&self, recipe: &Recipe, aim: Aim, session: &mut Session) -> Result<Aim, Told> {
        let backing = match recipe.text("backing_file").filter(|name| !name.is_empty()) {
            Some(name) => {
                let place = recipe::beside(&aim.path, name);
                let named = Named { format: recipe.text("backing_fmt"), ..Named::plain(&place) };
                Some(opening::open_named(self.parsed, &named, session, self.settings)?.content())
            }
            None => None,
        };
        let data = recipe::data_file(recipe, &aim.path, self.settings);
        let data = data.map(|path| (session.promise(&path), path));
        let beside = data.as_ref().map(|(granted, _)| granted.clone());
        let files = Files { own: self.promised.clone(), beside, backing };
        let new = recipe::new(recipe, files, &aim.path, self.parsed, self.settings)?;
        Ok(Aim {
            image: Image::New(Box::new(new)),
            beside: data.map(|(granted, path)| (path, granted.id, recipe.is_on("keep_data_file"))),
            hints: recipe::hints(recipe),
            ..aim
        })
    }

    /// The file that the word names, if it is to be made.
    fn named(&self) -> Result<Aim, Told> {
        let plain = recipe::place(&self.wanted.name, self.settings);
        let plain = plain.map_err(|complaint| opening::complain(&complaint, self.settings))?;
        let Plain { path, is_device, .. } = plain.ok_or_else(|| self.not_made(b"the protocol does not make files"))?;
        Ok(Aim { is_device, ..Aim::at(&path) })
    }

    /// An existing image.
    fn existing(&self) -> Result<Aim, Told> {
        let name = &self.wanted.name[..];
        let image_opts = self.parsed.has("target-image-opts");
        if image_opts && self.parsed.has("target-format") {
            return Err(self.say(b"--image-opts and --format are mutually exclusive"));
        }
        let named = Named { image_opts, format: Some(self.format()).filter(|_| !image_opts), ..Named::plain(name) };
        let refuse = |complaint: Complaint| opening::complain(&complaint, self.settings);
        let node = describe(&named, &self.settings.profile).map_err(refuse)?.node;
        if node.driver_name().is_some_and(|name| opening::READ_ONLY.contains(&name.as_bytes())) {
            return Err(self.not_opened(b"Image is read-only"));
        }
        let checked = opening::check_written(&node, self.parsed, self.settings);
        let plain = opening::plain_file(&node).filter(|_| node.driver.is_some());
        if let Some(Plain { path, part, is_device }) = plain {
            checked.map_err(|complaint| refuse(complaint.not_opened(name)))?;
            let file = Granted { pinned: Some("raw".into()), ..self.promised.clone() };
            let image = Image::There(Box::new(Source { raw: part.clone(), ..Source::whole(file) }));
            return Ok(Aim { at: part.offset.unwrap_or(0), size: part.size, is_device, image, ..Aim::at(&path) });
        }
        let written = opening::written(&node, &self.promised, self.parsed);
        let (path, source) = written.ok_or_else(|| self.not_opened(b"drivers cannot be stacked in this way"))?;
        checked.map_err(|complaint| refuse(complaint.not_opened(name)))?;
        let spares = opening::spares(&node);
        Ok(Aim { image: Image::There(Box::new(source)), spares, ..Aim::at(&path) })
    }

    /// What `-o` asks for of a plain file.
    fn options(&self, on_device: bool) -> Result<Vec<Field>, Told> {
        let mut fields = Vec::new();
        for (key, value) in recipe::entries(self.parsed) {
            let value = match &key[..] {
                // The size is that of what is copied; all the same it has to be one.
                b"size" => self.size(&key, &value)?.into(),
                b"preallocation" => {
                    self.check_preallocation(&value, on_device)?;
                    value[..].into()
                }
                _ if on_device => return Err(self.say(&[b"Invalid parameter '", &key[..], b"'"].concat())),
                b"nocow" => self.flag(&key, &value)?.into(),
                b"extent_size_hint" => self.size(&key, &value)?.into(),
                _ => return Err(self.say(&[b"Invalid parameter '", &key[..], b"'"].concat())),
            };
            fields.retain(|field: &Field| field.name.0 != key);
            fields.push(Field { name: key[..].into(), value });
        }
        Ok(fields)
    }

    fn check_preallocation(&self, word: &[u8], on_device: bool) -> Result<(), Told> {
        match word {
            b"off" => Ok(()),
            b"falloc" | b"full" if on_device => {
                Err(self.not_made(&[b"Unsupported preallocation mode '", word, b"'"].concat()))
            }
            b"falloc" | b"full" => Ok(()),
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

    /// A failure of this one sentence.
    pub fn say(&self, sentence: &[u8]) -> Told {
        let shown = stderr_text(self.settings).show(sentence).into_owned();
        Told::failure(self.settings, &shown)
    }

    /// The sentence for a target that could not be made.
    pub fn not_made(&self, words: &[u8]) -> Told {
        let text = stderr_text(self.settings);
        let name = text.show(&self.wanted.name).into_owned();
        let format = text.show(self.format()).into_owned();
        let about = match self.is_dd() {
            true => [&name[..], b": error while creating output image: "].concat(),
            false => [&name[..], b": error while converting ", &format, b": "].concat(),
        };
        Told::failure(self.settings, &[&about[..], words].concat())
    }

    /// What is told of a target that the worker could not make.
    pub fn unmade(&self, asking: &Asking<'_>, heard: &Heard, error: &Error) -> Told {
        if error.kind == Kind::Io {
            let words = asking.input_output(heard, error);
            return self.not_made(&[b"Could not resize file: ", &words[..]].concat());
        }
        self.not_made(&asking.words(error))
    }

    /// Whether it is to stand on another image, which then has what the images that are copied stand on.
    pub fn stands_on_another(&self) -> bool {
        let stands = |aim: &Aim| matches!(&aim.image, Image::New(new) if new.backing.is_some());
        let asked = self.parsed.has("backing") && (self.exists() || self.aim.is_ok());
        asked || self.aim.as_ref().is_ok_and(stands)
    }

    /// Whether bitmaps can be copied into it.
    pub fn keeps_bitmaps(&self) -> bool {
        let old = |aim: &Aim| aim.recipe().and_then(|recipe| recipe.text("compat")) == Some(b"0.10");
        self.format() == b"qcow2" && !self.aim.as_ref().is_ok_and(old)
    }

    pub(crate) fn not_opened(&self, words: &[u8]) -> Told {
        let name = stderr_text(self.settings).show(&self.wanted.name).into_owned();
        Told::failure(self.settings, &[b"Could not open '", &name[..], b"': ", words].concat())
    }

    /// Makes it, or opens it, now that it is known how large it has to be.
    pub fn make(&mut self, session: &Session, total: u64) -> Result<(), Told> {
        let aim = std::mem::replace(&mut self.aim, Err(Told::default()))?;
        self.total = total;
        if self.wanted.is_stream {
            return Ok(());
        }
        let mode = self.parsed.bytes("target-cache");
        let wish = Wish {
            locking: session.is_locking(),
            direct: matches!(mode, Some(b"none" | b"off" | b"directsync")),
            sync: matches!(mode, Some(b"writethrough" | b"directsync")),
            hints: aim.hints,
            is_source: &|identity| session.has_open(identity),
        };
        let lasting = Wish { is_source: &|_| false, ..wish };
        let path = Path::new(OsStr::from_bytes(&aim.path));
        let target = match self.exists() {
            true => Target::open(path, &wish),
            false if aim.is_device => Target::open(path, &wish),
            false => Target::create(path, &wish),
        };
        let target = target.map_err(|refused| self.refusal(&refused, &aim))?;
        if self.exists() {
            self.check_existing(&target, &aim, total)?;
        } else {
            self.check_made(&target, &aim, total)?;
        }
        session.fulfil(self.promised.id, &target);
        session.set_spares(self.promised.id, aim.spares);
        if let Some((place, id, keeps)) = &aim.beside {
            let own = Path::new(OsStr::from_bytes(place));
            let made = if *keeps { Target::open(own, &wish) } else { Target::create(own, &wish) };
            let made = if place == &aim.path { Err(Refused::Source) } else { made };
            let words = |refused| recipe::refusal(&refused, place, *keeps, self.settings);
            let data = made.map_err(|refused| self.not_made(&words(refused)))?;
            session.fulfil(*id, &data);
            self.beside.push(data);
        }
        if matches!(aim.image, Image::New(_)) && target.kind() == FileType::RegularFile {
            session.allow_parts(self.promised.id, path, lasting);
        }
        self.target = Some(target);
        Ok(())
    }
}

/// What has come of a target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    /// Bytes that were copied.
    pub copied: u64,
    /// Bytes that the file has now.
    pub file: u64,
}
