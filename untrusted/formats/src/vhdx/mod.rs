//! Hyper-V disks.

mod census;
pub mod crc32c;
mod create;
pub mod disk;
mod edit;
mod locate;
pub mod log;
pub mod metadata;
pub mod open;
mod parent;
pub mod replay;
mod reserve;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use disk::IDENTIFIER;
use instar_image::probe::Claim;
use instar_image::text::guid;
use instar_image::{
    Census, Content, Edit, Fact, File, Format, Granted, Image, Kind, Layer, Measured, Options, Order, Purpose, Recipe,
    Report, Result, Scope, Site, Summary, Target, format, info, tally,
};
use log::State;
use open::Checked;

/// Keys of a parent locator: where the parent may be. What is relative to this disk still holds after both were moved.
const PATHS: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];
/// Keys of it: the identifier of the parent's data. There are two only while a child is merged into its parent.
const LINKS: [&str; 2] = ["parent_linkage", "parent_linkage2"];

/// The format.
pub struct Vhdx;

impl Format for Vhdx {
    fn name(&self) -> &'static str {
        "vhdx"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if &file.read_as::<[u8; 8]>(0)? == IDENTIFIER { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file, options)?;
        if options.as_qemu && checked.metadata.parent.is_some() {
            let refused = Kind::Unsupported.what("Could not open '{file}': Operation not supported");
            return Err(refused.file(file.id()));
        }
        let will_stand = options.purpose == Purpose::WriteToStand;
        Ok(Box::new(VhdxImage { file, checked, will_stand }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened VHDX.
struct VhdxImage<'a> {
    file: File<'a>,
    checked: Checked,
    /// Something else will lie below it than it says.
    will_stand: bool,
}

impl Image for VhdxImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "vhdx", self.checked.virtual_size);
        told.cluster_size = Some(self.checked.metadata.block_len.into());
        told.limits.request = 512;
        let parent = self.told_parent();
        told.findings.push(info::Finding {
            check: "parent".into(),
            ok: parent.is_none(),
            detail: Fact::List(parent.into_iter().collect()),
        });
        told.extra = extra.then(|| self.extra());
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked, self.will_stand)
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(edit::Change { file: &self.file, checked: &self.checked }))
    }

    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        Some(Box::new(census::Roll { file: &self.file, checked: &self.checked, scope }))
    }

    /// The log is replayed, whatever is asked for; nothing else can be repaired.
    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        let Order { drive, scope, .. } = *order;
        let roll = census::Roll { file: &self.file, checked: &self.checked, scope };
        let mut summary = tally::check(&roll, scope, report)?;
        if self.checked.overlay.is_some() {
            reserve::replay(&self.file, &self.checked, drive)?;
            summary.fixed.corruptions = summary.fixed.corruptions.saturating_add(1);
        }
        Ok(summary)
    }

    /// The parent must be in the state in which it was when this disk was made.
    fn parent(&self) -> Result<Option<Granted>> {
        if self.checked.metadata.parent.is_none() {
            return Ok(None);
        }
        let granted = instar_image::parent::open(&self.file, PATHS.iter().filter_map(|key| self.located(key)))?;
        let header = open::head(&File::new(self.file.io(), &granted)).map_err(|error| match error.kind {
            Kind::NotThisFormat => Kind::NotThisFormat.what("the parent of a VHDX is not a VHDX").file(granted.id),
            _ => error.file(granted.id),
        })?;
        let has = guid(&header.data_write_guid);
        let mut wanted = LINKS.iter().filter_map(|key| self.located(key));
        if wanted.clone().any(|wanted| is_guid(wanted, &has)) {
            return Ok(Some(granted));
        }
        let wanted = wanted.next().unwrap_or(b"(none)");
        let phrase = "the VHDX was made on its parent in the state {}, this one is in the state {}";
        Err(Kind::Corrupt.what(phrase).file(granted.id).arg(wanted).arg(has))
    }
}

impl VhdxImage<'_> {
    /// The value that the parent locator has for a key.
    fn located(&self, key: &str) -> Option<&[u8]> {
        let pairs = self.checked.metadata.parent.as_ref()?;
        pairs.iter().find(|(known, _)| known == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn told_parent(&self) -> Option<Fact> {
        let pairs = self.checked.metadata.parent.as_ref()?;
        let told = pairs
            .iter()
            .map(|(key, value)| Fact::fields([("key", key.as_slice().into()), ("value", value.as_slice().into())]));
        Some(told.collect::<Vec<_>>().into())
    }

    fn extra(&self) -> Fact {
        let (header, metadata) = (&self.checked.header, &self.checked.metadata);
        let log = match self.checked.log {
            State::Empty => "empty",
            State::Clean => "clean",
            State::Dirty => "dirty",
        };
        let mut told = Fact::fields([
            ("log", log.into()),
            ("log-guid", guid(&header.log_guid).into()),
            ("log-size", header.log_length.get().into()),
            ("sequence-number", header.sequence_number.get().into()),
            ("file-write-guid", guid(&header.file_write_guid).into()),
            ("data-write-guid", guid(&header.data_write_guid).into()),
            ("disk-id", guid(&metadata.disk_id).into()),
            ("block-size", metadata.block_len.into()),
            ("logical-sector-size", metadata.logical_sector.into()),
            ("physical-sector-size", metadata.physical_sector.into()),
            ("fixed", metadata.leave_allocated.into()),
        ]);
        if let Some(parent) = self.told_parent() {
            told.add("parent", parent);
        }
        told
    }
}

/// Whether a text in braces is this identifier.
fn is_guid(text: &[u8], id: &str) -> bool {
    let inner = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}")).unwrap_or(text);
    inner.eq_ignore_ascii_case(id.as_bytes())
}
