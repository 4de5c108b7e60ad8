//! Whether the images of the parity test know every option that a qemu-img offers.

use instar_testkit::images::options::{ELSEWHERE, OPTIONS};
use instar_testkit::oracle::oracles;

#[test]
fn every_option_of_create_is_tried() {
    let mut missing = Vec::new();
    for oracle in oracles() {
        for format in ["raw", "qcow2", "qcow", "qed", "vmdk", "vpc", "vhdx", "vdi", "parallels"] {
            // With a name, the options of files are listed too; once is enough.
            let name: &[&str] = if format == "raw" { &["name"] } else { &[] };
            let help = oracle.img().args(["create", "-f", format, "-o", "help"]).args(name).go().out();
            let words = help.lines().filter_map(|line| Some(line.trim().split_once('=')?.0.to_owned()));
            let known = OPTIONS.iter().find(|(name, _)| *name == format).map_or(&[][..], |(_, options)| options);
            let unknown = |word: &String| {
                !known.iter().any(|(name, _)| name == word) && !ELSEWHERE.iter().any(|begin| word.starts_with(begin))
            };
            missing.extend(words.filter(unknown).map(|word| format!("{} {format} {word}", oracle.version)));
        }
    }
    assert!(missing.is_empty(), "options that testkit/src/images/options.rs does not try: {missing:#?}");
}
