//! The census of a Parallels disk: which clusters of the file its table gives to the disk.

use super::disk::{DATA_OFF_AT, Header, IN_USE_AT};
use super::open::Checked;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::mem::size_of;
use instar_image::census::{
    Census, Claim, Clusters, Finding, Irregular, Owner, Scope, Space, Weight, Witness, finding,
};
use instar_image::file::copy_padded;
use instar_image::sector::{SECTOR, round_up};
use instar_image::{Error, File, Kind, Order, Report, Result, Summary, Table, tally};

/// The version, times a hundred, from which on qemu-img looks at more than the ends of clusters.
const THOROUGH: u32 = 802;
/// The version, times a hundred, from which on no cluster lies before the data.
const BOUNDED: u32 = 1101;
/// Clusters that are looked at for duplicates.
const SLOTS_MAX: u64 = 1 << 30;

/// Where an entry of the table stands.
fn entry_at(number: u64) -> u64 {
    number.saturating_mul(4).saturating_add(size_of::<Header>() as u64)
}

/// The lower four bytes of a number.
fn low(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(0).to_le_bytes()
}

/// Repairs a disk in the way of qemu-img: everything that is changed is right by itself.
pub fn repair(file: &File<'_>, checked: &Checked, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
    let drive = order.drive;
    // Natively, as the newest does.
    let version = if order.scope.as_qemu { order.scope.version } else { u32::MAX };
    let scope = Scope { as_qemu: true, version };
    let start = file.place(0).at;
    let fresh = |len: u64| File::slice(drive, file.id(), start, len.saturating_sub(start));
    let now = fresh(drive.length(file.id())?);
    let roll = Roll::mending(&now, checked, scope, Some(*order));
    let mut summary = tally::check(&roll, scope, report)?;
    let twice = roll.twice.take();
    twice.into_iter().try_for_each(|number| roll.part(number))?;
    drive.flush(file.id())?;
    if order.is_all() || summary.corruptions == 0 {
        // What the oldest ones leave behind once nothing leads there, and what all of them expect to be there.
        let now = fresh(drive.length(file.id())?);
        let rest = Roll::mending(&now, checked, Scope { version: u32::MAX, ..scope }, Some(*order));
        let end = if order.is_all() { rest.kept_end() } else { rest.len() }.max(rest.start());
        if end != now.len() {
            drive.set_length(file.id(), file.place(end).at)?;
            drive.flush(file.id())?;
        }
    }
    if checked.in_use && summary.corruptions <= u64::from(!order.is_all()) && summary.failures == 0 {
        drive.write(file.place(IN_USE_AT), &[0; 4])?;
        drive.flush(file.id())?;
    }
    if !order.scope.as_qemu && !summary.fixed.is_any() {
        let now = fresh(drive.length(file.id())?);
        summary = tally::check(&Roll::new(&now, checked, order.scope), order.scope, report)?;
    }
    Ok(summary)
}

/// An image's census.
pub struct Roll<'r, 'a> {
    file: &'r File<'a>,
    checked: &'r Checked,
    scope: Scope,
    survey: Survey,
    /// What is repaired meanwhile.
    mend: Option<Order<'r>>,
    /// Entries whose clusters are those of others.
    twice: RefCell<Vec<u64>>,
}

/// What has to be known of the table as a whole before anything is said of its parts.
#[derive(Clone, Debug, Default)]
struct Survey {
    /// Where the last cluster ends that is in order, if there is one.
    end: Option<u64>,
    /// Where the last of all clusters ends.
    far: u64,
    /// Where the last part of the format extension ends.
    extension_end: u64,
    /// All clusters lie on a grid that begins where the data do.
    on_grid: bool,
    /// Why nothing is known.
    broken: Option<Error>,
}

