//! The parent of a VHDX, as a new disk names it.

use super::disk::{LOCATOR_TYPE, LocatorEntry, LocatorHead};
use alloc::format;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::parent::written;
use instar_image::text::{guid, to_utf16};
use instar_image::{Error, Fact, Kind, Recipe, Result, Site, info};
use zerocopy::IntoBytes;

/// Bytes of a path.
const PATH_MAX: usize = 8 << 10;

/// What a new disk differs from.
pub struct Below {
    /// Bytes of a sector.
    pub sector: u64,
    /// Where it is, and in which state.
    pub locator: Vec<u8>,
}

impl Below {
    /// What the recipe asks for, if it is anything.
    pub fn of(recipe: &Recipe, site: &Site<'_>) -> Result<Option<Below>> {
        let Some(name) = recipe.text("backing_file") else { return Ok(None) };
        if site.rules.as_qemu {
            return Err(Kind::Unsupported.what("Backing file not supported for file format '{}'").arg("vhdx"));
        }
        let unknown = || Kind::Unsupported.what("a VHDX can only differ from another VHDX, which has to be looked at");
        Below::known(name, site.below.ok_or_else(unknown)?).map(Some)
    }

    /// A disk that says this of itself.
    pub fn known(name: &[u8], below: &info::Image) -> Result<Below> {
        let unknown = || Kind::Unsupported.what("a VHDX can only differ from another VHDX, which has to be looked at");
        if below.format.0 != b"vhdx" {
            return Err(unknown());
        }
        let extra = |name: &str| below.extra.as_ref().and_then(|extra| extra.get(name));
        let (Some(Fact::Text(state)), Some(Fact::Count(sector))) =
            (extra("data-write-guid"), extra("logical-sector-size"))
        else {
            return Err(unknown());
        };
        Below::named(name, core::str::from_utf8(&state.0).map_err(|_| unknown())?, *sector)
    }

    /// A disk in this state.
    pub fn new(name: &[u8], state: &[u8; 16], sector: u64) -> Result<Below> {
        Below::named(name, &guid(state), sector)
    }

    fn named(name: &[u8], state: &str, sector: u64) -> Result<Below> {
        let path = written(name).filter(|path| path.len() <= PATH_MAX).ok_or_else(unnamed)?;
        let key = if path.starts_with(b"/") { "absolute_win32_path" } else { "relative_path" };
        let state = format!("{{{state}}}");
        let locator = locator(&[(b"parent_linkage", state.as_bytes()), (key.as_bytes(), &path)])?;
        Ok(Below { sector, locator })
    }
}

fn unnamed() -> Error {
    Kind::Unsupported.what("the name of the parent cannot be written in a VHDX")
}

/// Keys and values as they lie in the file.
fn locator(pairs: &[(&[u8], &[u8])]) -> Result<Vec<u8>> {
    let count = u16::try_from(pairs.len()).unwrap_or(0);
    let head = LocatorHead { locator_type: LOCATOR_TYPE, reserved: 0.into(), count: count.into() };
    let mut entries = head.as_bytes().to_vec();
    let texts_at = pairs.len().saturating_mul(size_of::<LocatorEntry>()).saturating_add(entries.len());
    let mut texts: Vec<u8> = Vec::new();
    let mut add = |text: &[u8]| {
        let at = u32::try_from(texts_at.saturating_add(texts.len())).map_err(|_| unnamed())?;
        let units = to_utf16(text).ok_or_else(unnamed)?;
        let bytes: Vec<u8> = units.into_iter().flat_map(u16::to_le_bytes).collect();
        texts.extend_from_slice(&bytes);
        Ok((at, u16::try_from(bytes.len()).map_err(|_| unnamed())?))
    };
    for (key, value) in pairs {
        let ((key_offset, key_length), (value_offset, value_length)) = (add(key)?, add(value)?);
        let entry = LocatorEntry {
            key_offset: key_offset.into(),
            value_offset: value_offset.into(),
            key_length: key_length.into(),
            value_length: value_length.into(),
        };
        entries.extend_from_slice(entry.as_bytes());
    }
    entries.extend_from_slice(&texts);
    Ok(entries)
}
