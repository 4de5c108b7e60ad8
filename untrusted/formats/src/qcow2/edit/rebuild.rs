//! All counts made anew, from what uses the clusters, in clusters that nobody uses; they take effect with the header.

use super::super::census::Roll;
use super::super::front::Front;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use instar_image::census::{Census, Claim, Clusters, Finding, Witness};
use instar_image::counts::Counts;
use instar_image::num::{bounded, narrow, wide};
use instar_image::{Drive, Error, Kind, Result, tally};

/// The longest table of blocks, in bytes, and the longest cluster.
const TABLE_MAX: u64 = 8 << 20;
const LEN_MAX: u64 = 2 << 20;
/// Clusters behind the file that are led to all the same, and must stay what they are: nothing.
const AVOIDED_MAX: usize = 1 << 20;

/// What is known before anything is written.
struct Plan {
    len: u64,
    order: u32,
    /// Blocks with counts that are not zero, and the clusters they are to lie in.
    blocks: BTreeMap<u64, u64>,
    /// The first clusters that nobody uses.
    free: Vec<u64>,
    /// All from this one on are unused, but for those to be avoided.
    units: u64,
    avoided: BTreeSet<u64>,
    /// First cluster of the table, and how many it has.
    table: (u64, u64),
    /// How often everything is used, if that was counted in one go.
    uses: Option<Counts>,
}

fn full() -> Error {
    Kind::TooBig.what("File too large")
}

/// Counts everything, and has the header lead to the new counts.
pub fn rebuild(roll: &Roll<'_, '_>, drive: &dyn Drive) -> Result<()> {
    let mut plan = Plan::new(roll)?;
    plan.place()?;
    plan.write(roll, drive)?;
    drive.flush(roll.file.id())?;
    let mut front = Front::read(roll.file, &roll.checked.layout)?;
    let (first, clusters) = plan.table;
    front.header.refcount_table_offset = first.saturating_mul(plan.len).into();
    front.header.refcount_table_clusters = u32::try_from(clusters).map_err(|_| full())?.into();
    front.publish(drive)
}

impl Plan {
    fn new(roll: &Roll<'_, '_>) -> Result<Plan> {
        let layout = &roll.checked.layout;
        let len = layout.cluster_len;
        let mut plan = Plan {
            len,
            order: layout.refcount_order,
            blocks: BTreeMap::new(),
            free: Vec::new(),
            units: roll.file.len().div_ceil(len),
            avoided: BTreeSet::new(),
            table: (0, 0),
            uses: None,
        };
        let per_block = plan.per_block();
        // As many blocks as there can be, and a table of them.
        let wanted = (plan.units / per_block).saturating_add(TABLE_MAX / len).saturating_add(8).min(TABLE_MAX / 4);
        let (uses, is_left) = tally::counts(roll, &mut |counts, units| {
            let end = counts.window.end.min(units.max(plan.units));
            plan.units = plan.units.max(units);
            let mut unit = counts.window.start;
            while unit < end {
                if counts.get(unit) > 0 {
                    plan.blocks.insert(unit / per_block, 0);
                } else if wide(plan.free.len()) < wanted {
                    plan.free.push(unit);
                } else {
                    unit = counts.next(unit).max(unit.saturating_add(1));
                    continue;
                }
                unit = unit.saturating_add(1);
            }
            Ok(())
        })?;
        // Up to the moment when the header changes, the old blocks are those that are there.
        let old = roll.blocks_at()?;
        plan.free.retain(|unit| !old.contains(unit));
        plan.uses = Some(uses).filter(|uses| uses.window.start == 0);
        if is_left {
            let zone = plan.units..plan.units.saturating_add(wanted.saturating_mul(2));
            let mut avoided = Avoided { len, zone, found: &mut plan.avoided };
            roll.take(&mut avoided)?;
        }
        Ok(plan)
    }

    fn per_block(&self) -> u64 {
        (self.len.saturating_mul(8) >> self.order).max(1)
    }

