//! What was found in an image, in words and as facts.

use super::json::arranged;
use instar_wire::fact::Fact;
use instar_wire::op::check::{Clusters, Fixed, Summary};

/// How it is shown.
pub struct Manner {
    /// That nothing is wrong is told as well.
    pub full: bool,
}

/// As qemu-img tells it to people.
pub fn human(summary: &Summary) -> Vec<u8> {
    let Summary { corruptions, leaks, failures, end, .. } = *summary;
    let mut out = String::new();
    if corruptions == 0 && leaks == 0 && failures == 0 {
        out += "No errors were found on the image.\n";
    }
    if corruptions > 0 {
        out += &format!(
            "\n{corruptions} errors were found on the image.\n\
             Data may be corrupted, or further writes to the image may corrupt it.\n"
        );
    }
    if leaks > 0 {
        out += &format!(
            "\n{leaks} leaked clusters were found on the image.\n\
             This means waste of disk space, but no harm to data.\n"
        );
    }
    if failures > 0 {
        out += &format!("\n{failures} internal errors have occurred during the check.\n");
    }
    let Clusters { total, allocated, fragmented, compressed } = summary.clusters;
    if total != 0 && allocated != 0 {
        let share = |part: u64, all: u64| 100.0 * part as f64 / all as f64;
        out += &format!(
            "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            share(allocated, total),
            share(fragmented, allocated),
            share(compressed, allocated)
        );
    }
    if end > 0 {
        out += &format!("Image end offset: {end}\n");
    }
    out.into_bytes()
}

/// What has been repaired, as qemu-img tells it to people before it looks once more.
pub fn repaired(fixed: &Fixed) -> Vec<u8> {
    if !fixed.is_any() {
        return Vec::new();
    }
    let Fixed { leaks, corruptions } = fixed;
    format!(
        "The following inconsistencies were found and repaired:\n\n    {leaks} leaked clusters\n    \
         {corruptions} corruptions\n\nDouble checking the fixed image now...\n"
    )
    .into_bytes()
}

/// As facts; of an image that could not be checked, only what it is.
pub fn facts(summary: Option<&Summary>, name: &[u8], format: &[u8], manner: &Manner) -> Fact {
    let mut facts = Fact::fields([("filename", name.into()), ("format", format.into())]);
    if let Some(Summary { corruptions, leaks, failures, miscounts, end, clusters, fixed }) = summary {
        facts.add("check-errors", *failures);
        let always = [("corruptions", corruptions), ("leaks", leaks)];
        let counts = [
            ("corruptions-fixed", &fixed.corruptions),
            ("leaks-fixed", &fixed.leaks),
            ("image-end-offset", end),
            ("total-clusters", &clusters.total),
            ("allocated-clusters", &clusters.allocated),
            ("fragmented-clusters", &clusters.fragmented),
            ("compressed-clusters", &clusters.compressed),
        ];
        let told = always.iter().filter(|(_, count)| manner.full || **count != 0);
        told.chain(counts.iter().filter(|(_, count)| **count != 0)).for_each(|(name, count)| facts.add(name, **count));
        if manner.full {
            facts.add("refcount-errors", *miscounts);
        }
    }
    arranged(&facts)
}
