//! `convert` to raw, held against every version of the real program.

use crate::copies::{Shelf, compare};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const LINES: &[&str] = &[
    "-O raw a.raw o",
    "a.raw o",
    "-p -q -O raw d.qcow2 o",
    "-O raw c.qcow2 o",
    "-O raw top.qcow2 o",
    "-O raw a.raw b.raw o",
    "-O raw a.raw odd.raw b.raw o",
    "-O raw odd2.raw odd.raw b.raw o",
    "-O raw -f raw odd.raw o",
    "-O raw -f raw empty.raw o",
    "-p -O raw -f raw empty.raw o",
    "-p -O raw -f raw one.raw o",
    "-p -O raw -f raw hole.raw o",
    "-O raw nope o",
    "-O raw nope no/such/o",
    "-O raw a.raw nope o",
    "-O raw nope a.raw o",
    "-O raw a.raw no/such/o",
    "-O raw a.raw dir",
    "-O raw dir o",
    "-O raw a.raw fifo",
    "-O raw b.raw link.raw",
    "-O raw a.raw dangling",
    "-O raw a.raw hard1",
    "-O raw a.raw big.raw",
    "-O raw a.raw small.raw",
    "-n -O raw a.raw big.raw",
    "-n -O raw a.raw small.raw",
    "-n -O raw a.raw o",
    "-n -O raw small.raw d.qcow2",
    "-n -O raw a.raw odd.raw",
    "-n -O raw odd.raw one.raw",
    "-n -O nosuch a.raw big.raw",
    "-n -O bochs a.raw big.raw",
    "-n -O file a.raw big.raw",
    "-O file a.raw o",
    "-O host_device a.raw o",
    "-n --target-is-zero -O raw a.raw hole.raw",
    "-n --target-is-zero -O raw a.raw big.raw",
    "-S 0 -O raw a.raw o",
    "-S 512 -O raw a.raw o",
    "-S 1k -O raw a.raw o",
    "-S 64k -O raw a.raw o",
    "-S 16M -O raw a.raw o",
    "-S 513 -O raw a.raw o",
    "-S 17M -O raw a.raw o",
    "-S -1 -O raw a.raw o",
    "-S abc -O raw a.raw o",
    "-n -S 0 -O raw a.raw big.raw",
    "-n -S 64k -O raw a.raw big.raw",
    "-n --target-is-zero -S 0 -O raw a.raw big.raw",
    "-m 1 -O raw a.raw o",
    "-m 16 -W -O raw a.raw o",
    "-m 0 -O raw a.raw o",
    "-m 17 -O raw a.raw o",
    "-C -O raw a.raw o",
    "-r 100M -O raw a.raw o",
    "-r 0 -O raw a.raw o",
    "-t none -O raw a.raw o",
    "-t writethrough -O raw a.raw o",
    "-t directsync -O raw a.raw o",
    "-t unsafe -O raw a.raw o",
    "-t writeback -O raw a.raw o",
    "-t off -O raw a.raw o",
    "-T none -O raw a.raw o",
    "-T directsync -O raw a.raw o",
    "-T bad -O raw a.raw o",
    "-t none -O raw odd2.raw o",
    "-T none -t none -O raw odd2.raw o",
    "-n -t none -O raw odd2.raw big.raw",
    "-c -O raw a.raw o",
    "-c -n -O raw a.raw big.raw",
    "-B base.raw -O raw a.raw o",
    "-B base.raw -F raw -O raw a.raw o",
    "-B nope -F raw -O raw a.raw o",
    "-F raw -O raw a.raw o",
    "-n -B base.raw -O raw a.raw big.raw",
    "-o backing_file=base.raw -O raw a.raw o",
    "--bitmaps -O raw a.raw o",
    "--bitmaps -n -O raw d.qcow2 big.raw",
    "--bitmaps -O raw d.qcow2 d.qcow2 o",
    "--skip-broken-bitmaps -O raw d.qcow2 o",
    "--salvage -O raw d.qcow2 o",
    "--salvage -S 4k -O raw d.qcow2 o",
    "-U -O raw d.qcow2 o",
    "-O nosuch a.raw o",
    "-O nosuch nope o",
    "-O bochs a.raw o",
    "-O bochs nope o",
    "-l nosuch -O raw snap.qcow2 o",
    "-l s1 -O raw snap.qcow2 o",
    "-l 1 -O raw snap.qcow2 o",
    "-l 2 -O raw snap.qcow2 o",
    "-l 3 -O raw snap.qcow2 o",
    "-l snapshot.id=1 -O raw snap.qcow2 o",
    "-l snapshot.id=3 -O raw snap.qcow2 o",
    "-l snapshot.name=1 -O raw snap.qcow2 o",
    "-l snapshot.name=s2 -O raw snap.qcow2 o",
    "-l snapshot.id=1,snapshot.name=s1 -O raw snap.qcow2 o",
    "-l snapshot.id=1,snapshot.name=s2 -O raw snap.qcow2 o",
    "-l snapshot.id=9 -O raw snap.qcow2 o",
    "-l snapshot. -O raw snap.qcow2 o",
    "-l snapshot.id -O raw snap.qcow2 o",
    "-l snapshot.name -O raw snap.qcow2 o",
    "-l snapshot.foo=1 -O raw snap.qcow2 o",
    "-l id=1 -O raw snap.qcow2 o",
    "-l snapshot.id= -O raw snap.qcow2 o",
    "-l s1 -O raw a.raw o",
    "-l s1 -O raw d.vmdk o",
    "-l s1 -O raw snap.qcow2 a.raw o",
    "-l s1 -l s2 -O raw snap.qcow2 o",
    "-l nosuch -O raw snap.qcow2 no/such/o",
    "-l nosuch -O nosuch snap.qcow2 o",
    "-l s1 -O raw nope o",
    "-l snapshot.id=1 -O raw a.raw o",
    "-O raw miss.qcow2 o",
    "-O raw badfmt.qcow2 o",
    "-O raw enc.qcow2 o",
    "-O raw d.luks o",
    "-O raw empty.qcow2 o",
    "-p -O raw empty.qcow2 o",
    "-O raw trunc.qcow2 o",
    "-O raw d.vmdk o",
    "-O raw d.vpc o",
    "-f raw -O raw d.qcow2 o",
    "-f qcow2 -O raw a.raw o",
    "-f nosuch -O raw a.raw o",
    "-f vmdk -O raw a.raw o",
    "-f qcow2 -O raw a.raw b.raw o",
    "-f qcow2 -O raw d.qcow2 b.raw o",
    "--image-opts -O raw driver=raw,file.filename=a.raw o",
    "--image-opts -O raw driver=raw,offset=512,size=1024,file.filename=a.raw o",
    "--image-opts -O raw driver=raw,offset=512,size=1000,file.filename=a.raw o",
    "--image-opts -O raw driver=raw,offset=500,size=1024,file.filename=a.raw o",
    "--image-opts -O raw driver=raw,offset=3145728,file.filename=a.raw o",
    "--image-opts -O raw driver=raw,offset=3145729,file.filename=a.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing= o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.filename=nope o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.filename=base.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2,backing.file.filename=mid.qcow2 o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.driver=raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.file.filename=base.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.backing.filename=small.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.file.driver=file,backing.file.filename=base.raw,backing.driver=raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.offset=512,backing.file.filename=base.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing=nodename o",
    "--image-opts -O raw driver=qcow2,file.filename=d.qcow2,backing.driver=raw,backing.file.filename=base.raw o",
    "--image-opts -O raw driver=qcow2,file.filename=d.qcow2,backing= o",
    "--image-opts -O raw driver=raw,file.filename=a.raw,backing= o",
    "--image-opts -O raw driver=raw,file.filename=a.raw,nosuch=1 o",
    "--image-opts -O raw driver=qcow2,file.filename=d.qcow2,nosuch=1 o",
    "--image-opts -O raw driver=qcow2,file.filename=top.qcow2,backing.nosuch=1 o",
    r#"-O raw json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"top.qcow2"}} o"#,
    r#"-O raw json:{"driver":"qcow2","backing":{"driver":"raw","file":{"driver":"file","filename":"base.raw"}},"file":{"driver":"file","filename":"top.qcow2"}} o"#,
    r#"-O raw json:{"driver":"qcow2","backing":{"backing":null},"file":{"driver":"file","filename":"top.qcow2"}} o"#,
    r#"-O raw json:{"driver":"qcow2","backing":{"driver":"qcow2","backing":null,"file":{"filename":"mid.qcow2","driver":"file"}},"file":{"driver":"file","filename":"top.qcow2"}} o"#,
    r#"-O raw json:{"driver":"raw","offset":65536,"size":131072,"file":{"driver":"file","filename":"a.raw"}} o"#,
    r#"-O raw json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"miss.qcow2"}} o"#,
    r#"-O raw json:{"driver": o"#,
    "-O raw json:[] o",
    "--image-opts --target-image-opts -n driver=raw,file.filename=a.raw driver=raw,file.filename=big.raw",
    "--image-opts --target-image-opts -n driver=raw,file.filename=a.raw driver=raw,offset=4096,file.filename=big.raw",
    "--image-opts --target-image-opts -n driver=raw,file.filename=a.raw driver=raw,offset=4096,size=3M,file.filename=big.raw",
    "--image-opts --target-image-opts -n driver=raw,file.filename=a.raw driver=raw,offset=4096,size=1M,file.filename=big.raw",
    "--image-opts --target-image-opts -n driver=raw,file.filename=a.raw driver=raw,offset=6M,file.filename=big.raw",
    "--target-image-opts -n a.raw driver=raw,file.filename=nope",
    "--target-image-opts -n a.raw driver=nosuch,file.filename=big.raw",
    "--target-image-opts -n a.raw filename=big.raw",
    "--target-image-opts -n a.raw driver=file,filename=big.raw",
    "--target-image-opts -n a.raw driver=raw,file.filename=big.raw,nosuch=1",
    "--target-image-opts -n a.raw driver=raw,file.filename=big.raw,read-only=on",
    "--target-image-opts -n -O raw a.raw driver=raw,file.filename=big.raw",
    "--target-image-opts -n -O qcow2 a.raw driver=raw,file.filename=big.raw",
    "--target-image-opts -n -f raw a.raw driver=raw,file.filename=big.raw",
    "--target-image-opts a.raw driver=raw,file.filename=big.raw",
    "--target-image-opts -n a.raw driver=raw,file.filename=big.raw,file.locking=off",
    "--target-image-opts -n a.raw big.raw",
    "--target-image-opts -n -o preallocation=off a.raw driver=raw,file.filename=big.raw",
    "--target-image-opts -n -c a.raw driver=raw,file.filename=big.raw",
    "--target-image-opts -n --target-is-zero a.raw driver=raw,file.filename=hole.raw",
    "-O raw -o help a.raw o",
    "-O raw -o help",
    "-O raw -o ? a.raw o",
    "-O raw -o help,size=1 nope o",
    "-O nosuch -o help",
    "-O nosuch -o help nope o",
    "-O bochs -o help",
    "-O file -o help",
    "-O host_device -o help",
    "-o help",
    "-O raw -o help nope o",
    "-O raw -o help -n a.raw o",
    "-O raw -o nosuch=1 a.raw o",
    "-O raw -o nosuch a.raw o",
    "-O raw -o preallocation=off a.raw o",
    "-O raw -o preallocation=falloc a.raw o",
    "-O raw -o preallocation=full a.raw o",
    "-O raw -o preallocation=bad a.raw o",
    "-O raw -o preallocation a.raw o",
    "-O raw -o size=1M a.raw o",
    "-O raw -o size=10M a.raw o",
    "-O raw -o size=10M,size=1 a.raw o",
    "-O raw -o size=abc a.raw o",
    "-O raw -o size=-1 a.raw o",
    "-O raw -o nocow=on a.raw o",
    "-O raw -o nocow=off a.raw o",
    "-O raw -o nocow=abc a.raw o",
    "-O raw -o nocow a.raw o",
    "-O raw -o nonocow a.raw o",
    "-O raw -o extent_size_hint=1M a.raw o",
    "-O raw -o extent_size_hint=1000 a.raw o",
    "-O raw -o extent_size_hint=0 a.raw o",
    "-O raw -o extent_size_hint=abc a.raw o",
    "-O raw -o backing_fmt=raw a.raw o",
    "-O raw -o backing_file=nope,backing_fmt=raw a.raw o",
    "-O raw -o cluster_size=64k a.raw o",
    "-O raw -o preallocation=off -o preallocation=full a.raw o",
    "-O raw -o , a.raw o",
    "-O raw -o nosuch=1 nope o",
    "-O raw -o preallocation=bad nope o",
    "-O raw -o preallocation=off,,x a.raw o",
    "-O raw a.raw",
    "-O raw",
    "-O raw a.raw /dev/null",
    "-n -O raw a.raw /dev/null",
    "-O raw a.raw /dev/stdout",
    "-n -O raw a.raw fifo",
    "-n -O raw a.raw dir",
    "-n -O raw a.raw dangling",
    "-n -O raw b.raw link.raw",
    "-O raw a.raw file:o",
    "-O raw file:a.raw o",
    "-O raw a.raw json:{}",
    r#"-n -O raw a.raw json:{"driver":"raw","file":{"driver":"file","filename":"big.raw"}}"#,
    "-O raw /dev/null o",
    "-O raw /dev/zero o",
    "-O raw a.raw ./x:y",
    "-O raw a.raw x:y",
    "-O raw null-co:// o",
    "-n -B nope -O raw a.raw big.raw",
    "-n -F nosuch -O raw a.raw big.raw",
    "-n -B base.raw -F raw -O raw top.qcow2 big.raw",
    "-n -B mid.qcow2 -F qcow2 -O raw top.qcow2 big.raw",
    "-n -B nope -O raw top.qcow2 big.raw",
    "-B nope -O raw a.raw o",
    "-B base.raw -O raw a.raw b.raw o",
    "-n -B base.raw -O raw a.raw b.raw big.raw",
    "--object secret,id=s,data=abc --image-opts -O raw driver=luks,key-secret=s,file.filename=d.luks o",
    "--object secret,id=s,data=bad --image-opts -O raw driver=luks,key-secret=s,file.filename=d.luks o",
    "--object secret,id=s,data=abc --image-opts -O raw driver=luks,key-secret=t,file.filename=d.luks o",
    "--object secret,id=s,data=abc --image-opts -O raw driver=qcow2,encrypt.key-secret=s,file.filename=enc.qcow2 o",
    "--object secret,id=s,data=bad --image-opts -O raw driver=qcow2,encrypt.key-secret=s,file.filename=enc.qcow2 o",
    "--object secret,id=s,data=abc --image-opts -O raw driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=enc.qcow2 o",
    "--object secret,id=s,data=abc -O raw -f luks d.luks o",
    "-U -O raw --image-opts driver=raw,file.filename=a.raw,force-share=off o",
    "-C -S 4k -O raw a.raw o",
    "-C -n -O raw a.raw big.raw",
    "-W -n -O raw a.raw big.raw",
    "-r 1k -O raw odd.raw o",
    "-p -O raw zero.raw o",
    "-p -S 0 -O raw zero.raw o",
    "-p -n -O raw a.raw big.raw",
    "-p -O raw big.raw o",
    "-p -O raw a.raw no/such/o",
    "-p -O raw nope o",
    "-q -O raw nope o",
    "-p -C -O raw big.raw o",
    "--nosuch a.raw o",
    "if=odd2.raw -f raw -O raw a.raw /dev/full",
    "-O host_device a.raw big.raw",
    "-O raw a.raw /dev/full",
    "--bitmaps nope d.qcow2 o",
    "--bitmaps nope o",
    "--bitmaps -O raw d.qcow2 no/such/o",
    "--bitmaps -O raw d.vmdk o",
    "--bitmaps -n -O raw a.raw nope",
    "-O raw -o help x",
    "-O raw -F raw nope o",
    "-O raw -F nosuch a.raw o",
    "-O raw -o size=abc nope o",
    "-p -O raw -o size=abc nope o",
    "-p -O raw -o help nope o",
    "-p -O nosuch a.raw o",
    "-p -O raw a.raw b.raw nope o",
    "-p -T bad -O raw a.raw o",
    "-p -l x -O raw a.raw b.raw o",
    "-l x -O raw nope b.raw o",
    "-c -n --target-image-opts a.raw driver=raw,file.filename=nope",
    "-c -O raw nope o",
    "-B x -O raw nope o",
    "-O raw nope x:y",
    "-O raw -l s1 a.raw o",
    "-O raw -l nosuch snap.qcow2 o",
    "-O raw --image-opts driver=qcow2,file.filename=d.qcow2,backing.driver=raw o",
    "-O raw --image-opts driver=qcow2,file.filename=d.qcow2,backing.nosuch=1 o",
    "-O raw --image-opts driver=qcow2,file.filename=d.qcow2,backing=x o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=nosuch o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.file.filename=nope o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=nope o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw,backing.file.nosuch=1 o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw,backing.size=1 o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.backing.driver=raw,backing.backing.file.filename=small.raw o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.backing= o",
    "-O raw --image-opts driver=raw,file.filename=a.raw,backing.driver=raw o",
    "-O raw --image-opts driver=raw,file.filename=a.raw,backing=x o",
    "-O raw --image-opts driver=vmdk,file.filename=d.vmdk,backing= o",
    "-O raw --image-opts driver=qcow2,file.filename=top.qcow2,backing.file.filename=mid.qcow2 o",
];

