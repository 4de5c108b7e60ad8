//! `info` of images built by hand, against what twelve builds of qemu-img printed for the like.

use super::*;
use crate::render::json;
use instar_wire::io::FileId;
use instar_wire::op::info::{Backing, Finding, Limits};

/// `=== CASE VERSION…`, then what those versions printed; allocated sizes stand as `<SIZE>`.
const RECORDED: &str = include_str!("../testdata/info.txt");

const EXTENTS: [&str; 4] = ["vm-2gs.vmdk", "vm-2gs-s001.vmdk", "vm-2gs-s002.vmdk", "vm-2gs-s003.vmdk"];

fn name_of(id: u32) -> Vec<u8> {
    match id {
        9 => b"vm-flat-flat.vmdk".to_vec(),
        _ => EXTENTS[id as usize].into(),
    }
}

fn manner<'a>(profile: &'a Profile) -> Manner<'a> {
    Manner {
        profile,
        native: false,
        limits: false,
        rounding: Rounding::AsQemu,
        text: Text::Raw,
        display: &name_of,
        local: &LocalTime::utc,
    }
}

fn node(name: &str, display: &str, length: u64) -> Node {
    Node {
        name: name.into(),
        display: display.into(),
        driver: b"file".to_vec(),
        length,
        actual: Some(4096),
        children: Vec::new(),
        is_format: false,
        storage: Storage::default(),
    }
}

/// An image in one file of `length` bytes.
fn layer(format: &str, name: &str, virtual_size: u64, length: u64) -> Layer {
    let told = Image::plain(FileId(0), format, virtual_size);
    Layer {
        told,
        snapshots: Vec::new(),
        name: name.into(),
        actual: Some(4096),
        nodes: vec![node("file", name, length)],
        backing_path: None,
        storage: Storage::default(),
        verdicts: Vec::new(),
    }
}

fn qcow2(name: &str, mib: u64, length: u64) -> Layer {
    let mut layer = layer("qcow2", name, mib << 20, length);
    layer.told.cluster_size = Some(65536);
    layer.told.specific = Some(Fact::fields([
        ("compat", "1.1".into()),
        ("lazy-refcounts", false.into()),
        ("refcount-bits", 16u64.into()),
        ("corrupt", false.into()),
        ("extended-l2", false.into()),
        ("compression-type", "zlib".into()),
    ]));
    layer
}

fn with(mut layer: Layer, name: &str, value: Fact) -> Layer {
    layer.told.specific.as_mut().unwrap().add(name, value);
    layer
}

fn over(mut layer: Layer, name: &str, format: &str) -> Layer {
    layer.told.backing = Some(Backing { name: name.into(), format: Some(format.into()) });
    layer.backing_path = Some(name.into());
    layer
}

fn snapshot(id: &str, name: &str, day: u32) -> Snapshot {
    Snapshot {
        id: id.into(),
        name: name.into(),
        vm_state_size: 0,
        date_sec: 1_700_000_000 + 86400 * day,
        date_nsec: 0,
        vm_clock_nsec: 0,
        icount: Some(0),
    }
}

fn three_snapshots() -> Vec<Snapshot> {
    vec![snapshot("1", "s1", 0), snapshot("2", "snap two", 1), snapshot("3", "s3-after-a-resize-with-a-long-name", 2)]
}

fn bitmap(name: &str, granularity: u64, flags: Vec<Fact>) -> Fact {
    Fact::fields([("flags", flags.into()), ("name", name.into()), ("granularity", granularity.into())])
}

fn extent(file: u32, size: u64, format: &str, cluster: Option<u64>) -> Fact {
    let name = Fact::fields([("file", file.into())]);
    let mut fact = Fact::fields([("filename", name), ("format", format.into()), ("virtual-size", size.into())]);
    if let Some(cluster) = cluster {
        fact.add("cluster-size", cluster);
    }
    fact
}

fn vmdk(name: &str, size: u64, kind: &str, extents: Vec<Fact>) -> Layer {
    let mut layer = layer("vmdk", name, size, 512);
    for (i, extent) in extents.iter().enumerate() {
        let Some(Fact::Count(id)) = extent.get("filename").and_then(|file| file.get("file")) else { continue };
        let display = String::from_utf8(name_of(*id as u32)).unwrap();
        let length = [16 << 20, 524_288, 327_680, 196_608][(*id % 9) as usize];
        layer.nodes.push(node(&format!("extents.{i}"), &display, length));
    }
    layer.told.specific = Some(Fact::fields([
        ("create-type", kind.into()),
        ("cid", 305_419_896u64.into()),
        ("parent-cid", u32::MAX.into()),
        ("extents", extents.into()),
    ]));
    layer
}

