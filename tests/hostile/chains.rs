//! Chains that go round in circles, and chains that go on and on.

use crate::names::{Kind, image};
use crate::sane::{check, native};
use instar_testkit::place::Scratch;
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::path::Path;

fn layer(folder: &Path, kind: Kind, name: &str, below: &str) {
    let below = (!below.is_empty()).then_some(below.as_bytes());
    std::fs::write(folder.join(name), image(kind, below)).expect("a layer");
}

#[test]
fn circles_are_refused_with_a_sentence() {
    let report = Report::new("hostile circles");
    for kind in Kind::ALL.iter().filter(|kind| kind.has_backing()) {
        let scratch = Scratch::new("circle");
        let folder = scratch.path();
        layer(folder, *kind, "self", "self");
        layer(folder, *kind, "a", "b");
        layer(folder, *kind, "b", "./a");
        layer(folder, *kind, "hard", "other-name");
        std::fs::hard_link(folder.join("hard"), folder.join("other-name")).expect("another name");
        layer(folder, *kind, "soft", "link");
        std::os::unix::fs::symlink("soft", folder.join("link")).expect("a link");
        layer(folder, *kind, "way-in", "a");
        for name in ["self", "a", "hard", "soft", "way-in"] {
            for words in [&["--backing-chain"][..], &["--backing-chain", "--output=json"]] {
                let what = format!("{kind:?} {name}");
                for ran in check(&report, &what, |cell| native(cell).args(words).arg(name).folder(folder)) {
                    if ran.end != End::Code(1) {
                        report.fault(format!("{what} is not refused: {:?} {}", ran.end, ran.err()));
                    }
                }
            }
        }
    }
    report.end();
}

#[test]
fn chains_of_two_hundred_are_the_longest() {
    let report = Report::new("hostile depth");
    let scratch = Scratch::new("depth");
    let folder = scratch.path();
    layer(folder, Kind::Qcow2, "layer-0", "");
    for n in 1..=1000 {
        layer(folder, Kind::Qcow2, &format!("layer-{n}"), &format!("layer-{}", n - 1));
    }
    for (top, good) in [(198, true), (210, false), (1000, false)] {
        let what = format!("a chain of {}", top + 1);
        let ask = |cell| native(cell).arg("--backing-chain").arg(format!("layer-{top}")).folder(folder);
        for ran in check(&report, &what, ask) {
            if (ran.end == End::Code(0)) != good {
                report.fault(format!("{what}: {:?} {}", ran.end, ran.err()));
            }
        }
    }
    report.end();
}
