//! `map`, held against the real program.

use crate::against::{against, exact};
use crate::material::make;
use instar_testkit::oracle::maker;
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

#[test]
fn zeroes_at_the_beginning_of_a_data_file_are_what_the_real_program_says() {
    let scratch = Scratch::new("map-data");
    let report = Report::new("cmd map data");
    for extended in ["off", "on"] {
        let options = format!("data_file=data-{extended},extended_l2={extended}");
        let name = format!("{extended}.qcow2");
        let img = maker().img().folder(scratch.path());
        img.args(["create", "-q", "-f", "qcow2", "-o", &options, &name, "1M"]).must();
        let io = maker().io().folder(scratch.path());
        io.args(["-c", "write -P 1 0 256k", "-c", "write -z 0 128k", &name]).must();
    }
    let lines = ["--output=json off.qcow2", "--output=json on.qcow2", "off.qcow2", "on.qcow2"];
    against(&report, scratch.path(), "map", &lines, exact, |_| true);
    report.end();
}
