//! From a name on the command line to a node tree.
use super::drivers::{self, Driver, MODULES, Role};
use super::{Backing, Described, Node};
use crate::args::json::{self, Value};
use crate::args::keyval;
use crate::args::object;
use crate::args::stop::{Complaint, Note, say};
use crate::profile::{ModuleText, Profile};

type Options = Vec<(Vec<u8>, Value)>;

/// An image as named on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The word.
    pub name: &'a [u8],
    /// Whether the word is a list of options (`--image-opts`).
    pub image_opts: bool,
    /// The format given beside it (`-f`).
    pub format: Option<&'a [u8]>,
    /// Whether the image is shared (`-U`).
    pub force_share: bool,
}

impl<'a> Named<'a> {
    /// A plain name.
    pub fn plain(name: &'a [u8]) -> Named<'a> {
        Named { name, image_opts: false, format: None, force_share: false }
    }
}

/// Reads what is said about an image; complaints are complete sentences.
pub fn describe(named: &Named<'_>, profile: &Profile) -> Result<Described, Complaint> {
    let mut warnings = Vec::new();
    let built = if named.image_opts {
        let list = keyval::options(named.name, Some("file"), profile.flag_warning());
        if let Some((_, id)) = list.entries.iter().find(|(key, _)| key == b"id") {
            object::check_id(id)?;
        }
        if named.force_share && list.get("force-share") == Some(b"off") {
            return Err(Complaint::new(&[b"--force-share/-U conflicts with image options"]));
        }
        warnings.extend(list.warnings.into_iter().map(|(_, note)| note));
        let mut options = Options::new();
        for (key, value) in list.entries {
            put(&mut options, key, Value::Text(value));
        }
        Builder { profile, warnings: &mut warnings }.top(options, None)
    } else {
        let mut options = Options::new();
        if let Some(format) = named.format {
            put(&mut options, b"driver".to_vec(), Value::Text(format.to_vec()));
        }
        Builder { profile, warnings: &mut warnings }.word(named.name, options)
    };
    let node = built.map_err(|complaint| complaint.not_opened(named.name))?;
    Ok(Described { node, warnings })
}

/// Reads what options say about the image below another. Without a file, they go over what the upper image says.
pub fn describe_below(options: &[(Vec<u8>, Value)], profile: &Profile) -> Result<Described, Complaint> {
    let mut warnings = Vec::new();
    let mut builder = Builder { profile, warnings: &mut warnings };
    let mut options = options.to_vec();
    let driver = builder.driver(&mut options)?;
    let names_file = options.iter().any(|(key, _)| key == b"file" || key.starts_with(b"file."));
    let node = match names_file || driver.is_some_and(Driver::is_protocol) {
        true => builder.node(driver, options)?,
        false => builder.finish(driver, options, Vec::new())?,
    };
    Ok(Described { node, warnings })
}

/// Puts a value under a key, over an earlier one.
fn put(options: &mut Options, key: Vec<u8>, value: Value) {
    match options.iter_mut().find(|(k, _)| *k == key) {
        Some((_, old)) => *old = value,
        None => options.push((key, value)),
    }
}

/// Turns nested dictionaries and lists into keys with dots.
fn flatten(prefix: &[u8], value: Value, out: &mut Options) {
    let key = |name: &[u8]| if prefix.is_empty() { name.to_vec() } else { say(&[prefix, b".", name]) };
    match value {
        Value::Dict(entries) if prefix.is_empty() || !entries.is_empty() => {
            let (nested, plain): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|(_, value)| matches!(value, Value::Dict(_) | Value::List(_)));
            for (name, value) in plain.into_iter().chain(nested) {
                flatten(&key(&name), value, out);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for (at, value) in items.into_iter().enumerate() {
                flatten(&key(at.to_string().as_bytes()), value, out);
            }
        }
        value => put(out, prefix.to_vec(), value),
    }
}

struct Builder<'a> {
    profile: &'a Profile,
    warnings: &'a mut Vec<Note>,
}

