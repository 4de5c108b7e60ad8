//! What a file has beside its content, and how one that takes its place gets it.

use rustix::fs::{Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// The longest list of extended attributes, and the longest one.
const ATTRIBUTE_MAX: usize = 64 << 10;
/// What the system says of the content itself.
const OF_CONTENT: [&CStr; 3] = [c"security.ima", c"security.evm", c"security.capability"];

/// Makes a new file like the one it will replace in all but its content; false if that is not allowed.
pub(super) fn take_after(file: &OwnedFd, standing: &OwnedFd) -> Result<bool, Errno> {
    let (own, stat) = (fstat(file)?, fstat(standing)?);
    let make_alike = || {
        if (own.st_uid, own.st_gid) != (stat.st_uid, stat.st_gid) {
            fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        take_attributes(standing, file)?;
        // The last, because it lets others in.
        fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))
    };
    match make_alike() {
        Ok(()) => Ok(true),
        // What cannot be replaced is written where it stands, but what is full or broken would not survive that.
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::NOMEM)) => Err(errno),
        Err(_) => Ok(false),
    }
}

/// Gives a new file what was noted beside the content of another one, and nothing else: labels, and who else may do what
/// with it. Its directory may have given it something of the kind already.
fn take_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let (old, new) = (attributes(from)?, attributes(to)?);
    for (name, value) in &old {
        if new.get(name) != Some(value) {
            fsetxattr(to, &**name, value, XattrFlags::empty())?;
        }
    }
    new.keys().filter(|name| !old.contains_key(*name)).try_for_each(|name| fremovexattr(to, &**name))
}

/// The extended attributes of a file.
fn attributes(file: &OwnedFd) -> Result<BTreeMap<CString, Vec<u8>>, Errno> {
    let mut buffer = vec![0; ATTRIBUTE_MAX];
    let len = match flistxattr(file, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    let names = buffer.get(..len).unwrap_or_default().to_vec();
    let each = |name: CString| {
        let len = fgetxattr(file, &*name, &mut buffer[..])?;
        Ok((name, buffer.get(..len).unwrap_or_default().to_vec()))
    };
    let names =
        names.split_inclusive(|byte| *byte == 0).filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok());
    names.filter(|name| !OF_CONTENT.contains(&&**name)).map(each).collect()
}