/// A luks header with eight slots `stride` bytes apart, the first of them in use.
fn luks(words: [(&str, &str); 4], stride: u64, payload: u64) -> Fact {
    let slot = |i: u64| {
        let mut slot = Fact::fields([("active", (i == 0).into()), ("key-offset", (4096 + i * stride).into())]);
        if i == 0 {
            slot.add("iters", 200_000u64);
            slot.add("stripes", 4000u64);
        }
        slot
    };
    let mut fact = Fact::fields(words.map(|(name, word)| (name, word.into())));
    fact.add("detached-header", false);
    fact.add("uuid", "01234567-89ab-cdef-0123-456789abcdef");
    fact.add("payload-offset", payload);
    fact.add("master-key-iters", 100_000u64);
    fact.add("slots", (0..8).map(slot).collect::<Vec<_>>());
    fact
}

fn luks_image() -> Layer {
    let words = [("cipher-alg", "aes-128"), ("cipher-mode", "cbc"), ("ivgen-alg", "essiv"), ("hash-alg", "sha512")];
    let mut layer = layer("luks", "luks-256-info.img", 4 << 20, 4_722_688);
    layer.told.encrypted = true;
    layer.told.specific = Some(luks(words, 65536, 528_384));
    with(layer, "ivgen-hash-alg", "sha256".into())
}

fn luks_in_qcow2() -> Layer {
    let words = [("cipher-alg", "aes-256"), ("cipher-mode", "xts"), ("ivgen-alg", "plain64"), ("hash-alg", "sha256")];
    let mut encrypt = luks(words, 258_048, 2_068_480);
    encrypt.add("format", "luks");
    let mut layer = qcow2("q-luks-info.qcow2", 16, 2_359_296);
    layer.told.encrypted = true;
    with(layer, "encrypt", encrypt)
}

/// A raw image on something that is not a file.
fn raw_on(driver: &str, name: &str, file: &str, length: u64, actual: Option<u64>) -> Layer {
    let mut layer = layer("raw", name, length, length);
    layer.actual = actual;
    layer.nodes = vec![Node { driver: driver.into(), actual, ..node("file", file, length) }];
    layer
}

