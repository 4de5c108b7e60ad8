//! How a Parallels disk is laid out: a header with the table of clusters, then the clusters.

use instar_image::measure::Pieces;
use instar_image::{Content, Kind, Measured, Recipe, Result};

const SECTOR: u64 = 512;
const HEADER_LEN: u64 = 64;
const ENTRY_LEN: u64 = 4;
/// A header can count so many entries.
const ENTRIES_MAX: u64 = 0xffff_ffff;

/// Header, table, and the clusters that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let too_large = || Kind::TooBig.what("Image size is too big for this cluster size");
    let asked = recipe.number("cluster_size").unwrap_or(1 << 20);
    let cluster = asked.max(SECTOR).checked_next_multiple_of(SECTOR).ok_or_else(too_large)?;
    let entries = recipe.size.div_ceil(cluster);
    if entries > ENTRIES_MAX {
        return Err(too_large());
    }
    let head = entries.saturating_mul(ENTRY_LEN).saturating_add(HEADER_LEN);
    let always = head.checked_next_multiple_of(cluster).ok_or_else(too_large)?;
    Pieces { size: recipe.size, len: cluster, stored: cluster, always }.measure(content, false)
}
