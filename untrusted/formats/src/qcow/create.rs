//! How a qcow image is laid out: a header, a table of tables, and tables and clusters as they are written.

use super::disk::{Header, MAGIC};
use super::open::{BACKING_NAME_MAX, L1_COUNT_MAX, READ_MAX};
use instar_image::measure::overlays;
use instar_image::sector::SECTOR;
use instar_image::{Content, Kind, Measured, Preallocation, Recipe, Result, Site};

const HEADER_LEN: u64 = 48;
const ENTRY_LEN: u64 = 8;
/// So much of the disk a table leads to, whatever the length of its clusters.
const REACH: u64 = 2 << 20;
/// The one name that is no backing file: that of a directory seen as a disk.
const NO_NAME: &[u8] = b"fat:";

/// What a recipe amounts to.
struct Plan<'r> {
    /// Size of the disk in bytes.
    size: u64,
    /// 2 to this power is the length of a cluster.
    cluster_bits: u8,
    /// 2 to this power is how many entries a table has.
    l2_bits: u8,
    /// The name of the backing file, if there is one.
    name: &'r [u8],
    encrypted: bool,
}

impl Plan<'_> {
    fn of<'r>(recipe: &'r Recipe, site: Option<&Site<'_>>) -> Result<Plan<'r>> {
        let format = encryption(recipe, site)?;
        if site.is_some() {
            Preallocation::of_file(recipe)?;
        }
        let size = recipe.size.next_multiple_of(SECTOR);
        if size == 0 {
            return Err(Kind::Unsupported.what("Image size is too small, cannot be zero length"));
        }
        if format.is_some_and(|format| format != b"aes") {
            return Err(Kind::Unsupported.what("Unsupported encryption format"));
        }
        let name = recipe.text("backing_file").filter(|name| !name.is_empty());
        // Overlays have small clusters, so that little is copied for little that is written.
        let (cluster_bits, l2_bits) = if name.is_some() { (9, 12) } else { (12, 9) };
        let name = name.filter(|name| *name != NO_NAME).unwrap_or_default();
        if name.len() as u64 > BACKING_NAME_MAX {
            return Err(Kind::TooBig.what("Backing file name too long"));
        }
        let plan = Plan { size, cluster_bits, l2_bits, name, encrypted: format.is_some() };
        // What is larger can be made, but not opened.
        if plan.tables() > L1_COUNT_MAX || plan.tables().saturating_mul(ENTRY_LEN) > READ_MAX {
            return Err(Kind::TooBig.what("Image too large"));
        }
        let has_key = site.is_none_or(|site| site.key.is_some());
        if plan.encrypted && !has_key {
            return Err(Kind::Key.what("Parameter '{}' is required for cipher").arg("encrypt.key-secret"));
        }
        Ok(plan)
    }

    fn cluster(&self) -> u64 {
        1u64.checked_shl(self.cluster_bits.into()).unwrap_or(0)
    }

    /// Tables that the whole disk needs.
    fn tables(&self) -> u64 {
        self.size.div_ceil(REACH)
    }

    /// Where the table of tables begins.
    fn l1_at(&self) -> u64 {
        HEADER_LEN.saturating_add(self.name.len() as u64).next_multiple_of(ENTRY_LEN)
    }

    /// Where the file ends when it is new.
    fn end(&self) -> u64 {
        self.tables().saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR).saturating_add(self.l1_at())
    }

    /// The file's length with so many tables of clusters, and so many clusters of data; they begin where clusters do.
    fn len(&self, tables: u64, clusters: u64) -> u64 {
        let table = ENTRY_LEN.checked_shl(self.l2_bits.into()).unwrap_or(0);
        let data = clusters.saturating_mul(self.cluster());
        match tables.saturating_mul(table).saturating_add(data) {
            0 => self.end(),
            more => more.saturating_add(self.end().next_multiple_of(self.cluster())),
        }
    }
}

/// The encryption that is asked for, if one is.
fn encryption<'r>(recipe: &'r Recipe, site: Option<&Site<'_>>) -> Result<Option<&'r [u8]>> {
    let format = recipe.text("encrypt.format");
    if recipe.is_on("encryption") && format.is_some() {
        let words = "'encrypt.format' and its alias 'encryption' can't be used at the same time";
        return Err(Kind::Unsupported.what(words));
    }
    let format = if recipe.is_on("encryption") { Some(&b"aes"[..]) } else { format };
    match format {
        None if recipe.text("encrypt.key-secret").is_some() => {
            Err(Kind::Unsupported.what("Parameter '{}' is missing").arg("encrypt.format"))
        }
        None | Some(b"aes" | b"luks" | b"luks-any") => Ok(format),
        Some(other) if site.is_some_and(|site| (1..600).contains(&site.rules.version)) => {
            Err(Kind::Unsupported.what("Invalid parameter '{}'").arg(other))
        }
        Some(other) => Err(Kind::Unsupported.what("Parameter 'format' does not accept value '{}'").arg(other)),
    }
}

/// Header, tables, and the clusters that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let plan = Plan::of(recipe, None)?;
    let fully_allocated = plan.len(plan.tables(), plan.size.div_ceil(plan.cluster()));
    let required = match overlays(recipe, content) {
        true => fully_allocated,
        false => plan.len(content.pieces(REACH)?, content.pieces(plan.cluster())?),
    };
    Ok(Measured { required, fully_allocated, bitmaps: None })
}

/// Writes the header; the table of tables is empty.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    let plan = Plan::of(recipe, Some(site))?;
    let name_len = u32::try_from(plan.name.len()).unwrap_or(0);
    let header = Header {
        magic: MAGIC,
        version: 1.into(),
        backing_file_offset: if name_len == 0 { 0 } else { HEADER_LEN }.into(),
        backing_file_size: name_len.into(),
        mtime: 0.into(),
        size: plan.size.into(),
        cluster_bits: plan.cluster_bits,
        l2_bits: plan.l2_bits,
        padding: 0.into(),
        crypt_method: u32::from(plan.encrypted).into(),
        l1_table_offset: plan.l1_at().into(),
    };
    site.put(0, &header)?;
    if name_len > 0 {
        site.put(HEADER_LEN, plan.name)?;
    }
    site.end(plan.end())
}
