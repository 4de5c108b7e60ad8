//! What is wrong with a node's options, told when qemu-img would get there.
use super::build::no_such_node;
use super::drivers::{COMMON, Kind, Role};
use super::{Backing, Node, as_text};
use crate::args::number;
use crate::args::object::Objects;
use crate::args::stop::Complaint;
use crate::profile::Profile;

const DISCARD: &[&str] = &["ignore", "off", "unmap", "on"];
const DETECT_ZEROES: &[&str] = &["off", "on", "unmap"];

impl Node {
    /// The checks of a file or device, which come before it is opened.
    pub(super) fn check_leaf(&self, profile: &Profile) -> Result<(), Complaint> {
        let Some(driver) = self.driver else { return Ok(()) };
        let named = self.option("filename").and_then(|name| name.text()).is_some_and(|name| !name.is_empty());
        if driver.role == Role::File && !named {
            let name = driver.name.as_bytes();
            return Err(Complaint::new(&[b"The '", name, b"' block driver requires a file name"]));
        }
        self.check_values(profile, &Objects::default())
    }

    /// Checks the values of this node's options: after its children are opened, before itself is.
    pub fn check_values(&self, profile: &Profile, objects: &Objects) -> Result<(), Complaint> {
        let refused = |key: &str, words: &[&str]| {
            let value = self.text(key)?;
            (!words.iter().any(|word| word.as_bytes() == value)).then_some(value)
        };
        if refused("discard", DISCARD).is_some() {
            return Err(Complaint::new(&[b"Invalid discard option"]));
        }
        if let Some(value) = refused("detect-zeroes", DETECT_ZEROES) {
            return Err(Complaint::new(&[b"invalid parameter value: ", &value]));
        }
        if let Some(name) = self.text("node-name") {
            check_node_name(&name, profile)?;
        }
        let Some(driver) = self.driver else { return Ok(()) };
        for (key, value) in &self.options {
            if let Some(kind) = driver.option(key, profile) {
                check_value(key, &as_text(value), kind, profile)?;
            }
        }
        self.check_group(objects)
    }

    fn check_group(&self, objects: &Objects) -> Result<(), Complaint> {
        if self.driver_name() != Some("throttle") {
            return Ok(());
        }
        let Some(group) = self.text("throttle-group") else {
            return Err(Complaint::new(&[b"Please specify a throttle group"]));
        };
        match objects.group(&group) {
            Some(_) => Ok(()),
            None => Err(Complaint::new(&[b"Throttle group '", &group, b"' does not exist"])),
        }
    }

    /// Refuses options that nobody knows: after this node is opened.
    ///
    /// `backing` tells whether the backing file is opened; if not, words about it are not known.
    pub fn check_known(&self, profile: &Profile, backing: bool) -> Result<(), Complaint> {
        let Some(driver) = self.driver else { return Ok(()) };
        let mut left: Vec<(Vec<u8>, ())> = Vec::new();
        for (key, _) in &self.options {
            let common = COMMON.iter().any(|name| name.as_bytes() == key);
            if !common && driver.option(key, profile).is_none() {
                left.push((key.clone(), ()));
            }
        }
        match &self.backing {
            Backing::Reference(_) if !backing => left.push((b"backing".to_vec(), ())),
            Backing::Options(options) if !backing => {
                left.extend(options.iter().map(|(key, _)| ([b"backing.", key.as_slice()].concat(), ())));
            }
            _ => {}
        }
        left.reverse();
        crate::args::qdict::order(&mut left);
        let Some((key, ())) = left.first() else { return Ok(()) };
        let name = driver.name.as_bytes();
        Err(match driver.is_protocol() {
            true => Complaint::new(&[b"Block protocol '", name, b"' doesn't support the option '", key, b"'"]),
            false => Complaint::new(&[b"Block format '", name, b"' does not support the option '", key, b"'"]),
        })
    }

    /// Refuses a backing file that is named as a node, as the reason why the backing file does not open.
    pub fn check_backing(&self, profile: &Profile) -> Result<(), Complaint> {
        match &self.backing {
            Backing::Reference(name) => Err(no_such_node(name, profile)),
            _ => Ok(()),
        }
    }
}

fn check_node_name(name: &[u8], profile: &Profile) -> Result<(), Complaint> {
    let body = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let fine = name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(body);
    match (fine, profile.quoted_names()) {
        (true, _) => Ok(()),
        (false, true) => Err(Complaint::new(&[b"Invalid node-name: '", name, b"'"])),
        (false, false) => Err(Complaint::new(&[b"Invalid node name"])),
    }
}

fn check_value(key: &[u8], text: &[u8], kind: Kind, profile: &Profile) -> Result<(), Complaint> {
    match kind {
        Kind::Text => Ok(()),
        Kind::Switch => number::listed_switch(text, key).map(drop),
        Kind::Size => number::listed_size(text, key, profile).0.map(drop),
        Kind::Number => number::listed_number(text, key).map(drop),
        Kind::OneOf(words) if words.iter().any(|word| word.as_bytes() == text) => Ok(()),
        Kind::OneOf(_) => Err(Complaint::new(&[b"invalid parameter value: ", text])),
    }
}
