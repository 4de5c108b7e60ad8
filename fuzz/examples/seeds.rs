//! Makes the inputs that fuzzing starts from: small ones into `seeds/`, which is kept, large ones into `corpus/`.

use instar_formats::FORMATS;
use instar_fuzz::made::Order;
use instar_image::Fact;
use instar_testkit::build::{bochs, cloop, dmg, luks2, partition, vhd, vhdx, vmdk};
use std::path::Path;

/// What is not longer is kept with the sources.
const SMALL: usize = 8 << 10;

fn main() -> std::io::Result<()> {
    for (name, image) in images() {
        put("info", name, &input(&[], &image))?;
    }
    for (name, image) in images().into_iter().chain(filled()) {
        put("content", name, &[&ANY, &input(&[], &image)[1..]].concat())?;
    }
    let below = [&qcow2_filled()[..], &vhd::build(&vhd::Vhd { kind: 2, size: 4096, ..vhd::Vhd::default() })];
    put("content", "chain", &[&ANY, &input(&below, &qcow2(3, "a"))[1..]].concat())?;
    let qcow2 = |backing| qcow2(3, backing);
    put("info", "chain", &input(&[&qcow2("b"), &partition::mbr(512, [(0x80, 0x83); 4])], &qcow2("a")))?;
    put("info", "loop", &input(&[&qcow2("a"), &qcow2("a")], &qcow2("a")))?;
    let (text, extent) = (vmdk_text(), vmdk::hosted(&vmdk::Hosted::default(), &vmdk::Descriptor::default()));
    for (name, input) in written() {
        put("write", name, &input)?;
    }
    put("info", "vmdk-parts", &input(&[&extent], &text))?;
    for (name, calls) in calls() {
        put("wall", name, &calls)?;
    }
    for name in ["../c", "/etc/passwd", "json:{}", "a/../b", "file:b", "nbd:x", "./l", "a/l", ""] {
        put("wall", &format!("name-{}", name.replace(['/', ':', '{', '}', '.'], "_")), &related(name))?;
    }
    Ok(())
}

