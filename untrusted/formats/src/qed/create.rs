//! How a QED is laid out: a header, a table of tables, and clusters with tables and data as they are written.

use instar_image::measure::overlays;
use instar_image::{Content, Kind, Measured, Recipe, Result};

const ENTRY_LEN: u64 = 8;
const CLUSTER_MIN: u64 = 4 << 10;
const CLUSTER_MAX: u64 = 64 << 20;
const TABLE_MAX: u64 = 16;

/// Header, tables, and the clusters that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let cluster = recipe.number("cluster_size").unwrap_or(64 << 10);
    if !cluster.is_power_of_two() || !(CLUSTER_MIN..=CLUSTER_MAX).contains(&cluster) {
        let words = "QED cluster size must be within range [{}, {}] and power of 2";
        return Err(Kind::Unsupported.what(words).arg(CLUSTER_MIN).arg(CLUSTER_MAX));
    }
    let table = recipe.number("table_size").unwrap_or(4);
    if !table.is_power_of_two() || table > TABLE_MAX {
        let words = "QED table size must be within range [{}, {}] and power of 2";
        return Err(Kind::Unsupported.what(words).arg(1u64).arg(TABLE_MAX));
    }
    let table = table.saturating_mul(cluster);
    // What one table of clusters leads to, and what all of them do.
    let entries = table / ENTRY_LEN;
    let reach = entries.saturating_mul(cluster);
    let most = entries.saturating_mul(reach);
    if recipe.size > most {
        let words = "QED image size must be a non-zero multiple of cluster size and less than {} bytes";
        return Err(Kind::TooBig.what(words).arg(most));
    }
    let whole = |tables: u64, clusters: u64| {
        let data = clusters.saturating_mul(cluster);
        tables.saturating_add(1).saturating_mul(table).saturating_add(data).saturating_add(cluster)
    };
    let fully_allocated = whole(recipe.size.div_ceil(reach), recipe.size.div_ceil(cluster));
    let required = match overlays(recipe, content) {
        true => fully_allocated,
        false => whole(content.pieces(reach)?, content.pieces(cluster)?),
    };
    Ok(Measured { required, fully_allocated, bitmaps: None })
}
