//! Files that images name: what is told of them, what is refused, and how it is allowed.

use super::{Shelf, ended_by_policy, same_everywhere, succeeded};
use instar_testkit::images::settle;
use std::os::unix::fs::symlink;

const OUTSIDE: &str =
    "the name leads out of the image's directory (allow a directory with --allow DIR or in the configuration)";

/// A folder `in` with images whose files lie beside it.
fn around(name: &str) -> Shelf {
    let shelf = Shelf::new(name);
    for folder in ["in", "out"] {
        std::fs::create_dir(shelf.path(folder)).expect("a folder");
    }
    shelf.create("-f qcow2 out/base.qcow2 1M");
    shelf.create("-f qcow2 in/base.qcow2 1M");
    shelf.create("-f qcow2 -b base.qcow2 -F qcow2 in/near.qcow2");
    shelf.create("-f qcow2 -b ../out/base.qcow2 -F qcow2 in/far.qcow2");
    shelf.create("-u -f qcow2 -b nbd://localhost/x -F raw in/net.qcow2 1M");
    shelf.create("-f qcow2 -o data_file=in/near.data in/own.qcow2 1M");
    shelf.create("-f qcow2 -o data_file=out/far.data in/others.qcow2 1M");
    settle(shelf.folder());
    shelf
}

/// The lines that begin so, in order.
fn lines<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(key)).collect()
}

#[test]
fn a_chain_comes_with_policys_verdicts() {
    let shelf = around("chain");
    let text = shelf.told(&["info", "--chain", "in/near.qcow2"]);
    let want =
        "backing file: base.qcow2 (actual path: in/base.qcow2)\n    policy: allowed\nbacking file format: qcow2\n";
    assert!(text.contains(want), "{text}");
    assert_eq!(lines(&text, "image: "), ["image: in/near.qcow2", "image: in/base.qcow2"]);
    assert_eq!(lines(&text, "    policy: ").len(), 1, "{text}");
    // The same without verdicts is what qemu-img has.
    let plain = shelf.told(&["info", "--backing-chain", "in/near.qcow2"]);
    assert_eq!(plain, text.replace("    policy: allowed\n", ""));
    let json = shelf.json(&["--chain", "in/near.qcow2"]);
    let verdict = serde_json::json!([{"reference": "backing file", "name": "base.qcow2", "allowed": true}]);
    assert_eq!((json[0].get("policy"), json[1].get("policy")), (Some(&verdict), None), "{json}");
    assert!(shelf.json(&["--backing-chain", "in/near.qcow2"])[0].get("policy").is_none());
}

#[test]
fn a_data_file_has_its_verdict_too() {
    let shelf = Shelf::new("data");
    std::fs::create_dir(shelf.path("in")).expect("a folder");
    shelf.create("-f qcow2 -o data_file=near.data own.qcow2 1M");
    shelf.create("-f qcow2 -o data_file=../far.data in/others.qcow2 1M");
    let text = shelf.told(&["info", "--chain", "own.qcow2"]);
    assert!(text.contains("\ndata file 'near.data'\n    policy: allowed\n"), "{text}");
    let text = shelf.told(&["info", "--chain", "in/others.qcow2"]);
    assert!(text.contains(&format!("\ndata file '../far.data'\n    policy: refused ({OUTSIDE})\n")), "{text}");
    let json = shelf.json(&["--chain", "in/others.qcow2"]);
    let verdict =
        serde_json::json!([{"reference": "data file", "name": "../far.data", "allowed": false, "reason": OUTSIDE}]);
    assert_eq!(json[0]["policy"], verdict);
    let text = shelf.told(&["info", "--chain", "--allow", ".", "in/others.qcow2"]);
    assert!(text.contains("\ndata file '../far.data'\n    policy: allowed\n"), "{text}");
}