impl Census for Roll<'_, '_> {
    fn space(&self) -> Space {
        if !self.scope.sees(THOROUGH) {
            return Space::unclaimed(self.file.id(), self.len());
        }
        let (cluster, start) = (self.cluster(), self.start());
        let unit = if self.scope.as_qemu || self.survey.on_grid { cluster } else { SECTOR };
        let lead = unit.saturating_sub(start.checked_rem(unit).unwrap_or(0)).checked_rem(unit).unwrap_or(0);
        // A file that ends in a sector reads as if it had all of it.
        let len = if self.scope.as_qemu { self.slots_end() } else { self.len() };
        Space { file: self.file.id(), len, unit, lead, slack: 0, most: u64::MAX }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        if let Some(error) = &self.survey.broken {
            return Err(error.clone());
        }
        out.add(Clusters { total: self.checked.table_count.into(), ..Clusters::NONE });
        if self.checked.in_use {
            let words = ["ERROR image was not closed correctly", "Repairing image was not closed correctly"];
            out.find(self.wrong(words))?;
        }
        if self.scope.sees(THOROUGH) && !self.checked.data_at(self.file.len()).1 {
            self.put(DATA_OFF_AT, self.start() / SECTOR)?;
            out.find(
                self.wrong([
                    "ERROR data_off field has incorrect value",
                    "Repairing data_off field has incorrect value",
                ]),
            )?;
        }
        if self.scope.as_qemu {
            self.outside(out)?;
            self.leak(out)?;
            if self.scope.sees(THOROUGH) {
                self.duplicates(out)?;
            }
        } else {
            self.claims(out)?;
        }
        self.statistics(out)
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        match irregular {
            Irregular::Shared(Claim { owner: Owner::Block(number), .. }, _) if self.scope.as_qemu => {
                if self.mends() {
                    self.twice.borrow_mut().push(*number);
                }
                let words = ["ERROR duplicate offset in BAT entry {}", "Repairing duplicate offset in BAT entry {}"];
                let Finding { weight, what, .. } = self.wrong(words);
                Some(finding(weight, what.arg(*number)))
            }
            _ if self.scope.as_qemu => None,
            Irregular::Unused(unused) => Some(self.space().lost(unused, self.cluster())),
            _ => self.space().words(irregular, "cluster"),
        }
    }

    fn end(&self, _last: Option<u64>) -> u64 {
        self.image_end()
    }
}

impl<'r, 'a> Roll<'r, 'a> {
    /// Looks the table over.
    pub fn new(file: &'r File<'a>, checked: &'r Checked, scope: Scope) -> Self {
        Roll::mending(file, checked, scope, None)
    }

    fn mending(file: &'r File<'a>, checked: &'r Checked, scope: Scope, mend: Option<Order<'r>>) -> Self {
        let mut roll = Roll { file, checked, scope, survey: Survey::default(), mend, twice: RefCell::default() };
        roll.survey = roll.survey();
        roll
    }

    fn survey(&self) -> Survey {
        let mut survey = Survey { on_grid: true, ..Survey::default() };
        let (cluster, start) = (self.cluster(), self.start());
        let is_on_grid = |at: u64| at.abs_diff(start).is_multiple_of(cluster);
        let mut high = 0;
        let walked = self.entries(&mut |_, at| {
            if !self.is_outside(at) {
                high = high.max(at);
            }
            survey.far = survey.far.max(at.saturating_add(cluster));
            survey.on_grid &= at == 0 || is_on_grid(at);
            Ok(())
        });
        let others = self.others(&mut |_, at, len| {
            survey.extension_end = survey.extension_end.max(at.saturating_add(len));
            survey.on_grid &= is_on_grid(at);
            Ok(())
        });
        survey.end = Some(high).filter(|high| *high > 0).map(|high| high.saturating_add(cluster));
        survey.broken = walked.and(others).err();
        survey
    }
}

impl Roll<'_, '_> {
    fn cluster(&self) -> u64 {
        self.checked.cluster_len()
    }

    /// Where the data begin.
    fn start(&self) -> u64 {
        self.checked.data_at(self.file.len()).0
    }

    /// Length of the file in whole sectors.
    fn len(&self) -> u64 {
        round_up(self.file.len())
    }

