//! What a new qcow2 image has in its file before anything is written to it.

use super::clusters::Clusters;
use super::create::Plan;
use super::disk::{
    COMPRESSION, Crypto, DATA_FILE, DATA_FILE_RAW, EXT_BACKING_FORMAT, EXT_CRYPTO, EXT_DATA_FILE, EXT_FEATURE_NAMES,
    EXTENDED_L2, FeatureName, HEADER2_LEN, Header, L2_COPIED, LAZY_REFCOUNTS, MAGIC,
};
use super::extensions;
use super::open::{Crypt, L1_LEN_MAX};
use crate::luks;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::{Error, Kind, Place, Preallocation, Recipe, Result, Site};
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Length of the header of a new image of version 3.
const HEADER_LEN: u32 = 112;
/// The longest name of a backing file.
const BACKING_NAME_MAX: usize = 1023;
/// No more of the disk is set aside at once, so that counts come where qemu-img puts them.
const AT_ONCE: u64 = 0x7fff_ffff;
/// Smaller clusters keep their room for what matters more than names of features.
pub const NAMED_MIN: u64 = 8 << 10;
/// The names of all features: kind, bit, name.
const FEATURES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// What is asked for that does not decide how large things are, checked.
pub struct Asked<'r> {
    is_zstd: bool,
    is_lazy: bool,
    backing: Option<&'r [u8]>,
    backing_format: Option<&'r [u8]>,
    data_file: Option<&'r [u8]>,
    is_raw: bool,
    keeps: bool,
}

fn invalid(words: &'static str) -> Error {
    Kind::Unsupported.what(words)
}

impl<'r> Asked<'r> {
    /// What a recipe asks for.
    pub fn new(recipe: &'r Recipe, plan: &Plan) -> Result<Asked<'r>> {
        let is_zstd = match recipe.text("compression_type") {
            None | Some(b"zlib") => false,
            Some(b"zstd") => true,
            Some(other) => {
                return Err(invalid("Parameter 'compression_type' does not accept value '{}'").arg(other));
            }
        };
        let asked = Asked {
            is_zstd,
            is_lazy: recipe.is_on("lazy_refcounts"),
            backing: recipe.text("backing_file").filter(|name| !name.is_empty()),
            backing_format: recipe.text("backing_fmt"),
            data_file: recipe.text("data_file"),
            is_raw: recipe.is_on("data_file_raw"),
            keeps: recipe.is_on("keep_data_file"),
        };
        asked.check(plan)?;
        Ok(asked)
    }

    /// Refuses what does not go together, in the order of qemu-img.
    fn check(&self, plan: &Plan) -> Result<()> {
        let is_v2 = !plan.is_v3;
        let has_backing = self.backing.is_some();
        let wrong = [
            (
                is_v2 && plan.extended,
                "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or \
                 greater)",
            ),
            (self.backing_format.is_some() && !has_backing, "Backing format cannot be used without backing file"),
            (
                has_backing && plan.is_full() && !plan.extended,
                "Backing file and preallocation can only be used at the same time if extended_l2 is enabled",
            ),
            (
                is_v2 && self.is_lazy,
                "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
            ),
            (
                is_v2 && plan.refcount_bits != 16,
                "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or \
                 greater)",
            ),
            (
                is_v2 && self.data_file.is_some(),
                "External data files are only supported with compatibility level 1.1 and above (use version=v3 or \
                 greater)",
            ),
            (self.is_raw && self.data_file.is_none(), "data-file-raw requires data-file"),
            (self.is_raw && has_backing, "Backing file and data-file-raw cannot be used at the same time"),
            (
                is_v2 && self.is_zstd,
                "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or \
                 greater)",
            ),
            (self.backing.is_some_and(|name| name.len() > BACKING_NAME_MAX), "Backing file name too long"),
        ];
        wrong.into_iter().find(|(is_wrong, _)| *is_wrong).map_or(Ok(()), |(_, words)| Err(invalid(words)))
    }
}

/// Lays it out.
pub fn lay_out(recipe: &Recipe, plan: &Plan, asked: &Asked<'_>, site: &Site<'_>) -> Result<()> {
    let bits = plan.cluster.ilog2();
    let order = plan.refcount_bits.ilog2();
    let mut clusters = Clusters::fresh(site.drive, site.file, bits, order)?;
    let size = recipe.size.next_multiple_of(512);
    let l1_len = (plan.size / plan.cluster).div_ceil(plan.cluster / plan.entry).saturating_mul(8);
    if l1_len > L1_LEN_MAX {
        return Err(Kind::TooBig.what("The image size is too large (try using a larger cluster size)"));
    }
    let mut end = clusters.end();
    let mut l1_at = 0;
    if l1_len > 0 {
        l1_at = clusters.claim(site.drive, l1_len.div_ceil(plan.cluster))?;
        let behind = l1_at.saturating_add(l1_len.next_multiple_of(plan.cluster));
        // The counts of a long table lie behind it.
        end = if clusters.end() > behind { clusters.end() } else { end.max(l1_at.saturating_add(l1_len)) };
    }
    let mut made = Made { clusters, plan, site, l1_at, size, end };
    let space = match (plan.space, asked.is_raw) {
        // Where bytes lie in a raw data file must be known without the image.
        (Preallocation::Off, true) => Preallocation::Metadata,
        (space, _) => space,
    };
    made.set_aside(space, asked)?;
    let crypto = made.lock(recipe)?;
    let (table_at, table_clusters) = made.clusters.table();
    let header = Parts { recipe, plan, asked, size, l1_at, l1_len, table_at, table_clusters, crypto }.header()?;
    made.clusters.draft.put(site.drive, 0, &header)?;
    made.clusters.draft.flush(site.drive)?;
    site.end(made.end)
}

/// An image in the making.
struct Made<'m, 's> {
    clusters: Clusters,
    plan: &'m Plan,
    site: &'m Site<'s>,
    l1_at: u64,
    size: u64,
    /// Where its file ends.
    end: u64,
}

impl Made<'_, '_> {
    /// Sets space aside for all of the disk.
    fn set_aside(&mut self, space: Preallocation, asked: &Asked<'_>) -> Result<()> {
        let drive = self.site.drive;
        if let Some(file) = self.site.beside {
            let how = if space == Preallocation::Metadata { Preallocation::Off } else { space };
            let len =
                if space == Preallocation::Off { self.size } else { self.size.next_multiple_of(self.plan.grain()) };
            // What is kept only becomes as long as it has to be.
            if !asked.keeps || drive.length(file)? < len {
                self.site.extend(file, 0, len, how)?;
            }
        }
        if space == Preallocation::Off {
            return Ok(());
        }
        let is_inside = self.site.beside.is_none() && self.plan.is_full();
        let count = self.plan.size / self.plan.cluster;
        if is_inside {
            // One table more than there will be, which could begin before or end behind what they are for.
            let tables = count.div_ceil(self.plan.cluster / self.plan.entry).saturating_add(1);
            self.clusters.count_ahead(drive, count.saturating_add(tables))?;
            self.end = self.end.max(self.clusters.end());
        }
        if self.size == 0 {
            return Ok(());
        }
        let mut data = None;
        if is_inside {
            let at = self.clusters.claim(drive, count)?;
            let (place, len) = (Place { file: self.site.file, at }, count.saturating_mul(self.plan.cluster));
            match space {
                Preallocation::Falloc => drive.allocate(place, len)?,
                _ => drive.zero(place, len, false)?,
            }
            data = Some(at);
        }
        let last = self.tables(data)?;
        let end = self.clusters.end();
        // What the disk does not have of the last cluster, the file need not have.
        let is_last = space == Preallocation::Metadata && last.saturating_add(self.plan.cluster) == end;
        let over = self.plan.size.saturating_sub(self.size.next_multiple_of(self.plan.grain()));
        self.end = self.end.max(if is_last { end.saturating_sub(over) } else { end });
        Ok(())
    }

