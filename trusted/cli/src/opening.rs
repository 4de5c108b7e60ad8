//! Opening what the user named: a tree of nodes, of which the file at the bottom is opened here and the image in a cell.

mod shown;
mod stack;

pub use shown::{allocated, below, settle};
use stack::{Stack, role_of};

use crate::Told;
use crate::args::json::Value;
use crate::args::node::drivers::Role;
use crate::args::node::{Backing, Described, Leaf, Named, Node, describe, describe_below, no_such_node};
use crate::args::{Complaint, Parsed};
use crate::profile::Profile;
use crate::settings::Settings;
use crate::setup::mishap_words;
use crate::{stderr_lines, stderr_text};
use instar_broker::session::{Fault, Meant, Why};
use instar_broker::{Mishap, Session, Spares};
use instar_wire::code::Secret;
use instar_wire::io::{Granted, Role as Related};
use instar_wire::op::{Below, FormatName, Over, Part, Source};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// What the user named, with its file open.
pub struct Opened {
    /// The word on the command line.
    pub typed: Vec<u8>,
    /// What it describes.
    pub node: Node,
    /// What the worker is asked about; none if the word names a file and nothing more.
    pub source: Option<Source>,
    /// The file at the bottom.
    pub file: Granted,
    /// The file that the user says belongs to it.
    pub beside: Option<Granted>,
    /// What is said of the images below it, from the top down; none if nothing is, or nobody asks.
    pub below: Vec<Node>,
    /// Lines for standard error that the description earned.
    pub notes: Vec<u8>,
}

impl Opened {
    /// What the worker is to read: an image, or the bytes of a file that was named as no more than that.
    pub fn content(&self) -> Source {
        let raw = || Source::whole(Granted { pinned: Some("raw".into()), ..self.file.clone() });
        self.source.clone().unwrap_or_else(raw)
    }
}

/// Whether the node only passes on what lies below it.
pub fn is_filter(node: &Node) -> bool {
    role_of(node) == Role::Filter
}

/// Whether there is nothing at the bottom, not even zeroes.
pub fn is_blank(top: &Node) -> bool {
    let leaf = Stack::of(top).map(|stack| stack.leaf);
    leaf.is_some_and(|leaf| {
        matches!(leaf.leaf(), Some(Leaf::Null(_))) && leaf.text("read-zeroes").as_deref() != Some(b"on")
    })
}

/// Opens the image that is the verb's word number `at`, and what the user names below it, to read what it holds.
pub fn open(parsed: &Parsed, at: usize, session: &mut Session, settings: &Settings) -> Result<Opened, Told> {
    open_named(parsed, &parsed.named(at, "format"), session, settings)
}

/// The same of an image that the user named so.
pub fn open_named(
    parsed: &Parsed,
    named: &Named<'_>,
    session: &mut Session,
    settings: &Settings,
) -> Result<Opened, Told> {
    open_for(Aim::Read, parsed, named, session, settings)
}

/// Opens the image that is the verb's word number `at` so that it can be changed where it stands.
pub fn open_to_change(parsed: &Parsed, at: usize, session: &mut Session, settings: &Settings) -> Result<Opened, Told> {
    change(parsed, &parsed.named(at, "format"), session, settings)
}

/// The same of an image that the user named so.
pub fn change(parsed: &Parsed, named: &Named<'_>, session: &mut Session, settings: &Settings) -> Result<Opened, Told> {
    session.read_content();
    open_for(Aim::Change, parsed, named, session, settings)
}

fn open_for(
    aim: Aim,
    parsed: &Parsed,
    named: &Named<'_>,
    session: &mut Session,
    settings: &Settings,
) -> Result<Opened, Told> {
    let mut opened = open_top(parsed, named, aim, session, settings)?;
    let node = opened.node.clone();
    let mut opener = Opener { parsed, session, settings, typed: named.name, key: None, aim: Aim::Read };
    opener.open_below(&node, &mut opened).map_err(|c| complain(&c.not_opened(named.name), settings))?;
    Ok(opened)
}

/// Opens the image that is the verb's first word, to tell what it is.
pub fn open_to_tell(parsed: &Parsed, session: &mut Session, settings: &Settings) -> Result<Opened, Told> {
    open_top(parsed, &parsed.named(0, "format"), Aim::Tell, session, settings)
}

