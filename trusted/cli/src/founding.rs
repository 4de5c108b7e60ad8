//! A new image, from the answer of how large its disk is to the files that appear.

use crate::Told;
use crate::args::node::drivers;
use crate::asking::{Asking, End, Heard};
use crate::create::Wanted;
use crate::making::is_device;
use crate::recipe::{self, PLAIN};
use crate::render::json;
use crate::render::size::Rounding;
use crate::settings::Settings;
use crate::setup::{mishap_words, system_words};
use crate::{stderr_text, stdout_text};
use instar_broker::Mishap;
use instar_broker::publish::{FileType, Refused, Target, Wish, publish_all};
use instar_broker::session::Why;
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::io::Granted;
use instar_wire::op::create::Made;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest file, in whole sectors.
const LEN_MAX: u64 = i64::MAX as u64 / 512 * 512;

/// The files of an image that is going to be made.
pub(crate) struct Promised {
    /// The one that it is opened by.
    pub own: Granted,
    /// The second one, and where it will stand.
    pub beside: Option<Granted>,
    pub data: Option<Vec<u8>>,
}

/// An image that is being made.
pub(crate) struct Founding<'f, 'a> {
    wanted: &'f Wanted<'a>,
    asking: &'f Asking<'f>,
    files: Promised,
    pub(crate) heard: Heard,
    size: u64,
    /// What is told of it beforehand.
    pub(crate) line: Vec<u8>,
    pub(crate) warned: Vec<u8>,
    /// The files, in the order in which they appear.
    targets: Vec<Target>,
    pub(crate) made: Option<Made>,
    pub(crate) refused: Option<Told>,
}

impl<'f, 'a> Founding<'f, 'a> {
    /// Of these files.
    pub(crate) fn new(wanted: &'f Wanted<'a>, asking: &'f Asking<'f>, files: Promised) -> Self {
        Founding {
            wanted,
            asking,
            files,
            heard: Heard::default(),
            size: 0,
            line: Vec::new(),
            warned: Vec::new(),
            targets: Vec::new(),
            made: None,
            refused: None,
        }
    }

