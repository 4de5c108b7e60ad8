//! The findings that a service gates uploads on.

use super::Shelf;
use super::recognition::iso;
use instar_testkit::build::luks2;
use instar_testkit::images::patch;
use serde_json::{Value, json};

/// The names of the findings with whether each is good.
fn checks(json: &Value) -> Vec<(String, bool)> {
    let findings = json["safety"]["findings"].as_array().expect("findings");
    let one = |f: &Value| (f["check"].as_str().expect("a name").to_owned(), f["ok"].as_bool().expect("a verdict"));
    findings.iter().map(one).collect()
}

/// What there is to say about a check.
fn detail<'a>(json: &'a Value, check: &str) -> &'a Value {
    let mut findings = json["safety"]["findings"].as_array().expect("findings").iter();
    &findings.find(|f| f["check"] == check).unwrap_or_else(|| panic!("no {check} in {json}"))["detail"]
}

impl Shelf {
    /// All checks are good but this one, with this to say about it.
    fn only_fault(&self, words: &[&str], check: &str, about: &Value) {
        let json = self.json(words);
        for (name, ok) in checks(&json) {
            assert_eq!(ok, name != check, "{words:?}: {name}\n{json}");
        }
        assert_eq!(json["safety"]["safe"], false, "{json}");
        assert_eq!(detail(&json, check), about);
    }

    /// All checks are good, and these are all.
    fn safe(&self, name: &str, names: &[&str]) {
        let json = self.json(&[name]);
        let want: Vec<(String, bool)> = names.iter().map(|name| ((*name).to_owned(), true)).collect();
        assert_eq!(checks(&json), want, "{name}");
        assert_eq!(json["safety"]["safe"], true);
    }
}

const QCOW2: &[&str] = &["backing-file", "data-file", "unknown-features", "one-format"];

#[test]
fn a_plain_image_is_safe() {
    let shelf = Shelf::new("plain");
    for (format, names) in [
        ("qcow2", QCOW2),
        ("qcow2 -o compat=0.10", QCOW2),
        ("vmdk", &["backing-file", "extents", "one-format"]),
        ("vpc", &["parent", "one-format"]),
        ("vhdx", &["parent", "one-format"]),
        ("vdi", &["one-format"]),
        ("parallels", &["one-format"]),
    ] {
        shelf.create(&format!("-f {format} disk 1M"));
        shelf.safe("disk", names);
        std::fs::remove_file(shelf.path("disk")).expect("it is there");
    }
    shelf.file("luks2", &luks2::usual());
    assert_eq!(detail(&shelf.json(&["luks2"]), "encryption"), "luks");
    shelf.file("disc", &iso(Vec::new()));
    shelf.safe("disc", &["one-format"]);
}

#[test]
fn safety_is_the_last_word_of_the_instar_face_only() {
    let shelf = Shelf::new("last");
    shelf.create("-f qcow2 disk 1M");
    let text = shelf.told(&["info", "--output=json", "disk"]);
    assert!(text.ends_with("        ],\n        \"safe\": true\n    }\n}\n"), "{text}");
    let shell = instar_testkit::program::program().qemu("10.2", instar_testkit::program::Cell::Process);
    let other = shell.folder(shelf.folder()).args(["info", "--output=json", "disk"]).must().out();
    let common = text.split(",\n    \"safety\"").next().expect("a beginning");
    assert_eq!(other, format!("{common}\n}}\n"), "the rest is qemu-img's");
    assert!(!shelf.told(&["info", "disk"]).contains("safe"), "text stays qemu-img's");
}

#[test]
fn other_files_are_findings() {
    let shelf = Shelf::new("files");
    shelf.create("-f qcow2 base 1M");
    shelf.create("-f qcow2 -b base -F qcow2 top");
    shelf.only_fault(&["top"], "backing-file", &json!(["base"]));
    shelf.create("-f qcow2 -o data_file=bytes split 1M");
    shelf.only_fault(&["split"], "data-file", &json!(["bytes"]));
    shelf.create("-f vmdk -o subformat=monolithicFlat flat.vmdk 1M");
    shelf.only_fault(&["flat.vmdk"], "extents", &json!(["flat-flat.vmdk"]));
    shelf.create("-f vmdk base.vmdk 1M");
    shelf.create("-f vmdk -b base.vmdk -F vmdk top.vmdk");
    shelf.only_fault(&["top.vmdk"], "backing-file", &json!(["base.vmdk"]));
    // A chain is judged layer by layer.
    let json = shelf.json(&["--chain", "top"]);
    assert_eq!((&json[0]["safety"]["safe"], &json[1]["safety"]["safe"]), (&json!(false), &json!(true)));
}

#[test]
fn features_nobody_knows_are_findings() {
    const PLACES: [(u64, &str); 2] = [(80, "compatible 80"), (88, "autoclear 80")];
    let shelf = Shelf::new("features");
    for (at, words) in PLACES {
        shelf.create("-f qcow2 disk 1M");
        patch::write(&shelf.path("disk"), at + 7, &[0x80]).expect("a patch");
        shelf.only_fault(&["disk"], "unknown-features", &json!([words]));
    }
    shelf.create("-f qcow2 disk 1M");
    patch::write(&shelf.path("disk"), 72 + 7, &[0x80]).expect("a patch");
    let line = "instar: Could not open 'disk': Unsupported qcow2 feature(s): Unknown incompatible feature: 80";
    shelf.refused(&["info", "--output=json", "disk"], 1, line);
}

#[test]
fn two_formats_in_one_file_are_a_finding() {
    let shelf = Shelf::new("two");
    shelf.create("-f qcow2 disk 1M");
    let image = std::fs::read(shelf.path("disk")).expect("the image");
    shelf.file("both", &iso(image));
    shelf.only_fault(&["both"], "one-format", &json!(["iso"]));
    assert_eq!(shelf.json(&["both"])["format"], "qcow2");
    // Told to be raw, it is still what it is.
    let json = shelf.json(&["-f", "raw", "disk"]);
    assert_eq!(json["safety"]["safe"], false, "{json}");
    assert_eq!(detail(&json, "one-format"), &json!(["qcow2"]));
}

#[test]
fn raw_without_a_partition_table_is_a_finding() {
    let shelf = Shelf::new("partition");
    shelf.file("zeroes", &[0; 4096]);
    shelf.only_fault(&["-f", "raw", "zeroes"], "partition-rule", &json!("none"));
}
