//! Repairs of what a census finds wrong.
//!
//! Counts and flags are set one by one where they stand: each is in one sector, each is right by itself, and none of them
//! makes anybody write to a cluster that somebody else uses. So it does not matter which of them a crash keeps. Where there
//! is no place for a count, or it cannot be found, all are made anew beside the old ones.

use super::super::Qcow2Image;
use super::super::census::Roll;
use super::super::clusters::Clusters;
use super::super::disk::{BITMAPS, CORRUPT, DATA_FILE_RAW, DIRTY};
use super::super::front::Front;
use super::super::open::{self, Checked, Table};
use super::super::snapshots;
use super::mend::{Mend, Phase};
use super::rebuild::rebuild;
use alloc::vec::Vec;
use instar_image::census::{Finding, Weight, finding};
use instar_image::num::wide;
use instar_image::tally::{Counted, Survey};
use instar_image::{File, Fixed, Freed, Kind, Options, Order, Purpose, Report, Result, Summary, tally};

/// Where the header says how many snapshots there are, and where.
const SNAPSHOTS_AT: u64 = 60;

/// Repairs an image.
pub fn repair(image: &Qcow2Image<'_>, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
    let file = fresh(&image.file, order)?;
    let (Survey { summary: first, is_doubtful, counted }, heard) = look(&file, &image.checked, order, report)?;
    let (summary, checked) = if heard.rebuild.get() {
        if !order.is_all() {
            report(said(&file, "ERROR need to rebuild refcount structures"))?;
            return Err(Kind::Io.what("").file(file.id()));
        }
        report(said(&file, "Rebuilding refcount structure"))?;
        let muted = Mend::new(*order, Phase::Set, None);
        let roll = Roll { file: &file, checked: &image.checked, scope: order.scope, mend: Some(&muted) };
        rebuild(&roll, order.drive)?;
        let file = fresh(&image.file, order)?;
        let checked = reopened(image, &file, order)?;
        let after = set(&file, &checked, order, (Phase::After, 0), None, report)?;
        (after_rebuild(&first, after), Some(checked))
    } else {
        let (corruptions, leaks) = heard.miscounts.get();
        let rest = Summary {
            corruptions: first.corruptions.saturating_sub(corruptions),
            leaks: first.leaks.saturating_sub(leaks),
            ..first.clone()
        };
        let others = rest.corruptions.saturating_add(rest.leaks).saturating_add(rest.failures);
        match corruptions != 0 || leaks != 0 || is_doubtful {
            true => (joined(rest, set(&file, &image.checked, order, (Phase::Set, others), counted, report)?), None),
            false => (first, None),
        }
    };
    let file = fresh(&image.file, order)?;
    let checked = checked.as_ref().unwrap_or(&image.checked);
    if order.is_all() && mend_snapshots(&file, checked, order)? {
        // The file may be longer now, and clusters be a part of it whose counts were nobody's concern before.
        let file = fresh(&image.file, order)?;
        set(&file, &reopened(image, &file, order)?, order, (Phase::Set, 1), None, &mut |_| Ok(()))?;
    }
    order.drive.flush(file.id())?;
    let file = fresh(&image.file, order)?;
    let is_sound = summary.corruptions == 0 && summary.failures == 0;
    let layout = &reopened(image, &file, order)?.layout;
    let mut front = Front::read(&file, layout)?;
    let bits = if is_sound { layout.incompatible & !(DIRTY | CORRUPT) } else { layout.incompatible };
    let are_unknown = layout.autoclear & !(BITMAPS | DATA_FILE_RAW) != 0;
    if front.had_stale_bitmaps || bits != layout.incompatible || are_unknown {
        front.header.incompatible_features = bits.into();
        front.publish(order.drive)?;
    }
    Ok(summary)
}

/// The file as it is now.
fn fresh<'d>(file: &File<'_>, order: &Order<'d>) -> Result<File<'d>> {
    let start = file.place(0).at;
    let len = order.drive.length(file.id())?.saturating_sub(start);
    Ok(File::slice(order.drive, file.id(), start, len))
}

/// What the header says now.
fn reopened(image: &Qcow2Image<'_>, file: &File<'_>, order: &Order<'_>) -> Result<Checked> {
    let options = Options {
        purpose: Purpose::Repair,
        as_qemu: order.scope.as_qemu,
        version: order.scope.version,
        key: image.key.clone(),
        beside: image.checked.data_file.clone(),
        ..Options::default()
    };
    open::open(file, &options)
}

