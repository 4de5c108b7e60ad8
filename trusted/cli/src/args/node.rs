//! What the user said about one image, as a tree of nodes with their drivers and options.
pub mod drivers;

mod build;
mod check;
mod name;

use self::drivers::Driver;
use super::json::Value;
use super::stop::Note;

pub use self::build::{Named, describe, describe_below, no_such_node};

/// A node of an image: a format, a filter, or a file at the bottom.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The driver; `None` if the format is to be found by looking at the content.
    pub driver: Option<&'static Driver>,
    /// The node's own options, nested ones with dots in their names.
    pub options: Vec<(Vec<u8>, Value)>,
    /// The nodes below, by name: `file`, `image`, `data-file`, `header`.
    pub children: Vec<(&'static str, Node)>,
    /// What is said about the backing file.
    pub backing: Backing,
}

/// What the user says about an image's backing file.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Backing {
    /// Nothing: what the image says counts.
    #[default]
    AsStored,
    /// There is none, whatever the image says.
    None,
    /// A node called so, which does not exist in an image tool.
    Reference(Vec<u8>),
    /// Options that go over what the image says.
    Options(Vec<(Vec<u8>, Value)>),
}

/// The bottom of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf<'a> {
    /// A file, or a device that is to be recognised as such.
    File(&'a [u8]),
    /// A device.
    HostDevice(&'a [u8]),
    /// Zeroes of this length.
    Null(u64),
}

/// A description with the warnings that it earned.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The image.
    pub node: Node,
    /// What is to be said on standard error first.
    pub warnings: Vec<Note>,
}

impl Node {
    /// The value of an option of this node.
    pub fn option(&self, key: &str) -> Option<&Value> {
        self.options.iter().find(|(k, _)| k == key.as_bytes()).map(|(_, value)| value)
    }

    /// The value of an option as text, whatever type it was written in.
    pub fn text(&self, key: &str) -> Option<Vec<u8>> {
        self.option(key).map(as_text)
    }

    /// The child of that name.
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|(child, _)| *child == name).map(|(_, node)| node)
    }

    /// The name of the driver.
    pub fn driver_name(&self) -> Option<&'static str> {
        self.driver.map(|driver| driver.name)
    }

    /// What this node is, if it is the bottom.
    pub fn leaf(&self) -> Option<Leaf<'_>> {
        const NULL_SIZE: u64 = 1 << 30;
        let filename = || self.option("filename").and_then(Value::text).unwrap_or_default();
        match self.driver?.name {
            "file" => Some(Leaf::File(filename())),
            "host_device" | "host_cdrom" => Some(Leaf::HostDevice(filename())),
            "null-co" | "null-aio" => Some(Leaf::Null(self.size("size").unwrap_or(NULL_SIZE))),
            _ => None,
        }
    }

    /// An option that is a number of bytes, once it is known to be good.
    pub fn size(&self, key: &str) -> Option<u64> {
        super::number::size(&self.text(key)?, &crate::profile::Profile::default()).value.ok()
    }
}

/// A value as an option list would write it.
fn as_text(value: &Value) -> Vec<u8> {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(true) => b"on".to_vec(),
        Value::Bool(false) => b"off".to_vec(),
        other => super::json::print(other),
    }
}

#[cfg(test)]
mod tests;