fn put(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = if bytes.len() <= SMALL { "seeds" } else { "corpus" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

/// What the target `content` reads first: no flags, a format that is none, and a small number.
const ANY: [u8; 3] = [0, 0xff, 100];

/// Inputs of the target `write`: images that we made, of every format that can be written.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    const KEY: u8 = 1;
    const PACKED: u8 = 4;
    let count = |name, number| Fact::fields([(name, Fact::Count(number))]);
    let text = |name, text: &str| Fact::fields([(name, text.into())]);
    let on = |name, more: Fact| {
        let mut options = more;
        options.add(name, Fact::Truth(true));
        options
    };
    let none = || Fact::fields([]);
    let mut sealed = count("encrypt.iter-time", 1);
    sealed.add("encrypt.format", "luks");
    sealed.add("encrypt.key-secret", "sec0");
    let mut luks = count("iter-time", 1);
    luks.add("key-secret", "sec0");
    let orders = [
        ("raw", "raw", none(), 0, 1 << 20),
        ("qcow2-512", "qcow2", count("cluster_size", 512), 0, 1 << 20),
        ("qcow2-packed", "qcow2", count("cluster_size", 4096), PACKED, 1 << 20),
        ("qcow2-64k", "qcow2", none(), 0, 8 << 20),
        ("qcow2-counts-1", "qcow2", on("lazy_refcounts", count("refcount_bits", 1)), 0, 1 << 20),
        ("qcow2-v2", "qcow2", text("compat", "0.10"), 0, 1 << 20),
        ("qcow2-halves", "qcow2", on("extended_l2", count("cluster_size", 16384)), 0, 1 << 20),
        ("qcow2-metadata", "qcow2", text("preallocation", "metadata"), 0, 1 << 20),
        ("qcow2-luks", "qcow2", sealed, KEY, 1 << 20),
        ("qcow", "qcow", none(), 0, 1 << 20),
        ("qcow-packed", "qcow", none(), PACKED, 1 << 20),
        ("qed", "qed", count("cluster_size", 4096), 0, 16 << 20),
        ("qed-tables", "qed", count("table_size", 2), 0, 1 << 20),
        ("vmdk", "vmdk", none(), 0, 1 << 20),
        ("vmdk-zeroed", "vmdk", on("zeroed_grain", none()), 0, 4 << 20),
        ("vmdk-stream", "vmdk", text("subformat", "streamOptimized"), PACKED, 1 << 20),
        ("vmdk-flat", "vmdk", text("subformat", "monolithicFlat"), 0, 1 << 20),
        ("vmdk-parts", "vmdk", text("subformat", "twoGbMaxExtentSparse"), 0, 1 << 20),
        ("vdi", "vdi", none(), 0, 8 << 20),
        ("vdi-static", "vdi", on("static", none()), 0, 1 << 20),
        ("vhd", "vpc", none(), 0, 16 << 20),
        ("vhd-fixed", "vpc", text("subformat", "fixed"), 0, 1 << 20),
        ("vhdx", "vhdx", count("block_size", 1 << 20), 0, 8 << 20),
        ("vhdx-fixed", "vhdx", text("subformat", "fixed"), 0, 2 << 20),
        ("parallels", "parallels", none(), 0, 8 << 20),
        ("parallels-4k", "parallels", count("cluster_size", 4096), 0, 1 << 20),
        ("luks", "luks", luks, KEY, 1 << 20),
    ];
    let bytes: Vec<u8> = (0..3000u32).map(|n| if n < 1000 { 7 } else { (n.wrapping_mul(n) >> 7) as u8 }).collect();
    let made = orders.into_iter().map(|(name, format, options, flags, size)| {
        let key = (flags & KEY != 0).then_some(&b"123456"[..]);
        // Grains of a stream come whole.
        let mut bytes = bytes.clone();
        bytes.resize(if name == "vmdk-stream" { 65536 } else { bytes.len() }, 0);
        let order = Order { format, options, size, bytes: &bytes, packed: flags & PACKED != 0, key };
        let files = order.files();
        let format = FORMATS.iter().position(|known| known.name() == format).unwrap_or(200) as u8;
        // Two writes: one near the beginning, one far from it, each with all that can be written.
        let mut input = vec![flags, format, 1, 3, 2, 1, 9, 0, 20, 2, 30, 150, 2, 2, 99, 0, 9, 1, 2];
        input.push(files.len() as u8 - 1);
        for file in &files[1..] {
            let file = file.to_input();
            input.extend(&(file.len() as u32).to_le_bytes()[..3]);
            input.extend(file);
        }
        input.extend(files[0].to_input());
        (name, input)
    });
    made.collect()
}

/// An image and the files it may come to, as the target `info` reads them.
fn input(others: &[&[u8]], image: &[u8]) -> Vec<u8> {
    let mut out = vec![0, others.len() as u8];
    for file in others {
        out.extend(&(file.len() as u32).to_le_bytes()[..3]);
        out.extend(*file);
    }
    out.extend(image);
    out
}

fn images() -> Vec<(&'static str, Vec<u8>)> {
    let chunk = dmg::Chunk { kind: 1, sector: 0, count: 1, at: 0, len: 512 };
    let blocks = [dmg::mish(0, &[chunk])];
    let mut qed = vec![0; 4096];
    qed[..4].copy_from_slice(b"QED\0");
    (qed[5], qed[8], qed[12], qed[33], qed[40]) = (0x10, 4, 1, 0x10, 0);
    let mut parallels = vec![0; 512];
    parallels[..16].copy_from_slice(b"WithoutFreeSpace");
    (parallels[16], parallels[20], parallels[28], parallels[32]) = (2, 16, 63, 1);
    let mut vdi = vec![0; 1024];
    vdi[..24].copy_from_slice(b"<<< Oracle VM VirtualBox");
    vdi[64..72].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe, 1, 0, 1, 0]);
    let mut luks = vec![0; 1024];
    luks[..40].copy_from_slice(b"LUKS\xba\xbe\0\x01aes\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let mut iso = vec![0; 34 << 10];
    iso[32768..32774].copy_from_slice(b"\x01CD001");
    vec![
        ("empty", Vec::new()),
        ("mbr", partition::mbr(512, [(0x80, 0x83), (0, 0), (0, 0), (0, 0)])),
        ("gpt", partition::gpt(4096, 512)),
        ("qcow", qcow2(1, "a")),
        ("qcow2-v2", qcow2(2, "")),
        ("qcow2-v3", qcow2(3, "")),
        ("qcow2-json", qcow2(3, "json:{\"driver\":\"raw\"}")),
        ("qed", qed),
        ("vdi", vdi),
        ("parallels", parallels),
        ("luks1", luks),
        ("luks2", luks2::usual()),
        ("bochs", bochs::build(&bochs::Bochs { extents: Vec::new(), ..bochs::Bochs::default() })),
        ("cloop", cloop::build(512, &[7; 1024])),
        ("dmg-xml", dmg::build(&[1; 512], &blocks, dmg::Fork::Xml, 1)),
        ("dmg-fork", dmg::build(&[1; 512], &blocks, dmg::Fork::Resource, 1)),
        ("vhd-fixed", vhd::build(&vhd::Vhd { kind: 2, size: 4096, ..vhd::Vhd::default() })),
        ("vhd-dynamic", vhd::build(&vhd::Vhd { size: 1 << 20, ..vhd::Vhd::default() })),
        ("vhdx", vhdx::build(&vhdx::Vhdx { size: 1 << 20, ..vhdx::Vhdx::default() })),
        ("vmdk-text", vmdk_text()),
        ("vmdk-header", vmdk::hosted_header(&vmdk::Hosted::default())),
        ("vmdk-cowd", vmdk::cowd(2048, 16, &[], None)),
        ("vmdk-sesparse", vmdk::se_sparse(2048, &[])),
        ("iso", iso),
    ]
}

