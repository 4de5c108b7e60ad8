//! The name under which qemu-img prints an image.
use super::drivers::{Role, matches};
use super::{Node, Value};
use crate::args::json;

/// The longest name that qemu-img keeps, with the byte that ends it.
const NAME_MAX: usize = 4096;

impl Node {
    /// The name: that of the file if nothing else is needed to describe the image, else `json:{…}`.
    ///
    /// The formats of all nodes should be known by now; see [`Node::with_format`].
    pub fn display_name(&self) -> Vec<u8> {
        if let Some(name) = self.exact_name() {
            return name;
        }
        let mut name = [b"json:".as_slice(), &json::print(&self.full_options())].concat();
        if name.len() >= NAME_MAX {
            name.truncate(NAME_MAX - 4);
            name.extend(b"...");
        }
        name
    }

    /// The node with the format that was found by looking.
    pub fn with_format(mut self, driver: &'static super::Driver) -> Node {
        self.driver = Some(driver);
        self
    }

    /// The plain name, if one says it all.
    fn exact_name(&self) -> Option<Vec<u8>> {
        let strong = self.strong_options();
        let role = self.driver.map_or(Role::Format, |driver| driver.role);
        match role {
            Role::File => self.text("filename"),
            Role::Null if strong.is_empty() => Some([self.driver?.name, "://"].concat().into_bytes()),
            Role::Shim => {
                let only_config = strong.iter().all(|(key, _)| key == b"config");
                let image = self.children.first()?.1.exact_name().filter(|_| only_config)?;
                let config = self.text("config").unwrap_or_default();
                Some([b"blkdebug:".as_slice(), &config, b":", &image].concat())
            }
            Role::Format if strong.is_empty() => {
                let below = self.child("file")?;
                below.driver.filter(|driver| driver.is_protocol())?;
                below.exact_name()
            }
            Role::Null | Role::Format | Role::Filter => None,
        }
    }

    /// The options that change what the image is.
    fn strong_options(&self) -> Vec<(Vec<u8>, Value)> {
        let Some(driver) = self.driver else { return Vec::new() };
        let strong = |key: &[u8]| driver.strong.iter().any(|name| matches(name, key));
        self.options.iter().filter(|(key, _)| strong(key)).cloned().collect()
    }

    /// All that is needed to describe the image, backing files left out.
    pub fn full_options(&self) -> Value {
        let mut out = self.strong_options();
        let name = self.driver_name().unwrap_or("raw");
        out.push((b"driver".to_vec(), Value::Text(name.as_bytes().to_vec())));
        let child = |(name, node): &(&'static str, Node)| (name.as_bytes().to_vec(), node.full_options());
        out.extend(self.children.iter().map(child));
        Value::Dict(out)
    }
}