fn said(file: &File<'_>, words: &'static str) -> Finding {
    finding(Weight::Note, Kind::Corrupt.what(words).file(file.id()))
}

/// Sees what is wrong, and what there is to be done.
fn look<'o>(file: &File<'_>, checked: &Checked, order: &Order<'o>, report: Report<'_>) -> Result<(Survey, Mend<'o>)> {
    let mend = Mend::new(*order, Phase::Look, None);
    let roll = Roll { file, checked, scope: order.scope, mend: Some(&mend) };
    let survey = tally::survey(&roll, report)?;
    Ok((survey, mend))
}

/// Sets counts and flags; `others`: errors that stay. `counted`: what the census has counted before, if it has.
fn set(
    file: &File<'_>,
    checked: &Checked,
    order: &Order<'_>,
    (phase, others): (Phase, u64),
    counted: Option<Counted>,
    report: Report<'_>,
) -> Result<Summary> {
    let clusters = Clusters::open(file, &checked.layout, false)?;
    let mend = Mend::new(*order, phase, Some(clusters));
    mend.others.set(others);
    let roll = Roll { file, checked, scope: order.scope, mend: Some(&mend) };
    let summary = match counted {
        Some(counted) => tally::go_on(&roll, order.scope, counted, report)?,
        None => tally::check(&roll, order.scope, report)?,
    };
    mend.free(&roll)?;
    mend.settle()?;
    if mend.rebuild.get() {
        report(said(file, "ERROR rebuilt refcount structure is still broken"))?;
    }
    Ok(summary)
}

/// What has been found twice is what is left.
fn after_rebuild(first: &Summary, after: Summary) -> Summary {
    let corruptions = first.corruptions.saturating_sub(after.corruptions);
    let fixed = Fixed {
        corruptions: corruptions.saturating_add(first.fixed.corruptions).saturating_add(after.fixed.corruptions),
        leaks: first.leaks.saturating_sub(after.leaks).saturating_add(first.fixed.leaks),
    };
    Summary { fixed, ..after }
}

/// What was told first, and what became of the rest.
fn joined(rest: Summary, then: Summary) -> Summary {
    Summary {
        corruptions: rest.corruptions.saturating_add(then.corruptions),
        leaks: rest.leaks.saturating_add(then.leaks),
        fixed: Fixed {
            corruptions: rest.fixed.corruptions.saturating_add(then.fixed.corruptions),
            leaks: rest.fixed.leaks.saturating_add(then.fixed.leaks),
        },
        ..rest
    }
}

/// A new table of snapshots, if the one that is there is not as it should be: whether there is one. All counts are true.
fn mend_snapshots(file: &File<'_>, checked: &Checked, order: &Order<'_>) -> Result<bool> {
    let (layout, drive) = (&checked.layout, order.drive);
    let old = layout.snapshots;
    if old.count == 0 || !layout.placed(old, 40) {
        return Ok(false);
    }
    let count = snapshots::kept(file, old)?;
    let mut is_wrong = count != old.count;
    let (mut bytes, mut end) = (Vec::new(), old.at);
    snapshots::walk_leniently(file, Table { count, ..old }, &mut |entry| {
        let len = entry.extra_len();
        is_wrong |= (layout.version > 2 && len < 16) || u64::from(len) > snapshots::EXTRA_LEN_MAX;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(entry.complete(layout.disk_size())?);
        end = entry.end();
        Ok(())
    })?;
    if !is_wrong {
        return Ok(false);
    }
    if wide(bytes.len()) > snapshots::TABLE_LEN_MAX {
        return Err(Kind::TooBig.what("File too large").file(file.id()));
    }
    let mut clusters = Clusters::open(file, layout, false)?;
    clusters.keep_order(Freed::Lost);
    let at = clusters.claim(drive, wide(bytes.len()).div_ceil(layout.cluster_len))?;
    let place = file.place(at);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    clusters.draft.put(drive, place.at, &bytes)?;
    let mut words = u32::try_from(count).unwrap_or(0).to_be_bytes().to_vec();
    words.extend(at.to_be_bytes());
    clusters.draft.link(drive, file.place(SNAPSHOTS_AT).at, &words)?;
    clusters.release(drive, old.at, end.saturating_sub(old.at))?;
    clusters.settle(drive)?;
    Ok(true)
}
