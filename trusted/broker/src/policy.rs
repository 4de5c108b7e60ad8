//! Which names an image may lead to: decided on the names alone, before any look at the file system.

use std::path::{Component, Path, PathBuf};

/// Longest chain of files that name each other.
pub const DEPTH_MAX: usize = 200;

/// What images may refer to.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Trees in which images may name files; absolute, without symbolic links.
    pub roots: Vec<PathBuf>,
    /// Files that the user named; images may name them as well.
    pub named: Vec<PathBuf>,
    /// Open whatever qemu-img would open.
    pub as_qemu: bool,
}

/// Why a name was turned down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is no name.
    Empty,
    /// It holds a NUL.
    Nul,
    /// It is a `json:` description or names a protocol.
    Protocol,
    /// It leads out of the trees that are allowed.
    Outside,
    /// It is neither a regular file nor a block device.
    Kind,
    /// The chain comes back to a file it already has.
    Cycle,
    /// The chain is longer than [`DEPTH_MAX`].
    Depth,
    /// It is not the name of a further file of an image.
    Part,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Empty => "the image names a file without a name",
            Refusal::Nul => "the name holds a NUL byte",
            Refusal::Protocol => {
                "images may not name protocols or json: descriptions (--unsafe-quirks opens what qemu-img opens)"
            }
            Refusal::Outside => {
                "the name leads out of the image's directory (allow a directory with --allow DIR or in the configuration)"
            }
            Refusal::Kind => "images may only name regular files and block devices",
            Refusal::Cycle => "the chain of images comes back to where it was",
            Refusal::Depth => "the chain of images is longer than 200",
            Refusal::Part => "the name is not that of a part of the image",
        })
    }
}

/// A name that may be looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// Below a root: the root, and the way down, free of `.` and `..`.
    Below(PathBuf, PathBuf),
    /// Exactly this file, which the user named.
    Named(PathBuf),
}

/// Whether the name begins as a protocol does: a word and a colon, before any slash.
pub fn has_protocol(name: &[u8]) -> bool {
    let head = name.split(|b| *b == b'/').next().unwrap_or_default();
    head.contains(&b':')
}

/// Judges the name of one more file of an image whose own file has the name `own`: that name, or what comes before its
/// ending, then a dash, and more.
pub fn judge_part(name: &[u8], own: &[u8]) -> Result<(), Refusal> {
    let stem = own.iter().rposition(|byte| *byte == b'.').map_or(own, |dot| own.get(..dot).unwrap_or_default());
    let is_plain = !name.contains(&b'/') && !name.contains(&0);
    let follows = |stem: &[u8]| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(b"-"));
    if is_plain && (follows(stem) || follows(own)) { Ok(()) } else { Err(Refusal::Part) }
}

/// Judges an absolute path that an image leads to.
pub fn judge(policy: &Policy, path: &Path) -> Result<Admitted, Refusal> {
    let path = flatten(path).ok_or(Refusal::Outside)?;
    if policy.named.contains(&path) {
        return Ok(Admitted::Named(path));
    }
    for root in &policy.roots {
        if let Ok(rest) = path.strip_prefix(root)
            && !rest.as_os_str().is_empty()
        {
            return Ok(Admitted::Below(root.clone(), rest.to_path_buf()));
        }
    }
    Err(Refusal::Outside)
}

/// Judges a name as it stands in an image, before it is joined to a directory.
pub fn judge_name(name: &[u8]) -> Result<&[u8], Refusal> {
    if name.contains(&0) {
        return Err(Refusal::Nul);
    }
    // qemu-img's own word for "a plain file, whatever follows".
    let name = name.strip_prefix(b"file:").unwrap_or(name);
    if name.is_empty() {
        return Err(Refusal::Empty);
    }
    if has_protocol(name) { Err(Refusal::Protocol) } else { Ok(name) }
}

/// The path without `.` and `..`; none if it is not absolute or climbs above the root.
pub fn flatten(path: &Path) -> Option<PathBuf> {
    let mut flat = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir => flat.push("/"),
            Component::Normal(name) => flat.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !flat.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    flat.is_absolute().then_some(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy { roots: vec!["/srv/images".into()], named: vec!["/data/base.raw".into()], as_qemu: false }
    }

    #[test]
    fn names_inside_are_admitted_and_flattened() {
        for (path, rest) in [
            ("/srv/images/a", "a"),
            ("/srv/images/./x/../a", "a"),
            ("/srv/images/../images/b/c", "b/c"),
            ("//srv//images//a", "a"),
        ] {
            let want = Admitted::Below("/srv/images".into(), rest.into());
            assert_eq!(judge(&policy(), Path::new(path)), Ok(want), "{path}");
        }
        assert_eq!(judge(&policy(), Path::new("/data/base.raw")), Ok(Admitted::Named("/data/base.raw".into())));
    }

    #[test]
    fn names_outside_are_refused() {
        for path in [
            "/etc/shadow",
            "/srv/images/../secret",
            "/srv/images",
            "/srv/images2/a",
            "/srv/images/../../..",
            "/../../etc/passwd",
            "/data/base.raw/x",
            "/data",
            "relative",
            "",
        ] {
            assert_eq!(judge(&policy(), Path::new(path)), Err(Refusal::Outside), "{path}");
        }
    }

    #[test]
    fn names_are_judged_before_they_are_joined() {
        for (name, want) in [
            (&b"base.raw"[..], Ok(&b"base.raw"[..])),
            (b"file:base.raw", Ok(b"base.raw")),
            (b"dir/a:b", Ok(b"dir/a:b")),
            (b"./nbd:x", Ok(b"./nbd:x")),
            (b"", Err(Refusal::Empty)),
            (b"file:", Err(Refusal::Empty)),
            (b"a\0b", Err(Refusal::Nul)),
            (b"json:{}", Err(Refusal::Protocol)),
            (b"nbd://host/x", Err(Refusal::Protocol)),
            (b"file:json:{}", Err(Refusal::Protocol)),
            (b"fd:3", Err(Refusal::Protocol)),
        ] {
            assert_eq!(judge_name(name), want);
        }
    }

    #[test]
    fn no_path_of_small_parts_escapes() {
        // Every path of up to five parts over a small alphabet: what is admitted lies below the root, whatever was typed.
        let parts = ["..", ".", "srv", "images", "x", ""];
        let mut stack: Vec<String> = vec![String::new()];
        while let Some(path) = stack.pop() {
            if let Ok(Admitted::Below(root, rest)) = judge(&policy(), Path::new(&path)) {
                assert_eq!(root, Path::new("/srv/images"));
                assert!(rest.components().all(|c| matches!(c, Component::Normal(_))), "{path}");
                assert_eq!(flatten(Path::new(&path)), Some(root.join(rest)));
            }
            if path.matches('/').count() < 5 {
                stack.extend(parts.iter().map(|p| format!("{path}/{p}")));
            }
        }
    }
}
