//! What is kept open.

use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;

/// A folder with images of a few formats: a chain, and some that stand alone.
pub fn images() -> Scratch {
    let scratch = Scratch::new("locks");
    let make = |line: &str| maker().img().folder(scratch.path()).arg("create").arg("-q").args(line.split(' ')).must();
    make("-f qcow2 base.qcow2 4M");
    make("-f qcow2 -b base.qcow2 -F qcow2 top.qcow2");
    make("-f vmdk disk.vmdk 4M");
    make("-f qed disk.qed 4M");
    make("-f vdi disk.vdi 4M");
    scratch
}
