//! How a qcow2 image is laid out: how much of it is not the guest's, and what a new one has.

use super::disk::SUBCLUSTERS;
use super::layout::{Asked, lay_out};
use crate::luks;
use instar_image::measure::Bitmap;
use instar_image::{Content, Error, Kind, Measured, Preallocation, Recipe, Result, Site};

/// Bytes of an entry of the L1 table, of refcount tables and of the tables of bitmaps.
const ENTRY_LEN: u64 = 8;
/// The longest L1 table.
const L1_MAX: u64 = 32 << 20;
/// The longest disk that qemu-img's block layer has.
const SIZE_MAX: u64 = i64::MAX.unsigned_abs() & !((1 << 30) - 1);
const CLUSTER_MIN: u64 = 512;
const CLUSTER_MAX: u64 = 2 << 20;
/// The smallest cluster that can have subclusters.
const EXTENDED_MIN: u64 = 16 << 10;
/// Bytes of a bitmap's entry in the directory, apart from its name.
const BITMAP_ENTRY_LEN: u64 = 24;

/// What of a recipe decides how large things are, checked.
pub struct Plan {
    /// Bytes of a cluster.
    pub cluster: u64,
    /// Entries tell of subclusters.
    pub extended: bool,
    /// Bytes of an entry of an L2 table.
    pub entry: u64,
    pub refcount_bits: u64,
    /// Compatibility level 1.1.
    pub is_v3: bool,
    /// How space is set aside.
    pub space: Preallocation,
    /// The disk is an overlay.
    has_backing: bool,
    /// Header and key slots inside the image.
    luks: u64,
    /// Bytes of the disk, in whole clusters.
    pub size: u64,
}

fn invalid(words: &'static str) -> Error {
    Kind::Unsupported.what(words)
}

impl Plan {
    fn new(recipe: &Recipe) -> Result<Plan> {
        let extended = recipe.is_on("extended_l2");
        let cluster = cluster(recipe, extended)?;
        let is_v3 = match recipe.text("compat") {
            None | Some(b"1.1" | b"v3") => true,
            Some(b"0.10" | b"v2") => false,
            Some(other) => return Err(invalid("Invalid compatibility level: '{}'").arg(other)),
        };
        let refcount_bits = refcount_bits(recipe)?;
        let space = Preallocation::of(recipe)?;
        let luks = match recipe.text("encrypt.format") {
            Some(b"luks") => luks::create::header_len(recipe, "encrypt.")?.next_multiple_of(cluster),
            _ => 0,
        };
        let entry = if extended { ENTRY_LEN.saturating_mul(2) } else { ENTRY_LEN };
        let too_large = || Kind::TooBig.what("The image size is too large (try using a larger cluster size)");
        let size = recipe.size.checked_next_multiple_of(cluster).ok_or_else(too_large)?;
        let tables = (size / cluster).div_ceil(cluster / entry);
        if tables.saturating_mul(ENTRY_LEN) > L1_MAX {
            return Err(too_large());
        }
        let has_backing = recipe.text("backing_file").is_some();
        Ok(Plan { cluster, extended, entry, refcount_bits, is_v3, space, has_backing, luks, size })
    }

    /// What of a cluster can be there without the rest.
    pub fn grain(&self) -> u64 {
        if self.extended { self.cluster / u64::from(SUBCLUSTERS) } else { self.cluster }
    }

    /// Space is set aside for all of the disk.
    pub fn is_full(&self) -> bool {
        self.space.is_full()
    }

    /// Everything, with all of the disk and the tables that lead to it.
    fn whole(&self) -> u64 {
        let clusters = self.size.div_ceil(self.cluster);
        let tables = clusters.div_ceil(self.cluster / self.entry);
        let directory = tables.saturating_mul(ENTRY_LEN).div_ceil(self.cluster);
        let known = [1, tables, directory, clusters].iter().fold(0u64, |sum, part| sum.saturating_add(*part));
        known.saturating_add(self.refcounts(known)).saturating_mul(self.cluster).saturating_add(self.luks)
    }

    /// Clusters of the refcount table and its blocks, for so many others: they count themselves as well.
    fn refcounts(&self, others: u64) -> u64 {
        let counts_in_block = (self.cluster.saturating_mul(8) / self.refcount_bits).max(1);
        let mut own = 0u64;
        loop {
            let blocks = others.saturating_add(own).div_ceil(counts_in_block);
            let table = blocks.saturating_mul(ENTRY_LEN).div_ceil(self.cluster);
            let next = blocks.saturating_add(table);
            if next <= own {
                return own;
            }
            own = next;
        }
    }

    /// Bytes of all bitmaps, each with all of its bits stored.
    fn bitmaps(&self, bitmaps: &[Bitmap]) -> u64 {
        let whole = |len: u64| len.next_multiple_of(self.cluster);
        let (mut names, mut sum) = (0u64, 0u64);
        for bitmap in bitmaps {
            let bits = self.size.div_ceil(bitmap.granularity.max(1));
            let clusters = bits.div_ceil(8).div_ceil(self.cluster);
            let table = whole(clusters.saturating_mul(ENTRY_LEN));
            sum = sum.saturating_add(clusters.saturating_mul(self.cluster)).saturating_add(table);
            names = names.saturating_add(BITMAP_ENTRY_LEN.saturating_add(bitmap.name_len).next_multiple_of(8));
        }
        sum.saturating_add(whole(names))
    }
}

