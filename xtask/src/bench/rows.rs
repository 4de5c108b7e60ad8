//! What is asked: one row for each question and image. A new verb adds its rows here.

mod changes;

use crate::shell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A question.
pub struct Row {
    /// The verb it belongs to.
    pub verb: &'static str,
    /// What it is called in the table.
    pub name: &'static str,
    /// Makes its image.
    pub image: fn(&Place) -> Result<PathBuf, String>,
    /// The command line; `{}` stands for the image.
    pub arguments: &'static [&'static str],
    /// At most so many times qemu-img's median, by contender; of [`Self::moves`], its first quartile.
    pub targets: &'static [(&'static str, f64)],
    /// It moves data: few rounds say enough. `>` in its arguments stands for the file that it makes, if it makes one.
    pub moves: bool,
    /// The files that it changes, by their names in the folder: they are as they were before every round.
    pub changes: &'static [&'static str],
    /// The image that qemu-img is given instead, where it cannot do this at all.
    pub instead: Option<&'static str>,
}

const BOTH: &[(&str, f64)] = &[("process", 0.6), ("kvm", 0.8)];
const PROCESS: &[(&str, f64)] = &[("process", 0.6)];

/// A row of a verb that moves data; a virtual machine may take a quarter longer than a process.
const fn heavy(
    verb: &'static str,
    name: &'static str,
    image: fn(&Place) -> Result<PathBuf, String>,
    arguments: &'static [&'static str],
    targets: &'static [(&'static str, f64)],
) -> Row {
    Row { moves: true, ..light(verb, name, image, arguments, targets) }
}

/// A row of a verb that looks at little: whole processes are compared.
const fn light(
    verb: &'static str,
    name: &'static str,
    image: fn(&Place) -> Result<PathBuf, String>,
    arguments: &'static [&'static str],
    targets: &'static [(&'static str, f64)],
) -> Row {
    Row { verb, name, image, arguments, targets, moves: false, changes: &[], instead: None }
}

impl Row {
    /// The same, of a verb that changes these files.
    const fn changing(self, changes: &'static [&'static str]) -> Row {
        Row { changes, ..self }
    }

    /// The same, beside what qemu-img needs for this image.
    const fn beside(self, instead: &'static str) -> Row {
        Row { instead: Some(instead), ..self }
    }
}

const COPY: &[(&str, f64)] = &[("process", 0.7), ("kvm", 0.875)];
const HALF: &[(&str, f64)] = &[("process", 0.5), ("kvm", 0.625)];
const CHECK: &[(&str, f64)] = &[("process", 0.4), ("kvm", 0.5)];
const ZSTD: &[(&str, f64)] = &[("process", 0.6), ("kvm", 0.75)];
const STREAM: &[(&str, f64)] = &[("process", 0.3), ("kvm", 0.375)];
const SHARED: &[(&str, f64)] = &[("process", 0.05), ("kvm", 0.0625)];
/// Each request is a call: what that takes in a virtual machine is the processor's business.
const REQUESTS: &[(&str, f64)] = &[("process", 0.8)];
const WALK: &[(&str, f64)] = &[("process", 0.3), ("kvm", 0.375)];

/// All questions.
pub fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(changes::ROWS)
}

