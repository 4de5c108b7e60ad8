//! The differences that are meant, each with its reason.

/// A difference that is meant.
pub struct Deliberate {
    /// The kind of step after which it is seen; empty for all.
    kind: &'static str,
    /// What the words of the step contain.
    words: &'static str,
    /// What the difference contains, all of it.
    differs: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

/// All of them.
const ALL: &[Deliberate] = &[
    because(
        "",
        "size",
        &["Failed to zero out new clusters: Operation not supported"],
        "an image of version 2 gets clusters of zeroes, where qemu-img does not make it longer over another one",
    ),
    because(
        "",
        "size",
        &["differs at", "(0x0 not 0x", "it ended with Code(0)", "behind the former end"],
        "new space reads as zeroes, and not as what was cut off or whatever is there decrypts to",
    ),
    because(
        "",
        "size",
        &["map, line", "present false", "it ended with Code(0)", "behind the former end"],
        "a last cluster of zeroes over another image is zeroes to its end, and not to that of the disk",
    ),
    because(
        "rebase",
        "-c",
        &["Compression not supported for this file format"],
        "what cannot be compressed is refused at once, and what is encrypted never lies there compressed and in plain",
    ),
    because(
        "rebase",
        "-b",
        &["map, line", "it ended with Code(1)"],
        "what cannot stand on another image is refused before anything is brought into it",
    ),
    because(
        "amend",
        "size=",
        &["the disk differs at its end", "it ended with Code(1)"],
        "what cannot be amended in full is not begun: the size stays, too",
    ),
    because(
        "amend",
        "compat=",
        &["lazy-refcounts", "it ended with Code(1)"],
        "what cannot be amended in full is not begun: counts may be written late as before",
    ),
    because(
        "amend",
        "compat=",
        &["map, line", "present false", "it ended with Code(0)"],
        "a cluster that says it is zeroes has no space in version 2 where nothing is below",
    ),
    because(
        "resize",
        "--preallocation=",
        &["map, line", "present true", "it ended with Code(0)"],
        "space that is set aside at the former end is the image's own",
    ),
    because(
        "commit",
        "",
        &["check, line 1", "+Code(3)", "after a sudden death"],
        "what was lost before stays lost in an image that is emptied; qemu-img lays it out anew",
    ),
    because(
        "commit",
        "",
        &["Block job failed: Operation not supported", "+Image committed."],
        "what is committed into becomes longer over a longer image, too",
    ),
    because(
        "",
        "",
        &["stderr", "-Rebuilding refcount structure", "+Rebuilding refcount structure"],
        "which clusters counts had not reached depends on where they are",
    ),
    because(
        "guest",
        "write -c",
        &["-write failed: Input/output error", "+wrote "],
        "the guest packs nothing into space that was set aside before, which depends on where clusters are",
    ),
    because(
        "",
        "size",
        &["compressed-clusters", "it ended with Code(0)", "behind the former end"],
        "a last cluster that is zeroes behind its end stays compressed",
    ),
    because(
        "rebase",
        "-c",
        &["-qemu-img: Error while writing to COW image: Input/output error", "ours as before"],
        "what has its space already is compressed, too",
    ),
    because("rebase", "-c", &["compressed-clusters", "it ended with Code(0)"], "zeroes are said, and not compressed"),
    because(
        "rebase",
        "-b",
        &["the disk differs at", "it ended with Code(0)", "ours as before"],
        "what an image reads stays, where qemu-img lets see what is below now",
    ),
    because(
        "snapshot",
        "-a",
        &["Could not apply snapshot", "Failed to load snapshot: Invalid argument"],
        "counts need no room for both states at once",
    ),
    because(
        "amend",
        "compat=",
        &["differs at", "(0x0 not 0x", "it ended with Code(0)", "of an encrypted disk"],
        "zeroes stay zeroes in version 2 of an encrypted disk, where qemu-img writes them without encrypting",
    ),
    because(
        "amend",
        "compat=",
        &["data-file-raw", "it ended with Code(1)"],
        "what cannot be amended in full is not begun: what a data file is stays, too",
    ),
    because(
        "amend",
        "compat=",
        &["refcount-bits", "it ended with Code(1)"],
        "what cannot be amended in full is not begun: the width of counts stays, too",
    ),
    because(
        "amend",
        "encrypt.",
        &["\\\"active\\\"", "it ended with Code(1)"],
        "what cannot be amended in full is not begun: keys stay, too",
    ),
    because(
        "amend",
        ",",
        &["-qemu-img: ", "+qemu-img: ", "both refuse"],
        "of several reasons against it, any one is told",
    ),
    because(
        "amend",
        "compat=",
        &["map, line", "it ended with Code(1)"],
        "what cannot be amended in full is not begun: zeroes stay as they are, too",
    ),
    because(
        "amend",
        "refcount_bits=",
        &["-qemu-img: Cannot decrease refcount entry width to 1 bits", "end: Code(0), not Code(1)"],
        "whether several states have a table without entries in common depends on where clusters are",
    ),
    because(
        "",
        "",
        &["check, line 1", "+Code(2)", "it ended with Code(1)", "ours as before", "as wrong as before"],
        "what is refused is not repaired first",
    ),
    because("check", "-r", &["+        \\\"corrupt\\\": false"], "what is sound is not called corrupt any more"),
    because(
        "resize",
        "--preallocation=",
        &["-qemu-img: Failed to resize underlying file: Cannot use preallocation for shrinking files"],
        "a file that is longer than its image needs is no reason against a longer disk",
    ),
    because(
        "resize",
        "--preallocation=",
        &["the disk differs at", "it ended with Code(0)", "ours as before"],
        "what a last cluster holds stays, where qemu-img sets space aside in its place",
    ),
    because(
        "commit",
        "",
        &["dirty-flag", "it ended with Code(1)", "after a sudden death"],
        "what is refused is not repaired first",
    ),
    because(
        "",
        "",
        &["+qemu-", ": warning: This qcow2 v2 image contains bitmaps", "after a refusal"],
        "what is refused drops no bitmaps first",
    ),
];

const fn because(
    kind: &'static str,
    words: &'static str,
    differs: &'static [&'static str],
    reason: &'static str,
) -> Deliberate {
    Deliberate { kind, words, differs, reason }
}

/// Why it is meant, if it is.
pub fn reason(kind: &str, words: &str, differs: &str) -> Option<&'static str> {
    let fits = |d: &&Deliberate| {
        (d.kind.is_empty() || d.kind == kind)
            && words.contains(d.words)
            && d.differs.iter().all(|part| differs.contains(part))
    };
    ALL.iter().find(fits).map(|d| d.reason)
}