fn cluster(recipe: &Recipe, extended: bool) -> Result<u64> {
    let cluster = recipe.number("cluster_size").unwrap_or(64 << 10);
    if !cluster.is_power_of_two() || !(CLUSTER_MIN..=CLUSTER_MAX).contains(&cluster) {
        let words = "Cluster size must be a power of two between {} and {}k";
        return Err(invalid(words).arg(CLUSTER_MIN).arg(CLUSTER_MAX >> 10));
    }
    if extended && cluster < EXTENDED_MIN {
        let words = "Extended L2 entries are only supported with cluster sizes of at least {} bytes";
        return Err(invalid(words).arg(EXTENDED_MIN));
    }
    Ok(cluster)
}

fn refcount_bits(recipe: &Recipe) -> Result<u64> {
    let bits = recipe.number("refcount_bits").unwrap_or(16);
    if !bits.is_power_of_two() || bits > 64 {
        return Err(invalid("Refcount width must be a power of two and may not exceed 64 bits"));
    }
    Ok(bits)
}

/// Everything with all of the disk, and with what is known to be written.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    // The other names of the two levels are only known to those who make images.
    if let Some(level @ (b"v2" | b"v3")) = recipe.text("compat") {
        return Err(invalid("Invalid compatibility level: '{}'").arg(level));
    }
    let plan = Plan::new(recipe)?;
    if !plan.is_v3 && plan.refcount_bits != 16 {
        let words = "Different refcount widths than 16 bits require compatibility level 1.1 or above \
                     (use compat=1.1 or greater)";
        return Err(invalid(words));
    }
    let fully_allocated = plan.whole();
    let written = match &content.input {
        // How much of it the backing file has as well cannot be known.
        Some(_) if plan.has_backing => plan.size,
        _ => content.pieces(plan.cluster)?.saturating_mul(plan.cluster),
    };
    let required = if plan.is_full() {
        fully_allocated
    } else {
        fully_allocated.saturating_sub(plan.size).saturating_add(written)
    };
    let bitmaps = content.input.as_ref().and_then(|input| input.bitmaps.as_ref()).filter(|_| plan.is_v3);
    let bitmaps = bitmaps.map(|bitmaps| plan.bitmaps(bitmaps));
    Ok(Measured { required, fully_allocated, bitmaps })
}

/// Refuses what can be measured, or is nothing to how large things are, and yet cannot be made.
fn refuse(recipe: &Recipe) -> Result<()> {
    let unknown = |name: &str, given: &[u8]| invalid("Parameter '{}' does not accept value '{}'").arg(name).arg(given);
    if let Some(level) = recipe.text("compat").filter(|level| ![&b"0.10"[..], b"1.1", b"v2", b"v3"].contains(level)) {
        return Err(unknown("version", level));
    }
    match recipe.text("encrypt.format") {
        None | Some(b"aes" | b"luks") => {}
        Some(other) => return Err(unknown("format", other)),
    }
    let aspects = ["key-secret", "cipher-alg", "cipher-mode", "ivgen-alg", "ivgen-hash-alg", "hash-alg"];
    let is_locked = recipe.text("encrypt.format").is_some() || recipe.is_on("encryption");
    let aspect = |name: &str| recipe.text(&["encrypt.", name].concat()).is_some();
    let has_data = recipe.text("data_file").is_some();
    let (is_kept, space) = (recipe.is_on("keep_data_file"), Preallocation::of(recipe)?);
    let prepares = space != Preallocation::Off;
    let is_overlay = recipe.text("backing_file").is_some_and(|name| !name.is_empty());
    let wrong = [
        (!is_locked && aspects.into_iter().any(aspect), "Parameter 'encrypt.format' is missing"),
        (
            is_overlay && prepares && !recipe.is_on("extended_l2"),
            "Backing file and preallocation can only be used at the same time if extended_l2 is on",
        ),
        (is_kept && !has_data, "Must not use 'keep_data_file=on' without 'data_file'"),
        (
            is_kept && !prepares && !recipe.is_on("data_file_raw"),
            "'keep_data_file=on' requires 'preallocation=metadata' or 'data_file_raw=on', or the file contents will not \
             be visible",
        ),
        (
            is_kept && space.is_full(),
            "Preallocating more than only metadata would overwrite the external data file's content and is therefore \
             incompatible with 'keep_data_file=on'",
        ),
    ];
    wrong.into_iter().find(|(is_wrong, _)| *is_wrong).map_or(Ok(()), |(_, words)| Err(invalid(words)))
}

/// A new image that holds nothing.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    refuse(recipe)?;
    let size = recipe.size.checked_next_multiple_of(512).unwrap_or(u64::MAX);
    if size > SIZE_MAX {
        let words = "Could not resize image: offset({}) exceeds maximum({})";
        return Err(Kind::TooBig.what(words).arg(size).arg(SIZE_MAX));
    }
    let plan = Plan::new(recipe)?;
    lay_out(recipe, &plan, &Asked::new(recipe, &plan)?, site)
}