fn open_top(
    parsed: &Parsed,
    named: &Named<'_>,
    aim: Aim,
    session: &mut Session,
    settings: &Settings,
) -> Result<Opened, Told> {
    let refuse = |complaint: Complaint| complain(&complaint, settings);
    let Described { node, warnings } = describe(named, &settings.profile).map_err(refuse)?;
    let notes: Vec<Vec<u8>> = warnings.iter().map(|note| note.line(settings.face.prefix())).collect();
    let key = key_in_file(parsed, settings)?;
    let mut opener = Opener { parsed, session, settings, typed: named.name, key, aim };
    let opened = opener.open(node).map_err(|complaint| refuse(complaint.not_opened(named.name)))?;
    Ok(Opened { notes: stderr_lines(settings, &notes), ..opened })
}

/// Takes in a file without a name as the image that the user named so.
pub fn take_in(
    parsed: &Parsed,
    named: &Named<'_>,
    file: OwnedFd,
    session: &mut Session,
    settings: &Settings,
) -> Result<Opened, Told> {
    let refuse = |complaint: Complaint| complain(&complaint, settings);
    let Described { node, .. } = describe(named, &settings.profile).map_err(refuse)?;
    let words = |m: Mishap| Told::failure(settings, &mishap_words(&m, settings, stderr_text(settings)));
    let file = session.take_in(named.name, file).map_err(words)?;
    let key = key_in_file(parsed, settings)?;
    let source = Stack::of(&node).and_then(|stack| stack.format).map(|format| source(format, None, &file));
    let source = source.map(|source| Source { key, ..source });
    let typed = named.name.to_vec();
    Ok(Opened { typed, source, file, beside: None, node, below: Vec::new(), notes: Vec::new() })
}

/// What is needed to open what a description names.
struct Opener<'a> {
    parsed: &'a Parsed,
    session: &'a mut Session,
    settings: &'a Settings,
    /// The word on the command line.
    typed: &'a [u8],
    /// The passphrase that was given in a file.
    key: Option<Secret>,
    /// What for.
    aim: Aim,
}

/// What an image is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// To tell what it says of itself.
    Tell,
    /// To read what it holds.
    Read,
    /// To change it.
    Change,
}

