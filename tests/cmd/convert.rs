//! `convert` to raw, held against the real program: words, exit codes and bytes.

use crate::against::making;
use crate::material::make;
use instar_testkit::place::Scratch;
use instar_tests::report::Report;

const CONVERT: &[&str] = &[
    "-O raw disk.qcow2 >",
    "-O raw unmarked.qcow2 disk.qcow2 >",
    "-f qcow2 -O raw disk.qcow2 >",
    "-f raw -O raw disk.raw >",
    "-f raw odd.raw >",
    "-f raw none.raw >",
    "-O raw disk.qcow2 disk.raw >",
    "-p -O raw disk.qcow2 >",
    "-p -q -O raw disk.qcow2 >",
    "-q -O raw disk.qcow2 >",
    "-S 0 -O raw disk.qcow2 >",
    "-S 64k -O raw disk.qcow2 >",
    "-S 512 -f raw -O raw disk.raw >",
    "-m 1 -O raw disk.qcow2 >",
    "-m 16 -W -O raw disk.qcow2 >",
    "-C -f raw -O raw disk.raw >",
    "-r 1G -O raw disk.qcow2 >",
    "-t none -T none -O raw disk.qcow2 >",
    "-t writethrough -O raw disk.qcow2 >",
    "-U -O raw disk.qcow2 >",
    "--salvage -O raw disk.qcow2 >",
    "-l one -O raw snap.qcow2 >",
    "-l 1 -O raw snap.qcow2 >",
    "-l snapshot.name=one -O raw snap.qcow2 >",
    "-l snapshot.id=1,snapshot.name=one -O raw snap.qcow2 >",
    "-l nosuch -O raw snap.qcow2 >",
    "-l one -O raw snap.qcow2 disk.qcow2 >",
    "-o preallocation=falloc -O raw disk.qcow2 >",
    "-o preallocation=full -O raw disk.qcow2 >",
    "-o size=5M -O raw disk.qcow2 >",
    "-o nocow=on -O raw disk.qcow2 >",
    "-o extent_size_hint=1M -O raw disk.qcow2 >",
    "-O raw nosuch >",
    "-f qcow2 -O raw disk.raw >",
    "-O raw orphan.qcow2 >",
    "-O raw overlay.qcow2 >",
    "-O raw packed.qcow2 >",
    "-O raw disk.vmdk >",
    "-O nosuch disk.qcow2 >",
    "-O raw disk.qcow2 nosuch/made",
    "--image-opts -O raw driver=raw,file.filename=disk.raw,offset=1024,size=4096 >",
    "-c -O raw disk.qcow2 >",
];

const CONVERT_OVER: &[&str] = &[
    "-n -O raw disk.qcow2 >",
    "-n -f raw -O raw disk.raw >",
    "-n -t none -O raw disk.qcow2 >",
    "-n --target-image-opts disk.qcow2 driver=raw,file.filename=made",
];

#[test]
fn what_is_converted_is_what_the_real_program_makes_of_it() {
    let scratch = Scratch::new("convert");
    make(&scratch);
    let report = Report::new("cmd convert");
    making(&report, scratch.path(), "convert", CONVERT, None, |_| true);
    making(&report, scratch.path(), "convert", CONVERT_OVER, Some(&vec![0xaa; 4 << 20]), |_| true);
    making(&report, scratch.path(), "convert", &CONVERT_OVER[..2], Some(&vec![0xaa; 1 << 20]), |_| true);
    report.end();
}
