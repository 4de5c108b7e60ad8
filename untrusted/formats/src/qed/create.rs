//! How a QED is laid out: a header, a table of tables, and clusters with tables and data as they are written.

use super::disk::{BACKING_FILE, BACKING_NO_PROBE, Header, MAGIC};
use super::open::BACKING_NAME_MAX;
use instar_image::measure::overlays;
use instar_image::sector::SECTOR;
use instar_image::{Content, Kind, Measured, Preallocation, Recipe, Result, Site};

const ENTRY_LEN: u64 = 8;
const CLUSTER_MIN: u64 = 4 << 10;
const CLUSTER_MAX: u64 = 64 << 20;
const TABLE_MAX: u64 = 16;
/// Where the name of the backing file begins.
const NAME_AT: u32 = 64;

/// What a recipe amounts to.
struct Plan {
    /// Size of the disk in bytes.
    size: u64,
    /// Bytes of a cluster.
    cluster: u64,
    /// Clusters of a table.
    table_clusters: u64,
}

impl Plan {
    fn of(recipe: &Recipe) -> Result<Plan> {
        let cluster = recipe.number("cluster_size").unwrap_or(64 << 10);
        if !cluster.is_power_of_two() || !(CLUSTER_MIN..=CLUSTER_MAX).contains(&cluster) {
            let words = "QED cluster size must be within range [{}, {}] and power of 2";
            return Err(Kind::Unsupported.what(words).arg(CLUSTER_MIN).arg(CLUSTER_MAX));
        }
        let table_clusters = recipe.number("table_size").unwrap_or(4);
        if table_clusters > i64::MAX.unsigned_abs() {
            return Err(Kind::Unsupported.what("Parameter 'table-size' expects integer"));
        }
        if !table_clusters.is_power_of_two() || table_clusters > TABLE_MAX {
            let words = "QED table size must be within range [{}, {}] and power of 2";
            return Err(Kind::Unsupported.what(words).arg(1u64).arg(TABLE_MAX));
        }
        let size = recipe.size.next_multiple_of(SECTOR);
        let plan = Plan { size, cluster, table_clusters };
        // As in the check of images that are opened, what does not fit 64 bits wraps.
        let most = plan.entries().wrapping_mul(plan.entries()).wrapping_mul(cluster);
        if size > most {
            let words = "QED image size must be a non-zero multiple of cluster size and less than {} bytes";
            return Err(Kind::TooBig.what(words).arg(most));
        }
        Ok(plan)
    }

    /// Bytes of a table.
    fn table(&self) -> u64 {
        self.table_clusters.saturating_mul(self.cluster)
    }

    /// Entries of a table.
    fn entries(&self) -> u64 {
        self.table() / ENTRY_LEN
    }

    /// The file's length with so many tables of clusters, and so many clusters of data.
    fn len(&self, tables: u64, clusters: u64) -> u64 {
        let data = clusters.saturating_mul(self.cluster);
        tables.saturating_add(1).saturating_mul(self.table()).saturating_add(data).saturating_add(self.cluster)
    }
}

/// Header, tables, and the clusters that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let plan = Plan::of(recipe)?;
    let reach = plan.entries().saturating_mul(plan.cluster);
    let fully_allocated = plan.len(plan.size.div_ceil(reach), plan.size.div_ceil(plan.cluster));
    let required = match overlays(recipe, content) {
        true => fully_allocated,
        false => plan.len(content.pieces(reach)?, content.pieces(plan.cluster)?),
    };
    Ok(Measured { required, fully_allocated, bitmaps: None })
}

/// Writes the header; the table of tables is empty.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    Preallocation::of_file(recipe)?;
    let plan = Plan::of(recipe)?;
    let name = recipe.text("backing_file").unwrap_or_default();
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).into();
    let room = plan.cluster.saturating_sub(NAME_AT.into()).min(BACKING_NAME_MAX);
    if name.len() as u64 > room {
        return Err(Kind::TooBig.what("Backing file name too long"));
    }
    let mut header = Header {
        magic: MAGIC,
        cluster_size: narrow(plan.cluster),
        table_size: narrow(plan.table_clusters),
        header_size: 1.into(),
        features: 0.into(),
        compat_features: 0.into(),
        autoclear_features: 0.into(),
        l1_table_offset: plan.cluster.into(),
        image_size: plan.size.into(),
        backing_filename_offset: 0.into(),
        backing_filename_size: 0.into(),
    };
    if !name.is_empty() {
        let is_raw = recipe.text("backing_fmt") == Some(b"raw");
        header.features = (BACKING_FILE | if is_raw { BACKING_NO_PROBE } else { 0 }).into();
        header.backing_filename_offset = NAME_AT.into();
        header.backing_filename_size = narrow(name.len() as u64);
        site.put(NAME_AT.into(), name)?;
    }
    site.put(0, &header)?;
    site.end(plan.len(0, 0))
}
