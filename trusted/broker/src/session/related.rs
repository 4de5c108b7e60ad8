//! The files that images name.

use super::{Arrival, PATH_MAX, Session, beside};
use crate::mishap::{Mishap, Why};
use crate::policy::{self, Admitted, DEPTH_MAX, Refusal};
use crate::resolve::{Miss, open_below};
use instar_wire::code::Bytes;
use instar_wire::io::{FileId, Granted, Related, Role};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Session {
    /// Opens a file that an image names, if policy allows it.
    pub fn open_related(&self, related: &Related) -> Result<Granted, u32> {
        self.try_related(related).map_err(|mishap| self.note(mishap))
    }

    fn try_related(&self, related: &Related) -> Result<Granted, Mishap> {
        let from = self.entry(related.from);
        let mishap = |name: &[u8], why| Mishap { name: name.to_vec(), named_by: Some(related.from), why };
        let raw = &related.name.0;
        let refused = |name: &[u8], refusal| mishap(name, Why::Refused(refusal));
        let Some(from) = from else { return Err(refused(raw, Refusal::Empty)) };
        if let Some(part) = self.part_named(related.from, raw) {
            return Ok(part);
        }
        if from.depth >= DEPTH_MAX {
            return Err(refused(raw, Refusal::Depth));
        }
        let plain = match policy::judge_name(raw) {
            // To qemu-img, a data file's name starts from where the user is.
            _ if self.interpret.is_some() && related.role == Role::DataFile => return self.open_meant(related, raw),
            // What is no plain file, or hides behind `file:`, means what qemu-img takes it to mean.
            Err(Refusal::Protocol) if self.interpret.is_some() => return self.open_meant(related, raw),
            Err(Refusal::Empty) if self.interpret.is_some() && !raw.is_empty() => return self.open_meant(related, raw),
            judged => judged.map_err(|r| refused(raw, r))?,
        };
        let name = beside(&from.name, plain);
        let path = from.path.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(plain));
        if name.len().max(path.as_os_str().len()) >= PATH_MAX {
            return Err(mishap(&name, Why::System(Errno::NAMETOOLONG)));
        }
        let writable = self.is_written(related);
        let file = self.open_admitted(&path, writable).map_err(|why| mishap(&name, why))?;
        let stat = fstat(&file).map_err(|e| mishap(&name, Why::System(e)))?;
        if matches!(related.role, Role::Backing | Role::Parent)
            && self.is_above(related.from, (stat.st_dev, stat.st_ino))
        {
            return Err(refused(&name, Refusal::Cycle));
        }
        let depth = from.depth + 1;
        let arrival = Arrival { named_by: Some(related.from), depth, writable, ..Arrival::named(&name, path) };
        self.admit_file(file, &stat, arrival).map_err(|why| mishap(&name, why))
    }

    /// Whether the file that an image names will be written to: a part of one that will be.
    fn is_written(&self, related: &Related) -> bool {
        let index = usize::try_from(related.from.0).unwrap_or(usize::MAX);
        let is_part = matches!(related.role, Role::DataFile | Role::Extent);
        is_part && self.state().grants.get(index).is_some_and(|grant| grant.writable)
    }

    /// Opens what a name beyond plain files means.
    fn open_meant(&self, related: &Related, raw: &[u8]) -> Result<Granted, Mishap> {
        let mishap = |name: &[u8], why| Mishap { name: name.to_vec(), named_by: Some(related.from), why };
        let Some(interpret) = &self.interpret else {
            return Err(mishap(raw, Why::Refused(Refusal::Protocol)));
        };
        let meant = interpret(&related.role, raw).map_err(|words| mishap(raw, Why::Said(words)))?;
        let path = std::path::absolute(OsStr::from_bytes(&meant.path)).unwrap_or_default();
        let writable = self.is_written(related);
        let file = self.open_admitted(&path, writable).map_err(|why| mishap(&meant.shown, why))?;
        let stat = fstat(&file).map_err(|e| mishap(&meant.shown, Why::System(e)))?;
        let depth = self.entry(related.from).map_or(0, |e| e.depth) + 1;
        let arrival = Arrival { named_by: Some(related.from), depth, writable, ..Arrival::named(&meant.shown, path) };
        let granted = self.admit_file(file, &stat, arrival).map_err(|why| mishap(&meant.shown, why))?;
        Ok(Granted { pinned: meant.pinned.map(Bytes), ..granted })
    }

    /// Opens a path that an image leads to; nothing is looked at before policy has spoken.
    pub(super) fn open_admitted(&self, path: &Path, writable: bool) -> Result<OwnedFd, Why> {
        let flags = if writable { (self.flags() - OFlags::RDONLY) | OFlags::RDWR } else { self.flags() };
        if self.policy.as_qemu {
            let file = openat(CWD, path, flags, Mode::empty()).map_err(Why::System)?;
            let kind = FileType::from_raw_mode(fstat(&file).map_err(Why::System)?.st_mode);
            return match kind {
                FileType::Directory | FileType::Fifo | FileType::Socket => Err(Why::NotRegular),
                _ => Ok(file),
            };
        }
        match policy::judge(&self.policy, path).map_err(Why::Refused)? {
            Admitted::Named(path) => openat(CWD, &path, flags, Mode::empty()).map_err(Why::System),
            Admitted::Below(root, rest) => open_below(&root, &rest, flags).map_err(|miss| match miss {
                Miss::Outside => Why::Refused(Refusal::Outside),
                Miss::Kind => Why::Refused(Refusal::Kind),
                Miss::System(errno) => Why::System(errno),
            }),
        }
    }

    /// Whether the file is `from` or one of those above it in the chain.
    fn is_above(&self, from: FileId, identity: (u64, u64)) -> bool {
        let state = self.state();
        let mut next = Some(from);
        while let Some(entry) = next.and_then(|id| state.entries.get(id.0 as usize)) {
            if entry.identity == identity {
                return true;
            }
            next = entry.named_by;
        }
        false
    }
}
