//! `info` as text.

use super::{Layer, Manner, Node, Verdict, named};
use crate::render::dump::dump;
use crate::render::snapshot;
use instar_wire::fact::Fact;
use instar_wire::io::Role;

/// All layers, a blank line between them.
pub fn human(layers: &[Layer], manner: &Manner<'_>) -> Vec<u8> {
    let mut out = Page { bytes: Vec::new(), manner };
    for (i, layer) in layers.iter().enumerate() {
        if i > 0 {
            out.bytes.push(b'\n');
        }
        out.image(layer);
    }
    out.bytes
}

struct Page<'a> {
    bytes: Vec<u8>,
    manner: &'a Manner<'a>,
}

impl Page<'_> {
    fn image(&mut self, layer: &Layer) {
        let told = &layer.told;
        self.head(0, [("image", &layer.name), ("file format", &told.format.0)]);
        self.line(0, "virtual size", self.manner.rounding.size_and_bytes(told.virtual_size).as_bytes());
        self.actual(0, layer.actual);
        if told.encrypted {
            self.line(0, "encrypted", b"yes");
        }
        if let Some(size) = told.cluster_size {
            self.line(0, "cluster_size", size.to_string().as_bytes());
        }
        if layer.dirty(self.manner.profile) == Some(true) {
            self.line(0, "cleanly shut down", b"no");
        }
        self.backing(layer);
        if self.manner.limits {
            self.section(0, "Block limits", &layer.limits());
        }
        if !layer.snapshots.is_empty() {
            let Manner { profile, rounding, text, local, .. } = *self.manner;
            self.bytes.extend_from_slice(b"Snapshot list:\n");
            self.bytes.extend(snapshot::table(&layer.snapshots, &snapshot::Manner { profile, rounding, text, local }));
        }
        if let Some(specific) = layer.specific(self.manner) {
            self.section(0, "Format specific information", &specific);
        }
        if let Some(extra) = &told.extra {
            self.section(0, "Extra detail", &named(extra, self.manner));
        }
        for verdict in layer.verdicts.iter().filter(|verdict| !is_below(verdict)) {
            let key = format!("{} '", verdict.role());
            self.bytes.extend_from_slice(key.as_bytes());
            self.text(&verdict.name);
            self.bytes.extend_from_slice(b"'\n");
            self.policy(verdict);
        }
        if self.manner.profile.child_nodes() {
            self.children(0, b"/", &layer.nodes);
        }
    }

    fn backing(&mut self, layer: &Layer) {
        let Some(backing) = &layer.told.backing else {
            return;
        };
        self.bytes.extend_from_slice(b"backing file: ");
        self.text(&backing.name.0);
        match &layer.backing_path {
            Some(path) if *path == backing.name.0 => {}
            Some(path) => {
                self.bytes.extend_from_slice(b" (actual path: ");
                self.text(path);
                self.bytes.push(b')');
            }
            None => self.bytes.extend_from_slice(b" (cannot determine actual path)"),
        }
        self.bytes.push(b'\n');
        layer.verdicts.iter().filter(|verdict| is_below(verdict)).for_each(|verdict| self.policy(verdict));
        if let Some(format) = &backing.format {
            self.head(0, [("backing file format", &format.0)]);
        }
    }

    fn policy(&mut self, verdict: &Verdict) {
        match &verdict.refused {
            None => self.line(4, "policy", b"allowed"),
            Some(reason) => {
                let words = [b"refused (", &self.manner.text.show(reason)[..], b")"].concat();
                self.line(4, "policy", &words);
            }
        }
    }

    /// The node opened last comes first; what lies below it is told inside it, with the longer path.
    fn children(&mut self, indent: usize, path: &[u8], nodes: &[Node]) {
        for node in nodes.iter().rev() {
            let path = [path, &node.name].concat();
            self.pad(indent);
            self.bytes.extend_from_slice(b"Child node '");
            self.text(&path);
            self.bytes.extend_from_slice(b"':\n");
            self.node(indent + 4, node);
            self.children(indent + 4, &[&path[..], b"/"].concat(), &node.children);
        }
    }

    fn node(&mut self, indent: usize, node: &Node) {
        let [name, driver, length] = match node.is_format {
            true => ["image", "file format", "virtual size"],
            false => ["filename", "protocol type", "file length"],
        };
        let rounding = self.manner.rounding;
        self.head(indent, [(name, &node.display), (driver, &node.driver)]);
        self.line(indent, length, rounding.size_and_bytes(node.shown_length(rounding)).as_bytes());
        self.actual(indent, node.actual);
        if self.manner.limits {
            self.section(indent, "Block limits", &node.storage.limits(&[]));
        }
    }

    fn actual(&mut self, indent: usize, actual: Option<u64>) {
        let words = actual.map_or("unavailable".to_owned(), |bytes| self.manner.rounding.size(bytes));
        self.line(indent, "disk size", words.as_bytes());
    }

    /// A heading with facts below it; nothing if there are none.
    fn section(&mut self, indent: usize, title: &str, facts: &Fact) {
        if !matches!(facts, Fact::Fields(fields) if fields.is_empty()) {
            self.pad(indent);
            self.bytes.extend_from_slice(title.as_bytes());
            self.bytes.extend_from_slice(b":\n");
            dump(&mut self.bytes, facts, indent + 4, self.manner.text);
        }
    }

    /// Lines whose values came from outside.
    fn head<const N: usize>(&mut self, indent: usize, lines: [(&str, &[u8]); N]) {
        for (key, value) in lines {
            self.line(indent, key, &self.manner.text.show(value));
        }
    }

    fn line(&mut self, indent: usize, key: &str, value: &[u8]) {
        self.pad(indent);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    fn text(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(&self.manner.text.show(value));
    }

    fn pad(&mut self, indent: usize) {
        self.bytes.resize(self.bytes.len() + indent, b' ');
    }
}

/// Whether the reference is the one that the line `backing file` shows.
fn is_below(verdict: &Verdict) -> bool {
    matches!(verdict.role, Role::Backing | Role::Parent)
}
