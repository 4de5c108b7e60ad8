//! What a file must be to hold a raw disk, and which part of it the disk is.

use super::disk::{GPT_HEADER_LEN, GPT_SIGNATURE, GptHeader, MBR_SIGNATURE, Mbr, TYPE_PROTECTIVE};
use instar_image::num::bounded;
use instar_image::sector::{SECTOR, round_up};
use instar_image::{File, Kind, Options, Result};

/// A raw disk in its file.
pub struct Raw<'a> {
    /// The part of the file that the disk is.
    pub file: File<'a>,
    /// Size of the disk.
    pub size: u64,
    /// The user says how large it is.
    pub is_fixed: bool,
}

impl<'a> Raw<'a> {
    /// Cuts the disk out of its file.
    pub fn open(file: File<'a>, options: &Options) -> Result<Self> {
        let id = file.id();
        let real = round_up(file.len());
        let start = options.raw_offset.unwrap_or(0);
        let Some(left) = real.checked_sub(start) else {
            let phrase = "Offset ({}) cannot be greater than size of the containing file ({})";
            return Err(Kind::Unsupported.what(phrase).file(id).arg(start).arg(real));
        };
        let Some(size) = options.raw_size else {
            let size = round_up(left);
            return Ok(Raw { file: part(&file, start, size), size, is_fixed: false });
        };
        if size > left {
            let phrase = "The sum of offset ({}) and size ({}) has to be smaller or equal to the  \
                          actual size of the containing file ({})";
            return Err(Kind::Unsupported.what(phrase).file(id).arg(start).arg(size).arg(real));
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(Kind::Unsupported.what("Specified size is not multiple of 512").file(id));
        }
        Ok(Raw { file: part(&file, start, size), size, is_fixed: true })
    }
}

fn part<'a>(file: &File<'a>, start: u64, len: u64) -> File<'a> {
    let have = file.len().saturating_sub(start).min(len);
    File::slice(file.io(), file.id(), start, have)
}

/// A partition table that shows a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Master boot record.
    Mbr,
    /// GUID partition table behind a protective master boot record.
    Gpt,
}

impl Table {
    /// Its name among the findings.
    pub fn name(self) -> &'static str {
        match self {
            Table::Mbr => "mbr",
            Table::Gpt => "gpt",
        }
    }
}

/// The partition table at the start of a file, if there is one that can be believed.
pub fn partitions(file: &File<'_>) -> Result<Option<Table>> {
    let mbr: Mbr = file.read_as(0)?;
    if mbr.signature.get() != MBR_SIGNATURE {
        return Ok(None);
    }
    let real = |kind: &dyn Fn(u8) -> bool| mbr.entries.iter().any(|e| matches!(e.boot, 0 | 0x80) && kind(e.kind));
    if real(&|kind| kind == TYPE_PROTECTIVE) {
        for sector in [512, 4096] {
            if is_gpt(file, sector)? {
                return Ok(Some(Table::Gpt));
            }
        }
    }
    Ok(real(&|kind| kind != 0).then_some(Table::Mbr))
}

/// Whether the second sector, of this length, is a valid header of a GUID partition table.
fn is_gpt(file: &File<'_>, sector: u64) -> Result<bool> {
    let header: GptHeader = file.read_as(sector)?;
    let len = header.header_len.get();
    if header.signature != GPT_SIGNATURE || header.my_lba.get() != 1 || len < GPT_HEADER_LEN {
        return Ok(false);
    }
    let Ok(len) = bounded(len.into(), sector, || Kind::Corrupt.what("GPT header too long")) else {
        return Ok(false);
    };
    let mut bytes = file.read_vec(sector, len)?;
    if let Some(crc) = bytes.get_mut(16..20) {
        crc.fill(0);
    }
    Ok(crc32(&bytes) == header.crc.get())
}

/// CRC-32 as Ethernet has it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