    /// The LUKS header, if there is to be one: where it lies, and how long it is.
    fn lock(&mut self, recipe: &Recipe) -> Result<Option<(u64, u64)>> {
        match crypt(recipe) {
            Crypt::None => return Ok(None),
            Crypt::Aes if self.site.key.is_some() => return Ok(None),
            Crypt::Aes => {
                return Err(Kind::Key.what("Parameter '{}' is required for cipher").arg("encrypt.key-secret"));
            }
            Crypt::Luks => {}
        }
        let made = luks::create::header(recipe, "encrypt.", self.site)?;
        let len = made.len.next_multiple_of(self.plan.cluster);
        let at = self.clusters.claim(self.site.drive, len / self.plan.cluster)?;
        self.site.drive.zero(Place { file: self.site.file, at }, len, false)?;
        self.site.put(at, &made.bytes[..])?;
        self.end = self.end.max(self.clusters.end());
        Ok(Some((at, made.len)))
    }

    /// Tables that lead to every cluster of the disk: to those from `data` on, or to new ones. Where the last one lies.
    fn tables(&mut self, data: Option<u64>) -> Result<u64> {
        let Plan { cluster, entry, size, .. } = *self.plan;
        let drive = self.site.drive;
        let reach = (cluster / entry).saturating_mul(cluster);
        let (mut at, mut index, mut last) = (0u64, 0u64, 0u64);
        while at < size {
            let table = self.clusters.reuse(drive)?;
            let mut words = Vec::new();
            let end = at.saturating_add(reach).min(size);
            while at < end {
                let step = end.saturating_sub(at).min(AT_ONCE.saturating_sub(AT_ONCE % cluster));
                let host = match (self.site.beside, data) {
                    (Some(_), _) => at,
                    (None, Some(data)) => data.saturating_add(at),
                    (None, None) => self.clusters.claim(drive, step / cluster)?,
                };
                for number in 0..step / cluster {
                    let word = host.saturating_add(number.saturating_mul(cluster)) | L2_COPIED;
                    words.extend_from_slice(&word.to_be_bytes());
                    if self.plan.extended {
                        words.extend_from_slice(&[0; 8]);
                    }
                }
                at = at.saturating_add(step);
                last = host.saturating_add(step).saturating_sub(cluster);
            }
            words.resize(usize::try_from(cluster).unwrap_or(0), 0);
            self.clusters.draft.write_through(drive, table, &words)?;
            let lead = self.l1_at.saturating_add(index.saturating_mul(8));
            self.clusters.draft.put(drive, lead, &(table | L2_COPIED).to_be_bytes())?;
            index = index.saturating_add(1);
        }
        Ok(last)
    }
}

/// How a recipe wants the disk to be encrypted.
fn crypt(recipe: &Recipe) -> Crypt {
    match recipe.text("encrypt.format") {
        Some(b"luks") => Crypt::Luks,
        Some(b"aes") => Crypt::Aes,
        _ if recipe.is_on("encryption") => Crypt::Aes,
        _ => Crypt::None,
    }
}

/// What a header is made of.
struct Parts<'p> {
    recipe: &'p Recipe,
    plan: &'p Plan,
    asked: &'p Asked<'p>,
    size: u64,
    l1_at: u64,
    l1_len: u64,
    table_at: u64,
    table_clusters: u64,
    /// Where the LUKS header lies, and how long it is.
    crypto: Option<(u64, u64)>,
}

