//! Files that belong together appear together: all of them or none.

use super::{Target, identity, link, working_name};
use rustix::fs::{AtFlags, FileType, RenameFlags, fsync, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Target {
    /// Gets ready for [`Self::appear_for_now`] where something stands already: between the first file and the last one
    /// whoever is killed leaves some of them, and so as little as possible is to be done there.
    fn get_ready(&mut self) -> Result<(), Errno> {
        let place = self.place.as_mut().filter(|place| place.replaces && place.working.is_none());
        place.map_or(Ok(()), |place| place.take_name(&self.file))
    }

    /// Lets the file appear, and keeps what stood there.
    fn appear_for_now(&mut self) -> Result<Former, Errno> {
        let Some(place) = &mut self.place else { return Ok(Former::Nothing) };
        if place.working.is_none() {
            if link(&self.file, &place.directory, &place.name)? {
                return Ok(Former::Nothing);
            }
            place.take_name(&self.file)?;
        }
        let Some(working) = place.working.clone() else { return Err(Errno::NOENT) };
        let former = put(&place.directory, &working, &place.name)?;
        place.working = None;
        Ok(former)
    }

    /// What stood there stands there again.
    fn disappear(&self, former: &Former) {
        let Some(place) = &self.place else { return };
        let _ = match former {
            Former::Aside(aside) => renameat(&place.directory, &**aside, &place.directory, &*place.name),
            // Somebody else may have put something there meanwhile, which is not ours to remove.
            Former::Nothing if is_at(&self.file, &place.directory, &place.name) => {
                unlinkat(&place.directory, &*place.name, AtFlags::empty())
            }
            Former::Nothing => Ok(()),
        };
    }

    /// What stood there is not wanted any more.
    fn stay(&self, former: Former) {
        if let (Some(place), Former::Aside(aside)) = (&self.place, former) {
            let _ = unlinkat(&place.directory, &*aside, AtFlags::empty());
        }
    }
}

/// What stood where a file appeared.
enum Former {
    /// Nothing, as far as we know.
    Nothing,
    /// What has this name now.
    Aside(OsString),
}

/// Lets files appear that belong together, all of them or none; the last one is the one that people look for.
pub fn publish_all(mut targets: Vec<Target>, durable: bool) -> Result<(), Errno> {
    targets.iter().try_for_each(|target| target.sync(durable))?;
    let sync_directories = |targets: &[Target]| {
        let directories = targets.iter().filter_map(|target| target.place.as_ref()).map(|place| &place.directory);
        let mut last = None;
        for directory in directories.filter(|_| durable) {
            if last.replace(directory).is_none_or(|last| !Arc::ptr_eq(last, directory)) {
                fsync(directory)?;
            }
        }
        Ok(())
    };
    // For a single file the system has one step that does it.
    if let [target] = &mut targets[..] {
        target.appear()?;
        return sync_directories(&targets);
    }
    let mut formers = Vec::with_capacity(targets.len());
    let mut result = places_differ(&targets).and_then(|()| targets.iter_mut().try_for_each(Target::get_ready));
    for target in &mut targets {
        if result.is_ok() {
            result = target.appear_for_now().map(|former| formers.push(former));
        }
    }
    result = result.and_then(|()| sync_directories(&targets));
    if result.is_err() {
        let back = targets.iter().zip(&formers).rev();
        back.for_each(|(target, former)| target.disappear(former));
    } else {
        targets.iter().zip(formers).for_each(|(target, former)| target.stay(former));
    }
    result
}

/// Refuses to let two files appear under one name, which links can lead to.
fn places_differ(targets: &[Target]) -> Result<(), Errno> {
    let mut seen = BTreeSet::new();
    for place in targets.iter().filter_map(|target| target.place.as_ref()) {
        if !seen.insert((identity(&place.directory)?, &place.name)) {
            return Err(Errno::EXIST);
        }
    }
    Ok(())
}

/// Gives a file its name, and what has the name now another one.
fn put(directory: &OwnedFd, working: &OsStr, name: &OsStr) -> Result<Former, Errno> {
    let is_folder = |name: &OsStr| {
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    let swap = || renameat_with(directory, working, directory, name, RenameFlags::EXCHANGE);
    match is_folder(name) {
        Ok(true) => return Err(Errno::ISDIR),
        Err(Errno::NOENT) => {
            renameat(directory, working, directory, name)?;
            return Ok(Former::Nothing);
        }
        Err(errno) => return Err(errno),
        Ok(false) => {}
    }
    match swap() {
        Ok(()) if is_folder(working) == Ok(true) => {
            swap()?;
            Err(Errno::ISDIR)
        }
        Ok(()) => Ok(Former::Aside(working.to_os_string())),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => put_by_steps(directory, working, name),
        Err(errno) => Err(errno),
    }
}

/// The same where names cannot be exchanged.
fn put_by_steps(directory: &OwnedFd, working: &OsStr, name: &OsStr) -> Result<Former, Errno> {
    let aside = working_name(name, &mut |aside| linkat(directory, name, directory, aside, AtFlags::empty()))?;
    match renameat(directory, working, directory, name) {
        Ok(()) => Ok(Former::Aside(aside)),
        Err(errno) => {
            let _ = unlinkat(directory, &*aside, AtFlags::empty());
            Err(errno)
        }
    }
}

/// Whether a file is the one that has this name.
fn is_at(file: &OwnedFd, directory: &OwnedFd, name: &OsStr) -> bool {
    let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino));
    there.is_ok() && there == identity(file)
}
