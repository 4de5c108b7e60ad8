//! How a Parallels disk is laid out: a header with the table of clusters, then the clusters.

use super::disk::{Header, MAGIC_EXT, VERSION};
use super::open::{TABLE_MAX, first_sector};
use instar_image::measure::Pieces;
use instar_image::{Content, Kind, Measured, Preallocation, Recipe, Result, Site};
use zerocopy::FromZeros;

const SECTOR: u64 = 512;
const HEADER_LEN: u64 = 64;
const ENTRY_LEN: u64 = 4;
const CLUSTER_DEFAULT: u64 = 1 << 20;
const CLUSTER_MAX: u64 = i32::MAX as u64;
/// The geometry of every disk, but for its cylinders.
const HEADS: u32 = 16;
const SECTORS_PER_TRACK: u32 = 32;

/// The layout of a disk.
struct Plan {
    /// Bytes of the disk.
    size: u64,
    /// Bytes of a cluster.
    cluster: u64,
    entries: u64,
    /// Where the clusters begin.
    data_at: u64,
}

impl Plan {
    fn of(recipe: &Recipe) -> Result<Plan> {
        let too_large = || Kind::TooBig.what("Image size is too large for this cluster size");
        let asked = recipe.number("cluster_size").unwrap_or(CLUSTER_DEFAULT);
        let cluster = asked.checked_next_multiple_of(SECTOR).filter(|cluster| *cluster <= CLUSTER_MAX);
        let cluster = cluster.ok_or_else(|| Kind::TooBig.what("Cluster size is too large"))?;
        let size = recipe.size.checked_next_multiple_of(SECTOR).ok_or_else(too_large)?;
        // qemu-img makes larger tables, but then does not open the image; it has no such check for clusters of nothing.
        let entries = if cluster == 0 { u64::MAX } else { size.div_ceil(cluster) };
        if entries > TABLE_MAX.into() {
            return Err(too_large());
        }
        let head = entries.saturating_mul(ENTRY_LEN).saturating_add(HEADER_LEN);
        Ok(Plan { size, cluster, entries, data_at: head.next_multiple_of(cluster) })
    }

    /// Where the first cluster of data will be: where qemu-img reckons that it can be, which is further back if clusters
    /// are no power of two.
    fn first_at(&self) -> u64 {
        let head = self.entries.saturating_mul(ENTRY_LEN).saturating_add(HEADER_LEN);
        let reckoned = first_sector(head, self.cluster / SECTOR).saturating_mul(SECTOR);
        self.data_at.max(reckoned).next_multiple_of(self.cluster)
    }
}

/// Header, table, and the clusters that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let plan = Plan::of(recipe)?;
    let Plan { size, cluster, .. } = plan;
    let always = plan.first_at();
    Pieces { size, len: cluster, stored: cluster, always }.measure(content, false)
}

/// A disk without clusters.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    Preallocation::of_file(recipe)?;
    let plan = Plan::of(recipe)?;
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let sectors = plan.size / SECTOR;
    let cylinders = sectors / u64::from(HEADS * SECTORS_PER_TRACK);
    let mut header = Header::new_zeroed();
    header.magic = *MAGIC_EXT;
    header.version = VERSION.into();
    header.heads = HEADS.into();
    // Of a disk that is too large for this field, the lower half is as good as any number.
    header.cylinders = narrow(cylinders & u64::from(u32::MAX)).into();
    header.tracks = narrow(plan.cluster / SECTOR).into();
    header.bat_entries = narrow(plan.entries).into();
    header.nb_sectors = sectors.into();
    header.data_off = narrow(plan.data_at / SECTOR).into();
    site.put(0, &header)?;
    site.end(plan.data_at)
}
