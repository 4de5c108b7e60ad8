//! `dd`, held against every version of the real program, and what only instar does.

use crate::copies::{Shelf, compare};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use std::fs;

const LINES: &[&str] = &[
    "if=a.raw of=o",
    "-f raw -O raw if=a.raw of=o",
    "if=d.qcow2 of=o",
    "if=a.raw of=o bs=1M",
    "if=a.raw of=o bs=1M count=1",
    "if=a.raw of=o bs=1M skip=1 count=1",
    "if=a.raw of=o bs=1000 count=3",
    "if=a.raw of=o bs=1000 skip=1",
    "if=a.raw of=o bs=1000 skip=70 count=5",
    "if=a.raw of=o bs=7 count=100 skip=3",
    "if=a.raw of=o bs=1M skip=3",
    "if=a.raw of=o bs=1M skip=30",
    "if=a.raw of=o bs=1M skip=2 count=30",
    "if=a.raw of=o count=0",
    "if=a.raw of=o skip=0",
    "if=a.raw of=o count=-1",
    "if=a.raw of=o count=abc",
    "if=a.raw of=o skip=1k count=1k",
    "if=a.raw of=o bs=0",
    "if=a.raw of=o bs=2G",
    "if=a.raw of=o bs=2147483647",
    "if=a.raw of=o bs=1G",
    "if=a.raw of=o count=9223372036854775807",
    "if=a.raw of=o bs=1M count=9223372036854775807",
    "if=a.raw of=o bs=1M skip=9223372036854775807",
    "if=a.raw of=o bs=1M skip=9007199254740991 count=1",
    "if=a.raw of=o bs=1M skip=8796093022207 count=1",
    "if=odd.raw of=o -f raw",
    "-f raw if=odd.raw of=o",
    "-f raw if=odd.raw of=o bs=100",
    "-f raw if=odd.raw of=o bs=100 skip=2 count=3",
    "-f raw if=odd.raw of=o bs=100 skip=10",
    "-f raw if=odd.raw of=o bs=512 skip=1",
    "-f raw if=one.raw of=o",
    "-f raw if=odd2.raw of=o bs=4096",
    "-f raw if=empty.raw of=o",
    "-f raw if=zero.raw of=o",
    "-f raw if=hole.raw of=o",
    "if=a.raw of=big.raw",
    "if=a.raw of=small.raw",
    "if=a.raw of=big.raw count=1 bs=1M",
    "if=a.raw of=hard1",
    "if=b.raw of=link.raw",
    "if=a.raw of=dangling",
    "if=a.raw of=dir",
    "if=a.raw of=fifo",
    "if=dir of=o",
    "if=a.raw of=no/such/o",
    "if=nope of=o",
    "if=nope of=no/such/o",
    "if=top.qcow2 of=o",
    "-O nosuch if=a.raw of=o",
    "-O nosuch if=nope of=o",
    "-O bochs if=a.raw of=o",
    "-O bochs if=nope of=o",
    "-O file if=a.raw of=o",
    "-O host_device if=a.raw of=o",
    "-O file if=a.raw of=big.raw",
    "-f nosuch if=a.raw of=o",
    "-f qcow2 if=a.raw of=o",
    "--image-opts if=driver=raw,file.filename=a.raw of=o",
    "--image-opts if=driver=raw,file.filename=a.raw of=driver=raw,file.filename=o",
    "--image-opts -f raw if=driver=raw,file.filename=a.raw of=o",
    "--image-opts if=driver=raw,offset=4096,size=8192,file.filename=a.raw of=o",
    "--image-opts if=driver=qcow2,file.filename=d.qcow2 of=o",
    r#"if=json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}} of=o"#,
    "if=a.raw of=-",
    "if=a.raw of=/dev/stdout",
    "if=a.raw of=/dev/null",
    "if=a.raw",
    "of=o",
    "if=a.raw of=o foo=1",
    "if=a.raw of=o isize=1",
    "if=a.raw of=o osize=1",
    "if=a.raw of=o seek=1",
    "if=a.raw of=o conv=notrunc",
    "if=a.raw of=o word",
    "-n if=a.raw of=big.raw",
    "-l s1 if=snap.qcow2 of=o",
    "if=a.raw if=b.raw of=o of=p",
    "if=a.raw of=o bs=1M bs=2M count=1",
    "if= of=o",
    "if=a.raw of=",
    "--object secret,id=s,data=abc --image-opts if=driver=qcow2,encrypt.key-secret=s,file.filename=enc.qcow2 of=o",
    "if=enc.qcow2 of=o",
    "if=miss.qcow2 of=o",
    "if=badfmt.qcow2 of=o",
    "if=trunc.qcow2 of=o",
    "if=d.vmdk of=o",
    "if=d.vpc of=o",
    "if=empty.qcow2 of=o",
    "-O raw if=d.luks of=o",
    "if=/dev/null of=o",
    "if=/dev/zero of=o count=1",
    "-p if=a.raw of=o",
    "-t none if=a.raw of=o",
    "-U if=a.raw of=o",
    "if=odd2.raw -f raw of=/dev/full",
    "-O host_device if=a.raw of=nope",
];

