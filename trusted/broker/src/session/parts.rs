//! The further files of images in the making.

use super::{Session, beside};
use crate::mishap::{Mishap, Why};
use crate::policy::{self, Refusal};
use crate::publish::{self, Refused, Target, Wish};
use instar_wire::io::{FileId, Granted, Part};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Further files of all images that are made: as many as the largest disk in the smallest pieces has.
const PARTS_MAX: usize = 32_768;
/// Longest name of a file in its directory.
const NAME_MAX: usize = 255;

/// How the further files of an image are made.
#[derive(Clone)]
pub(super) struct Way {
    of: FileId,
    /// What the user calls it.
    shown: Vec<u8>,
    /// Where it is.
    path: PathBuf,
    /// What is told to the system of each file; what is read is known here.
    wish: Wish<'static>,
}

impl Session {
    /// The image in the making that is opened by this file, which will stand at `path`, may have further files; they are
    /// made as `wish` says.
    pub fn allow_parts(&self, id: FileId, path: &Path, wish: Wish<'static>) {
        publish::raise_files_limit();
        let shown = self.name(id);
        let mut state = self.state();
        if let Some(grant) = usize::try_from(id.0).ok().and_then(|index| state.grants.get_mut(index)) {
            grant.has_parts = true;
            state.ways.push(Way { of: id, shown, path: path.to_path_buf(), wish });
        }
    }

    /// Whether the image that is opened by this file may have further ones.
    pub fn has_parts(&self, id: FileId) -> bool {
        usize::try_from(id.0)
            .ok()
            .and_then(|index| self.state().grants.get(index).copied())
            .is_some_and(|g| g.has_parts)
    }

    /// Makes one more file of an image; it appears when it is published with those of [`Self::take_parts`].
    pub fn make_part(&self, part: &Part) -> Result<Granted, u32> {
        self.try_part(part).map_err(|why| {
            let name = self.name_beside(part.from, &part.name.0);
            self.note(Mishap { name, named_by: None, why })
        })
    }

    fn try_part(&self, part: &Part) -> Result<Granted, Why> {
        let (name, way) = (&part.name.0, self.state().ways.iter().find(|way| way.of == part.from).cloned());
        let way = way.ok_or(Why::Refused(Refusal::Part))?;
        policy::judge_part(name, way.path.file_name().unwrap_or_default().as_bytes()).map_err(Why::Refused)?;
        if name.len() > NAME_MAX {
            return Err(Why::System(Errno::NAMETOOLONG));
        }
        {
            let state = self.state();
            if state.parts.len() >= PARTS_MAX {
                return Err(Why::TooMany);
            }
            if state.part_grants.contains_key(&(part.from, name.clone())) {
                return Err(Why::System(Errno::EXIST));
            }
        }
        let path = way.path.with_file_name(OsStr::from_bytes(name));
        let wish = Wish { is_source: &|identity| self.has_open(identity), ..way.wish };
        let mut target = Target::create(&path, &wish).map_err(|refused| match refused {
            Refused::System(errno) => Why::System(errno),
            Refused::InUse(conflict) => Why::InUse(conflict),
            Refused::Source => Why::Source,
        })?;
        if target.kind() != FileType::RegularFile {
            return Err(Why::NotRegular);
        }
        let mut state = self.state();
        if state.part_grants.contains_key(&(part.from, name.clone())) {
            return Err(Why::System(Errno::EXIST));
        }
        if let Some((_, first)) = state.parts.first() {
            target.share_directory(first);
        }
        let shown = beside(&way.shown, name);
        let granted = state.grant_made(&shown, Some(target.file()), 0);
        if let Some(entry) = usize::try_from(granted.id.0).ok().and_then(|index| state.entries.get_mut(index)) {
            entry.unseen = target.is_unseen();
        }
        state.part_grants.insert((part.from, name.clone()), granted.id);
        state.parts.push((part.from, target));
        Ok(granted)
    }

    /// The further file of an image in the making that goes by this name, as long as it is now.
    pub(super) fn part_named(&self, from: FileId, name: &[u8]) -> Option<Granted> {
        let mut state = self.state();
        let id = *state.part_grants.get(&(from, name.to_vec()))?;
        let index = usize::try_from(id.0).ok()?;
        let file = state.entries.get(index)?.file.clone()?;
        let len = rustix::fs::fstat(&*file).ok().and_then(|stat| u64::try_from(stat.st_size).ok())?;
        if let Some(grant) = state.grants.get_mut(index) {
            grant.len = len;
        }
        Some(Granted { id, len, allocated: len, writable: true, pinned: None, suggested: None })
    }

    /// The further files that were made of an image, to be published with it.
    pub fn take_parts(&self, id: FileId) -> Vec<Target> {
        let mut state = self.state();
        let (taken, left) = std::mem::take(&mut state.parts).into_iter().partition(|(of, _)| *of == id);
        state.parts = left;
        taken.into_iter().map(|(_, target)| target).collect()
    }
}
