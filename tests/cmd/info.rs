//! What services type, word for word, beside what qemu-img answers.

use crate::disks::disks;
use instar_testkit::images::{SECRET, each};
use instar_testkit::oracle::{Oracle, oracles};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::{Report, difference};

/// How it has to end.
#[derive(Clone, Copy, PartialEq)]
enum Must {
    /// With an answer, and not one byte on standard error.
    Answer,
    /// With a refusal.
    Refuse,
    /// As qemu-img of that version does.
    Agree,
}

/// Who runs it, what must come of it, and the words after `info`.
type Line<'a> = (&'static str, Must, &'a [&'a str]);

/// A disk inside a larger file.
const MEMBER: &str =
    r#"json:{"driver":"raw","offset":65536,"size":1048576,"file":{"driver":"file","filename":"disk.raw"}}"#;
/// The same with the names of another client.
const NESTED: &str =
    r#"json:{"driver": "qcow2", "backing": null, "file": {"driver": "file", "filename": "overlay.qcow2"}}"#;
const HOST: &str = r#"json:{"file": {"driver": "file", "filename": "disk.qcow2"}, "driver": "qcow2"}"#;

const LINES: &[Line<'static>] = &[
    ("nova", Must::Answer, &["disk.qcow2", "--force-share", "--output=json", "-f", "qcow2"]),
    ("nova raw", Must::Answer, &["disk.raw", "--force-share", "--output=json", "-f", "raw"]),
    ("nova without a format", Must::Answer, &["disk.qcow2", "--force-share", "--output=json"]),
    ("ironic-python-agent", Must::Answer, &["disk.vmdk", "--force-share", "--output=json", "-f", "vmdk"]),
    (
        "nova options",
        Must::Answer,
        &["--image-opts", "driver=qcow2,file.filename=disk.qcow2", "--force-share", "--output=json"],
    ),
    ("glance", Must::Answer, &["--output=json", "-f", "qcow2", "disk.qcow2"]),
    ("glance on what lies", Must::Agree, &["--output=json", "-f", "vmdk", "disk.qcow2"]),
    ("cinder", Must::Answer, &["--output=json", "-f", "qcow2", "disk.qcow2"]),
    ("cinder glued", Must::Answer, &["-fqcow2", "--output=json", "disk.qcow2"]),
    ("cinder glued last", Must::Answer, &["--output=json", "disk.qcow2", "-fqcow2"]),
    ("cinder luks on raw", Must::Refuse, &["-f", "luks", "disk.raw"]),
    ("cinder luks on qcow2", Must::Refuse, &["-f", "luks", "--output=json", "disk.qcow2"]),
    ("cinder luks on luks", Must::Answer, &["-f", "luks", "--output=json", "disk.luks"]),
    ("cinder vhd", Must::Agree, &["-f", "vhd", "--output=json", "disk.vhd"]),
    ("cinder vpc", Must::Answer, &["-f", "vpc", "--output=json", "disk.vhd"]),
    ("cinder options without a driver", Must::Answer, &["--image-opts", "file.filename=disk.qcow2", "--output=json"]),
    (
        "cinder luks options",
        Must::Agree,
        &[
            "--object",
            "secret,id=sec,format=raw,data=123456",
            "--image-opts",
            "driver=luks,key-secret=sec,file.filename=disk.luks",
            "--output=json",
        ],
    ),
    ("proxmox", Must::Answer, &["--output=json", "disk.qcow2", "-f", "qcow2"]),
    ("proxmox long", Must::Answer, &["-f", "qcow2", "--output=json", "disk.qcow2"]),
    ("vdsm", Must::Answer, &["--output", "json", "-f", "qcow2", "-U", "disk.qcow2"]),
    ("vdsm old", Must::Answer, &["--output", "json", "-U", "old.qcow2"]),
    ("vdsm chain", Must::Answer, &["--backing-chain", "--output", "json", "overlay.qcow2"]),
    ("vdsm nested", Must::Answer, &["--output=json", NESTED]),
    ("virt-v2v", Must::Answer, &["--output", "json", MEMBER]),
    ("ovirt-imageio", Must::Answer, &["--output", "json", HOST]),
    ("libguestfs", Must::Answer, &["-U", "--output", "json", "./file:x.img", "-f", "raw"]),
    ("libguestfs vdi", Must::Answer, &["--output", "json", "disk.vdi"]),
    ("incus", Must::Answer, &["-f", "qcow2", "--output=json", "disk.qcow2"]),
    ("lima", Must::Answer, &["--output=json", "--backing-chain", "disk.qcow2"]),
    ("CDI", Must::Answer, &["--output=json", "disk.vhdx"]),
    ("CloudStack", Must::Answer, &["-U", "disk.qcow2"]),
    ("CloudStack options", Must::Answer, &["-U", "--image-opts", "driver=qcow2,file.filename=disk.qcow2"]),
    ("OpenNebula", Must::Answer, &["disk.vmdk"]),
    ("cloud-utils", Must::Answer, &["-U", "overlay.qcow2"]),
    ("multipass", Must::Answer, &["disk.vdi"]),
    ("vagrant-libvirt", Must::Answer, &["overlay.qcow2"]),
    ("delphix", Must::Answer, &["flat.vmdk", "--output=json"]),
    ("commas", Must::Answer, &["--image-opts", "driver=qcow2,file.filename=disk,,with,,commas.qcow2"]),
    ("commas plain", Must::Answer, &["disk,with,commas.qcow2"]),
    ("abbreviated", Must::Answer, &["--out=json", "--force", "disk.qcow2"]),
    ("clustered", Must::Answer, &["-Uf", "qcow2", "disk.qcow2"]),
    ("clustered and glued", Must::Answer, &["-Ufqcow2", "disk.qcow2"]),
    ("repeated", Must::Answer, &["-f", "vmdk", "-f", "qcow2", "--output=human", "--output=json", "disk.qcow2"]),
    ("words after --", Must::Answer, &["--output=json", "--", "disk.qcow2"]),
    ("options after --", Must::Agree, &["--", "disk.qcow2", "--output=json"]),
    ("ambiguous", Must::Agree, &["--o=json", "disk.qcow2"]),
    ("ambiguous too", Must::Agree, &["--f", "disk.qcow2"]),
    ("a value too many", Must::Agree, &["--force-share=yes", "disk.qcow2"]),
    ("no value", Must::Agree, &["disk.qcow2", "--output"]),
    ("two files", Must::Agree, &["disk.qcow2", "old.qcow2"]),
    ("a format and options", Must::Agree, &["-f", "qcow2", "--image-opts", "file.filename=disk.qcow2"]),
    ("a file of 64 TiB", Must::Answer, &["--output=json", "huge.qcow2"]),
];

