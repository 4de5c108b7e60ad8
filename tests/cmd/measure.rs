//! `measure`, held against the real program.

use crate::against::{against, exact};
use crate::material::make;
use instar_testkit::place::Scratch;
use instar_tests::report::Report;

const MEASURE: &[&str] = &[
    "disk.qcow2",
    "-O qcow2 disk.qcow2",
    "-O qcow2 unmarked.qcow2",
    "-O qcow2 --output=json overlay.qcow2",
    "-O qcow2 -f raw disk.raw",
    "-O qcow2 -o cluster_size=512 disk.qcow2",
    "-O qcow2 -o extended_l2=on,cluster_size=128k disk.qcow2",
    "-O qcow2 -o preallocation=metadata disk.qcow2",
    "-O raw --size 1G",
    "-O qcow2 --size 1T",
    "-O qcow2 --output=json --size 0",
    "-O qcow2 -l one snap.qcow2",
    "-O qcow2 -l nosuch snap.qcow2",
    "-O nosuch --size 1G",
    "-O qcow2 nosuch",
];

#[test]
fn how_large_it_will_be_is_what_the_real_program_says() {
    let scratch = Scratch::new("measure");
    make(&scratch);
    let report = Report::new("cmd measure");
    against(&report, scratch.path(), "measure", MEASURE, exact, |_| true);
    report.end();
}
