//! What a VMware disk stands on: two lines of its descriptor, which change at one moment.
//!
//! Readers take the first line that names a parent. So where the new line does not fit where the old one is, it is put
//! behind all others first, and then the old one becomes a remark.

use super::{Change, Planned};
use crate::vmdk::create::breaks;
use crate::vmdk::descriptor;
use crate::vmdk::disk::{COWD, Hosted, KDMV};
use crate::vmdk::open::{Body, HEAD_LEN, text_at};
use alloc::vec::Vec;
use instar_image::edit::Footing;
use instar_image::num::wide;
use instar_image::sector::SECTOR;
use instar_image::{Error, Fact, File, Kind, Result, Role, info};

/// The longest name of a parent.
const NAME_MAX: usize = 4095;
/// What stands for no disk.
const NONE: u32 = u32::MAX;

impl Change<'_, '_> {
    /// The texts that the descriptor becomes one after another, each at one moment.
    pub(super) fn steps(&self, footing: &Footing<'_>) -> Result<Vec<Planned>> {
        let refused = |words: &'static str| Kind::Unsupported.what(words).file(self.file.id());
        let name = Some(footing.name).filter(|name| !name.is_empty());
        if name.is_some_and(breaks) {
            return Err(refused("a VMDK cannot tell of names with quotation marks or line ends"));
        }
        if footing.name.len() > NAME_MAX {
            return Err(Kind::TooBig.what("the name of the parent is too long for a VMDK").file(self.file.id()));
        }
        let is_flat = self.checked.extents.iter().any(|extent| matches!(extent.body, Body::Flat { .. }));
        if is_flat && name.is_some() {
            return Err(refused("Flat image can't have backing file"));
        }
        if footing.format.is_some_and(|format| name.is_some() && format != b"vmdk") {
            return Err(refused("backing_file must be a vmdk image"));
        }
        let cid = match (name, footing.below) {
            (None, _) => NONE,
            (_, Some(below)) => identifier(below)?,
            (Some(name), None) => self.identified(name)?,
        };
        let steps = self.found(cid, name)?;
        steps.ok_or_else(|| refused("the descriptor is too long, or too odd, for another parent to be named at once"))
    }

    fn found(&self, cid: u32, name: Option<&[u8]>) -> Result<Option<Vec<Planned>>> {
        let old = self.text()?;
        let room = self.room(&old)?;
        let is_right = |text: &[u8]| {
            let said = descriptor::parent(text).map(|name| name.filter(|name| !name.is_empty()));
            let head = text.get(..HEAD_LEN.min(text.len())).unwrap_or_default();
            wide(text.len()) <= room && descriptor::parent_cid(text) == Some(cid) && said == Some(name) && {
                // Nobody looks further.
                name.is_none() || descriptor::parent(head).flatten() == name
            }
        };
        let planned = |bytes: Vec<u8>, old: &[u8]| Planned { bytes, old: old.to_vec() };
        let direct = descriptor::standing(&old, cid, name).filter(|text| is_right(text));
        if let Some(direct) = direct {
            if planned(direct.clone(), &old).is_at_once() {
                return Ok(Some(Vec::from([planned(direct, &old)])));
            }
            if let Some(spared) = planned(direct, &old).spared() {
                return Ok(Some(Vec::from([spared])));
            }
        }
        let herald = match name {
            Some(name) => descriptor::heralding(&old, name).filter(|text| wide(text.len()) <= room),
            None => Some(old.clone()),
        };
        let Some(herald) = herald else { return Ok(None) };
        let Some(last) = descriptor::retiring(&herald, cid).filter(|text| is_right(text)) else { return Ok(None) };
        let steps = [planned(herald.clone(), &old), planned(last, &herald)];
        Ok(steps.iter().all(Planned::is_at_once).then(|| Vec::from(steps)))
    }

    /// Bytes that the descriptor may have.
    fn room(&self, text: &[u8]) -> Result<u64> {
        if self.checked.text_at == 0 {
            return Ok(super::TEXT_MAX);
        }
        let header: Hosted = self.file.read_as(0)?;
        let has_own = &header.magic == KDMV && header.desc_offset.get().saturating_mul(SECTOR) == self.checked.text_at;
        let own = if has_own { header.desc_size.get().saturating_mul(SECTOR) } else { 0 };
        Ok(own.min(wide(HEAD_LEN)).max(wide(text.len()).next_multiple_of(SECTOR)))
    }

    /// The content identifier of a disk that nobody has looked at.
    fn identified(&self, name: &[u8]) -> Result<u32> {
        let granted = self.file.related(Role::Backing, name)?;
        let below = File::new(self.file.io(), &granted);
        let head = below.read_vec(text_at(&below)?, HEAD_LEN)?;
        let magic: [u8; 4] = below.read_as(0)?;
        let is_ours = &magic == KDMV || &magic == COWD || descriptor::is_descriptor(&head);
        let cid = descriptor::cid(&head).filter(|_| is_ours);
        cid.ok_or_else(|| Kind::NotThisFormat.what("the parent of a VMDK is not a VMDK").file(granted.id))
    }
}

/// The content identifier of what the disk is to stand on.
pub fn identifier(below: &info::Image) -> Result<u32> {
    let unknown = || -> Error { Kind::Unsupported.what("backing_file must be a vmdk image") };
    if below.format.0 != b"vmdk" {
        let words = "Invalid backing file format: {}. Must be vmdk";
        return Err(Kind::Unsupported.what(words).arg(below.format.clone()));
    }
    match below.specific.as_ref().and_then(|specific| specific.get("cid")) {
        Some(Fact::Count(cid)) => u32::try_from(*cid).map_err(|_| unknown()),
        _ => Err(unknown()),
    }
}
