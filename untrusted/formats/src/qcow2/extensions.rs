//! The header extensions of a qcow2 image.

use super::disk::{
    BITMAPS, Bitmaps, Crypto, EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE, EXT_FEATURE_NAMES, Extension,
    FeatureName, INCOMPATIBLE,
};
use super::open::{Crypt, Layout};
use crate::luks::disk::Header1;
use crate::luks::open::Luks1;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use instar_image::num::bounded;
use instar_image::num::power;
use instar_image::sector::readable;
use instar_image::text::until_nul;
use instar_image::{Error, File, Kind, Options, Result};
use zerocopy::{FromBytes, IntoBytes};

/// The longest name of a backing file's format, and the byte behind it.
const FORMAT_LEN_END: u64 = 16;
/// No extension is longer than a cluster.
const LEN_MAX: u64 = 2 << 20;
/// The most bitmaps that qemu-img accepts.
pub const BITMAPS_MAX: u32 = 65535;
/// The longest directory of bitmaps that qemu-img accepts: one with the longest entry for each.
pub const DIRECTORY_LEN_MAX: u64 = 65535 * 1024;
/// Every LUKS header that is named is read, far from the others; more than this is an attempt to keep us busy.
const LUKS_MAX: u32 = 64;

/// What the extensions say.
#[derive(Default)]
pub struct Extensions {
    /// Format of the backing file.
    pub backing_format: Option<Vec<u8>>,
    /// Name of the external data file.
    pub data_file: Option<Vec<u8>>,
    /// Where the bitmaps are, if they can be trusted.
    pub bitmaps: Option<Directory>,
    /// The LUKS header.
    pub luks: Option<Luks1>,
    /// Where it lies, and how much of the file belongs to it.
    pub luks_place: Range<u64>,
    /// What should be said although the image can be read.
    pub warnings: Vec<Error>,
    names: Vec<u8>,
    luks_count: u32,
}

/// Where the bitmaps are.
pub struct Directory {
    /// Where their directory lies.
    pub at: u64,
    /// How long it is.
    pub len: u64,
    /// How many bitmaps it should have.
    pub count: u32,
}

/// What the extensions are read with.
struct Reader<'r, 'a> {
    file: &'r File<'a>,
    layout: &'r Layout,
    crypt: Crypt,
    options: &'r Options,
    /// The names of features are wanted, and nothing else.
    names: bool,
}

/// What to call the incompatible features that are not known: names from the image, and a number for the rest.
pub fn unknown_features(file: &File<'_>, layout: &Layout) -> Result<Vec<u8>> {
    let mut found = Extensions::default();
    let reader = Reader { file, layout, crypt: Crypt::None, options: &Options::default(), names: true };
    match found.read_all(&reader) {
        // Whatever is wrong with the extensions, the unknown features are worse.
        Err(error) if error.kind == Kind::Io => return Err(error),
        _ => {}
    }
    let mut mask = layout.incompatible & !INCOMPATIBLE;
    let mut told: Vec<u8> = Vec::new();
    let mut tell = |name: &[u8]| {
        if !told.is_empty() {
            told.extend_from_slice(b", ");
        }
        told.extend_from_slice(name);
    };
    for row in found.names.chunks(size_of::<FeatureName>()) {
        let mut padded = [0; size_of::<FeatureName>()];
        for (to, from) in padded.iter_mut().zip(row) {
            *to = *from;
        }
        let Ok(feature) = FeatureName::read_from_bytes(&padded) else { break };
        let name = until_nul(&feature.name);
        if name.is_empty() {
            break;
        }
        let bit = power(u32::from(feature.bit) % 64);
        if feature.kind == 0 && mask & bit != 0 {
            tell(name);
            mask &= !bit;
        }
    }
    if mask != 0 {
        tell(format!("Unknown incompatible feature: {mask:x}").as_bytes());
    }
    Ok(told)
}

