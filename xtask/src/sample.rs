//! A first look: the program as it ships, and an image made by hand, so that nothing else need be installed.

use crate::{Done, shell, testing};

const CLUSTER: usize = 0x1_0000;

/// The task: `cargo xtask sample`.
pub fn run(_: &[String]) -> Done {
    testing::build()?;
    let folder = shell::root().join(shell::target_dir()).join("sample");
    let image = folder.join("disk.qcow2");
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&image, qcow2()));
    written.map_err(|e| format!("{}: {e}", image.display()))?;
    println!("$ instar info {}", image.display());
    shell::run(shell::program(testing::shipped()).arg("info").arg(&image))
}

/// An empty qcow2 of version 3 and 1 GiB: header, reference table, one block of reference counts, first-level table.
fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes()); // cluster bits
    put(24, &(1_u64 << 30).to_be_bytes());
    put(36, &2_u32.to_be_bytes()); // first-level entries, 512 MiB each
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes()); // clusters of the reference table
    put(96, &4_u32.to_be_bytes()); // counts of 16 bits
    put(100, &104_u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    image
}
