//! `info` as JSON.

use super::{FILES, Layer, Manner, Node, SILENT, Verdict, named};
use crate::render::json::{arranged, pretty};
use instar_wire::fact::Fact;
use instar_wire::op::info::{Finding, Snapshot};

/// The document: a list if the chain was asked for, else the first layer.
pub fn json(layers: &[Layer], chain: bool, manner: &Manner<'_>) -> Vec<u8> {
    let mut facts = layers.iter().map(|layer| image(layer, manner));
    match chain {
        true => pretty(&Fact::List(facts.collect())),
        false => facts.next().map(|fact| pretty(&fact)).unwrap_or_default(),
    }
}

/// One layer; what qemu-img does not have stands after what it has.
fn image(layer: &Layer, manner: &Manner<'_>) -> Fact {
    let mut facts = arranged(&as_qemu(layer, manner));
    if let Some(extra) = &layer.told.extra {
        facts.add("extra-detail", named(extra, manner));
    }
    if !layer.verdicts.is_empty() {
        facts.add("policy", layer.verdicts.iter().map(verdict).collect::<Vec<_>>());
    }
    if manner.native {
        facts.add("safety", safety(&layer.told.findings, manner));
    }
    facts
}

fn as_qemu(layer: &Layer, manner: &Manner<'_>) -> Fact {
    let told = &layer.told;
    let mut facts = Fact::fields([
        ("filename", layer.name[..].into()),
        ("format", told.format.clone().into()),
        ("virtual-size", told.virtual_size.into()),
    ]);
    if let Some(actual) = layer.actual {
        facts.add("actual-size", actual);
    }
    if told.encrypted {
        facts.add("encrypted", true);
    }
    if let Some(size) = told.cluster_size {
        facts.add("cluster-size", size);
    }
    if let Some(dirty) = layer.dirty(manner.profile) {
        facts.add("dirty-flag", dirty);
    }
    if let Some(backing) = &told.backing {
        facts.add("backing-filename", backing.name.clone());
        if let Some(path) = &layer.backing_path {
            facts.add("full-backing-filename", &path[..]);
        }
        if let Some(format) = &backing.format {
            facts.add("backing-filename-format", format.clone());
        }
    }
    if !layer.snapshots.is_empty() {
        facts.add("snapshots", layer.snapshots.iter().map(snapshot).collect::<Vec<_>>());
    }
    if let Some(data) = layer.specific(manner) {
        facts.add("format-specific", specific(&told.format.0, data));
    }
    if manner.limits {
        facts.add("limits", layer.limits());
    }
    // The children share a bucket of the hash with the backing format: the later of the two comes first.
    if manner.profile.child_nodes() {
        facts.add("children", children(&layer.nodes, manner));
    }
    facts
}

fn specific(driver: &[u8], data: Fact) -> Fact {
    let kind = if FILES.contains(&driver) { b"file" } else { driver };
    Fact::fields([("type", kind.into()), ("data", data)])
}

/// The node opened last comes first.
fn children(nodes: &[Node], manner: &Manner<'_>) -> Fact {
    let child = |node: &Node| Fact::fields([("name", node.name[..].into()), ("info", file(node, manner))]);
    Fact::List(nodes.iter().rev().map(child).collect())
}

fn file(node: &Node, manner: &Manner<'_>) -> Fact {
    let mut facts = Fact::fields([
        ("filename", node.display[..].into()),
        ("format", node.driver[..].into()),
        ("virtual-size", node.shown_length(manner.rounding).into()),
        ("children", children(&node.children, manner)),
    ]);
    if manner.limits {
        facts.add("limits", node.storage.limits(&[]));
    }
    if let Some(actual) = node.actual {
        facts.add("actual-size", actual);
    }
    if FILES.contains(&&node.driver[..]) {
        facts.add("format-specific", specific(&node.driver, Fact::fields([])));
    }
    if !SILENT.contains(&&node.driver[..]) {
        facts.add("dirty-flag", false);
    }
    facts
}

/// A snapshot, as `info` and `snapshot -l` tell it.
fn snapshot(one: &Snapshot) -> Fact {
    const SECOND: u64 = 1_000_000_000;
    let mut facts = Fact::fields([
        ("id", one.id.clone().into()),
        ("name", one.name.clone().into()),
        // Signed numbers in qemu's eyes.
        ("vm-state-size", (one.vm_state_size as i64).into()),
        ("date-sec", one.date_sec.into()),
        ("date-nsec", one.date_nsec.into()),
        ("vm-clock-sec", (one.vm_clock_nsec / SECOND).into()),
        ("vm-clock-nsec", (one.vm_clock_nsec % SECOND).into()),
    ]);
    if let Some(count) = one.icount {
        facts.add("icount", count as i64);
    }
    facts
}

fn verdict(verdict: &Verdict) -> Fact {
    let mut facts = Fact::fields([
        ("reference", verdict.role().into()),
        ("name", verdict.name[..].into()),
        ("allowed", verdict.refused.is_none().into()),
    ]);
    if let Some(reason) = &verdict.refused {
        facts.add("reason", &reason[..]);
    }
    facts
}

fn safety(findings: &[Finding], manner: &Manner<'_>) -> Fact {
    let finding = |one: &Finding| {
        Fact::fields([
            ("check", one.check.clone().into()),
            ("ok", one.ok.into()),
            ("detail", named(&one.detail, manner)),
        ])
    };
    Fact::fields([
        ("findings", Fact::List(findings.iter().map(finding).collect())),
        ("safe", findings.iter().all(|one| one.ok).into()),
    ])
}