#[test]
fn what_is_said_and_what_is_written_is_the_same() {
    compare("cmd convert files", "convert", LINES);
}

#[test]
fn an_image_is_never_written_over_itself_or_what_it_stands_upon() {
    let lines = [
        "-U a.raw a.raw",
        "a.raw link.raw",
        "-n a.raw a.raw",
        "-U -n a.raw link.raw",
        "top.qcow2 base.raw",
        "-n --target-image-opts top.qcow2 driver=raw,file.filename=base.raw",
    ];
    for line in lines {
        let shelf = Shelf::new();
        let before = shelf.state();
        for cell in Cell::all() {
            let run = program().quirky("10.0.2", *cell).folder(shelf.path()).arg("convert");
            let ran = run.args(line.split(' ')).go();
            assert_eq!(ran.end, End::Code(1), "{line}");
            assert!(ran.err().contains("Failed to get \"write\" lock"), "{line}: {}", ran.err());
        }
        assert_eq!(shelf.state(), before, "{line}");
    }
    // What is said of a device is what qemu-img says of one that another holds.
    let ran = program().quirky("10.0.2", Cell::Process).args(["convert", "-O", "raw", "/dev/null", "/dev/null"]).go();
    let about = "qemu-img: /dev/null: error while converting raw: Protocol driver 'host_device' does not support \
                 creating new images, so an existing image must be selected as the target; however, opening the given \
                 target as an existing image failed: Failed to get \"write\" lock\n";
    assert!(ran.err().starts_with(about), "{}", ran.err());
}