/// Images that hold something, compressed wherever the format can.
fn filled() -> Vec<(&'static str, Vec<u8>)> {
    let packed = vmdk::zlib(&[0x5a; 1024]);
    let adc = [&[0x83, 1, 2, 3, 4][..], &[0x7f, 0, 3].repeat(8)].concat();
    let lzfse = [&b"bvx-\0\x02\0\0"[..], &[6; 512], b"bvx$"].concat();
    let parts = [(1, &[9; 512][..], 1), (0x8000_0005, &packed, 2), (0x8000_0004, &adc, 1), (0x8000_0007, &lzfse, 1)];
    let (mut data, mut chunks, mut sector) = (Vec::new(), Vec::new(), 0);
    for (kind, bytes, count) in parts {
        chunks.push(dmg::Chunk { kind, sector, count, at: data.len() as u64, len: bytes.len() as u64 });
        data.extend(bytes);
        sector += count;
    }
    chunks.push(dmg::Chunk { kind: dmg::kind::ZERO, sector, count: 3, at: 0, len: 0 });
    let disk = dmg::build(&data, &[dmg::mish(0, &chunks)], dmg::Fork::Resource, sector + 3);
    let stream = vmdk::Hosted { flags: 3 | 3 << 16, grain: 8, compression: 1, ..vmdk::Hosted::default() };
    let grains = [(0, vmdk::Grain::Packed(7)), (3, vmdk::Grain::Marked(8, 40)), (9, vmdk::Grain::Entry(1 << 20))];
    let parent = vhdx::Vhdx { size: 1 << 20, dirty: Some(3 << 20), blocks: vec![(0, 1)], ..vhdx::Vhdx::default() };
    let small = bochs::Bochs { extent: 512, catalog: 8, disk: 4096, extents: vec![(1, 3)], ..bochs::Bochs::default() };
    let vhd = vhd::Vhd { size: 64 << 10, block_len: 4096, blocks: vec![(1, 2), (3, 4)], ..vhd::Vhd::default() };
    vec![
        ("qcow2-filled", qcow2_filled()),
        ("dmg-filled", disk),
        ("bochs-filled", bochs::build(&small)),
        ("vhd-filled", vhd::build(&vhd)),
        ("vmdk-stream", vmdk::sparse(&stream, &vmdk::Descriptor::default(), &grains)),
        ("vmdk-cowd-filled", vmdk::cowd(64, 1, &[(0, 1), (5, 2)], None)),
        ("vhdx-dirty", vhdx::build(&parent)),
    ]
}

