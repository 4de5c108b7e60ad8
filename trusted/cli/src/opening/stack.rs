//! The nodes of a tree in the order in which they lie upon each other.

use crate::args::node::Node;
use crate::args::node::drivers::Role;
use crate::args::number::listed_switch;
use instar_broker::Spares;

/// Those nodes; each kind of them may be missing but for the file at the bottom.
pub struct Stack<'a> {
    pub filters: Vec<&'a Node>,
    pub format: Option<&'a Node>,
    pub part: Option<&'a Node>,
    pub shims: Vec<&'a Node>,
    pub leaf: &'a Node,
}

impl Stack<'_> {
    /// Of a tree; nothing if they lie in another order.
    pub fn of(top: &Node) -> Option<Stack<'_>> {
        let mut next = Some(top);
        let mut take = |role: Role| {
            let node = next.filter(|n| role_of(n) == role)?;
            next = node.children.first().map(|(_, child)| child);
            Some(node)
        };
        let filters = std::iter::from_fn(|| take(Role::Filter)).collect();
        let format = take(Role::Format);
        let part = take(Role::Format);
        let shims = std::iter::from_fn(|| take(Role::Shim)).collect();
        let leaf = next.filter(|n| n.leaf().is_some())?;
        (part.is_none_or(|p| p.driver_name() == Some("raw"))).then_some(Stack { filters, format, part, shims, leaf })
    }

    /// Every node but the leaf, lowest first.
    pub fn above_leaf(&self) -> impl Iterator<Item = &Node> {
        let middle = self.part.into_iter().chain(self.format);
        self.shims.iter().rev().copied().chain(middle).chain(self.filters.iter().rev().copied())
    }

    /// Which space goes back to the file system that the image gives back.
    pub fn spares(&self) -> Spares {
        let keeps = |node: &Node| matches!(node.text("discard").as_deref(), Some(b"ignore" | b"off"));
        if keeps(self.leaf) {
            return Spares::NONE;
        }
        let said = |key: &str| {
            let text = self.format.and_then(|format| format.text(key))?;
            listed_switch(&text, key.as_bytes()).ok()
        };
        let usual = Spares::default();
        Spares {
            snapshot: said("pass-discard-snapshot").unwrap_or(usual.snapshot),
            other: said("pass-discard-other").unwrap_or(usual.other),
            zeroed: !self.format.is_some_and(keeps) && said("pass-discard-request").unwrap_or(usual.zeroed),
            ..usual
        }
    }
}

/// What a node is for; one without a driver is an image of a format to be found.
pub fn role_of(node: &Node) -> Role {
    node.driver.map_or(Role::Format, |d| d.role)
}
