//! Disks to be read in many ways.

use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use std::fs;

/// Makes them all in a folder.
pub fn make(scratch: &Scratch) {
    let folder = scratch.path();
    let img = |words: &[&str]| {
        maker().img().folder(folder).args(words).must();
    };
    let io = |name: &str, commands: &[&str]| {
        let run = commands.iter().fold(maker().io().folder(folder), |run, command| run.args(["-c", command]));
        run.arg(name).must();
    };
    let bytes: Vec<u8> = (0..1_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 22) as u8).collect();
    let holes = [&bytes[..300_032], &[0; 1 << 20], &bytes[..700_416]].concat();
    fs::write(folder.join("disk.raw"), &holes).expect("a disk");
    fs::write(folder.join("odd.raw"), &bytes[..12345]).expect("a disk");
    fs::write(folder.join("none.raw"), b"").expect("a disk");
    for name in ["disk.qcow2", "snap.qcow2"] {
        img(&["create", "-q", "-f", "qcow2", name, "3M"]);
        io(name, &["write -P 5 0 100k", "write -z 64k 64k", "write -P 6 1M 300k", "write -P 0 2M 64k"]);
    }
    img(&["snapshot", "-c", "one", "snap.qcow2"]);
    io("snap.qcow2", &["write -P 9 0 1M"]);
    img(&["create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", "overlay.qcow2", "4M"]);
    io("overlay.qcow2", &["write -P 7 50k 30k", "write -z 1M 64k"]);
    img(&["create", "-q", "-f", "qcow2", "-u", "-b", "missing.raw", "-F", "raw", "orphan.qcow2", "1M"]);
    img(&["convert", "-c", "-O", "qcow2", "disk.qcow2", "packed.qcow2"]);
    img(&["create", "-q", "-f", "qcow2", "unmarked.qcow2", "1M"]);
    img(&["bitmap", "--add", "unmarked.qcow2", "marks"]);
    let path = folder.join("unmarked.qcow2");
    let mut unmarked = fs::read(&path).expect("an image");
    // Somebody who knows no bitmaps has written to it.
    unmarked[95] = 0;
    fs::write(path, unmarked).expect("an image");
    img(&["convert", "-O", "vmdk", "disk.qcow2", "disk.vmdk"]);
}
