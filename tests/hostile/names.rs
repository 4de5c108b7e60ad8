//! Images that name other files, built around any name.

use crate::sane::{native, raw_control};
use crate::seeds::seeds;
use instar_testkit::build::mutate::patched;
use instar_testkit::build::{vhd, vhdx};
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::Cell;
use instar_testkit::run::{End, Run};
use instar_tests::report::Report;

/// What kind of reference an image holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// The backing file of a qcow2.
    Qcow2,
    /// The external data file of a qcow2.
    Qcow2Data,
    /// The backing file of a qcow.
    Qcow,
    /// The backing file of a qed.
    Qed,
    /// The parent of a VMDK.
    VmdkParent,
    /// An extent of a VMDK: flat.
    VmdkFlat,
    /// An extent of a VMDK: flat, on a VMFS.
    VmdkVmfs,
    /// An extent of a VMDK: sparse.
    VmdkSparse,
    /// The parent of a VHD, by its relative name.
    VhdRelative,
    /// The parent of a VHD, by its absolute name.
    VhdAbsolute,
    /// The parent of a VHDX, by its relative name.
    VhdxRelative,
    /// The parent of a VHDX, by its absolute name.
    VhdxAbsolute,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] = &[
        Kind::Qcow2,
        Kind::Qcow2Data,
        Kind::Qcow,
        Kind::Qed,
        Kind::VmdkParent,
        Kind::VmdkFlat,
        Kind::VmdkVmfs,
        Kind::VmdkSparse,
        Kind::VhdRelative,
        Kind::VhdAbsolute,
        Kind::VhdxRelative,
        Kind::VhdxAbsolute,
    ];

    /// Whether `info` needs what it names; the others are told, or hidden as qemu-img hides them, and never opened.
    pub fn is_needed(self) -> bool {
        let unneeded = [Kind::Qcow2Data, Kind::VhdRelative, Kind::VhdAbsolute, Kind::VhdxRelative, Kind::VhdxAbsolute];
        !unneeded.contains(&self)
    }

    /// Whether it names the layer below, of any format.
    pub fn has_backing(self) -> bool {
        matches!(self, Kind::Qcow2 | Kind::Qcow | Kind::Qed)
    }
}

fn seed(id: &str) -> &'static [u8] {
    &seeds().iter().find(|seed| seed.id == id).expect("a seed of this name").bytes
}

/// An image that names `name`, or nothing.
pub fn image(kind: Kind, name: Option<&[u8]>) -> Vec<u8> {
    let name = name.unwrap_or_default();
    match kind {
        Kind::Qcow2 => qcow2(name),
        Kind::Qcow2Data => qcow2_data(name),
        Kind::Qcow => qcow(name),
        Kind::Qed => qed(name),
        Kind::VmdkParent => vmdk_parent(name),
        Kind::VmdkFlat => vmdk_extent("FLAT", name, " 0"),
        Kind::VmdkVmfs => vmdk_extent("VMFS", name, ""),
        Kind::VmdkSparse => vmdk_extent("SPARSE", name, ""),
        Kind::VhdRelative => vhd(*b"W2ru", name),
        Kind::VhdAbsolute => vhd(*b"W2ku", name),
        Kind::VhdxRelative => vhdx("relative_path", name),
        Kind::VhdxAbsolute => vhdx("absolute_win32_path", name),
    }
}

/// The name in the first cluster, behind the extensions.
fn qcow2(name: &[u8]) -> Vec<u8> {
    let image = seed("qcow2").to_vec();
    if name.is_empty() {
        return image;
    }
    let image = patched(&image, 1024, name);
    patched(&image, 8, &[&1024u64.to_be_bytes()[..], &(name.len() as u32).to_be_bytes()].concat())
}

/// The name as the only extension.
fn qcow2_data(name: &[u8]) -> Vec<u8> {
    let mut extension = [&0x4441_5441u32.to_be_bytes()[..], &(name.len() as u32).to_be_bytes(), name].concat();
    extension.resize(extension.len().next_multiple_of(8) + 8, 0);
    let image = patched(seed("qcow2"), 112, &extension);
    patched(&image, 72, &4u64.to_be_bytes())
}

/// The name behind everything else.
fn qcow(name: &[u8]) -> Vec<u8> {
    let at = seed("qcow").len();
    let image = patched(seed("qcow"), at, name);
    patched(&image, 8, &[&(at as u64).to_be_bytes()[..], &(name.len() as u32).to_be_bytes()].concat())
}