fn blkdebug() -> Layer {
    const FILTER: &str = r#"{"inject-error.0.once": false, "image": {"driver": "file", "filename": "raw-data.raw"}, "driver": "blkdebug", "inject-error.0.iotype": "read", "inject-error.0.errno": 5, "inject-error.0.event": "none", "inject-error.0.sector": 128}"#;
    let name = format!(r#"json:{{"driver": "raw", "file": {FILTER}}}"#);
    let mut layer = raw_on("blkdebug", &name, &format!("json:{FILTER}"), 4 << 20, None);
    layer.nodes[0].is_format = true;
    layer.nodes[0].children = vec![node("image", "raw-data.raw", 4 << 20)];
    layer
}

const FAT: &str = r#"{"fat-type": 0, "dir": "a-directory", "driver": "vvfat", "floppy": false, "rw": false}"#;

fn build(case: &str) -> Vec<Layer> {
    let one = match case {
        "raw-data.raw" | "limits-raw" => layer("raw", "raw-data.raw", 4 << 20, 4 << 20),
        "q-bitmaps.qcow2" => {
            let bitmaps = vec![bitmap("b0", 65536, vec!["auto".into()]), bitmap("b1", 32768, Vec::new())];
            with(qcow2(case, 16, 1_114_624), "bitmaps", bitmaps.into())
        }
        "q-snap.qcow2" => Layer { snapshots: three_snapshots(), ..qcow2(case, 32, 917_600) },
        "q-snap-vm.qcow2" => {
            let mut snapshots = three_snapshots();
            snapshots[0].icount = None;
            let running = (123_456_789, 3_723_456_000_000, 1000, Some(0));
            let long = (123_456_789, 360_000_000_000_001, 305_419_896, Some(123_456));
            for (one, values) in snapshots[1..].iter_mut().zip([running, long]) {
                (one.date_nsec, one.vm_clock_nsec, one.vm_state_size, one.icount) = values;
            }
            Layer { snapshots, ..qcow2(case, 32, 918_016) }
        }
        "vm-2gs.vmdk" => {
            let sizes = [(1, 2 << 30), (2, 2 << 30), (3, 1 << 30)];
            let extents = sizes.map(|(file, size)| extent(file, size, "SPARSE", Some(65536))).to_vec();
            let mut layer = vmdk(case, 5 << 30, "twoGbMaxExtentSparse", extents);
            layer.told.cluster_size = Some(65536);
            layer
        }
        "vm-flat.vmdk" => vmdk(case, 16 << 20, "monolithicFlat", vec![extent(9, 16 << 20, "FLAT", None)]),
        "luks-256-info.img" => luks_image(),
        "q-luks-info.qcow2" => luks_in_qcow2(),
        "c-top.qcow2" => {
            let top = over(qcow2(case, 12, 393_216), "c-mid.qcow2", "qcow2");
            let middle = over(qcow2("c-mid.qcow2", 8, 393_216), "c-base.raw", "raw");
            return vec![top, middle, layer("raw", "c-base.raw", 8 << 20, 8 << 20)];
        }
        "c-nofmt.qcow2" => {
            let mut top = over(qcow2(case, 8, 196_616), "c-base.raw", "raw");
            top.told.backing.as_mut().unwrap().format = None;
            return vec![top, layer("raw", "c-base.raw", 8 << 20, 8 << 20)];
        }
        "par-open.hds" => {
            let mut layer = layer("parallels", case, 16 << 20, 3 << 20);
            layer.told.dirty = None;
            layer
        }
        "q-dfmiss.qcow2" => {
            let layer = with(qcow2(case, 16, 196_616), "data-file", "q-dfmiss.data".into());
            with(layer, "data-file-raw", false.into())
        }
        "blkdebug" | "blkdebug-json" => blkdebug(),
        "devzero" => raw_on("host_device", "/dev/zero", "/dev/zero", 0, Some(0)),
        "null" => raw_on("null-co", "null-co://", "null-co://", 1 << 30, Some(0)),
        "fat" => {
            let name = format!(r#"json:{{"driver": "raw", "file": {FAT}}}"#);
            raw_on("vvfat", &name, &format!("json:{FAT}"), 528_482_304, None)
        }
        "vpc-dyn.vpc" => {
            let mut layer = layer("vpc", case, 16_781_312, 2_100_224);
            layer.told.cluster_size = Some(2 << 20);
            layer
        }
        "qed-dirty.qed" => {
            let mut layer = layer("qed", case, 16 << 20, 786_432);
            layer.told.cluster_size = Some(65536);
            layer
        }
        other => panic!("no image for {other}"),
    };
    vec![one]
}

fn masked(text: &str) -> String {
    let mask = |line: &str| {
        let known = [("disk size: ", ""), ("\"actual-size\": ", ",")]
            .into_iter()
            .find(|(key, _)| line.trim_start().starts_with(key));
        match known {
            Some((key, end)) if !line.ends_with("unavailable") => {
                let indent = line.len() - line.trim_start().len();
                let comma = if line.ends_with(',') { end } else { "" };
                format!("{}{key}<SIZE>{comma}\n", &line[..indent])
            }
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(mask).collect()
}

#[test]
fn recorded_outputs_are_reproduced() {
    let mut seen = 0;
    for section in RECORDED.split("=== ").skip(1) {
        let (head, expected) = section.split_once('\n').unwrap();
        let mut words = head.split(' ');
        let id = words.next().unwrap();
        let (verb, case) = id.split_once('.').unwrap();
        let layers = build(case);
        for version in words {
            let profile = &Profile::parse(version).unwrap();
            let manner = Manner { limits: case == "limits-raw", ..manner(profile) };
            let out = match id.contains("json") {
                true => json(&layers, verb.contains("chain"), &manner),
                false => human(&layers, &manner),
            };
            assert_eq!(masked(str::from_utf8(&out).unwrap()), expected, "{id} {version}");
            seen += 1;
        }
    }
    assert_eq!(seen, 12 * 22 - 9 - 2);
}

#[test]
fn a_dirty_image_is_told_since_6_0() {
    let mut layer = qcow2("q.qcow2", 1, 512);
    layer.told.dirty = Some(true);
    let layers = [layer];
    for (version, said) in [("5.2", false), ("6.2", true)] {
        let profile = &Profile::parse(version).unwrap();
        let text = String::from_utf8(human(&layers, &manner(profile))).unwrap();
        assert_eq!(text.contains("cluster_size: 65536\ncleanly shut down: no\nFormat"), said);
        let text = String::from_utf8(json(&layers, false, &manner(profile))).unwrap();
        assert!(text.contains(&format!("\n    \"dirty-flag\": {said}\n")));
    }
}

#[test]
fn limits_stand_before_the_snapshots_and_in_the_order_of_the_hash() {
    let profile = &Profile::parse("11.1.3").unwrap();
    let mut layer = Layer { snapshots: three_snapshots(), ..qcow2("s.qcow2", 1, 512) };
    layer.told.limits = Limits { write_zeroes: 65536, discard: 65536, request: 1 };
    let text = String::from_utf8(human(&[layer], &Manner { limits: true, ..manner(profile) })).unwrap();
    let block = "cluster_size: 65536
Block limits:
    write zeroes alignment: 65536
    request alignment: 1
    min mem alignment: 1
    discard alignment: 65536
    opt mem alignment: 4096
    max iov: 1024
Snapshot list:\n";
    assert!(text.contains(block), "{text}");

    let mut layer = super::tests::layer("qed", "x.qed", 1 << 20, 512);
    layer.told.cluster_size = Some(65536);
    layer.told.limits = Limits { write_zeroes: 65536, discard: 0, request: 512 };
    let line = json::line(&layer.limits());
    let expected = r#"{"write-zeroes-alignment": 65536, "request-alignment": 512, "min-mem-alignment": 1, "opt-mem-alignment": 4096, "max-iov": 1024, "max-write-zeroes": 2147418112}"#;
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

#[test]
fn the_path_of_a_backing_file_is_told_when_it_is_not_its_name() {
    let profile = &Profile::default();
    let mut layer = over(qcow2("sub/o.qcow2", 1, 512), "../m\x1b.raw", "raw");
    for (path, said) in [
        (
            Some("sub/../m\x1b.raw"),
            "backing file: ../m\\x1b.raw (actual path: sub/../m\\x1b.raw)\nbacking file format: raw\n",
        ),
        (Some("../m\x1b.raw"), "backing file: ../m\\x1b.raw\nbacking"),
        (None, "backing file: ../m\\x1b.raw (cannot determine actual path)\nbacking"),
    ] {
        layer.backing_path = path.map(Vec::from);
        let layers = std::slice::from_ref(&layer);
        let text = String::from_utf8(human(layers, &Manner { text: Text::Safe, ..manner(profile) })).unwrap();
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn the_native_face_tells_more() {
    let profile = &Profile::default();
    let mut layer = over(layer("vdi", "a.vdi", 1 << 20, 1_114_113), "b.raw", "raw");
    layer.told.extra = Some(Fact::fields([("image-type", "dynamic".into()), ("blocks", 1u64.into())]));
    layer.told.findings =
        vec![Finding { check: "one-format".into(), ok: false, detail: vec![Fact::from("raw")].into() }];
    layer.verdicts = vec![
        Verdict { role: Role::Backing, name: b"b.raw".to_vec(), refused: Some(b"outside the tree".to_vec()) },
        Verdict { role: Role::Extent, name: b"e.vmdk".to_vec(), refused: None },
    ];
    let manner = Manner { native: true, rounding: Rounding::OneDecimal, ..manner(profile) };
    let layers = [layer];
    let text = String::from_utf8(human(&layers, &manner)).unwrap();
    let expected = "image: a.vdi
file format: vdi
virtual size: 1.0 MiB (1048576 bytes)
disk size: 4.0 KiB
backing file: b.raw
    policy: refused (outside the tree)
backing file format: raw
Extra detail:
    image type: dynamic
    blocks: 1
extent 'e.vmdk'
    policy: allowed
Child node '/file':
    filename: a.vdi
    protocol type: file
    file length: 1.1 MiB (1114113 bytes)
    disk size: 4.0 KiB\n";
    assert_eq!(text, expected);

    let text = String::from_utf8(json(&layers, false, &manner)).unwrap();
    let order = ["dirty-flag", "extra-detail", "policy", "safety"].map(|key| text.find(&format!("\n    \"{key}\": ")));
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{text}");
    assert!(text.ends_with("            }\n        ],\n        \"safe\": false\n    }\n}\n"), "{text}");
}