const ROWS: &[Row] = &[
    light("info", "qcow2 with 1 snapshot", snapshot, &["info", "{}"], BOTH),
    light("info", "qcow2 with 1 snapshot, JSON", snapshot, &["info", "--output=json", "{}"], BOTH),
    light("info", "--backing-chain over 20 layers", chain, &["info", "--backing-chain", "{}"], PROCESS),
    light("info", "vmdk", vmdk, &["info", "{}"], BOTH),
    light("info", "raw with MBR", mbr, &["info", "{}"], BOTH),
    heavy("convert", "raw to raw, half full", half, &["convert", "-f", "raw", "-O", "raw", "{}", ">"], COPY),
    heavy("convert", "qcow2 to raw, half full", half_qcow2, &["convert", "-f", "qcow2", "-O", "raw", "{}", ">"], COPY),
    heavy("convert", "qcow2 zlib to raw", packed_zlib, &["convert", "-f", "qcow2", "-O", "raw", "{}", ">"], HALF),
    heavy("convert", "qcow2 zstd to raw", packed_zstd, &["convert", "-f", "qcow2", "-O", "raw", "{}", ">"], HALF),
    heavy("convert", "raw to qcow2, half full", half, &["convert", "-f", "raw", "-O", "qcow2", "{}", ">"], COPY),
    heavy("convert", "raw to vmdk, half full", half, &["convert", "-f", "raw", "-O", "vmdk", "{}", ">"], COPY),
    heavy("convert", "raw to vhdx, half full", half, &["convert", "-f", "raw", "-O", "vhdx", "{}", ">"], COPY),
    heavy("convert", "raw to vdi, half full", half, &["convert", "-f", "raw", "-O", "vdi", "{}", ">"], COPY),
    heavy("convert", "raw to qcow2 zlib", system, &["convert", "-c", "-f", "raw", "-O", "qcow2", "{}", ">"], HALF),
    heavy(
        "convert",
        "raw to qcow2 zstd",
        system,
        &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", "{}", ">"],
        ZSTD,
    ),
    heavy(
        "convert",
        "raw to a stream of vmdk",
        system,
        &["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "{}", ">"],
        STREAM,
    ),
    heavy(
        "convert",
        "raw to raw, half full, on XFS",
        half_on_xfs,
        &["convert", "-f", "raw", "-O", "raw", "{}", ">"],
        SHARED,
    ),
    heavy(
        "convert",
        "qcow2 to raw, half full, on XFS",
        half_qcow2_on_xfs,
        &["convert", "-f", "qcow2", "-O", "raw", "{}", ">"],
        SHARED,
    ),
    heavy(
        "create",
        "qcow2 of 1 TiB with all its tables",
        nothing,
        &["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", ">", "1T"],
        STREAM,
    ),
    heavy(
        "compare",
        "equal raw and qcow2, half full",
        pair,
        &["compare", "-f", "raw", "-F", "qcow2", "{}", "{}.qcow2"],
        HALF,
    ),
    heavy("check", "a fragmented qcow2", fragmented, &["check", "{}"], CHECK),
    heavy("map", "JSON of a fragmented qcow2", fragmented, &["map", "--output=json", "{}"], WALK),
    heavy("measure", "a fragmented qcow2", fragmented, &["measure", "-O", "qcow2", "{}"], HALF),
    heavy("bench", "75000 of 4 KiB written to raw", written_raw, &["bench", "-w", "-f", "raw", "{}"], REQUESTS),
    heavy("bench", "75000 of 4 KiB written to qcow2", written_qcow2, &["bench", "-w", "-f", "qcow2", "{}"], REQUESTS),
];

/// A folder for images, gone with this value.
pub struct Place {
    folder: PathBuf,
    qemu_img: PathBuf,
}

impl Place {
    /// The file that a row makes of an image: beside it.
    pub fn made(&self, image: &Path) -> PathBuf {
        image.with_file_name("made")
    }

    /// A file system whose files can share what they hold, as long as this value lives.
    fn xfs(&self) -> Result<PathBuf, String> {
        let (disk, folder) = (self.path("xfs.img"), self.path("xfs"));
        if !folder.exists() {
            let file = File::create(&disk).map_err(|e| e.to_string())?;
            file.set_len((data_mib() * 6).max(1024) << 20).map_err(|e| e.to_string())?;
            std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
            shell::output(Command::new("mkfs.xfs").args(["-q", "-f", "-m", "reflink=1"]).arg(&disk))?;
            shell::output(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&folder))?;
        }
        Ok(folder)
    }

    /// An empty one.
    pub fn new(qemu_img: &Path) -> Result<Place, String> {
        let folder = std::env::temp_dir().join(format!("instar-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Place { folder, qemu_img: qemu_img.to_owned() })
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// qemu-img, run in the folder.
    fn make(&self, arguments: &[&str]) -> Result<(), String> {
        shell::output(Command::new(&self.qemu_img).args(arguments).current_dir(&self.folder)).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.path("xfs").exists() {
            let _ = shell::output(Command::new("umount").arg(self.path("xfs")));
        }
        // What is left behind lies among the temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Bytes of data in large images; `INSTAR_BENCH_MIB` for others.
fn data_mib() -> u64 {
    std::env::var("INSTAR_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1024)
}

/// Every other piece of 2 MiB holds data that does not repeat itself.
fn half(place: &Place) -> Result<PathBuf, String> {
    const PIECE: u64 = 2 << 20;
    let path = place.path("half.raw");
    if path.exists() {
        return Ok(path);
    }
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()
    };
    let mut write = || -> std::io::Result<()> {
        let file = File::create(&path)?;
        let pieces = data_mib() / 2;
        file.set_len(pieces * 2 * PIECE)?;
        for piece in 0..pieces {
            let bytes: Vec<u8> = (0..PIECE / 8).flat_map(|_| next()).collect();
            file.write_all_at(&bytes, piece * 2 * PIECE)?;
        }
        // Nobody need be told that it is raw.
        file.write_all_at(&partitioned(), 0)
    };
    write().map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn half_qcow2(place: &Place) -> Result<PathBuf, String> {
    pair(place)?;
    Ok(place.path("half.raw.qcow2"))
}

/// The same content in two formats.
fn pair(place: &Place) -> Result<PathBuf, String> {
    let raw = half(place)?;
    if !place.path("half.raw.qcow2").exists() {
        place.make(&["convert", "-f", "raw", "-O", "qcow2", "half.raw", "half.raw.qcow2"])?;
    }
    Ok(raw)
}

/// What is written over: the first to come fills it.
fn written(place: &Place, format: &str) -> Result<PathBuf, String> {
    let path = place.path(&format!("written.{format}"));
    if !path.exists() {
        place.make(&["create", "-q", "-f", format, &path.to_string_lossy(), "512M"])?;
    }
    Ok(path)
}

fn written_raw(place: &Place) -> Result<PathBuf, String> {
    written(place, "raw")
}

fn written_qcow2(place: &Place) -> Result<PathBuf, String> {
    written(place, "qcow2")
}

/// A name for an image that a row does not need.
fn nothing(place: &Place) -> Result<PathBuf, String> {
    Ok(place.path("nothing"))
}

/// The same as elsewhere, where files can share what they hold.
fn half_on_xfs(place: &Place) -> Result<PathBuf, String> {
    on_xfs(place, pair(place)?)
}

fn half_qcow2_on_xfs(place: &Place) -> Result<PathBuf, String> {
    on_xfs(place, half_qcow2(place)?)
}

fn on_xfs(place: &Place, image: PathBuf) -> Result<PathBuf, String> {
    let copy = place.xfs()?.join(image.file_name().unwrap_or_default());
    if !copy.exists() {
        shell::output(Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy))?;
    }
    Ok(copy)
}

/// What a system is made of.
fn system(place: &Place) -> Result<PathBuf, String> {
    let raw = place.path("system.raw");
    if !raw.exists() {
        let mut bytes = Vec::new();
        let mut folders = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/bin")];
        while let Some(folder) = folders.pop().filter(|_| (bytes.len() as u64) < data_mib() << 18) {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => bytes.extend(std::fs::read(entry.path()).unwrap_or_default()),
                    _ => {}
                }
            }
        }
        bytes.truncate(usize::try_from(data_mib() << 18).unwrap_or(usize::MAX) / 512 * 512);
        std::fs::write(&raw, bytes).map_err(|e| e.to_string())?;
    }
    Ok(raw)
}

/// The same, compressed.
fn packed(place: &Place, name: &str, kind: &str) -> Result<PathBuf, String> {
    system(place)?;
    let option = format!("compression_type={kind}");
    place.make(&["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &option, "system.raw", name])?;
    Ok(place.path(name))
}

fn packed_zlib(place: &Place) -> Result<PathBuf, String> {
    packed(place, "zlib.qcow2", "zlib")
}

fn packed_zstd(place: &Place) -> Result<PathBuf, String> {
    packed(place, "zstd.qcow2", "zstd")
}

/// 1 TiB whose clusters lie all over the file.
fn fragmented(place: &Place) -> Result<PathBuf, String> {
    let path = place.path("fragmented.qcow2");
    let image = instar_testkit::build::fragmented::Fragmented { cluster_bits: 21, clusters: 1 << 19, spread: 1 << 19 };
    image.write(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn snapshot(place: &Place) -> Result<PathBuf, String> {
    place.make(&["create", "-q", "-f", "qcow2", "snapshot.qcow2", "10G"])?;
    place.make(&["snapshot", "-c", "one", "snapshot.qcow2"])?;
    Ok(place.path("snapshot.qcow2"))
}

/// qcow2 down to the base: nothing in it is a matter of probing rules.
fn chain(place: &Place) -> Result<PathBuf, String> {
    place.make(&["create", "-q", "-f", "qcow2", "layer1.qcow2", "1G"])?;
    for layer in 2..=20 {
        let (below, name) = (format!("layer{}.qcow2", layer - 1), format!("layer{layer}.qcow2"));
        place.make(&["create", "-q", "-f", "qcow2", "-b", &below, "-F", "qcow2", &name])?;
    }
    Ok(place.path("layer20.qcow2"))
}

fn vmdk(place: &Place) -> Result<PathBuf, String> {
    place.make(&["create", "-q", "-f", "vmdk", "disk.vmdk", "10G"])?;
    Ok(place.path("disk.vmdk"))
}

/// With one partition, so that nobody need be told that it is raw.
fn mbr(place: &Place) -> Result<PathBuf, String> {
    let path = place.path("disk.raw");
    let write = || std::fs::write(&path, partitioned()).and_then(|()| File::options().write(true).open(&path));
    write().and_then(|file| file.set_len(2 << 20)).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// The first sector of a disk with one partition.
fn partitioned() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&2048_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}
