//! The checks that a qcow header must pass.

use super::disk::{Header, MAGIC};
use alloc::sync::Arc;
use alloc::vec::Vec;
use instar_codec::cipher::{Sectors, Suite};
use instar_image::num::bounded;
use instar_image::num::power;
use instar_image::sector::{SECTOR, readable};
use instar_image::text::until_nul;
use instar_image::{Error, File, Kind, Result, Secret};

/// The longest name of a backing file.
pub const BACKING_NAME_MAX: u64 = 1023;
/// The longest L1 table that qemu-img accepts, in entries.
pub const L1_COUNT_MAX: u64 = 0x0fff_ffff;
/// The longest read that qemu-img makes.
pub const READ_MAX: u64 = 0x7fff_fe00;

/// What the header says, checked.
pub struct Checked {
    /// Size of the disk.
    pub size: u64,
    /// 2 to this power is the length of a cluster: 9 to 16.
    pub cluster_bits: u32,
    /// Length of a cluster.
    pub cluster_len: u64,
    /// Entries of an L2 table.
    pub l2_count: u64,
    /// Where the L1 table lies.
    pub l1_at: u64,
    /// Entries of the L1 table.
    pub l1_count: u64,
    /// The guest's bytes are encrypted with AES.
    pub encrypted: bool,
    /// Name of the backing file.
    pub backing: Option<Vec<u8>>,
}

/// Whether the file begins as version 1 does.
pub fn is_ours(file: &File<'_>) -> Result<bool> {
    let header: Header = file.read_as(0)?;
    Ok(header.magic == MAGIC && header.version.get() == 1)
}

/// Reads and checks the header.
pub fn open(file: &File<'_>) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    let refuse = |kind: Kind, phrase: &'static str| -> Error { kind.what(phrase).file(file.id()) };
    let unreadable = || refuse(Kind::Io, "Could not open '{file}': Input/output error");
    check_version(&header).map_err(|e| e.file(file.id()))?;
    let size = header.size.get();
    if size <= 1 {
        return Err(refuse(Kind::Corrupt, "Image size is too small (must be at least 2 bytes)"));
    }
    if !(9..=16).contains(&header.cluster_bits) {
        return Err(refuse(Kind::Corrupt, "Cluster size must be between 512 and 64k"));
    }
    if !(6..=13).contains(&header.l2_bits) {
        return Err(refuse(Kind::Corrupt, "L2 table size must be between 512 and 64k"));
    }
    if header.crypt_method.get() > 1 {
        return Err(refuse(Kind::Unsupported, "invalid encryption method in qcow header"));
    }
    let cluster_len = power(header.cluster_bits.into());
    let l2_count = power(header.l2_bits.into());
    let l1_count = size.div_ceil(cluster_len.saturating_mul(l2_count));
    if l1_count > L1_COUNT_MAX {
        return Err(refuse(Kind::TooBig, "Image too large"));
    }
    let l1_len = l1_count.saturating_mul(8);
    let l1_at = header.l1_table_offset.get();
    if l1_len > READ_MAX || !readable(l1_at, l1_len) {
        return Err(unreadable());
    }
    let mut backing = None;
    let name_at = header.backing_file_offset.get();
    if name_at != 0 {
        let len = u64::from(header.backing_file_size.get());
        let too_long = || refuse(Kind::Corrupt, "Backing file name too long");
        let len = bounded(len, BACKING_NAME_MAX, too_long)?;
        if !readable(name_at, header.backing_file_size.get().into()) {
            return Err(unreadable());
        }
        let bytes = file.read_vec(name_at, len)?;
        backing = Some(until_nul(&bytes).to_vec()).filter(|name| !name.is_empty());
    }
    let encrypted = header.crypt_method.get() == 1;
    Ok(Checked {
        size: size.wrapping_sub(size % SECTOR),
        cluster_bits: header.cluster_bits.into(),
        cluster_len,
        l2_count,
        l1_at,
        l1_count,
        encrypted,
        backing,
    })
}

/// What decrypts the guest's sectors: AES in CBC mode under the password itself, as much of it as a key has room for.
pub fn aes(password: &Secret) -> Result<Arc<Sectors>> {
    let mut key = [0; 16];
    key.iter_mut().zip(&password.0).for_each(|(to, from)| *to = *from);
    let suite = Suite::parse(b"aes-cbc-plain64").and_then(|suite| suite.keyed(&key, 512));
    suite.map(Arc::new).ok_or_else(|| Kind::Unsupported.what("Encryption '{}' is not supported").arg("aes"))
}

fn check_version(header: &Header) -> Result<()> {
    if header.magic != MAGIC {
        return Err(Kind::NotThisFormat.what("Image not in qcow format"));
    }
    let version = header.version.get();
    let phrase = match version {
        1 => return Ok(()),
        2 | 3 => "qcow (v1) does not support qcow version {}\nTry the 'qcow2' driver instead.",
        _ => "qcow (v1) does not support qcow version {}",
    };
    Err(Kind::Unsupported.what(phrase).arg(version))
}