/// The name in the header's cluster, and the mark that there is one.
fn qed(name: &[u8]) -> Vec<u8> {
    let image = patched(seed("qed"), 1024, name);
    let image = patched(&image, 56, &[1024u32.to_le_bytes(), (name.len() as u32).to_le_bytes()].concat());
    patched(&image, 16, &1u64.to_le_bytes())
}

/// The name behind the text of the embedded descriptor.
fn vmdk_parent(name: &[u8]) -> Vec<u8> {
    let image = seed("vmdk");
    let end = 512 + image[512..].iter().position(|byte| *byte == 0).expect("the end of the descriptor");
    let orphan = b"parentCID=ffffffff";
    let at = image.windows(orphan.len()).position(|window| window == orphan).expect("the parent's mark");
    let image = patched(image, at, b"parentCID=12345678");
    patched(&image, end, &[b"parentFileNameHint=\"", name, b"\"\n"].concat())
}

fn vmdk_extent(kind: &str, name: &[u8], offset: &str) -> Vec<u8> {
    let create = match kind {
        "FLAT" => "monolithicFlat",
        "VMFS" => "vmfs",
        _ => "twoGbMaxExtentSparse",
    };
    let head = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{create}\"\n\n\
         # Extent description\nRW 2048 {kind} \""
    );
    let tail = format!(
        "\"{offset}\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"2\"\n\
         ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n"
    );
    [head.as_bytes(), name, tail.as_bytes()].concat()
}

/// These names are UTF-16, so they are text.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn vhd(locator: [u8; 4], name: &[u8]) -> Vec<u8> {
    let locators = vec![(locator, text(name))];
    vhd::build(&vhd::Vhd { kind: 4, parent: text(name), locators, ..Default::default() })
}

fn vhdx(key: &str, name: &[u8]) -> Vec<u8> {
    vhdx::build(&vhdx::Vhdx { parent: vec![(key.to_owned(), text(name))], ..Default::default() })
}

/// A name that takes over a terminal, in every way terminals know.
const EVIL: &[u8] = b"\x1b[2J\x1b]0;owned\x07\x9b31m\rbase\x08\x7f\x00";

#[test]
fn a_terminal_is_never_given_the_escapes_of_an_image() {
    let report = Report::new("hostile terminal");
    if Run::new("sh").args(["-c", "command -v script"]).go().end != End::Code(0) {
        skipped("output on a terminal: script(1) is not here");
        return;
    }
    let scratch = Scratch::new("terminal");
    for kind in Kind::ALL {
        let path = scratch.path().join("top");
        std::fs::write(&path, image(*kind, Some(&EVIL[..EVIL.len() - 1]))).expect("the image");
        for words in [&[][..], &["--backing-chain"], &["--output=json"], &["--extra-detail"]] {
            for cell in Cell::all() {
                report.tried();
                let inner = native(*cell).args(words).arg(&path);
                let ran = Run::new("script").args(["-qec", &inner.line(), "/dev/null"]).env("SHELL", "/bin/sh").go();
                if raw_control(&ran.stdout) || !ran.stderr.is_empty() {
                    let out = ran.stdout.escape_ascii();
                    report.fault(format!("{kind:?} {words:?}: {out}\n  {}\n  {}", ran.err(), inner.line()));
                }
            }
        }
    }
    report.end();
}

#[test]
fn json_is_json_whatever_the_names_are() {
    let report = Report::new("hostile json");
    let scratch = Scratch::new("json");
    for kind in Kind::ALL {
        for name in [EVIL, b"\xff\xfe\xc0\xaf\xed\xa0\x80", b"\"},{\"\\", b"\n\",\n\"x\": \""] {
            let path = scratch.path().join("top");
            std::fs::write(&path, image(*kind, Some(name))).expect("the image");
            for cell in Cell::all() {
                report.tried();
                let run = native(*cell).args(["--output=json"]).arg(&path);
                let ran = run.go();
                let text = String::from_utf8(ran.stdout.clone()).ok();
                let read = text.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
                let good = match ran.end {
                    End::Code(0) => read.is_some(),
                    _ => ran.stdout.is_empty(),
                };
                if !good {
                    report.fault(format!("{kind:?} of {}: {}\n  {}", name.escape_ascii(), ran.out(), run.line()));
                }
            }
        }
    }
    report.end();
}
