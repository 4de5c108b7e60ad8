//! One good image of every format, to be damaged.

use instar_testkit::build::dmg::{Chunk, Fork, kind};
use instar_testkit::build::{bochs, cloop, dmg, luks2, vhd, vhdx, vmdk};
use instar_testkit::images::{Recipe, make};
use instar_testkit::place::Scratch;
use std::ops::Range;
use std::sync::OnceLock;

/// A good image.
pub struct Seed {
    /// What it is about.
    pub id: String,
    /// Its format.
    pub format: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where its metadata lies.
    pub metadata: Vec<Range<usize>>,
}

const WRITES: &[&str] = &["write -P 17 0 64k", "write -P 34 512k 32k"];

/// A recipe, with writes that do not matter if they fail.
fn written(id: &'static str, format: &'static str, line: &'static str) -> Recipe {
    Recipe::new(id, format, format!("disk.{format}"), move |kitchen| {
        kitchen.create(line)?;
        let _ = kitchen.io(format, kitchen.name, WRITES);
        Ok(())
    })
}

/// Those that qemu-img can make.
fn recipes() -> Vec<Recipe> {
    let mut all = vec![
        written("qcow2", "qcow2", "-f qcow2 -o cluster_size=4k @ 1M"),
        written("qcow2 v2", "qcow2", "-f qcow2 -o compat=0.10,cluster_size=4k @ 1M"),
        written("qcow2 extended", "qcow2", "-f qcow2 -o extended_l2=on,compression_type=zstd,cluster_size=16k @ 1M"),
        written("qcow2 data file", "qcow2", "-f qcow2 -o data_file=other,cluster_size=4k @ 1M"),
        written("qcow", "qcow", "-f qcow @ 1M"),
        written("qed", "qed", "-f qed @ 1M"),
        written("vmdk", "vmdk", "-f vmdk @ 1M"),
        written("vmdk descriptor", "vmdk", "-f vmdk -o subformat=twoGbMaxExtentSparse @ 1M"),
        written("vpc", "vpc", "-f vpc @ 1M"),
        written("vpc fixed", "vpc", "-f vpc -o subformat=fixed @ 1M"),
        written("vhdx", "vhdx", "-f vhdx -o block_size=1M,log_size=1M @ 1M"),
        written("vdi", "vdi", "-f vdi @ 1M"),
        written("parallels", "parallels", "-f parallels @ 1M"),
        written("luks", "luks", "-f luks -o key-secret=sec0,iter-time=10 @ 64k"),
        written("qcow backed", "qcow", "-f qcow -u -F raw -b below @ 1M"),
        written("qed backed", "qed", "-f qed -u -F raw -b below @ 1M"),
        written("qcow2 backed", "qcow2", "-f qcow2 -o cluster_size=4k -u -F raw -b below @ 1M"),
    ];
    // Snapshots and bitmaps, in small clusters so that their tables are near.
    all.push(Recipe::new("qcow2 tables", "qcow2", "disk.qcow2", |kitchen| {
        kitchen.create("-f qcow2 -o cluster_size=4k @ 1M")?;
        kitchen.img(["snapshot", "-c", "one", "disk.qcow2"])?;
        kitchen.img(["snapshot", "-c", "two", "disk.qcow2"])?;
        kitchen.img(["bitmap", "--add", "disk.qcow2", "b0"])?;
        kitchen.img(["bitmap", "--add", "disk.qcow2", "b1"])
    }));
    all
}

