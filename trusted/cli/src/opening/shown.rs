//! What is shown of the nodes that an image lies upon.

use super::role_of;
use crate::args::node::drivers::{self, Role};
use crate::args::node::{Leaf, Node};
use crate::profile::Profile;
use crate::render::info as page;
use instar_broker::Session;
use instar_wire::io::Granted;

/// The tree with the format that was found in it.
pub fn settle(mut node: Node, found: &[u8], profile: &Profile) -> Node {
    if node.driver.is_none() {
        node.driver = drivers::driver(found, profile);
    }
    node.children = node.children.into_iter().map(|(name, child)| (name, settle(child, found, profile))).collect();
    node
}

/// What lies below the top of a settled tree, as it is shown; lengths come from the file at the bottom.
pub fn below(top: &Node, session: &Session, file: &Granted, virtual_size: u64) -> Vec<page::Node> {
    // A further file is the image's to tell, if it is opened at all.
    top.children.iter().take(1).map(|(name, child)| shown(name, child, session, file, virtual_size)).collect()
}

fn shown(name: &str, node: &Node, session: &Session, file: &Granted, virtual_size: u64) -> page::Node {
    let facts = session.facts(file.id);
    let leaf = node.leaf();
    let device = facts.is_some_and(|f| f.device);
    let driver = match (&leaf, device) {
        (Some(Leaf::File(_)), true) => "host_device",
        _ => node.driver_name().unwrap_or("raw"),
    };
    let whole = facts.map_or(0, |f| f.len);
    let length = match (role_of(node), node.driver_name()) {
        (Role::Format, Some("raw")) => {
            node.size("size").unwrap_or_else(|| whole.saturating_sub(node.size("offset").unwrap_or(0)))
        }
        (Role::Format, _) => virtual_size,
        _ => whole,
    };
    page::Node {
        name: name.into(),
        display: node.display_name(),
        driver: driver.into(),
        length,
        actual: allocated(node, session, file),
        children: below(node, session, file, virtual_size),
        is_format: leaf.is_none(),
        storage: page::Storage::default(),
    }
}

/// What a node's file occupies, where that can be asked through the node.
pub fn allocated(node: &Node, session: &Session, file: &Granted) -> Option<u64> {
    let mut next = Some(node);
    while let Some(node) = next {
        if role_of(node) == Role::Shim {
            return None;
        }
        next = node.children.first().map(|(_, child)| child);
    }
    session.facts(file.id).map(|f| f.allocated)
}
