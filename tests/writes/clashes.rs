//! Targets that are something else already: the source, what lies below it, a folder. All stays as it was.

use crate::broken::{failed_well, state};
use crate::judge::{content, ours, put};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_tests::report::Report;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Each of these has to be refused.
const LINES: &[&str] = &[
    "convert -f raw -O qcow2 in.raw in.raw",
    "convert -f raw -O qcow2 in.raw ./in.raw",
    "convert -f raw -O vmdk in.raw link",
    "convert -f raw -O vdi in.raw hard",
    "convert -f raw -O vhdx link in.raw",
    "convert -f raw -O vpc hard in.raw",
    "convert -f qcow2 -O qcow2 top.qcow2 top.qcow2",
    "convert -c -f qcow2 -O qcow2 top.qcow2 mid.qcow2",
    "convert -f qcow2 -O raw top.qcow2 base.raw",
    "convert -f qcow2 -O qed top.qcow2 base.raw",
    "convert -f qcow2 -O qcow2 outside.qcow2 outside.data",
    "convert -f vmdk -O raw flat.vmdk flat-flat.vmdk",
    "convert -f vmdk -O vmdk -o subformat=monolithicFlat flat.vmdk flat.vmdk",
    "convert -n -f qcow2 -O qcow2 top.qcow2 top.qcow2",
    "convert -n -f qcow2 -O qcow2 top.qcow2 mid.qcow2",
    "convert -n -f qcow2 -O raw top.qcow2 base.raw",
    // The part of a new image is the source.
    "convert -f raw -O vmdk -o subformat=monolithicFlat new-flat.vmdk new.vmdk",
    "convert -f raw -O vmdk -o subformat=twoGbMaxExtentFlat new-f001.vmdk new.vmdk",
    "convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse new-s001.vmdk new.vmdk",
    "convert -f raw -O qcow2 -o data_file=in.raw in.raw new.qcow2",
    "convert -f raw -O qcow2 -o data_file=link in.raw new.qcow2",
    "convert -f qcow2 -O qcow2 -o data_file=base.raw top.qcow2 new.qcow2",
    "convert -f qcow2 -O vmdk -o subformat=monolithicFlat top.qcow2 other.vmdk",
    // A folder stands where a part should.
    "convert -f raw -O vmdk -o subformat=monolithicFlat in.raw dir.vmdk",
    "convert -f raw -O vmdk -o subformat=twoGbMaxExtentFlat in.raw dir.vmdk",
    "convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse in.raw dir.vmdk",
    "convert -f raw -O qcow2 -o data_file=folder in.raw new.qcow2",
    "convert -f raw -O qcow2 in.raw folder",
    "create -q -f vmdk -o subformat=monolithicFlat dir.vmdk 1M",
    "create -q -f vmdk -o subformat=twoGbMaxExtentSparse dir.vmdk 1M",
    "create -q -f qcow2 -o data_file=folder new.qcow2 1M",
    "create -q -f qcow2 folder 1M",
    // The parts are one file.
    "convert -f raw -O qcow2 -o data_file=new.qcow2 in.raw new.qcow2",
    "create -q -f qcow2 -o data_file=new.qcow2 new.qcow2 1M",
    // What is to be made stands on itself.
    "create -q -f qcow2 -b base.raw -F raw base.raw",
    "create -q -f qcow2 -b mid.qcow2 -F qcow2 base.raw",
    "convert -f raw -O qcow2 -B base.raw -F raw in.raw base.raw",
    // Somewhere that is nowhere.
    "convert -f raw -O qcow2 in.raw no/such/new.qcow2",
    "convert -f raw -O qcow2 -o data_file=no/such/data in.raw new.qcow2",
    "convert -f raw -O qcow2 -o data_file=in.raw/data in.raw new.qcow2",
    "create -q -f vdi no/such/new.vdi 1M",
];

fn furnish(folder: &Path) {
    let mut dice = Dice::new(5);
    for name in ["in.raw", "base.raw", "new-flat.vmdk", "new-f001.vmdk", "new-s001.vmdk", "former-flat.vmdk"] {
        put(&folder.join(name), &content(&mut dice, 1 << 20));
    }
    let img = |line: &str| _ = maker().img().folder(folder).args(line.split(' ')).must();
    img("create -q -f qcow2 -b base.raw -F raw mid.qcow2");
    img("create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2");
    maker().io().folder(folder).args(["-f", "qcow2", "-c", "write -P 7 64k 128k", "top.qcow2"]).must();
    img("convert -f raw -O qcow2 -o data_file=outside.data in.raw outside.qcow2");
    img("convert -f raw -O vmdk -o subformat=monolithicFlat in.raw flat.vmdk");
    symlink("in.raw", folder.join("link")).expect("a link");
    std::fs::hard_link(folder.join("in.raw"), folder.join("hard")).expect("a name");
    // Of the chain, under the name that a part would have.
    std::fs::hard_link(folder.join("base.raw"), folder.join("other-flat.vmdk")).expect("a name");
    for name in ["folder", "dir-flat.vmdk", "dir-f001.vmdk", "dir-s001.vmdk"] {
        std::fs::create_dir(folder.join(name)).expect("a folder");
    }
}

#[test]
fn what_a_target_would_spoil_is_refused() {
    let scratch = Scratch::new("clashes");
    let report = Report::new("writes clashes");
    each(LINES, |number, line| {
        for turn in 0..4 {
            let folder = scratch.folder(&format!("case{number}-{turn}"));
            furnish(&folder);
            let before = state(&folder);
            let run = ours(turn).folder(&folder).args(line.split(' '));
            let ran = run.go();
            report.tried();
            if let Err(why) = failed_well(&ran, &before, &state(&folder)) {
                report.fault(format!("{line}\n  {}\n{why}", run.line()));
            }
            let _ = std::fs::remove_dir_all(folder);
        }
    });
    report.end();
}
