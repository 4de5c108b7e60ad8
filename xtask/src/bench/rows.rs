//! What is asked: one row for each question and image. A new verb adds its rows here.

use crate::shell;
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
    /// At most so many times qemu-img's median, by contender.
    pub targets: &'static [(&'static str, f64)],
}

const BOTH: &[(&str, f64)] = &[("process", 0.6), ("kvm", 0.8)];
const PROCESS: &[(&str, f64)] = &[("process", 0.6)];

/// All questions.
pub const ROWS: &[Row] = &[
    Row { verb: "info", name: "qcow2 with 1 snapshot", image: snapshot, arguments: &["info", "{}"], targets: BOTH },
    Row {
        verb: "info",
        name: "qcow2 with 1 snapshot, JSON",
        image: snapshot,
        arguments: &["info", "--output=json", "{}"],
        targets: BOTH,
    },
    Row {
        verb: "info",
        name: "--backing-chain over 20 layers",
        image: chain,
        arguments: &["info", "--backing-chain", "{}"],
        targets: PROCESS,
    },
    Row { verb: "info", name: "vmdk", image: vmdk, arguments: &["info", "{}"], targets: BOTH },
    Row { verb: "info", name: "raw with MBR", image: mbr, arguments: &["info", "{}"], targets: BOTH },
];

/// A folder for images, gone with this value.
pub struct Place {
    folder: PathBuf,
    qemu_img: PathBuf,
}

impl Place {
    /// An empty one.
    pub fn new(qemu_img: &Path) -> Result<Place, String> {
        let folder = std::env::temp_dir().join(format!("instar-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Place { folder, qemu_img: qemu_img.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// qemu-img, run in the folder.
    fn make(&self, arguments: &[&str]) -> Result<(), String> {
        shell::output(Command::new(&self.qemu_img).args(arguments).current_dir(&self.folder)).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left behind lies among the temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
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
    let mut disk = vec![0; 2 << 20];
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    disk[458..462].copy_from_slice(&2048_u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = place.path("disk.raw");
    std::fs::write(&path, disk).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