/// A table with clusters that lie there as they are, are zeroes, are compressed, and lead nowhere.
fn qcow2_filled() -> Vec<u8> {
    let mut bytes = qcow2(3, "");
    let packed = vmdk::zlib(&[3; 512]);
    let deflated = &packed[2..packed.len() - 4];
    bytes.resize(2048, 5);
    bytes.extend([deflated, deflated].concat());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    put(1536, 1024 | 1 << 63);
    let second = 2048 + deflated.len() as u64;
    // With clusters this small, one bit counts the further sectors that a compressed one takes.
    let entries = [1536 | 1 << 63, 1, 1024 | 1, 2048 | 3 << 61, second | 3 << 61, 1 << 40, 0, u64::MAX];
    entries.iter().enumerate().for_each(|(n, entry)| put(1024 + 8 * n, *entry));
    bytes
}

fn vmdk_text() -> Vec<u8> {
    vmdk::Descriptor::of("monolithicFlat", &["RW 1 FLAT \"a-flat.vmdk\" 0"]).text()
}

/// A header and its tables, with clusters of 512 bytes, and the name of a backing file.
fn qcow2(version: u8, backing: &str) -> Vec<u8> {
    let mut bytes = vec![0; 4 * 512];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &[b'Q', b'F', b'I', 0xfb, 0, 0, 0, version]);
    if version == 1 {
        put(24, &[0, 0, 0, 0, 0, 1, 0, 0]);
        put(32, &[9, 6]);
        put(46, &[2, 0]);
        return bytes;
    }
    if !backing.is_empty() {
        put(8, &256u64.to_be_bytes());
        put(16, &(backing.len() as u32).to_be_bytes());
        put(256, backing.as_bytes());
    }
    put(20, &9u32.to_be_bytes());
    put(24, &32768u64.to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &1536u64.to_be_bytes());
    put(48, &512u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    if version == 3 {
        put(96, &4u32.to_be_bytes());
        put(100, &112u32.to_be_bytes());
    }
    put(512, &1024u64.to_be_bytes());
    bytes
}

/// A call that names a file, as the target `wall` reads it.
fn related(name: &str) -> Vec<u8> {
    [&[0, 11, 0, name.len() as u8][..], name.as_bytes()].concat()
}

fn calls() -> Vec<(&'static str, Vec<u8>)> {
    let (start, finish, park) = (vec![0, 1, 100, 0], vec![0, 13, 100, 1, 0], vec![1, 16, 100, 0]);
    let (wake, join) = (vec![0, 14, 100, 0], vec![0, 15, 100, 0]);
    let read = vec![0, 2, 100, 0, 0, 0, 216, 0, 9, 0];
    let holes = vec![0, 9, 100, 0, 0, 0, 215];
    let write = vec![0, 3, 100, 0, 0, 0, 9];
    vec![
        ("plain", [&start[..], &read, &holes, &finish].concat()),
        ("lanes", [&park[..], &wake, &join, &read, &finish].concat()),
        ("write", [&start[..], &write].concat()),
        ("event", [&start[..], &[0, 12, 100, 5, 2, 0, 0, 0, 0], &finish].concat()),
    ]
}
