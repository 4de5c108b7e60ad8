//! The parent of a VHD, as a new disk names it.

use super::disk::{Header, Locator};
use alloc::format;
use alloc::vec::Vec;
use instar_image::parent::written;
use instar_image::text::{from_uuid, to_utf16};
use instar_image::{Error, Fact, Kind, Recipe, Result, Site, info};

const SECTOR: u64 = 512;
/// UTF-16 units of a parent's name.
const NAME_MAX: usize = 255;
/// Bytes of a notation of where it is.
const LOCATOR_MAX: usize = 8 << 10;

/// What a new disk differs from.
pub struct Below {
    /// Bytes of its disk.
    pub size: u64,
    uuid: [u8; 16],
    /// When it was made.
    timestamp: u32,
    name: Vec<u16>,
    /// How the name is written, and the name.
    locator: ([u8; 4], Vec<u8>),
}

impl Below {
    /// What the recipe asks for, if it is anything.
    pub fn of(recipe: &Recipe, site: &Site<'_>) -> Result<Option<Below>> {
        let Some(name) = recipe.text("backing_file") else { return Ok(None) };
        if site.rules.as_qemu {
            return Err(Kind::Unsupported.what("Backing file not supported for file format '{}'").arg("vpc"));
        }
        let unknown = || Kind::Unsupported.what("a VHD can only differ from another VHD, which has to be looked at");
        Below::known(name, site.below.ok_or_else(unknown)?).map(Some)
    }

    /// A disk that says this of itself.
    pub fn known(name: &[u8], below: &info::Image) -> Result<Below> {
        let unknown = || Kind::Unsupported.what("a VHD can only differ from another VHD, which has to be looked at");
        if below.format.0 != b"vpc" {
            return Err(unknown());
        }
        let extra = |name: &str| below.extra.as_ref().and_then(|extra| extra.get(name));
        let uuid = match extra("uuid") {
            Some(Fact::Text(text)) => from_uuid(&text.0).ok_or_else(unknown)?,
            _ => return Err(unknown()),
        };
        let timestamp = match extra("timestamp") {
            Some(Fact::Count(seconds)) => u32::try_from(*seconds).unwrap_or(0),
            _ => 0,
        };
        Below::new(name, below.virtual_size, uuid, timestamp)
    }

    /// A disk with this identifier.
    pub fn new(name: &[u8], size: u64, uuid: [u8; 16], timestamp: u32) -> Result<Below> {
        let text = to_utf16(name).filter(|units| units.len() <= NAME_MAX).ok_or_else(unnamed)?;
        Ok(Below { size, uuid, timestamp, name: text, locator: locator(name)? })
    }

    /// Bytes that a name takes behind the table of blocks.
    pub fn space(name: &[u8]) -> u64 {
        locator(name).map_or(0, |(_, text)| (text.len() as u64).next_multiple_of(SECTOR))
    }

    /// Names it in a header, and behind what ends at `at`; answers where that ends.
    pub fn put(&self, header: &mut Header, at: u64, site: &Site<'_>) -> Result<u64> {
        self.write(header, at);
        site.put(at, self.text())?;
        Ok(at.saturating_add((self.text().len() as u64).next_multiple_of(SECTOR)))
    }

    /// Where it is, as that stands behind the table of blocks.
    pub fn text(&self) -> &[u8] {
        &self.locator.1
    }

    /// Names it in a header; where it is stands at `at`.
    pub fn write(&self, header: &mut Header, at: u64) {
        header.parent_uuid = self.uuid;
        header.parent_timestamp = self.timestamp.into();
        let room = header.parent_name.as_chunks_mut::<2>().0;
        room.iter_mut().zip(&self.name).for_each(|(to, unit)| *to = unit.to_be_bytes());
        let (code, text) = &self.locator;
        let len = text.len() as u64;
        if let Some(first) = header.locators.first_mut() {
            *first = Locator {
                platform_code: *code,
                data_space: u32::try_from(len.next_multiple_of(SECTOR)).unwrap_or(0).into(),
                data_length: u32::try_from(len).unwrap_or(0).into(),
                reserved: [0; 4],
                data_offset: at.into(),
            };
        }
    }
}

fn unnamed() -> Error {
    Kind::Unsupported.what("the name of the parent cannot be written in a VHD")
}

/// A name as other systems write it: relative to the disk with backslashes, or the URL of a file.
fn locator(name: &[u8]) -> Result<([u8; 4], Vec<u8>)> {
    let path = written(name).ok_or_else(unnamed)?;
    let (code, text) = if path.starts_with(b"/") {
        let mut url = b"file://".to_vec();
        for byte in &path {
            match byte {
                b'/' | b'-' | b'.' | b'_' | b'~' => url.push(*byte),
                byte if byte.is_ascii_alphanumeric() => url.push(*byte),
                byte => url.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
        (*b"MacX", url)
    } else {
        let units = to_utf16(&path).ok_or_else(unnamed)?;
        (*b"W2ru", units.into_iter().flat_map(u16::to_le_bytes).collect())
    };
    if text.len() > LOCATOR_MAX { Err(unnamed()) } else { Ok((code, text)) }
}
