//! The further files of images in the making.

use super::{Session, beside};
use crate::mishap::{Mishap, Why};
use crate::policy::{self, Refusal};
use crate::publish::{self, Hints, Refused, Target, Wish, publish_all};
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
    /// The file is there, and all that is made is one that takes its place.
    is_heir: bool,
}

impl Way {
    fn judge(&self, name: &[u8]) -> Result<(), Refusal> {
        match self.is_heir {
            true if name.is_empty() => Ok(()),
            true => Err(Refusal::Part),
            false => policy::judge_part(name, self.path.file_name().unwrap_or_default().as_bytes()),
        }
    }
}

impl Session {
    /// The image in the making that is opened by this file, which will stand at `path`, may have further files; they are
    /// made as `wish` says.
    pub fn allow_parts(&self, id: FileId, path: &Path, wish: Wish<'static>) {
        publish::raise_files_limit();
        self.allow(Way { of: id, shown: self.name(id), path: path.to_path_buf(), wish, is_heir: false });
    }

    /// A file that may be changed, and that the user named, may get an heir: a part without a name, which takes the file's
    /// place in [`Self::inherit`]. That is for changes which no single write makes.
    pub fn allow_heir(&self, id: FileId) {
        let Some(entry) = self.entry(id).filter(|_| self.granted(id).is_some_and(|granted| granted.writable)) else {
            return;
        };
        let wish = Wish { locking: false, direct: false, sync: false, hints: Hints::default(), is_source: &|_| false };
        self.allow(Way { of: id, shown: entry.name, path: entry.path, wish, is_heir: true });
    }

    fn allow(&self, way: Way) {
        let mut state = self.state();
        if let Some(grant) = usize::try_from(way.of.0).ok().and_then(|index| state.grants.get_mut(index)) {
            grant.has_parts = true;
            state.ways.push(way);
        }
    }

    /// Has the heir of a file take its place, if it has one, so that this lasts.
    pub fn inherit(&self, id: FileId) -> Result<(), Errno> {
        let heirs = self.take_parts(id);
        let Some(file) = heirs.first().map(Target::file) else { return Ok(()) };
        publish_all(heirs, true)?;
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get_mut(index).into_iter().for_each(|entry| entry.file = Some(file.clone()));
        Ok(())
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
        way.judge(name).map_err(Why::Refused)?;
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
        let mut target = self.made(&way, name).map_err(|refused| match refused {
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
        let shown = if way.is_heir { way.shown } else { beside(&way.shown, name) };
        let granted = state.grant_made(&shown, Some(target.file()), 0);
        if let Some(entry) = usize::try_from(granted.id.0).ok().and_then(|index| state.entries.get_mut(index)) {
            (entry.unseen, entry.lasts) = (target.is_unseen(), target.replaces());
        }
        state.part_grants.insert((part.from, name.clone()), granted.id);
        state.parts.push((part.from, target));
        Ok(granted)
    }

    fn made(&self, way: &Way, name: &[u8]) -> Result<Target, Refused> {
        if way.is_heir {
            let standing = self.file(way.of).ok_or(Errno::BADF)?;
            return Target::heir(&way.path, &standing, &way.wish);
        }
        let path = way.path.with_file_name(OsStr::from_bytes(name));
        Target::create(&path, &Wish { is_source: &|identity| self.has_open(identity), ..way.wish })
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