/// Where the metadata of an image lies, as far as a sweep over all its fields is worth the time.
// Lists of ranges are meant, also those of one.
#[allow(clippy::single_range_in_vec_init)]
fn metadata(id: &str, format: &str, len: usize) -> Vec<Range<usize>> {
    match format {
        "qcow2" if id == "qcow2 tables" => vec![0..320, 4096..4160, 0x5000..0x5100, 0x6000..0xa000.min(len)],
        "qcow2" => vec![0..640],
        // Made by the builder: the log, the metadata and the parent locator lie elsewhere.
        "vhdx" if id != "vhdx" => {
            vec![0x10000..0x10050, 0x100000..0x100100, 0x300000..0x3000c0.min(len), 0x310000..0x310100.min(len)]
        }
        "vhdx" => vec![
            0..16,
            0x10000..0x10050,
            0x20000..0x20050,
            0x30000..0x30050,
            0x200000..0x2000c0.min(len),
            0x210000..0x210040.min(len),
        ],
        "vpc" => vec![0..512.min(len), 512..1600.min(len), len - 512..len],
        "dmg" => vec![len - 512..len, 1024..len - 512],
        "vmdk" => vec![0..1400.min(len)],
        "luks" if id == "luks 2" => vec![0..512.min(len), 4096..5120.min(len)],
        "luks" => vec![0..592],
        _ => vec![0..600.min(len)],
    }
}

fn foreign() -> Vec<(String, &'static str, Vec<u8>)> {
    let chunks = [
        Chunk { kind: kind::RAW, sector: 0, count: 2, at: 0, len: 1024 },
        Chunk { kind: kind::END, sector: 2, count: 0, at: 1024, len: 0 },
    ];
    let locators = vec![(*b"W2ru", ".\\parent.vhd".to_owned()), (*b"W2ku", "C:\\parent.vhd".to_owned())];
    let child = vhd::Vhd { kind: 4, parent: "parent.vhd".into(), locators, blocks: vec![(0, 1)], ..Default::default() };
    let parent = vec![("relative_path".to_owned(), ".\\parent.vhdx".to_owned())];
    let grandchild = vhdx::Vhdx { parent, blocks: vec![(0, 1)], ..Default::default() };
    let disk = |fork| dmg::build(&[9; 1024], &[dmg::mish(0, &chunks)], fork, 2);
    let mut iso = vec![0; 40960];
    iso[32768..32774].copy_from_slice(b"\x01CD001");
    let mut partitions = vec![0; 65536];
    partitions[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 3, 0, 1, 0, 0, 0, 64, 0, 0, 0]);
    partitions[510..512].copy_from_slice(&[0x55, 0xaa]);
    vec![
        ("bochs".into(), "bochs", bochs::build(&Default::default())),
        ("cloop".into(), "cloop", cloop::build(65536, &[7; 100_000])),
        ("dmg".into(), "dmg", disk(Fork::Xml)),
        ("dmg resource".into(), "dmg", disk(Fork::Resource)),
        ("vmdk COWD".into(), "vmdk", vmdk::cowd(2048, 16, &[(0, 1)], None)),
        ("vmdk SE sparse".into(), "vmdk", vmdk::se_sparse(2048, &[(0, 1)])),
        ("vpc differencing".into(), "vpc", vhd::build(&child)),
        ("vhdx differencing".into(), "vhdx", vhdx::build(&grandchild)),
        ("vhdx dirty".into(), "vhdx", vhdx::build(&vhdx::Vhdx { dirty: Some(3 << 20), ..Default::default() })),
        ("luks 2".into(), "luks", luks2::usual()),
        ("iso".into(), "iso", iso),
        ("partitions".into(), "raw", partitions),
    ]
}

/// All of them, made once.
pub fn seeds() -> &'static [Seed] {
    static SEEDS: OnceLock<Vec<Seed>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let scratch = Scratch::new("seeds");
        let (made, failed) = make(scratch.path(), &recipes());
        assert!(failed.is_empty(), "{failed:#?}");
        let read = |image: instar_testkit::images::Image| {
            let bytes = std::fs::read(image.folder.join(&image.name)).expect("the image");
            (image.id, image.format, bytes)
        };
        let all = made.into_iter().map(read).chain(foreign());
        all.map(|(id, format, bytes)| Seed { metadata: metadata(&id, format, bytes.len()), id, format, bytes })
            .collect()
    })
}