impl Builder<'_> {
    /// A word without `--image-opts`: `json:…`, a protocol, or a file.
    fn word(&mut self, word: &[u8], mut options: Options) -> Result<Node, Complaint> {
        let Some(text) = word.strip_prefix(b"json:") else { return self.top(options, Some(word)) };
        let value = json::parse(text, self.profile).map_err(|c| c.about(b"Could not parse the JSON options"))?;
        let Value::Dict(_) = value else { return Err(Complaint::new(&[b"Invalid JSON object given"])) };
        let mut written = Options::new();
        flatten(b"", value, &mut written);
        for (key, value) in written {
            if !options.iter().any(|(k, _)| *k == key) {
                options.push((key, value));
            }
        }
        self.top(options, None)
    }

    fn top(&mut self, mut options: Options, word: Option<&[u8]>) -> Result<Node, Complaint> {
        let driver = self.driver(&mut options)?;
        let Some(word) = word else { return self.node(driver, options) };
        match driver {
            Some(driver) if driver.is_protocol() => self.protocol(driver, word, options),
            _ => {
                let (below, name) = self.protocol_of(word)?;
                let file = self.protocol(below, name, Options::new())?;
                self.finish(driver, options, vec![("file", file)])
            }
        }
    }

    /// Takes the driver out of the options.
    fn driver(&mut self, options: &mut Options) -> Result<Option<&'static Driver>, Complaint> {
        let Some(at) = options.iter().position(|(key, _)| key == b"driver") else { return Ok(None) };
        let (_, name) = options.remove(at);
        let Some(name) = name.text() else { return Ok(None) };
        if let Some(driver) = drivers::driver(name, self.profile) {
            return Ok(Some(driver));
        }
        let unknown = Complaint::new(&[b"Unknown driver '", name, b"'"]);
        let missing = self.missing_module(name);
        Err(match missing {
            Some((note, _)) => Complaint { before: note.into_iter().collect(), ..unknown },
            None => unknown,
        })
    }

    /// The protocol that a plain word names, and what is left of the word.
    fn protocol_of<'w>(&self, word: &'w [u8]) -> Result<(&'static Driver, &'w [u8]), Complaint> {
        let end = word.iter().position(|b| matches!(b, b':' | b'/')).unwrap_or(word.len());
        let wanted = if word.get(end) == Some(&b':') { &word[..end] } else { b"file" };
        let found = drivers::driver(wanted, self.profile).filter(|driver| driver.is_protocol());
        if let Some(driver) = found {
            return Ok((driver, word));
        }
        let unknown = Complaint::new(&[b"Unknown protocol '", wanted, b"'"]);
        Err(match self.missing_module(wanted) {
            Some((note, reason)) => Complaint {
                before: note.into_iter().collect(),
                sentence: reason.unwrap_or(unknown.sentence),
                after: Vec::new(),
            },
            None => unknown,
        })
    }

    /// What a distribution says of a protocol in a module: a line before, a sentence instead.
    fn missing_module(&self, name: &[u8]) -> Option<(Option<Note>, Option<Vec<u8>>)> {
        let (_, module) = MODULES.iter().find(|(protocol, _)| protocol.as_bytes() == name)?;
        if *module == "gluster" && self.profile.gluster_gone() {
            return None;
        }
        let package = "do you want to install qemu-block-extra package?";
        match self.profile.module_text() {
            ModuleText::Silent => None,
            ModuleText::OwnLine => {
                let line = format!("qemu: module block-block-{module} not found, {package}");
                Some((Some(Note::Bare(line.into_bytes())), None))
            }
            ModuleText::Reason => {
                let reason = format!(
                    "Unable to load block driver {module}. Perhaps you want to install qemu-block-extra package?"
                );
                Some((None, Some(reason.into_bytes())))
            }
            ModuleText::Named => {
                let line = format!(
                    "Unable to load module {module}. Perhaps you want to install qemu-block-extra or \
                     qemu-block-supplemental package?"
                );
                Some((Some(Note::Said(line.into_bytes())), Some(b"Must specify either driver or file".to_vec())))
            }
        }
    }

    /// A protocol node from a word that may begin with the protocol's name.
    fn protocol(&mut self, driver: &'static Driver, word: &[u8], mut options: Options) -> Result<Node, Complaint> {
        let prefix = [driver.name.as_bytes(), b":"].concat();
        let rest = word.strip_prefix(prefix.as_slice()).unwrap_or(word);
        match driver.role {
            Role::Null if rest == b"//" => {}
            Role::Null => {
                let name = driver.name.as_bytes();
                return Err(Complaint::new(&[b"The only allowed filename for this driver is '", name, b"://'"]));
            }
            Role::Shim => {
                let (config, image) = match rest.len() < word.len() {
                    false => (b"".as_slice(), word),
                    true => {
                        let end = rest.iter().position(|b| *b == b':');
                        let malformed = || Complaint::new(&[b"blkdebug requires both config file and image path"]);
                        let end = end.ok_or_else(malformed)?;
                        (&rest[..end], &rest[end + 1..])
                    }
                };
                if !config.is_empty() {
                    put(&mut options, b"config".to_vec(), Value::Text(config.to_vec()));
                }
                let (below, name) = self.protocol_of(image)?;
                let image = self.protocol(below, name, Options::new())?;
                return self.finish(Some(driver), options, vec![("image", image)]);
            }
            _ => put(&mut options, b"filename".to_vec(), Value::Text(rest.to_vec())),
        }
        self.finish(Some(driver), options, Vec::new())
    }

    /// A node from options alone.
    fn node(&mut self, driver: Option<&'static Driver>, mut options: Options) -> Result<Node, Complaint> {
        let names = driver.map_or(["file"].as_slice(), |driver| driver.children);
        let mut described = Vec::new();
        for name in names {
            described.push((*name, Child::take(&mut options, name)));
        }
        if driver.is_none() && matches!(described[0].1, Child::Absent) {
            return Err(nothing());
        }
        self.switches(&options)?;
        let mut children = Vec::new();
        for (at, (name, child)) in described.into_iter().enumerate() {
            match child {
                Child::Absent if at == 0 => {
                    let quoted = format!("A block device must be specified for \"{name}\"");
                    return Err(Complaint::new(&[quoted.as_bytes()]));
                }
                Child::Absent => {}
                Child::Both => {
                    return Err(Complaint::new(&[
                        b"Cannot reference an existing block device with additional options or a new filename",
                    ]));
                }
                Child::Reference(name) => return Err(no_such_node(&name, self.profile)),
                Child::Options(options) => children.push((name, self.below(options)?)),
            }
        }
        self.finish(driver, options, children)
    }

    /// A child from its options: a protocol is assumed where no driver is named.
    fn below(&mut self, mut options: Options) -> Result<Node, Complaint> {
        let driver = match self.driver(&mut options)? {
            Some(driver) => driver,
            None => {
                let named = options.iter().any(|(key, value)| key == b"filename" && value.text().is_some());
                drivers::driver(b"file", self.profile).filter(|_| named).ok_or_else(nothing)?
            }
        };
        self.node(Some(driver), options)
    }

    /// Settles the backing file and checks what is checked before anything is opened.
    fn finish(
        &mut self,
        driver: Option<&'static Driver>,
        mut options: Options,
        children: Vec<(&'static str, Node)>,
    ) -> Result<Node, Complaint> {
        self.switches(&options)?;
        let backing = self.backing(&mut options);
        let node = Node { driver, options, children, backing };
        if matches!(driver, Some(driver) if matches!(driver.role, Role::File | Role::Null)) {
            node.check_leaf(self.profile)?;
        }
        Ok(node)
    }

    fn backing(&mut self, options: &mut Options) -> Backing {
        const DEPRECATED: &[u8] = b"Use of \"backing\": \"\" is deprecated; use \"backing\": null instead";
        let none = |(key, value): &(Vec<u8>, Value)| key == b"backing" && *value == Value::Null;
        if let Some(at) = options.iter().position(none) {
            options.remove(at);
            return Backing::None;
        }
        let empty = |(key, value): &(Vec<u8>, Value)| key == b"backing" && value.text() == Some(b"");
        if let Some(at) = options.iter().position(empty) {
            options.remove(at);
            self.warnings.push(Note::Warned(DEPRECATED.to_vec()));
            return Backing::None;
        }
        match Child::take(options, "backing") {
            Child::Reference(name) => Backing::Reference(name),
            Child::Options(options) => Backing::Options(options),
            Child::Absent | Child::Both => Backing::AsStored,
        }
    }

    /// The switches that are looked at before a node's children are opened.
    fn switches(&self, options: &Options) -> Result<(), Complaint> {
        const EARLY: &[&str] = &["cache.no-flush", "cache.direct", "read-only", "auto-read-only", "force-share"];
        for key in EARLY {
            if let Some((_, value)) = options.iter().find(|(k, _)| k == key.as_bytes()) {
                crate::args::number::listed_switch(&super::as_text(value), key.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// What options say about a child.
enum Child {
    Absent,
    Reference(Vec<u8>),
    Both,
    Options(Options),
}

impl Child {
    /// Takes `name` and all `name.…` out of the options.
    fn take(options: &mut Options, name: &str) -> Child {
        let prefix = format!("{name}.");
        let mut reference = None;
        let mut below = Options::new();
        let mut rest = Options::new();
        for (key, value) in options.drain(..) {
            match (key.strip_prefix(prefix.as_bytes()), value) {
                (Some(inner), value) => below.push((inner.to_vec(), value)),
                (None, Value::Text(text)) if key == name.as_bytes() => reference = Some(text),
                (None, Value::Null | Value::Dict(_) | Value::List(_)) if key == name.as_bytes() => {}
                (None, value) => rest.push((key, value)),
            }
        }
        *options = rest;
        match (reference, below.is_empty()) {
            (None, true) => Child::Absent,
            (None, false) => Child::Options(below),
            (Some(name), true) => Child::Reference(name),
            (Some(_), false) => Child::Both,
        }
    }
}

fn nothing() -> Complaint {
    Complaint::new(&[b"Must specify either driver or file"])
}

/// What is said of a reference to a node.
pub fn no_such_node(name: &[u8], profile: &Profile) -> Complaint {
    match profile.quoted_names() {
        true => Complaint::new(&[b"Cannot find device='", name, b"' nor node-name='", name, b"'"]),
        false => Complaint::new(&[b"Cannot find device=", name, b" nor node_name=", name]),
    }
}
