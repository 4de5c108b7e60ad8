//! `map`, held against the real program.

use crate::against::{against, exact};
use crate::material::make;
use instar_testkit::place::Scratch;
use instar_tests::report::Report;

const MAP: &[&str] = &[
    "disk.qcow2",
    "--output=json disk.qcow2",
    "--output=json overlay.qcow2",
    "overlay.qcow2",
    "--output=json -f raw odd.raw",
    "-f raw disk.raw",
    "--output=json -s 64k -l 1M disk.qcow2",
    "--output=json --start-offset=100 --max-length=70000 disk.qcow2",
    "--output=json packed.qcow2",
    "--output=json snap.qcow2",
    "--output=json none.raw",
    "orphan.qcow2",
    "unmarked.qcow2",
    "nosuch",
    "-U --output=json disk.vmdk",
];

#[test]
fn what_lies_where_is_what_the_real_program_says() {
    let scratch = Scratch::new("map");
    make(&scratch);
    let report = Report::new("cmd map");
    against(&report, scratch.path(), "map", MAP, exact, |_| true);
    report.end();
}