impl Opener<'_> {
    fn open(&mut self, node: Node) -> Result<Opened, Complaint> {
        let (profile, settings) = (&self.settings.profile, self.settings);
        let stack = Stack::of(&node).ok_or_else(|| Complaint::new(&[b"drivers cannot be stacked in this way"]))?;
        heed_caching(&stack, self.session)?;
        if self.aim == Aim::Change {
            check_changed(&stack, &node)?;
        }
        let file = open_leaf(stack.leaf, self.aim, self.session, settings)?;
        stack.leaf.check_known(profile, false)?;
        self.session.spoil(file.id, stack.shims.iter().flat_map(|shim| faults(shim)).collect());
        self.session.set_spares(file.id, stack.spares());
        let beside = self.beside(&stack)?;
        for node in stack.above_leaf() {
            node.check_values(profile, &self.parsed.objects)?;
            if node.driver_name() == Some("copy-on-read") {
                return Err(Complaint::new(&[b"Block node is read-only"]));
            }
        }
        let key = stack.format.and_then(|format| self.key.clone().or_else(|| secret(format, self.parsed)));
        let source = |format| Source { key, beside: beside.clone(), ..source(format, stack.part, &file) };
        let source = stack.format.map(source);
        Ok(Opened { typed: self.typed.to_vec(), source, file, beside, node, below: Vec::new(), notes: Vec::new() })
    }

    /// Opens the file that the user says belongs to the image, where the version opens such a file at all.
    fn beside(&mut self, stack: &Stack<'_>) -> Result<Option<Granted>, Complaint> {
        let profile = &self.settings.profile;
        let (header, data) = (profile.detached_header(), self.aim != Aim::Tell || !profile.data_file_is_plain());
        let child = |opened: bool, name: &str| stack.format.filter(|_| opened)?.child(name);
        let Some(node) = child(header, "header").or_else(|| child(data, "data-file")) else { return Ok(None) };
        let whole = |node: &&Node| node.driver_name() == Some("raw") && part_of(node) == Part::default();
        let stack = Stack::of(node).filter(|s| s.part.is_none() && s.format.iter().all(whole));
        let stack = stack.ok_or_else(|| Complaint::new(&[b"drivers cannot be stacked in this way"]))?;
        let file = open_leaf(stack.leaf, self.aim, self.session, self.settings)?;
        self.session.spoil(file.id, stack.shims.iter().flat_map(|shim| faults(shim)).collect());
        stack.above_leaf().chain([stack.leaf]).try_for_each(|node| node.check_known(profile, false))?;
        Ok(Some(file))
    }

    /// Opens what is said of the image below, and of those below that one.
    fn open_below(&mut self, node: &Node, opened: &mut Opened) -> Result<(), Complaint> {
        let Some(stack) = Stack::of(node) else { return Ok(()) };
        let Some(format) = stack.format else { return Ok(()) };
        self.check_key(format)?;
        let below = self.below(&format.backing, format, opened)?;
        opened.source.iter_mut().for_each(|source| source.below = below.clone());
        Ok(())
    }

    /// Without its secret no sealed image can be read.
    fn check_key(&self, format: &Node) -> Result<(), Complaint> {
        match secret_name(format).filter(|id| self.parsed.objects.secret(id).is_none()) {
            Some(id) => Err(Complaint::new(&[b"No secret with id '", &id, b"'"])),
            None => Ok(()),
        }
    }

    fn below(&mut self, backing: &Backing, above: &Node, opened: &mut Opened) -> Result<Below, Complaint> {
        let stands = above.driver_name().is_none_or(|name| STANDING.contains(&name));
        let options = match backing {
            Backing::AsStored => return Ok(Below::AsStored),
            Backing::None => return Ok(Below::None),
            _ if !stands => return Err(Complaint::new(&[b"Driver doesn't support backing files"])),
            Backing::Reference(name) => return Err(no_such_node(name, &self.settings.profile).about(BELOW)),
            Backing::Options(options) => options,
        };
        self.described(options, opened).map_err(|complaint| complaint.about(BELOW))
    }

    /// The image below, as these options have it.
    fn described(&mut self, options: &[(Vec<u8>, Value)], opened: &mut Opened) -> Result<Below, Complaint> {
        let Described { node, warnings } = describe_below(options, &self.settings.profile)?;
        let notes: Vec<Vec<u8>> = warnings.iter().map(|note| note.line(self.settings.face.prefix())).collect();
        opened.notes.extend(stderr_lines(self.settings, &notes));
        opened.below.push(node.clone());
        self.check_key(&node)?;
        if node.leaf().is_none() && node.children.is_empty() {
            node.check_values(&self.settings.profile, &self.parsed.objects)?;
            let below = self.below(&node.backing, &node, opened)?;
            let said = source(&node, None, &opened.file);
            let over = Over { format: said.file.pinned, raw: said.raw, key: secret(&node, self.parsed), below };
            return Ok(Below::Over(Box::new(over)));
        }
        let mut own = self.open(node.clone())?;
        if let Some(format) = Stack::of(&node).and_then(|stack| stack.format) {
            let below = self.below(&format.backing, format, opened)?;
            own.source.iter_mut().for_each(|source| source.below = below.clone());
        }
        Ok(Below::Instead(Box::new(own.content())))
    }
}

/// The formats that no version can write.
pub const READ_ONLY: &[&[u8]] = &[b"bochs", b"cloop", b"dmg"];
/// Before the reason why an image below another could not be opened.
const BELOW: &[u8] = b"Could not open backing file";
/// The formats of images that stand upon others.
const STANDING: &[&str] = &["qcow", "qcow2", "qed", "vmdk", "vpc", "vhdx"];

/// A raw image in a plain file.
pub struct Plain {
    /// The file.
    pub path: Vec<u8>,
    /// The part of it that is the image.
    pub part: Part,
    /// The file is said to be a device.
    pub is_device: bool,
}

/// The file and the part of it that a description means, if it is of a raw image in a plain file.
pub fn plain_file(node: &Node) -> Option<Plain> {
    let stack = Stack::of(node).filter(|s| s.filters.is_empty() && s.part.is_none() && s.shims.is_empty())?;
    let part = stack.format.filter(|f| f.driver_name() == Some("raw"));
    let (path, is_device) = match stack.leaf.leaf() {
        Some(Leaf::File(path)) => (path.to_vec(), false),
        Some(Leaf::HostDevice(path)) => (path.to_vec(), true),
        _ => return None,
    };
    let plain = Plain { path, part: part.map(part_of).unwrap_or_default(), is_device };
    Some(plain).filter(|_| part.is_some() == stack.format.is_some())
}

/// The path and the image that a description means, if it is of an image in a plain file; the file is promised.
pub fn written(node: &Node, promised: &Granted, parsed: &Parsed) -> Option<(Vec<u8>, Source)> {
    let stack = Stack::of(node).filter(|s| s.filters.is_empty() && s.part.is_none() && s.shims.is_empty())?;
    let Some(Leaf::File(path) | Leaf::HostDevice(path)) = stack.leaf.leaf() else { return None };
    let format = stack.format?;
    Some((path.to_vec(), Source { key: secret(format, parsed), ..source(format, None, promised) }))
}