#[test]
fn what_is_said_and_what_is_written_is_the_same() {
    compare("cmd dd files", "dd", LINES);
}

/// A run of the native face from a shell line in which `"$@"` is the program.
fn shell(shelf: &Shelf, cell: Cell, line: &str) -> (String, End) {
    let run = program().native(cell).folder(shelf.path()).in_shell(line);
    let ran = run.go();
    (ran.err(), ran.end)
}

#[test]
fn streams_and_the_operands_of_proxmox() {
    let done = (String::new(), End::Code(0));
    let fails = |words: &str| (format!("instar: {words}\n"), End::Code(1));
    for cell in Cell::all() {
        let shelf = Shelf::new();
        let ask = |line: &str| shell(&shelf, *cell, line);
        let read = |name: &str| fs::read(shelf.path().join(name)).expect("a file");
        let (a, small) = (read("a.raw"), read("small.raw"));
        assert_eq!(ask(r#"cat a.raw | "$@" dd -f raw of=o1"#), done);
        assert_eq!(ask(r#""$@" dd -f raw if=a.raw | cat > o2"#), done);
        assert_eq!(ask(r#"(printf head; "$@" dd -f raw if=a.raw of=-; printf tail) > o3"#), done);
        assert_eq!(ask(r#"cat a.raw | "$@" dd -f raw bs=1M skip=1 count=2 if=- > o4"#), done);
        let same = |name: &str, want: &[u8]| {
            let got = read(name);
            let first = got.iter().zip(want).position(|(a, b)| a != b);
            assert_eq!((got.len(), first), (want.len(), None), "{name}, {}", cell.name());
        };
        same("o1", &a);
        same("o2", &a);
        same("o3", &[b"head", &a[..], b"tail"].concat());
        assert!(read("o4") == a[1 << 20..2 << 20]);
        assert_eq!(ask(r#""$@" dd -f raw if=small.raw of=o5 osize=1M"#), done);
        assert_eq!(ask(r#"cat small.raw | "$@" dd -f raw of=o6 osize=1M isize=65536"#), done);
        assert_eq!(ask(r#""$@" dd -f raw if=small.raw osize=1M > o7"#), done);
        let padded = [&small[..], &vec![0; (1 << 20) - small.len()]].concat();
        assert!(["o5", "o6", "o7"].into_iter().all(|name| read(name) == padded));
        assert_eq!(ask(r#"cat small.raw | "$@" dd -f raw of=o8 osize=1M"#), fails("Input ended unexpectedly"));
        assert_eq!(ask(r#"cat small.raw | "$@" dd -f raw of=o8 isize=65537"#), fails("Input ended unexpectedly"));
        assert!(!shelf.path().join("o8").exists());
        assert_eq!(ask(r#""$@" dd -f raw if=small.raw of=o9 bs=4k seek=3"#), done);
        assert!(read("o9") == [&[0; 12288], &small[..]].concat());
        let mut big = read("big.raw");
        assert_eq!(ask(r#""$@" dd -n -f raw if=small.raw of=big.raw bs=64k seek=2"#), done);
        big[2 << 16..3 << 16].copy_from_slice(&small);
        assert!(read("big.raw") == big);
        let smaller = fails("output file is smaller than input file");
        assert_eq!(ask(r#""$@" dd -n -f raw if=big.raw of=small.raw"#), smaller);
        assert_eq!(ask(r#""$@" dd -n -f raw if=small.raw of=small2.raw seek=1"#).1, End::Code(1));
        assert_eq!(ask(r#""$@" dd -l s1 if=snap.qcow2 of=o10"#), done);
        assert!(read("o10")[..100_000].iter().all(|byte| *byte == 1));
        let unknown = "no known image format and no partition table: say -f raw if this is a raw disk";
        assert_eq!(ask(r#""$@" dd if=zero.raw of=o11"#), fails(&format!("Could not open 'zero.raw': {unknown}")));
        assert_eq!(ask(r#"cat zero.raw | "$@" dd"#), fails(&format!("Could not open '/dev/stdin': {unknown}")));
        assert_eq!(ask(r#""$@" dd -f raw seek=1 if=a.raw"#), fails("nothing of standard output can be passed over"));
        let full = fails("error while writing to output image file: No space left on device");
        assert_eq!(ask(r#""$@" dd -f raw if=a.raw > /dev/full"#), full);
    }
}

#[test]
fn the_native_answer_is_json_as_well() {
    for cell in Cell::all() {
        let shelf = Shelf::new();
        let words = ["dd", "--output=json", "-f", "raw", "if=odd.raw", "of=o"];
        let ran = program().native(*cell).folder(shelf.path()).args(words).must();
        let want = "{\n    \"filename\": \"o\",\n    \"format\": \"raw\",\n    \"source\": \"odd.raw\",\n    \
                    \"bytes_copied\": 1024,\n    \"file_size_after\": 1024\n}\n";
        assert_eq!(ran.out(), want);
    }
}