impl Parts<'_> {
    /// The header, its extensions, and the name of the backing file.
    fn header(&self) -> Result<Vec<u8>> {
        let (plan, asked) = (self.plan, self.asked);
        let bit = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        let mut header = Header::new_zeroed();
        header.magic = MAGIC;
        header.version = U32::new(if plan.is_v3 { 3 } else { 2 });
        header.cluster_bits = U32::new(plan.cluster.ilog2());
        header.size = U64::new(self.size);
        header.crypt_method = U32::new(match crypt(self.recipe) {
            Crypt::None => 0,
            Crypt::Aes => 1,
            Crypt::Luks => 2,
        });
        header.l1_size = U32::new(u32::try_from(self.l1_len / 8).unwrap_or(u32::MAX));
        header.l1_table_offset = U64::new(self.l1_at);
        header.refcount_table_offset = U64::new(self.table_at);
        header.refcount_table_clusters = U32::new(u32::try_from(self.table_clusters).unwrap_or(u32::MAX));
        if plan.is_v3 {
            header.incompatible_features = U64::new(
                bit(asked.data_file.is_some(), DATA_FILE)
                    | bit(asked.is_zstd, COMPRESSION)
                    | bit(plan.extended, EXTENDED_L2),
            );
            header.compatible_features = U64::new(bit(asked.is_lazy, LAZY_REFCOUNTS));
            header.autoclear_features = U64::new(bit(asked.is_raw, DATA_FILE_RAW));
            header.refcount_order = U32::new(plan.refcount_bits.ilog2());
            header.header_length = U32::new(HEADER_LEN);
            header.compression_type = asked.is_zstd.into();
        }
        let extensions = self.extensions();
        let len = if plan.is_v3 { HEADER_LEN } else { HEADER2_LEN };
        let behind = u64::from(len).saturating_add(extensions.len() as u64);
        if let Some(name) = asked.backing {
            header.backing_file_offset = U64::new(behind);
            header.backing_file_size = U32::new(u32::try_from(name.len()).unwrap_or(u32::MAX));
        }
        let mut bytes = header.as_bytes().get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default().to_vec();
        bytes.extend(extensions);
        bytes.extend_from_slice(asked.backing.unwrap_or_default());
        if bytes.len() as u64 > plan.cluster {
            return Err(invalid("Could not update qcow2 header: Argument list too long"));
        }
        Ok(bytes)
    }

    fn extensions(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |magic: u32, content: &[u8]| extensions::add(&mut bytes, magic, content);
        if let Some(format) = self.asked.backing_format {
            add(EXT_BACKING_FORMAT, format);
        }
        if let Some(name) = self.asked.data_file {
            add(EXT_DATA_FILE, name);
        }
        if let Some((offset, length)) = self.crypto {
            add(EXT_CRYPTO, Crypto { offset: U64::new(offset), length: U64::new(length) }.as_bytes());
        }
        if self.plan.is_v3 && self.plan.cluster >= NAMED_MIN {
            add(EXT_FEATURE_NAMES, &feature_names());
        }
        add(0, &[]);
        bytes
    }
}

/// What the extension says that names all features.
pub fn feature_names() -> Vec<u8> {
    let row = |(kind, bit, text): &(u8, u8, &str)| {
        let mut name = [0; 46];
        name.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        FeatureName { kind: *kind, bit: *bit, name }
    };
    let mut bytes = vec![];
    FEATURES.iter().for_each(|feature| bytes.extend_from_slice(row(feature).as_bytes()));
    bytes
}