/// Which space of the file at the bottom goes back that its image gives back.
pub fn spares(node: &Node) -> Spares {
    Stack::of(node).map_or(Spares::default(), |stack| stack.spares())
}

/// Refuses to change what cannot be changed, whatever it holds.
fn check_changed(stack: &Stack<'_>, node: &Node) -> Result<(), Complaint> {
    let is_on = |node: &Node, key: &str| node.text(key).as_deref() == Some(b"on");
    let why: &[u8] = match stack.format.and_then(Node::driver_name) {
        _ if is_on(node, "force-share") => b"force-share=on can only be used with read-only images",
        Some(name) if READ_ONLY.contains(&name.as_bytes()) => b"Image is read-only",
        _ if stack.above_leaf().chain([stack.leaf, node]).any(|node| is_on(node, "read-only")) => {
            b"Block node is read-only"
        }
        _ => return Ok(()),
    };
    Err(Complaint::new(&[why]))
}

/// Refuses what cannot be meant of an image that is written to.
pub fn check_written(node: &Node, parsed: &Parsed, settings: &Settings) -> Result<(), Complaint> {
    for node in Stack::of(node).iter().flat_map(|stack| stack.above_leaf().chain([stack.leaf])) {
        node.check_values(&settings.profile, &parsed.objects)?;
        node.check_known(&settings.profile, true)?;
        if matches!(node.text("read-only").as_deref(), Some(b"on")) {
            return Err(Complaint::new(&[b"Block node is read-only"]));
        }
    }
    Ok(())
}

/// Refuses options that nobody knows, once everything is open.
pub fn check_known(opened: &Opened, settings: &Settings) -> Result<(), Told> {
    known(opened, settings, false).map_err(|complaint| complain(&complaint.not_opened(&opened.typed), settings))
}

/// Refuses options that nobody knows, of the image and of those below it, which were found to have these formats.
pub fn check_all_known<'f>(
    opened: &Opened,
    found: impl Iterator<Item = &'f FormatName>,
    settings: &Settings,
) -> Result<(), Told> {
    let refuse = |complaint: Complaint| complain(&complaint.not_opened(&opened.typed), settings);
    let pairs: Vec<_> = opened.below.iter().zip(found.skip(1)).collect();
    for (depth, (node, format)) in pairs.into_iter().enumerate().rev() {
        let node = settle(node.clone(), &format.0, &settings.profile);
        let known = node.check_known(&settings.profile, true);
        known.map_err(|complaint| refuse((0..=depth).fold(complaint, |complaint, _| complaint.about(BELOW))))?;
    }
    known(opened, settings, true).map_err(refuse)
}

fn known(opened: &Opened, settings: &Settings, backing: bool) -> Result<(), Complaint> {
    let Some(stack) = Stack::of(&opened.node) else { return Ok(()) };
    stack.above_leaf().try_for_each(|node| node.check_known(&settings.profile, backing))?;
    let has_header = stack.format.is_some_and(|format| format.child("header").is_some());
    if has_header && !settings.profile.detached_header() {
        return Err(Complaint::new(&[b"Block format 'luks' does not support the option 'header.filename'"]));
    }
    Ok(())
}

/// The passphrase that the user gives in a file.
fn key_in_file(parsed: &Parsed, settings: &Settings) -> Result<Option<Secret>, Told> {
    let Some(path) = parsed.value("luks-passphrase-file") else { return Ok(None) };
    let mut bytes = std::fs::read(path).map_err(|e| {
        let path = path.display().to_string();
        let sentence = format!("cannot read the passphrase file '{}': {e}", path.escape_debug());
        Told::failure(settings, sentence.as_bytes())
    })?;
    // Editors end files with a line break that nobody means.
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    Ok(Some(Secret(bytes)))
}

/// The passphrase that is named for an image.
fn secret(format: &Node, parsed: &Parsed) -> Option<Secret> {
    let secret = secret_name(format).and_then(|id| parsed.objects.secret(&id));
    secret.map(|secret| Secret(secret.bytes.expose().to_vec()))
}

/// The secret that an image is said to be opened with.
fn secret_name(format: &Node) -> Option<Vec<u8>> {
    ["key-secret", "encrypt.key-secret"].iter().find_map(|key| format.text(key))
}

fn part_of(raw: &Node) -> Part {
    Part { offset: raw.size("offset"), size: raw.size("size") }
}