#[test]
fn a_failure_in_the_middle_leaves_what_stood_there() {
    const BROKEN: &str = r#"json:{"driver":"raw","file":{"driver":"blkdebug","inject-error":[{"event":"none","iotype":"read","sector":2060,"errno":5}],"image":{"driver":"file","filename":"a.raw"}}}"#;
    for cell in Cell::all() {
        let shelf = Shelf::new();
        let before = shelf.state();
        let run = program().native(*cell).folder(shelf.path()).args(["convert", "-f", "raw", "-O", "raw", BROKEN]);
        let run = |name: &str| run.clone().arg(name).go();
        for name in ["small.raw", "nothing"] {
            let ran = run(name);
            assert_eq!(ran.end, End::Code(1));
            let words = "Input/output error at offset 1048576 of 'a.raw'";
            assert_eq!(ran.err(), format!("instar: error while reading at byte 1048576: {words}\n"));
        }
        assert_eq!(shelf.state(), before);
    }
}

#[test]
fn a_replaced_file_keeps_its_mode_and_its_names() {
    for cell in Cell::all() {
        let shelf = Shelf::new();
        let path = |name: &str| shelf.path().join(name);
        fs::set_permissions(path("small.raw"), fs::Permissions::from_mode(0o640)).expect("a mode");
        let hard = fs::metadata(path("hard1")).expect("a file").ino();
        let convert = |to: &str| {
            let run =
                program().native(*cell).folder(shelf.path()).args(["convert", "-f", "raw", "-O", "raw", "base.raw"]);
            run.arg(to).must();
        };
        ["small.raw", "hard1", "dangling", "link.raw"].into_iter().for_each(convert);
        let same = |name: &str| fs::read(path(name)).expect("a file") == fs::read(path("base.raw")).expect("a file");
        assert!(["small.raw", "hard1", "hard2", "nowhere", "a.raw"].into_iter().all(same));
        assert_eq!(fs::metadata(path("small.raw")).expect("a file").mode() & 0o777, 0o640);
        // Others rely on a file with several names, so it stays the same one.
        assert_eq!(fs::metadata(path("hard1")).expect("a file").ino(), hard);
        assert!(fs::symlink_metadata(path("link.raw")).expect("a link").is_symlink());
        assert!(
            fs::read_dir(shelf.path())
                .expect("a folder")
                .flatten()
                .all(|e| !e.file_name().to_string_lossy().starts_with('.'))
        );
    }
}
