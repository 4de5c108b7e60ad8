//! Files that get written to although an image named them.

use super::{Entry, Grant, Session, State};
use crate::lock;
use crate::mishap::{Mishap, Why};
use instar_wire::io::{FileId, Granted};
use rustix::fs::{Stat, fstat};
use rustix::io::Errno;
use std::sync::Arc;

impl Session {
    /// The file as it was granted to be written to for the same image before.
    pub(super) fn again(&self, named_by: FileId, stat: &Stat) -> Option<Granted> {
        let state = self.state();
        let is_it = |(entry, grant): (&Entry, &Grant)| {
            grant.writable && entry.named_by == Some(named_by) && entry.identity == (stat.st_dev, stat.st_ino)
        };
        let index = state.entries.iter().zip(&state.grants).position(is_it)?;
        state.granted(index)
    }

    /// A file that was opened because an image names it may be written to from now on, and is locked for that. What it
    /// names itself is opened anew if it is asked for again.
    pub fn promote(&self, id: FileId) -> Result<Granted, Mishap> {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let named = |state: &State| state.entries.get(index).map(|e| (e.name.clone(), e.path.clone(), e.named_by));
        let (name, path, named_by) = named(&self.state()).unwrap_or_default();
        let mishap = |why| Mishap { name: name.clone(), named_by, why };
        let file = self.open_admitted(&path, true).map_err(mishap)?;
        let stat = fstat(&file).map_err(|errno| mishap(Why::System(errno)))?;
        let is_other = self.state().forget(index, (stat.st_dev, stat.st_ino));
        if is_other {
            return Err(mishap(Why::System(Errno::STALE)));
        }
        let held = match lock::claim(&file, lock::WRITE) {
            _ if !self.locking => None,
            Ok(Ok(held)) => Some(Arc::new(held)),
            Ok(Err(conflict)) => return Err(mishap(Why::InUse(conflict))),
            Err(error) => return Err(mishap(Why::System(Errno::from_io_error(&error).unwrap_or(Errno::IO)))),
        };
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(index) {
            (entry.file, entry._lock, entry.conflict) = (Some(Arc::new(file)), held, None);
        }
        state.grants.get_mut(index).into_iter().for_each(|grant| grant.writable = true);
        state.granted(index).ok_or_else(|| mishap(Why::TooMany))
    }
}

impl State {
    /// Gives up our own claim on a file, and all that it names; tells whether it is another file than this.
    fn forget(&mut self, index: usize, identity: (u64, u64)) -> bool {
        if self.entries.get(index).is_none_or(|entry| entry.identity != identity) {
            return true;
        }
        self.entries.get_mut(index).into_iter().for_each(|entry| entry._lock = None);
        let mut gone = vec![index];
        for at in 0..self.entries.len() {
            let by = self.entries[at].named_by.and_then(|by| usize::try_from(by.0).ok());
            if by.is_some_and(|by| gone.contains(&by)) {
                gone.push(at);
                let entry = &mut self.entries[at];
                (entry.file, entry._lock, entry.identity, entry.named_by) = (None, None, (0, 0), None);
            }
        }
        false
    }

    /// What is granted of a file.
    pub(super) fn granted(&self, index: usize) -> Option<Granted> {
        let (entry, grant) = (self.entries.get(index)?, self.grants.get(index)?);
        Some(Granted {
            id: FileId(u32::try_from(index).ok()?),
            len: grant.len,
            allocated: entry.facts.allocated,
            writable: grant.writable,
            pinned: None,
            suggested: None,
        })
    }
}

impl Session {
    /// What has been granted of the file of that number.
    pub fn granted(&self, id: FileId) -> Option<Granted> {
        self.state().granted(usize::try_from(id.0).ok()?)
    }
}
