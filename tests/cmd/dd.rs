//! `dd` to raw, held against the real program: words, exit codes and bytes.

use crate::against::making;
use crate::material::make;
use instar_testkit::place::Scratch;
use instar_tests::report::Report;

const DD: &[&str] = &[
    "-O raw if=disk.qcow2 of=>",
    "-f raw -O raw if=disk.raw of=> bs=1M",
    "-f raw -O raw if=disk.raw of=> bs=1000 count=3",
    "-f raw -O raw if=disk.raw of=> bs=512 skip=2 count=9",
    "-O raw if=disk.qcow2 of=> bs=64k skip=3",
    "-O raw if=disk.qcow2 of=> count=0",
    "-f raw -O raw if=odd.raw of=>",
    "-O raw if=nosuch of=>",
    "-U -O raw if=disk.qcow2 of=>",
];

#[test]
fn blocks_are_copied_as_the_real_program_copies_them() {
    let scratch = Scratch::new("dd");
    make(&scratch);
    let report = Report::new("cmd dd");
    making(&report, scratch.path(), "dd", DD, None, |_| true);
    report.end();
}