    fn settings(&self) -> &'a Settings {
        self.wanted.asked.settings
    }

    /// Where the image below is.
    fn below(&self) -> &[u8] {
        self.asking.images.first().map_or(b"", |image| &image.typed)
    }

    /// All that is below is open: the files may be made.
    pub(crate) fn ready(&mut self, size: u64) -> Result<(), Told> {
        (self.size, self.heard.is_complete) = (size, true);
        let wanted = self.wanted;
        let checked = self.asking.refuse_structured(&self.heard).and_then(|()| self.asking.check_known(&self.heard));
        checked.map_err(|told| wanted.not_below(&told, self.below()))?;
        self.check_format_below()?;
        self.tell();
        self.check_words()?;
        self.check_preallocation()?;
        let session = self.asking.session;
        let wish = recipe::wish(recipe::hints(&wanted.recipe), session.is_locking());
        let main =
            self.file(&wanted.plain.path, wanted.plain.is_device || wanted.asked.format == b"host_device", wish)?;
        self.check_made(&main)?;
        session.fulfil(self.files.own.id, &main);
        if let (Some(path), Some(beside)) = (self.files.data.clone(), self.files.beside.clone()) {
            if path == wanted.plain.path {
                return Err(wanted.say(&recipe::refusal(&Refused::Source, &path, false, self.settings())));
            }
            let data = match wanted.recipe.is_on("keep_data_file") {
                true => self.standing(&path, wish)?,
                false => self.file(&path, false, wish)?,
            };
            session.fulfil(beside.id, &data);
            self.targets.push(data);
        }
        if main.kind() == FileType::RegularFile {
            session.allow_parts(self.files.own.id, Path::new(OsStr::from_bytes(&wanted.plain.path)), wish);
        }
        self.targets.push(main);
        Ok(())
    }

    /// Who stands on an image has to say what it is.
    fn check_format_below(&mut self) -> Result<(), Told> {
        let wanted = self.wanted;
        let Some(layer) = self.heard.images.first().and_then(|layers| layers.first()) else { return Ok(()) };
        if wanted.recipe.text("backing_fmt").is_some() {
            return Ok(());
        }
        let found = &layer.format.0[..];
        let profile = &self.settings().profile;
        if !profile.backing_format_required() && !wanted.asked.is_native() {
            let parts = [
                &b"qemu-img: warning: Deprecated use of backing file without explicit backing format (detected format of "[..],
                found,
                b")\n",
            ];
            self.warned = parts.concat();
            return Ok(());
        }
        let words = [b"Backing file specified without backing format\nDetected format of ", found, b"."].concat();
        let mut told = wanted.say(&words);
        if !profile.detected_line_end() && !wanted.asked.is_native() {
            told.stderr.pop();
        }
        Err(told)
    }

    /// Tells what is going to be made, as qemu-img does.
    fn tell(&mut self) {
        let (wanted, settings) = (self.wanted, self.settings());
        if wanted.asked.is_native() || wanted.asked.parsed.has("quiet") {
            return;
        }
        let mut entries = wanted.entries.clone();
        entries.push((b"size".to_vec(), self.size.to_string().into_bytes()));
        // The format that was found, where the image will say so.
        let below = self.heard.images.first().and_then(|layers| layers.first());
        let said = wanted.recipe.text("backing_fmt");
        if let Some(found) =
            below.map(|layer| &layer.format.0).filter(|found| said.map_or(*found != b"raw", |s| s != &found[..]))
        {
            entries.push((b"backing_fmt".to_vec(), found.clone()));
        }
        let text = stdout_text(settings);
        let shown = wanted.schema.shown(&entries, &settings.profile);
        let parts = [
            b"Formatting '",
            &text.show(wanted.asked.name)[..],
            b"', fmt=",
            wanted.asked.format,
            b" ",
            &text.show(&shown),
            b"\n",
        ];
        self.line = parts.concat();
    }

    /// Refuses what is wrong with the words, whatever the format makes of them.
    fn check_words(&self) -> Result<(), Told> {
        let (wanted, profile) = (self.wanted, &self.settings().profile);
        let claim = wanted.recipe.text("backing_fmt").filter(|name| drivers::driver(name, profile).is_none());
        if let Some(name) = claim.filter(|_| [&b"qcow2"[..], b"qed"].contains(&wanted.asked.format)) {
            let name = stderr_text(self.settings()).show(name).into_owned();
            return Err(wanted.say(&match profile.enum_words() {
                true => [b"Parameter 'backing-fmt' does not accept value '", &name[..], b"'"].concat(),
                false => [b"Invalid parameter '", &name[..], b"'"].concat(),
            }));
        }
        if wanted.recipe.is_on("detached-header") && !wanted.asked.is_native() && !profile.detached_header_works() {
            return Err(wanted.say(b"Parameter 'detached-header' is unexpected"));
        }
        Ok(())
    }

    /// Refuses what no file can be asked for; other ways to set space aside are the format's.
    fn check_preallocation(&self) -> Result<(), Told> {
        let wanted = self.wanted;
        let Some(word) = wanted.recipe.text("preallocation").filter(|_| wanted.asked.format != b"qcow2") else {
            return Ok(());
        };
        let on_device = is_device(&wanted.plain.path);
        match word {
            b"off" => Ok(()),
            b"falloc" | b"full" if on_device => {
                Err(wanted.say(&[b"Unsupported preallocation mode '", word, b"'"].concat()))
            }
            b"falloc" | b"full" => Ok(()),
            b"metadata" if wanted.asked.format == b"luks" => Ok(()),
            b"metadata" => Err(wanted.say(b"Unsupported preallocation mode: metadata")),
            word => Err(wanted.say(&[b"invalid parameter value: ", word].concat())),
        }
    }

    /// A new file, or the device that stands there.
    fn file(&self, path: &[u8], must_be_device: bool, wish: Wish<'static>) -> Result<Target, Told> {
        let (settings, session) = (self.settings(), self.asking.session);
        let wish = Wish { is_source: &|identity| session.has_open(identity), ..wish };
        let place = Path::new(OsStr::from_bytes(path));
        let on_device = must_be_device || is_device(path);
        let made = if on_device { Target::open(place, &wish) } else { Target::create(place, &wish) };
        let target = made.map_err(|refused| {
            let words = recipe::refusal(&refused, path, on_device, settings);
            self.wanted.say(&if on_device { recipe::no_device(&words, settings) } else { words })
        })?;
        let is_device = matches!(target.kind(), FileType::BlockDevice | FileType::CharacterDevice);
        if must_be_device && !is_device {
            let mishap = Mishap { name: path.to_vec(), named_by: None, why: Why::NotDevice };
            let words = mishap_words(&mishap, settings, stderr_text(settings));
            return Err(self.wanted.say(&recipe::no_device(&words, settings)));
        }
        if !is_device && (target.kind() != FileType::RegularFile || !target.is_fresh()) {
            return Err(self.wanted.say(b"Could not resize file: Invalid argument"));
        }
        Ok(target)
    }

    /// A file that is there and stays as it is.
    fn standing(&self, path: &[u8], wish: Wish<'static>) -> Result<Target, Told> {
        let session = self.asking.session;
        let wish = Wish { is_source: &|identity| session.has_open(identity), ..wish };
        let opened = Target::open(Path::new(OsStr::from_bytes(path)), &wish);
        opened.map_err(|refused| self.wanted.say(&recipe::refusal(&refused, path, true, self.settings())))
    }

    fn check_made(&self, main: &Target) -> Result<(), Told> {
        let is_raw = PLAIN.contains(&self.wanted.asked.format);
        match main.kind() {
            FileType::BlockDevice | FileType::CharacterDevice if is_raw && self.size > main.len() => {
                Err(self.wanted.say(b"Cannot grow device files"))
            }
            // The last sector would end beyond all offsets.
            FileType::RegularFile if is_raw && self.size > LEN_MAX => {
                Err(self.wanted.say(b"Could not resize file: Invalid argument"))
            }
            _ => Ok(()),
        }
    }

    /// What has come of it.
    pub(crate) fn end(mut self, ended: Result<(), End>) -> Result<Vec<u8>, Told> {
        if let Some(told) = self.refused.take() {
            return Err(told);
        }
        match ended {
            Ok(()) => {}
            Err(End::Fell(told)) => {
                let prefix = format!("{}: Could not open '': ", self.settings().face.prefix());
                let words = told.stderr.strip_prefix(prefix.as_bytes()).and_then(|words| words.strip_suffix(b"\n"));
                return Err(match words.map(<[u8]>::to_vec) {
                    Some(words) => self.wanted.say(&words),
                    None => told,
                });
            }
            Err(End::Failed(error)) => return Err(self.failed(&error)),
        }
        let id = recipe::secret_name(&self.wanted.recipe);
        if let Some(id) = id.filter(|id| self.wanted.asked.parsed.objects.secret(id).is_none()) {
            return Err(self.no_secret(id));
        }
        let made = self.made.take();
        let made = made.ok_or_else(|| Told::failure(self.settings(), b"the worker ended without an answer"))?;
        let len = self.targets.last().map_or(0, Target::len);
        let mut targets = self.asking.session.take_parts(self.files.own.id);
        targets.append(&mut self.targets);
        let published = publish_all(targets, false);
        published.map_err(|errno| self.wanted.say(system_words(errno).as_bytes()))?;
        Ok(self.page(&made, len))
    }

    fn no_secret(&self, id: &[u8]) -> Told {
        self.wanted.say(&[b"No secret with id '", &stderr_text(self.settings()).show(id)[..], b"'"].concat())
    }

    /// What is told of a worker that could not make it.
    fn failed(&self, error: &Error) -> Told {
        let wanted = self.wanted;
        if !self.heard.is_complete {
            return wanted.not_below(&self.asking.refused(&self.heard, error), self.below());
        }
        // What is wrong with the wish comes before what is wrong with its secret.
        let missing = recipe::secret_name(&wanted.recipe)
            .filter(|id| error.kind == Kind::Key && wanted.asked.parsed.objects.secret(id).is_none());
        if let Some(id) = missing {
            return self.no_secret(id);
        }
        let words = self.asking.words(error);
        let mishap = error.cause.and_then(|number| self.asking.session.mishap(number));
        let is_too_long = mishap.is_some_and(|mishap| mishap.why == Why::System(Errno::FBIG));
        if is_too_long && wanted.asked.format == b"luks" {
            return wanted.say(b"The requested file size is too large");
        }
        if is_too_long || error.kind == Kind::TooBig && words.starts_with(b"The image size is too large") {
            let hint: &[u8] =
                if wanted.schema.has("cluster_size") { b" (try using a larger cluster size)" } else { b"" };
            let words = [b"The image size is too large for file format '", wanted.asked.format, b"'", hint].concat();
            return wanted.say(&words);
        }
        if error.kind == Kind::Io {
            let words = self.asking.input_output(&self.heard, error);
            return wanted.say(&[b"Could not resize file: ", &words[..]].concat());
        }
        wanted.say(&words)
    }

    /// What is told of an image that has been made.
    fn page(&self, made: &Made, len: u64) -> Vec<u8> {
        let (wanted, settings) = (self.wanted, self.settings());
        if !wanted.asked.is_native() {
            return Vec::new();
        }
        let format = if PLAIN.contains(&wanted.asked.format) { b"raw" } else { wanted.asked.format };
        let unit = made.unit.unwrap_or(512);
        if wanted.asked.parsed.bytes("output") == Some(b"json") {
            return json::pretty(&Fact::fields([
                ("format", format.into()),
                ("filename", wanted.asked.name.into()),
                ("virtual_size", self.size.into()),
                ("resolved_unit_size", unit.into()),
                ("metadata_bytes_written", made.written.into()),
                ("file_size_after", len.into()),
            ]));
        }
        if wanted.asked.parsed.has("quiet") {
            return Vec::new();
        }
        let name = stdout_text(settings).show(wanted.asked.name).into_owned();
        let rounding = if settings.ignore_quirks { Rounding::OneDecimal } else { Rounding::AsQemu };
        let sizes = format!(", {}, units of {unit} bytes)\n", rounding.size(self.size));
        [b"Created: ", &name[..], b" (", format, sizes.as_bytes()].concat()
    }
}
