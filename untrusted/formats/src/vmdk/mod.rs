//! VMware disks.

mod census;
mod create;
#[cfg(test)]
mod create_tests;
pub mod descriptor;
pub mod disk;
mod edit;
mod locate;
pub mod open;
mod reserve;
pub mod sparse;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use disk::{COWD, KDMV};
use instar_image::probe::Claim;
use instar_image::{
    Census, Content, Edit, Fact, File, FileId, Format, Image, Kind, Layer, Measured, Options, Order, Purpose, Recipe,
    Report, Result, Scope, Site, Summary, Target, format, info, tally,
};
use open::{Body, Checked, Extent};

/// The format.
pub struct Vmdk;

/// How much of a file decides whether it is a descriptor.
const PROBE_LEN: usize = 512;

impl Format for Vmdk {
    fn name(&self) -> &'static str {
        "vmdk"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let head = file.read_vec(0, PROBE_LEN)?;
        let ours = head.starts_with(KDMV) || head.starts_with(COWD) || descriptor::is_descriptor(&head);
        Ok(if ours { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        let will_stand = options.purpose == Purpose::WriteToStand;
        Ok(Box::new(VmdkImage { file, checked, will_stand }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened VMware disk.
struct VmdkImage<'a> {
    file: File<'a>,
    checked: Checked,
    /// Something else will lie below it than it says.
    will_stand: bool,
}

impl Image for VmdkImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let checked = &self.checked;
        let mut told = format::plain(&self.file, "vmdk", checked.virtual_size);
        told.cluster_size = self.cluster_size();
        // A disk of unlike parts tells nothing of the whole.
        told.dirty = self.is_uniform().then_some(false);
        let grains = checked.extents.iter().filter_map(grain_len);
        told.limits.write_zeroes = grains.max().and_then(|len| u32::try_from(len).ok()).unwrap_or(0);
        told.backing = checked
            .parent
            .as_ref()
            .map(|name| info::Backing { name: name.as_slice().into(), format: Some("vmdk".into()) });
        told.specific = Some(Fact::fields([
            ("cid", checked.cid.into()),
            ("parent-cid", checked.parent_cid.into()),
            ("create-type", checked.create_type.as_slice().into()),
            ("extents", checked.extents.iter().map(tell_extent).collect::<Vec<_>>().into()),
        ]));
        let children = checked
            .files
            .iter()
            .map(|extent| info::Child { name: format!("extents.{}", extent.number).into(), file: extent.file });
        told.children = children.collect();
        told.findings = self.findings();
        told.extra = extra.then(|| Fact::fields([("descriptor", checked.text.as_slice().into())]));
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        locate::layer(&self.checked)
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked, self.will_stand)
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(edit::Change { file: &self.file, checked: &self.checked }))
    }

    fn censuses(&self, scope: Scope) -> Vec<Box<dyn Census + '_>> {
        census::all(self.file.io(), &self.checked, scope, None)
    }

    /// The second grain tables are made like the first ones, which count; qemu-img repairs nothing.
    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        let Order { drive, scope, .. } = *order;
        if scope.as_qemu {
            return Err(Kind::Unsupported.what("images of this format cannot be repaired").file(self.file.id()));
        }
        let mend = order.is_all().then_some(drive);
        let all = census::all(self.file.io(), &self.checked, scope, mend);
        let summary = all.iter().try_fold(Summary::NONE, |sum, census| -> Result<_> {
            Ok(sum.and(tally::check(&**census, scope, report)?))
        })?;
        if summary.fixed.is_any() {
            all.iter().try_for_each(|census| drive.flush(census.space().file))?;
        }
        Ok(summary)
    }

    /// Whoever writes to a disk gives it a new identifier, and then what was made on it no longer fits.
    fn stands_on(&self, below: &info::Image) -> Result<()> {
        let cid = below.specific.as_ref().and_then(|specific| specific.get("cid"));
        match cid {
            Some(Fact::Count(cid)) if *cid != u64::from(self.checked.parent_cid) => Err(Kind::Corrupt
                .what("the parent has changed: its content identifier is {}, not {}")
                .arg(format!("{cid:08x}"))
                .arg(format!("{:08x}", self.checked.parent_cid))
                .file(self.file.id())),
            _ => Ok(()),
        }
    }
}

impl VmdkImage<'_> {
    /// Whether all extents are of one kind.
    fn is_uniform(&self) -> bool {
        let kind = |extent| (grain_len(extent), is_compressed(extent));
        let mut kinds = self.checked.extents.iter().map(kind);
        let first = kinds.next();
        kinds.all(|other| Some(other) == first)
    }

    /// The grain's size, if all extents are of one kind.
    fn cluster_size(&self) -> Option<u64> {
        let first = self.checked.extents.first()?;
        grain_len(first).filter(|len| self.is_uniform() && *len > 0)
    }

    fn findings(&self) -> Vec<info::Finding> {
        let names: Vec<Fact> = self.checked.files.iter().map(|extent| extent.name.as_slice().into()).collect();
        let parent: Vec<Fact> = self.checked.parent.iter().map(|name| name.as_slice().into()).collect();
        [("backing-file", parent), ("extents", names)]
            .into_iter()
            .map(|(check, found)| info::Finding { check: check.into(), ok: found.is_empty(), detail: found.into() })
            .collect()
    }
}

fn grain_len(extent: &Extent) -> Option<u64> {
    match &extent.body {
        Body::Flat { .. } => None,
        Body::Sparse(sparse) => Some(sparse.grain_sectors.saturating_mul(512)),
    }
}

fn is_compressed(extent: &Extent) -> bool {
    matches!(&extent.body, Body::Sparse(sparse) if sparse.compressed)
}

fn tell_extent(extent: &Extent) -> Fact {
    let FileId(file) = extent.file;
    let mut told = Fact::fields([
        ("virtual-size", extent.sectors.saturating_mul(512).into()),
        ("filename", Fact::fields([("file", file.into())])),
        ("format", extent.word.into()),
    ]);
    if is_compressed(extent) {
        told.add("compressed", true);
    }
    if let Some(len) = grain_len(extent) {
        told.add("cluster-size", len);
    }
    told
}
