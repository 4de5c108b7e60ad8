//! The images that the command lines are about.

use instar_testkit::images::{SECRET, settle};
use instar_testkit::oracle::{maker, newest};
use instar_testkit::place::Scratch;

/// A folder with one image of each kind that the clients hand over.
pub fn disks() -> Scratch {
    let scratch = Scratch::new("cmd");
    let make = |line: &str| {
        let run = maker().img().folder(scratch.path()).args(["create", "-q", "--object", SECRET]);
        run.args(line.split(' ')).must()
    };
    make("-f qcow2 disk.qcow2 10G");
    make("-f qcow2 -o compat=0.10 old.qcow2 1G");
    make("-f qcow2 -b disk.qcow2 -F qcow2 overlay.qcow2");
    make("-f raw disk.raw 10M");
    make("-f raw ./file:x.img 10M");
    make("-f vmdk disk.vmdk 1G");
    make("-f vmdk -o subformat=monolithicFlat flat.vmdk 1M");
    make("-f vpc disk.vhd 1G");
    make("-f vhdx disk.vhdx 1G");
    make("-f vdi disk.vdi 1G");
    make("-f luks -o key-secret=sec0,iter-time=10 disk.luks 1M");
    make("-f qcow2 disk,with,commas.qcow2 1M");
    make("-f qcow2 -o data_file=outside.raw outside.qcow2 1M");
    make("-f qcow2 huge.qcow2 64T");
    let header = "create -q -f luks -o key-secret=sec0,iter-time=10,detached-header=on header.luks 10M";
    newest().img().folder(scratch.path()).args(header.split(' ')).args(["--object", SECRET]).must();
    settle(scratch.path());
    scratch
}
