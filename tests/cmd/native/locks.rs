//! An image that someone else has open.

use super::Shelf;
use instar_testkit::oracle::maker;

#[test]
fn an_image_in_use_is_refused_unless_it_is_shared() {
    let shelf = Shelf::new("held");
    shelf.create("-f qcow2 base 1M");
    shelf.create("-f qcow2 -b base -F qcow2 top");
    let words = ["info", "--output=json"];
    let free = shelf.told(&[&words[..], &["base"]].concat());
    let holder = maker().holding(shelf.folder(), ["-f", "qcow2", "base"]);
    let why = "Failed to get shared \"write\" lock; Is another process using the image [base]?";
    let line = format!("instar: Could not open 'base': {why}");
    shelf.refused(&["info", "base"], 1, &line);
    shelf.refused(&["info", "--output=json", "base"], 1, &line);
    shelf.refused(&["info", "--chain", "top"], 1, &line);
    for option in ["-U", "--force-share"] {
        assert_eq!(shelf.told(&[&words[..], &[option, "base"]].concat()), free);
        shelf.told(&["info", "--chain", option, "top"]);
    }
    // Only the image that is asked about is opened, and raw bytes cannot be half written.
    shelf.told(&["info", "top"]);
    shelf.told(&["info", "-f", "raw", "base"]);
    drop(holder);
    assert_eq!(shelf.told(&[&words[..], &["base"]].concat()), free);
}