#[test]
fn what_lies_elsewhere_is_refused_until_it_is_allowed() {
    let shelf = around("allow");
    let refusal = format!("instar: Could not open 'in/../out/base.qcow2': {OUTSIDE}");
    for more in [&[][..], &["--output=json"], &["--allow", "in"]] {
        shelf.refused(&[&["info", "--backing-chain", "in/far.qcow2"], more].concat(), 1, &refusal);
        ended_by_policy(&shelf.ask(&[&["info", "--chain", "in/far.qcow2"], more].concat()), &refusal);
    }
    let folder = shelf.folder().to_str().expect("text").to_owned();
    let chain = ["info", "--chain", "in/far.qcow2"];
    let (out, both) = (format!("{folder}/out"), format!("/nosuch:{folder}/out"));
    let allowed = [
        shelf.instar(&chain).args(["--allow", "out"]),
        shelf.instar(&chain).args(["--allow", &folder]),
        shelf.instar(&chain).args(["--allow", "/nosuch", "--allow=out"]),
        shelf.instar(&chain).env("INSTAR_ALLOW", &out),
        shelf.instar(&chain).env("INSTAR_ALLOW", &both),
        shelf.instar(&["--allow", "out"]).args(chain),
    ];
    for run in allowed {
        let text = succeeded(&same_everywhere(&run));
        assert!(text.contains("    policy: allowed\n") && text.contains("\nimage: in/../out/base.qcow2\n"), "{text}");
    }
    let elsewhere = shelf.instar(&chain).env("INSTAR_ALLOW", "/nosuch");
    ended_by_policy(&same_everywhere(&elsewhere), &refusal);
    // Without the chain nothing is opened, so nothing is refused.
    assert!(shelf.told(&["info", "in/far.qcow2"]).contains("(actual path: in/../out/base.qcow2)\nbacking file format"));
}

#[test]
fn protocols_in_images_are_refused() {
    let shelf = around("protocol");
    let refusal = "instar: Could not open 'nbd://localhost/x': images may not name protocols or json: descriptions \
                   (--unsafe-quirks opens what qemu-img opens)";
    ended_by_policy(&shelf.ask(&["info", "--chain", "in/net.qcow2"]), refusal);
    let folder = shelf.folder().to_str().expect("text").to_owned();
    ended_by_policy(&shelf.ask(&["info", "--chain", "--allow", &folder, "in/net.qcow2"]), refusal);
}

#[test]
fn a_backing_format_that_lies_is_refused() {
    let shelf = Shelf::new("lies");
    shelf.create("-f qcow2 base.qcow2 1M");
    shelf.create("-u -f qcow2 -b base.qcow2 -F vmdk top.qcow2 1M");
    let refusal = "instar: Could not open 'base.qcow2': the overlay calls it 'vmdk', its bytes say 'qcow2'";
    shelf.refused(&["info", "--chain", "top.qcow2"], 1, refusal);
    shelf.refused(&["info", "--backing-chain", "--output=json", "top.qcow2"], 1, refusal);
    // A secret that is called raw, and a secret that is called an image.
    shelf.file("secret", &[b'x'; 4096]);
    for format in ["raw", "qcow2"] {
        shelf.create(&format!("-u -f qcow2 -b secret -F {format} {format}.qcow2 1M"));
        let ran = shelf.ask(&["info", "--chain", &format!("{format}.qcow2")]);
        assert_eq!((ran.code(), ran.out().as_str(), ran.err().lines().count()), (Some(1), "", 1), "{}", ran.err());
        assert!(ran.err().starts_with("instar: Could not open 'secret': "), "{}", ran.err());
    }
}

#[test]
fn a_directory_may_go_by_another_name() {
    let shelf = around("linked");
    symlink("in", shelf.path("link")).expect("a link");
    let text = shelf.told(&["info", "--chain", "link/near.qcow2"]);
    assert_eq!(lines(&text, "image: "), ["image: link/near.qcow2", "image: link/base.qcow2"]);
    assert_eq!(lines(&text, "    policy: "), ["    policy: allowed"]);
    // An image may use that name as well, from its own directory or from one that is allowed.
    let linked = shelf.path("link/base.qcow2");
    shelf.create(&format!("-f qcow2 -b {} -F qcow2 in/linked.qcow2", linked.display()));
    shelf.told(&["info", "--chain", "link/linked.qcow2"]);
    let refusal = format!("instar: Could not open '{}': {OUTSIDE}", linked.display());
    ended_by_policy(&shelf.ask(&["info", "--chain", "in/linked.qcow2"]), &refusal);
    shelf.told(&["info", "--chain", "--allow", "link", "in/linked.qcow2"]);
    // A link to the image alone does not make its own directory the image's.
    symlink("../in/near.qcow2", shelf.path("out/link.qcow2")).expect("a link");
    let refusal = format!("instar: Could not open 'out/base.qcow2': {OUTSIDE}");
    ended_by_policy(&shelf.ask(&["info", "--chain", "out/link.qcow2"]), &refusal);
}