    /// Gives everything a place: blocks where there is room first, and then the table.
    fn place(&mut self) -> Result<()> {
        loop {
            let count = self.blocks.len();
            let last = self.blocks.last_key_value().map_or(0, |(last, _)| *last);
            let clusters = last.saturating_add(1).saturating_mul(8).div_ceil(self.len);
            if clusters.saturating_mul(self.len) > TABLE_MAX {
                return Err(full());
            }
            let behind = (self.units..).filter(|unit| !self.avoided.contains(unit));
            let mut places = self.free.iter().copied().chain(behind);
            let own: Vec<u64> = places.by_ref().take(count).collect();
            let (mut first, mut run) = (0u64, 0u64);
            for unit in places {
                run = if run > 0 && first.saturating_add(run) == unit { run.saturating_add(1) } else { 1 };
                first = unit.saturating_add(1).saturating_sub(run);
                if run >= clusters {
                    break;
                }
            }
            self.table = (first, clusters);
            self.blocks.values_mut().zip(&own).for_each(|(place, own)| *place = *own);
            let per_block = self.per_block();
            let table = (first..first.saturating_add(clusters)).map(|unit| unit / per_block);
            let more: BTreeSet<u64> = own.iter().map(|unit| unit / per_block).chain(table).collect();
            more.into_iter().for_each(|number| _ = self.blocks.entry(number).or_insert(0));
            if self.blocks.len() == count {
                return Ok(());
            }
        }
    }

    fn write(&self, roll: &Roll<'_, '_>, drive: &dyn Drive) -> Result<()> {
        let (first, clusters) = self.table;
        let mut own: Vec<u64> = self.blocks.values().copied().chain(first..first.saturating_add(clusters)).collect();
        own.sort_unstable();
        let per_block = self.per_block();
        let mut block = vec![0; bounded(self.len, LEN_MAX, full)?];
        let mut put = |number: u64, at: u64, count: &dyn Fn(u64) -> u64| {
            block.fill(0);
            let start = number.saturating_mul(per_block);
            for index in 0..per_block {
                let value = count(start.saturating_add(index));
                if value > 0 {
                    set(&mut block, self.order, index, value);
                }
            }
            let from = own.partition_point(|unit| *unit < start);
            let mine = own.iter().skip(from).take_while(|unit| **unit < start.saturating_add(per_block));
            mine.for_each(|unit| set(&mut block, self.order, unit.saturating_sub(start), 1));
            drive.write(roll.file.place(at.saturating_mul(self.len)), &block)
        };
        let mut next = 0;
        let mut each = |counts: &Counts, _| {
            let window = counts.window.start / per_block..counts.window.end / per_block;
            next = window.end;
            self.blocks.range(window).try_for_each(|(number, at)| put(*number, *at, &|unit| counts.get(unit)))
        };
        match &self.uses {
            Some(uses) => each(uses, 0)?,
            None => _ = tally::counts(roll, &mut each)?,
        }
        self.blocks.range(next..).try_for_each(|(number, at)| put(*number, *at, &|_| 0))?;
        let mut table = vec![0; narrow(clusters.saturating_mul(self.len))];
        let (entries, _) = table.as_chunks_mut::<8>();
        for (number, at) in &self.blocks {
            let word = at.saturating_mul(self.len).to_be_bytes();
            entries.iter_mut().skip(narrow(*number)).take(1).for_each(|entry| *entry = word);
        }
        drive.write(roll.file.place(first.saturating_mul(self.len)), &table)
    }
}

/// Sets a count in a block.
fn set(block: &mut [u8], order: u32, index: u64, value: u64) {
    if order >= 3 {
        let width = 1usize.wrapping_shl(order.saturating_sub(3));
        let word = value.to_be_bytes();
        let from = word.iter().skip(8usize.saturating_sub(width));
        block.iter_mut().skip(narrow(index).saturating_mul(width)).zip(from).for_each(|(to, from)| *to = *from);
        return;
    }
    let bit = index << order;
    let shift = u32::try_from(bit % 8).unwrap_or(0);
    let value = u8::try_from(value & 0xff).unwrap_or(0);
    block.iter_mut().skip(narrow(bit / 8)).take(1).for_each(|byte| *byte |= value.wrapping_shl(shift));
}

/// Listens for what is led to behind the file.
struct Avoided<'a> {
    len: u64,
    zone: core::ops::Range<u64>,
    found: &'a mut BTreeSet<u64>,
}

impl Witness for Avoided<'_> {
    fn claim(&mut self, claim: Claim) -> Result<bool> {
        let end = claim.end().div_ceil(self.len.max(1)).min(self.zone.end);
        let first = (claim.at / self.len.max(1)).max(self.zone.start);
        for unit in first..end {
            self.found.insert(unit);
            if self.found.len() > AVOIDED_MAX {
                return Err(full());
            }
        }
        Ok(true)
    }

    fn find(&mut self, _: Finding) -> Result<()> {
        Ok(())
    }

    fn doubt(&mut self) {}

    fn add(&mut self, _: Clusters) {}
}
