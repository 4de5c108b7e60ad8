//! What `--extra-detail` adds, as text and as JSON.

use super::{Shelf, line_of, section};
use instar_testkit::build::{luks2, vhdx};
use instar_testkit::images::SECRET;
use instar_testkit::oracle::maker;
use serde_json::{Value, json};

/// The extra detail in both forms; it is nowhere unless asked for.
fn both(shelf: &Shelf, name: &str) -> (Vec<String>, Value) {
    assert!(!shelf.told(&["info", name]).contains("Extra detail"));
    assert!(shelf.json(&[name]).get("extra-detail").is_none());
    let text = shelf.told(&["info", "--extra-detail", name]);
    let json = shelf.json(&["--extra-detail", name]);
    (section(&text, "Extra detail"), json["extra-detail"].clone())
}

/// The keys in their order.
fn keys(text: &[String]) -> Vec<&str> {
    text.iter().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(':').next()).collect()
}

/// An identifier as it is written.
fn is_uuid(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[test]
fn of_vdi() {
    let shelf = Shelf::new("vdi");
    shelf.create("-f vdi disk 10M");
    let (text, json) = both(&shelf, "disk");
    let lines = ["image type: dynamic", "block size: 1048576", "blocks: 10", "blocks allocated: 0"];
    assert_eq!(text[..4], lines);
    assert_eq!(text[4], format!("uuid: {}", json["uuid"].as_str().expect("an identifier")));
    assert!(is_uuid(&json["uuid"]) && text.len() == 5, "{json}");
    assert_eq!(
        (&json["image-type"], &json["block-size"], &json["blocks"]),
        (&json!("dynamic"), &json!(1 << 20), &json!(10))
    );
    shelf.create("-f vdi -o static=on static 10M");
    let (text, json) = both(&shelf, "static");
    assert_eq!((text[0].as_str(), text[3].as_str()), ("image type: static", "blocks allocated: 10"));
    assert_eq!(json["blocks-allocated"], 10);
}

#[test]
fn of_vpc() {
    let shelf = Shelf::new("vpc");
    shelf.create("-f vpc disk 10M");
    let (text, json) = both(&shelf, "disk");
    let order = [
        "type",
        "creator",
        "creator version",
        "creator os",
        "current size",
        "original size",
        "geometry",
        "uuid",
        "timestamp",
    ];
    assert_eq!(keys(&text), order, "{text:?}");
    for line in ["type: dynamic", "creator: qemu", "creator os: Wi2k", "current size: 10514432"] {
        assert!(text.iter().any(|l| l == line), "{line}: {text:?}");
    }
    assert_eq!(json["geometry"], json!({"cylinders": 302, "heads": 4, "sectors": 17}));
    assert!(is_uuid(&json["uuid"]), "{json}");
    shelf.create("-f vpc -o subformat=fixed,force_size=on fixed 10M");
    let (_, json) = both(&shelf, "fixed");
    assert_eq!(
        (&json["type"], &json["creator"], &json["current-size"]),
        (&json!("fixed"), &json!("qem2"), &json!(10 << 20))
    );
}

#[test]
fn of_vhdx() {
    let shelf = Shelf::new("vhdx");
    shelf.create("-f vhdx -o block_size=1M,log_size=2M disk 10M");
    let (text, json) = both(&shelf, "disk");
    let order = [
        "log",
        "log guid",
        "log size",
        "sequence number",
        "file write guid",
        "data write guid",
        "disk id",
        "block size",
        "logical sector size",
        "physical sector size",
        "fixed",
    ];
    assert_eq!(keys(&text), order);
    for id in ["file-write-guid", "data-write-guid", "disk-id", "log-guid"] {
        assert!(is_uuid(&json[id]), "{id}: {json}");
    }
    assert_eq!(json["log-guid"], "00000000-0000-0000-0000-000000000000");
    let rest = ["log", "log-size", "block-size", "logical-sector-size", "fixed"].map(|key| json[key].clone());
    assert_eq!(rest, [json!("empty"), json!(2 << 20), json!(1 << 20), json!(512), json!(false)]);
    shelf.create("-f vhdx -o subformat=fixed fixed 10M");
    assert_eq!(both(&shelf, "fixed").1["fixed"], true);
    let dirty = vhdx::build(&vhdx::Vhdx { dirty: Some(4 << 20), blocks: vec![(0, 1)], ..Default::default() });
    shelf.file("dirty", &dirty);
    assert_eq!(both(&shelf, "dirty").1["log"], "dirty");
}

#[test]
fn of_vmdk() {
    let shelf = Shelf::new("vmdk");
    for line in ["-f vmdk disk.vmdk 1M", "-f vmdk -o subformat=monolithicFlat flat.vmdk 1M"] {
        shelf.create(line);
        let name = line.split(' ').find(|word| word.ends_with(".vmdk")).expect("a name");
        let (text, json) = both(&shelf, name);
        let descriptor = json["descriptor"].as_str().expect("text");
        assert!(descriptor.starts_with("# Disk DescriptorFile\nversion=1\nCID="), "{descriptor}");
        assert!(descriptor.contains("ddb.adapterType = \"ide\"\n"), "{descriptor}");
        // Whatever stands in there, it stays on one line.
        assert_eq!(text, [format!("descriptor: {}", descriptor.replace('\n', "\\n"))]);
    }
}

#[test]
fn of_luks() {
    let shelf = Shelf::new("luks");
    shelf.create("-f luks -o key-secret=sec0,iter-time=10 disk 1M");
    let (text, json) = both(&shelf, "disk");
    assert_eq!(text, ["version: 1", "key size: 64"]);
    assert_eq!(json, json!({"version": 1, "key-size": 64}));
    shelf.file("two", &luks2::usual());
    // All that is known of the newer version without a passphrase is told anyway: qemu-img tells nothing of it.
    assert_eq!(both(&shelf, "two"), (Vec::new(), Value::Null));
    let text = shelf.told(&["info", "two"]);
    assert!(section(&text, "Format specific information").contains(&"version: 2".to_owned()), "{text}");
    let gone = "instar: cannot read the passphrase file 'nosuch': No such file or directory (os error 2)";
    shelf.refused(&["info", "--luks-passphrase-file", "nosuch", "disk"], 1, gone);
}

#[test]
fn of_what_lies_inside_luks() {
    let shelf = Shelf::new("inside");
    shelf.create("-f luks -o key-secret=sec0,iter-time=10 zeroes 4M");
    shelf.create("-f luks -o key-secret=sec0,iter-time=10 full 4M");
    shelf.create("-f qcow2 disk 1M");
    let target = "driver=luks,key-secret=sec0,file.filename=full";
    let convert = maker().img().folder(shelf.folder()).args(["convert", "-n", "--object", SECRET, "-f", "raw"]);
    convert.args(["--target-image-opts", "disk", target]).must();
    shelf.file("key", b"123456");
    shelf.file("key-of-an-editor", b"123456\n");
    shelf.file("wrong", b"1234567");
    for (name, inner) in [("full", "qcow2"), ("zeroes", "unknown")] {
        for key in ["key", "key-of-an-editor"] {
            let words = ["--extra-detail", "--luks-passphrase-file", key, name];
            assert_eq!(shelf.json(&words)["extra-detail"]["inner-format"], inner);
            let text = shelf.told(&[&["info"], &words[..]].concat());
            let want = ["version: 1", "key size: 64", &format!("inner format: {inner}")];
            assert_eq!(section(&text, "Extra detail"), want);
        }
        let options = format!("driver=luks,key-secret=sec0,file.filename={name}");
        let json = shelf.json(&["--extra-detail", "--object", SECRET, "--image-opts", &options]);
        assert_eq!(json["extra-detail"]["inner-format"], inner);
    }
    let line = "instar: Could not open 'full': Invalid password, cannot unlock any keyslot";
    shelf.refused(&["info", "--extra-detail", "--luks-passphrase-file", "wrong", "full"], 1, line);
    // Nobody needs the passphrase to see what is not inside.
    let plain = shelf.told(&["info", "full"]);
    assert_eq!(shelf.told(&["info", "--luks-passphrase-file", "wrong", "full"]), plain);
}

#[test]
fn of_parallels() {
    let shelf = Shelf::new("parallels");
    shelf.create("-f parallels disk 10M");
    let (text, json) = both(&shelf, "disk");
    let numbers =
        ["in use: false", "cluster size: 1048576", "table entries: 10", "table unit: cluster", "data sector: 2048"];
    assert_eq!(text[..5], numbers);
    assert_eq!(text[5..], ["bitmaps:"]);
    let all = json!({"in-use": false, "cluster-size": 1 << 20, "table-entries": 10, "table-unit": "cluster",
        "data-sector": 2048, "bitmaps": []});
    assert_eq!(json, all);
}

#[test]
fn formats_without_secrets_have_none() {
    let shelf = Shelf::new("none");
    shelf.create("-f qcow2 disk 1M");
    assert_eq!(shelf.told(&["info", "--extra-detail", "disk"]), shelf.told(&["info", "disk"]));
    assert_eq!(line_of(&shelf.told(&["info", "--extra-detail", "disk"]), "file format"), "qcow2");
}
