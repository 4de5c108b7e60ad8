//! Tests of LUKS containers that are made longer and shorter.

use crate::luks::Luks;
use instar_image::{Fact, Format, Options, Preallocation, Secret};
use instar_testkit::crash::MemFiles;
use instar_testkit::folder::Folder;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::resized::Stack;
use instar_testkit::workshop::Order;

#[test]
fn containers_are_as_long_as_qemu_img_makes_them() {
    let scratch = Scratch::new("luks-resized");
    let key = Some(Secret(b"open".to_vec()));
    let options = Fact::fields([("key-secret", "key".into()), ("iter-time", 1u64.into())]);
    let order = Order { options, key: key.clone(), ..Order::plain(&Luks, 50_176) };
    order.create(&Folder::new(scratch.path()), "a.luks").unwrap();
    let files = MemFiles::load(scratch.path(), &["a.luks"]);
    let formats: &[&dyn Format] = &[&Luks];
    // What is new is what zeroes decrypt to.
    let mut disk =
        Stack { options: Options { key, ..Options::default() }, is_noisy: true, ..Stack::new(files, formats) };
    for size in ["66048", "30208", "30209"] {
        let words = ["resize", "-q", "--shrink", "--object", "secret,id=key,data=open", "--image-opts"];
        let image = "driver=luks,key-secret=key,file.filename=a.luks";
        maker().img().folder(scratch.path()).args(words).args([image, size]).must();
        disk.resize(size.parse().unwrap(), Preallocation::Off).unwrap();
        let theirs = MemFiles::load(scratch.path(), &["a.luks"]);
        let file = disk.files.named(b"a.luks").unwrap();
        assert!(disk.files.bytes(file) == theirs.bytes(file), "{size}");
    }
}
