//! The differences that are meant, each with its reason.

use instar_testkit::run::{End, Ran};

/// A difference that is meant.
pub struct Deliberate {
    /// Beginning of the version; empty for all.
    version: &'static str,
    /// What the id of the case begins with, or the id of the image contains.
    case: &'static str,
    /// What the other program's answer contains.
    answer: &'static str,
    /// Why.
    pub reason: &'static str,
}

const fn because(reason: &'static str, version: &'static str, case: &'static str, answer: &'static str) -> Deliberate {
    Deliberate { version, case, answer, reason }
}

/// Of images made here, compared with programs that are here.
pub const LIVE: &[Deliberate] = &[
    because("Debian's 5.2 has no parallels; upstream has (versions.md 18)", "5.2", "parallels", ""),
    because("Debian's 5.2 has no zstd; upstream has (versions.md 18)", "5.2", "zstd", ""),
    because("Debian's 7.2 misses modules of dmg and says so (versions.md 18)", "7.2", "dmg", "qemu: module"),
    because("10.0.2 was built with a crypto library without SM4 (versions.md 8)", "10.0.2", "luks sm4", "sm4"),
    because("cycles are refused with a sentence (verbs.md 0, Related files)", "", "over itself", "File name too long"),
    because("cycles are refused with a sentence (verbs.md 0, Related files)", "", "over its own", "File name too long"),
    because("no network protocol yet (verbs.md 0, Devices)", "", "a protocol's format", "NBD"),
    because(
        "a json: name in an image is judged by itself, not with the format claimed beside it (verbs.md 0, Related files)",
        "",
        "json of an unknown driver",
        "A block device must be specified",
    ),
];

/// Of recorded cases.
pub const RECORDED: &[Deliberate] = &[
    because("the words of --help are instar's own (verbs.md 0: never qemu's prose)", "", "top.h", ""),
    because("a disk that nothing lies on is not opened", "", "bad-check-json.d-vm-acc", "check-errors"),
    because("no file gets as long as a bogus offset says (versions.md 17.1)", "6.2", "par-oob", "cluster 5"),
    because("no file gets as long as a bogus offset says (versions.md 17.1)", "7.2", "par-oob", "cluster 5"),
    because(
        "what is behind the header's extensions stays, which nobody reads",
        "",
        "bad-repair.d-q-bmauto",
        "Repairing",
    ),
    because("the second line of --version is instar's own (verbs.md 0: never qemu's prose)", "", "top.version", ""),
    because("prints all of --help, whose words are instar's own", "", "", "usage: qemu-img"),
    because("no network protocol yet (verbs.md 0, Devices)", "", "info-uri.https", ""),
    because("no network protocol yet (verbs.md 0, Devices)", "", "info-uri.nbd", ""),
    because("no network protocol yet (verbs.md 0, Devices)", "", "info-uri.rbd", ""),
    because("no network protocol yet (verbs.md 0, Devices)", "", "info-uri.iscsi", ""),
    because("no network protocol yet (verbs.md 0, Devices)", "", "info-uri.gluster", ""),
    because("no virtual FAT: files and devices are opened (verbs.md 0, Devices)", "", "info-uri.fat", ""),
    because("no virtual FAT: files and devices are opened (verbs.md 0, Devices)", "", "info-uri.vvfat", ""),
    because("Debian's 5.2 has no parallels; upstream has (versions.md 18)", "5.2", ".par", ""),
    because("Debian's 5.2 has no parallels; upstream has (versions.md 18)", "5.2", ".d-par", ""),
    because("Debian's 5.2 has no zstd; upstream has (versions.md 18)", "5.2", ".q-zstd", ""),
    because("Debian's 5.2 has no zstd; upstream has (versions.md 18)", "5.2", ".d-q-comp", ""),
    because(
        "Debian's 5.2 has no zstd; upstream has (versions.md 18)",
        "5.2",
        "convert.zstd-raw",
        "unknown compression",
    ),
    because("Debian's 5.2 has no zstd; upstream has (versions.md 18)", "5.2", "convert.c-zstd", "Invalid parameter"),
    because(
        "Debian's 5.2 has no parallels; upstream has (versions.md 18)",
        "5.2",
        "measure.size-parallels",
        "Unknown file",
    ),
    because("what could not be made leaves nothing behind (verbs.md 2, create)", "", "create.vdi-pm", "Unsupported"),
    because("what could not be made leaves nothing behind (verbs.md 2, create)", "5.2", "create.b-pm", "extended_l2"),
    because(
        "some crypto libraries know SM4 and not its modes (versions.md 8)",
        "",
        "create.luks-sm4",
        "cipher mode xts",
    ),
    because(PIECES, "", "rebase.to-base-p", "(0.00/100%)"),
    because(PIECES, "", "rebase.to-none-p", "(0.00/100%)"),
    because(PIECES, "", "more-rebase.odd", "(0.00/100%)"),
    because(PIECES, "", "more-rebase.to-odd", "(0.00/100%)"),
    because("Debian's 5.2 has no zstd; upstream has (versions.md 18)", "5.2", "create.zstdv2", "zstd"),
    because("counts get their new width in one pass, and not in two", "", "amend.rb64-p", "(0.00/100%)"),
];

/// Why the lines of `rebase -p` are others.
const PIECES: &str = "how far rebase has come is told by what there is to move, not by the pieces looked at";
/// Why a version's crash is not copied.
const CRASH: &str = "a crash of that version (versions.md 20)";

/// Why this difference is meant, if it is. Whatever the reason, instar itself must end in an ordinary way.
pub fn reason(list: &'static [Deliberate], version: &str, case: &str, want: &Ran, got: &Ran) -> Option<&'static str> {
    if !matches!(got.end, End::Code(_)) {
        return None;
    }
    if !matches!(want.end, End::Code(_)) {
        return Some(CRASH);
    }
    let (out, err) = (want.out(), want.err());
    let fits = |d: &&Deliberate| {
        version.starts_with(d.version) && case.contains(d.case) && (out.contains(d.answer) || err.contains(d.answer))
    };
    list.iter().find(fits).map(|d| d.reason)
}