/// What a user may say of the nodes that an image is made of.
const NODES: &[&str] = &[
    "driver=qcow2,file.filename=disk.qcow2,file.aio=native",
    "driver=qcow2,file.filename=disk.qcow2,file.aio=native,cache.direct=on",
    "driver=qcow2,file.filename=disk.qcow2,file.aio=threads",
    "driver=qcow2,file.filename=disk.qcow2,cache.direct=on",
    "driver=qcow2,file.filename=disk.qcow2,file.cache.direct=on",
    "driver=qcow2,file.filename=disk.qcow2,data-file.filename=disk.raw",
    "driver=qcow2,file.filename=outside.qcow2,data-file.filename=disk.raw",
    "driver=qcow2,file.filename=outside.qcow2,data-file.filename=nowhere",
    "driver=luks,file.filename=disk.raw,header.filename=header.luks",
    "driver=luks,key-secret=sec0,file.filename=disk.raw,header.filename=header.luks",
    "driver=luks,file.filename=header.luks,header.filename=header.luks",
    "driver=luks,file.filename=disk.luks,header.filename=disk.luks",
    "driver=luks,file.filename=disk.raw,header.filename=nowhere",
    "driver=luks,file.filename=disk.qcow2,header.filename=disk.qcow2",
    "driver=luks,key-secret=sec1,file.filename=disk.raw,header.filename=header.luks",
];

#[test]
fn every_client_gets_what_qemu_img_gives_it() {
    compare("cmd clients", LINES);
}

#[test]
fn nothing_that_is_said_of_a_node_is_passed_over() {
    for output in ["--output=human", "--output=json"] {
        let words: Vec<_> = NODES.iter().map(|node| ["--object", SECRET, output, "--image-opts", node]).collect();
        let lines: Vec<Line<'_>> = words.iter().map(|words| ("a node", Must::Agree, words.as_slice())).collect();
        compare("cmd nodes", &lines);
    }
}

fn compare(title: &'static str, lines: &[Line<'_>]) {
    let report = Report::new(title);
    let scratch = disks();
    let cases: Vec<(&Line<'_>, &Oracle)> = lines.iter().flat_map(|l| oracles().iter().map(move |o| (l, o))).collect();
    each(&cases, |_, ((client, must, words), oracle)| {
        let want = oracle.img().folder(scratch.path()).arg("info").args(*words).go();
        for cell in Cell::all() {
            report.tried();
            // As installed: the qemu-img face with its safe ways.
            let run = program().qemu(&oracle.version, *cell).folder(scratch.path()).arg("info").args(*words);
            let got = run.go();
            let mut differs = difference("stdout", &want.stdout, &got.stdout);
            differs += &difference("stderr", &want.stderr, &got.stderr);
            if got.end != want.end {
                differs += &format!("  {:?}, not {:?}\n", got.end, want.end);
            }
            let kept = match must {
                Must::Answer => got.end == End::Code(0) && got.stderr.is_empty(),
                Must::Refuse => got.end == End::Code(1),
                Must::Agree => true,
            };
            // A version that did not know a word yet refuses it, and so does instar in its place.
            if !differs.is_empty() || (!kept && want.end == End::Code(0)) {
                report.fault(format!("{client} | {}\n  {}\n{differs}", oracle.version, run.line()));
            }
        }
    });
    report.end();
}