    fn corrupt(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.file.id())
    }

    /// Everything is repaired.
    fn mends(&self) -> bool {
        self.mend.is_some_and(|order| order.is_all())
    }

    /// Something is wrong, or has been: what is said of it in either case.
    fn wrong(&self, [wrong, mended]: [&'static str; 2]) -> Finding {
        match self.mends() {
            true => finding(Weight::Mended, self.corrupt(mended)),
            false => finding(Weight::Corruption, self.corrupt(wrong)),
        }
    }

    /// Writes a number of four bytes, if everything is repaired.
    fn put(&self, at: u64, number: u64) -> Result<()> {
        match self.mend.filter(Order::is_all) {
            Some(order) => order.drive.write(self.file.place(at), &low(number)),
            None => Ok(()),
        }
    }

    /// How many entries the table has, and how many of them are worth a look: what the file does not have reads as
    /// zeroes, so one of those tells of all. We say once that the rest is missing.
    fn count(&self) -> (u64, u64) {
        let all = u64::from(self.checked.table_count);
        let there = self.file.len().saturating_sub(size_of::<Header>() as u64) / 4;
        (all, all.min(there.saturating_add(self.scope.as_qemu.into())))
    }

    /// The entries of the table that are worth a look, as places in the file.
    fn entries(&self, each: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let (_, count) = self.count();
        let unit = u64::from(self.checked.entry_unit).saturating_mul(SECTOR);
        let mut table = Table::<4>::new(self.file.io(), self.file.id());
        table.each(self.file.place(size_of::<Header>() as u64).at, count, |number, entry| {
            each(number, u64::from(u32::from_le_bytes(*entry)).saturating_mul(unit))
        })
    }

    /// What the format extension has in the file: what it is, where, and how long.
    fn others(&self, each: &mut dyn FnMut(&'static str, u64, u64) -> Result<()>) -> Result<()> {
        let (checked, cluster) = (self.checked, self.cluster());
        if checked.extension_sector != 0 {
            each("the format extension", checked.extension_sector.saturating_mul(SECTOR), cluster)?;
        }
        let mut table = Table::<8>::new(self.file.io(), self.file.id());
        for bitmap in &checked.bitmaps {
            table.each(self.file.place(bitmap.table_at).at, bitmap.table_count.into(), |_, entry| {
                match u64::from_le_bytes(*entry) {
                    // These say that all bits are alike.
                    0 | 1 => Ok(()),
                    sector => each("a part of a bitmap", sector.saturating_mul(SECTOR), cluster),
                }
            })?;
        }
        Ok(())
    }

    /// Whether a cluster cannot lie there; the rules changed twice.
    fn is_outside(&self, at: u64) -> bool {
        let end = at.saturating_add(self.cluster());
        match () {
            () if self.scope.sees(BOUNDED) => at != 0 && (at < self.start() || end > self.len()),
            () if self.scope.sees(THOROUGH) => end > self.len(),
            () => at > self.len(),
        }
    }

    /// Where the image ends, as far as it is in use.
    fn image_end(&self) -> u64 {
        let Survey { end, far, .. } = &self.survey;
        match () {
            // The oldest ones took no notice of what is outside.
            () if !self.scope.sees(THOROUGH) => (*far).max(self.cluster()),
            () if self.scope.sees(BOUNDED) => end.unwrap_or(self.start()),
            () => end.unwrap_or((*far).max(self.start())),
        }
    }

    /// Where it ends for who repairs it; natively the format extension is a part of it.
    fn kept_end(&self) -> u64 {
        match self.mend {
            Some(order) if !order.scope.as_qemu => self.image_end().max(self.survey.extension_end),
            _ => self.image_end(),
        }
    }

    fn outside(&self, out: &mut dyn Witness) -> Result<()> {
        let mut find = |number: u64| {
            self.put(entry_at(number), 0)?;
            let Finding { weight, what, .. } =
                self.wrong(["ERROR cluster {} is outside image", "Repairing cluster {} is outside image"]);
            out.find(finding(weight, what.arg(number)))
        };
        self.entries(&mut |number, at| if self.is_outside(at) { find(number) } else { Ok(()) })?;
        let (all, seen) = self.count();
        // Versions that take no cluster for one at zero name each.
        if self.is_outside(0) { (seen..all).try_for_each(find) } else { Ok(()) }
    }

    /// What lies behind the last cluster.
    fn leak(&self, out: &mut dyn Witness) -> Result<()> {
        let more = self.len().saturating_sub(self.kept_end());
        if more == 0 {
            return Ok(());
        }
        let count = more.div_ceil(self.cluster().max(1));
        let Some(order) = self.mend else {
            let error = self.corrupt("ERROR space leaked at the end of the image {}").arg(more);
            return out.find(Finding { count, ..finding(Weight::Leak, error) });
        };
        order.drive.set_length(self.file.id(), self.file.place(self.kept_end()).at)?;
        let error = self.corrupt("Repairing space leaked at the end of the image {}").arg(more);
        out.find(Finding { count, ..finding(Weight::Freed, error) })
    }

    /// Two entries that lead to one cluster. If it is the last entry that does so, qemu-img takes that for a failure.
    fn duplicates(&self, out: &mut dyn Witness) -> Result<()> {
        let mut is_last = false;
        let (start, end) = (self.start(), self.image_end());
        let whole = self.slot(end);
        let all = whole.saturating_add(i64::from(!end.is_multiple_of(self.cluster())));
        self.entries(&mut |number, at| {
            let slot = self.slot(at);
            // Versions that go on with what is outside crash.
            let is_known = if all < 0 { slot < all || slot >= 0 } else { (0..all).contains(&slot) };
            if at == 0 || whole == 0 || !is_known {
                return Ok(());
            }
            let place = start.saturating_add_signed(slot.saturating_mul(self.cluster().cast_signed()));
            let is_near = place.saturating_add(self.cluster()) <= self.slots_end();
            is_last = is_near && !out.claim(Claim::alone(Owner::Block(number), place, self.cluster()))?;
            Ok(())
        })?;
        let is_last = is_last && !self.mends();
        if is_last { Err(Kind::Refused.what("Device or resource busy").file(self.file.id())) } else { Ok(()) }
    }

    /// Where the last cluster ends that is looked at for duplicates: nothing says that the file goes so far.
    fn slots_end(&self) -> u64 {
        let end = self.survey.far.max(self.image_end()).saturating_add(self.cluster());
        end.min(self.cluster().saturating_mul(SLOTS_MAX))
    }

    /// Which cluster it is, counted from where the data begin; towards zero on both sides of that.
    fn slot(&self, at: u64) -> i64 {
        let from = at.cast_signed().saturating_sub(self.start().cast_signed());
        from.checked_div(self.cluster().cast_signed()).unwrap_or(0)
    }

    /// Gives an entry a cluster of its own with the bytes of the one that it shares.
    fn part(&self, number: u64) -> Result<()> {
        let Some(Order { drive, .. }) = self.mend else { return Ok(()) };
        let (cluster, unit) = (self.cluster(), u64::from(self.checked.entry_unit).saturating_mul(SECTOR));
        let mut word = [0; 4];
        self.file.read(entry_at(number), &mut word)?;
        let from = u64::from(u32::from_le_bytes(word)).saturating_mul(unit);
        let end = drive.length(self.file.id())?.saturating_sub(self.file.place(0).at);
        let clusters = end.saturating_sub(self.start()).div_ceil(cluster);
        let to = clusters.saturating_mul(cluster).saturating_add(self.start());
        let entry = to.checked_div(unit).filter(|entry| entry.saturating_mul(unit) == to);
        let entry = entry.and_then(|entry| u32::try_from(entry).ok());
        let entry = entry.ok_or_else(|| Kind::TooBig.what("File too large").file(self.file.id()))?;
        copy_padded(drive, self.file.place(from), self.file.place(to), cluster)?;
        drive.flush(self.file.id())?;
        drive.write(self.file.place(entry_at(number)), &entry.to_le_bytes())
    }

    /// Everybody's use of the file.
    fn claims(&self, out: &mut dyn Witness) -> Result<()> {
        let (checked, cluster) = (self.checked, self.cluster());
        out.claim(Claim::shared(Owner::Image("the table"), 0, checked.table_end()))?;
        let gap = checked.table_end().min(self.len())..self.start().min(self.len());
        out.claim(Claim::shared(
            Owner::Image("what is before the data"),
            gap.start,
            gap.end.saturating_sub(gap.start),
        ))?;
        self.others(&mut |what, at, len| out.claim(Claim::alone(Owner::Image(what), at, len)).map(drop))?;
        self.entries(&mut |number, at| match at {
            0 => Ok(()),
            at => out.claim(Claim::alone(Owner::Block(number), at, cluster)).map(drop),
        })
    }

    fn statistics(&self, out: &mut dyn Witness) -> Result<()> {
        let mut clusters = Clusters::NONE;
        let (cluster, end) = (self.cluster(), self.image_end());
        let mut before = 0;
        self.entries(&mut |_, at| {
            let is_beyond = self.scope.sees(THOROUGH) && at.saturating_add(cluster) > end;
            if at == 0 || is_beyond {
                before = 0;
                return Ok(());
            }
            clusters.allocated = clusters.allocated.saturating_add(1);
            if before != 0 && cluster.saturating_add(before) != at {
                clusters.fragmented = clusters.fragmented.saturating_add(1);
            }
            before = at;
            Ok(())
        })?;
        out.add(clusters);
        Ok(())
    }
}