fn source(format: &Node, part: Option<&Node>, file: &Granted) -> Source {
    let raw = if format.driver_name() == Some("raw") { part_of(format) } else { Part::default() };
    let pinned = format.driver_name().map(Into::into);
    let file = Granted { pinned, ..file.clone() };
    Source { file, part: part.map(part_of), raw, key: None, beside: None, below: Below::AsStored }
}

/// The faults of reading that a node for trying them out asks for.
fn faults(shim: &Node) -> Vec<Fault> {
    const IO_ERROR: i32 = 5;
    let fault = |number: u32| {
        let text = |key: &str| shim.text(&format!("inject-error.{number}.{key}"));
        let event = text("event")?;
        let reads = text("iotype").is_none_or(|kind| kind == b"read");
        let size = |key: &str| shim.size(&format!("inject-error.{number}.{key}"));
        let errno = size("errno").and_then(|n| i32::try_from(n).ok()).unwrap_or(IO_ERROR);
        let at = size("sector").map(|sector| sector.saturating_mul(512));
        let fault = Fault { at, errno: Errno::from_raw_os_error(errno), once: text("once").as_deref() == Some(b"on") };
        Some((event == b"none" && reads).then_some(fault))
    };
    (0..).map_while(fault).flatten().collect()
}

/// Reads past the page cache if any node says so; asynchronous requests of the kernel's kind need that.
fn heed_caching(stack: &Stack<'_>, session: &mut Session) -> Result<(), Complaint> {
    let all = || stack.above_leaf().chain([stack.leaf]);
    if all().any(|node| node.text("cache.direct").as_deref() == Some(b"on")) {
        session.read_directly();
    }
    if stack.leaf.text("aio").as_deref() == Some(b"native") && !session.reads_directly() {
        let why = b"aio=native was specified, but it requires cache.direct=on, which was not specified.";
        return Err(Complaint::new(&[why]));
    }
    Ok(())
}

fn open_leaf(leaf: &Node, aim: Aim, session: &mut Session, settings: &Settings) -> Result<Granted, Complaint> {
    let words = |m: Mishap| Complaint::new(&[&mishap_words(&m, settings, stderr_text(settings))]);
    let (name, device) = match leaf.leaf() {
        Some(Leaf::Null(size)) => return session.open_blank(&leaf.display_name(), size).map_err(words),
        Some(Leaf::HostDevice(name)) => (name, true),
        Some(Leaf::File(name)) => (name, false),
        None => return Err(Complaint::new(&[b"there is no file at the bottom"])),
    };
    let share = ["locking", "force-share"].map(|key| leaf.text(key));
    let lock = share[0].as_deref() != Some(b"off") && share[1].as_deref() != Some(b"on");
    let file = if aim == Aim::Change { session.open_to_write(name, lock) } else { session.open(name, lock) };
    let file = file.map_err(words)?;
    if device && session.facts(file.id).is_some_and(|f| !f.device) {
        let mishap = Mishap { name: name.to_vec(), named_by: None, why: Why::NotDevice };
        return Err(words(mishap));
    }
    Ok(file)
}

/// What a `json:` description or a protocol that an image names means, in qemu-img's ways; or why it means nothing.
pub fn interpret(role: &Related, name: &[u8], profile: &Profile) -> Result<Meant, Vec<u8>> {
    if *role == Related::DataFile && profile.data_file_is_plain() {
        return Ok(Meant { path: name.to_vec(), pinned: None, shown: name.to_vec() });
    }
    let described = describe(&Named::plain(name), profile).map_err(|complaint| {
        // Which image could not be opened is for the caller to say.
        let opening = Complaint::new(&[b""]).not_opened(name).sentence;
        complaint.sentence.strip_prefix(&opening[..]).map_or(complaint.sentence.clone(), <[u8]>::to_vec)
    })?;
    let stack = Stack::of(&described.node).filter(|s| s.part.is_none() && s.shims.is_empty());
    let leaf = stack.as_ref().and_then(|s| s.leaf.leaf());
    let (Some(stack), Some(Leaf::File(path))) = (&stack, leaf) else {
        return Err(b"drivers cannot be stacked in this way".to_vec());
    };
    let pinned = stack.format.and_then(Node::driver_name);
    let shown = settle(described.node.clone(), b"raw", profile).display_name();
    Ok(Meant { path: path.to_vec(), pinned: pinned.map(|p| p.as_bytes().to_vec()), shown })
}

/// What is told of a complaint.
pub fn complain(complaint: &Complaint, settings: &Settings) -> Told {
    let stderr = stderr_lines(settings, &complaint.lines(settings.face.prefix()));
    Told { stderr, code: 1, ..Told::default() }
}