/// Puts an extension behind others.
pub fn add(bytes: &mut Vec<u8>, magic: u32, content: &[u8]) {
    let len = u32::try_from(content.len()).unwrap_or(u32::MAX).into();
    bytes.extend_from_slice(Extension { magic: magic.into(), len }.as_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

impl Extensions {
    /// Reads all extensions up to the one that ends them.
    pub fn read(file: &File<'_>, layout: &Layout, crypt: Crypt, options: &Options) -> Result<Extensions> {
        let mut found = Extensions::default();
        found.read_all(&Reader { file, layout, crypt, options, names: false })?;
        Ok(found)
    }

    fn read_all(&mut self, reader: &Reader<'_, '_>) -> Result<()> {
        let end = reader.layout.extensions_end;
        let mut at = reader.layout.extensions_at;
        while at < end {
            let extension: Extension = reader.file.read_as(at)?;
            let len = u64::from(extension.len.get());
            at = at.saturating_add(8);
            if end.checked_sub(at).is_none_or(|left| len > left) {
                return Err(reader.refuse("Header extension too large"));
            }
            match extension.magic.get() {
                0 => return Ok(()),
                EXT_BACKING_FORMAT => self.backing_format = Some(reader.backing_format(at, len)?),
                EXT_DATA_FILE => self.data_file = Some(reader.name(at, len)?),
                EXT_FEATURE_NAMES if reader.names => self.names = reader.bytes(at, len)?,
                EXT_CRYPTO => self.read_luks(reader, at, len)?,
                EXT_BITMAPS => self.read_bitmaps(reader, at, len)?,
                _ => {}
            }
            at = at.saturating_add(len.next_multiple_of(8));
        }
        Ok(())
    }

    fn read_luks(&mut self, reader: &Reader<'_, '_>, at: u64, len: u64) -> Result<()> {
        self.luks_count = self.luks_count.saturating_add(1);
        if self.luks_count > LUKS_MAX {
            return Err(reader.refuse("too many CRYPTO header extensions"));
        }
        let (luks, place) = reader.luks(at, len)?;
        (self.luks, self.luks_place) = (Some(luks), place);
        Ok(())
    }

    fn read_bitmaps(&mut self, reader: &Reader<'_, '_>, at: u64, len: u64) -> Result<()> {
        if len != 24 {
            return Err(reader.refuse("bitmaps_ext: Invalid extension length"));
        }
        if reader.layout.autoclear & BITMAPS == 0 {
            self.warnings.push(reader.stale_bitmaps());
            return Ok(());
        }
        self.bitmaps = Some(reader.directory(&reader.file.read_as(at)?)?);
        Ok(())
    }
}

impl Reader<'_, '_> {
    fn refuse(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.file.id())
    }

    fn bytes(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        self.file.read_vec(at, bounded(len, LEN_MAX, || self.refuse("Header extension too large"))?)
    }

    fn name(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        Ok(until_nul(&self.bytes(at, len)?).to_vec())
    }

    fn backing_format(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        if len >= FORMAT_LEN_END {
            return Err(self.refuse("ERROR: ext_backing_format: len={} too large (>=16)").arg(len));
        }
        self.name(at, len)
    }

    fn luks(&self, at: u64, len: u64) -> Result<(Luks1, Range<u64>)> {
        if self.crypt != Crypt::Luks {
            return Err(self.refuse("CRYPTO header extension only expected with LUKS encryption method"));
        }
        if len != 16 {
            return Err(self.refuse("CRYPTO header extension size {}, but expected size 16").arg(len));
        }
        let place: Crypto = self.file.read_as(at)?;
        let (offset, cluster_len) = (place.offset.get(), self.layout.cluster_len);
        if !offset.is_multiple_of(cluster_len) {
            let phrase = "Encryption header offset '{}' is not a multiple of cluster size '{}'";
            return Err(self.refuse(phrase).arg(offset).arg(cluster_len));
        }
        self.options.demand_key(self.file, "encrypt.key-secret")?;
        let header_len = u64::try_from(size_of::<Header1>()).unwrap_or(u64::MAX);
        if place.length.get() < header_len {
            return Err(self.refuse("Request for data outside of extension header"));
        }
        if !readable(offset, header_len) {
            return Err(self.refuse("Could not read encryption header: Input/output error"));
        }
        let luks = Luks1::open(self.file, offset, self.options.version)?;
        Ok((luks, offset..offset.saturating_add(place.length.get())))
    }

    fn stale_bitmaps(&self) -> Error {
        let phrase = if self.layout.version == 2 {
            "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent \
             bitmap support; so now they must all be considered inconsistent\n\
             Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
        } else {
            "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n\
             Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
        };
        self.refuse(phrase)
    }

    fn directory(&self, place: &Bitmaps) -> Result<Directory> {
        let (count, at, len) = (place.nb_bitmaps.get(), place.directory_offset.get(), place.directory_size.get());
        if place.reserved.get() != 0 {
            return Err(self.refuse("bitmaps_ext: Reserved field is not zero"));
        }
        if count > BITMAPS_MAX {
            let phrase = "bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of 65535";
            return Err(self.refuse(phrase).arg(count));
        }
        if count == 0 {
            return Err(self.refuse("found bitmaps extension with zero bitmaps"));
        }
        if !at.is_multiple_of(self.layout.cluster_len) {
            return Err(self.refuse("bitmaps_ext: invalid bitmap directory offset"));
        }
        if len > DIRECTORY_LEN_MAX {
            let phrase = "bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported size ({})";
            return Err(self.refuse(phrase).arg(len).arg(DIRECTORY_LEN_MAX));
        }
        Ok(Directory { at, len, count })
    }
}
