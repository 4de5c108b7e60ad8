//! A sample of the damaged images, given to the program itself.

use crate::fields::{fields, mended};
use crate::overlay::Overlay;
use crate::sane::{check_one, native};
use crate::seeds::{Seed, seeds};
use instar_testkit::build::mutate::Noise;
use instar_testkit::images::each;
use instar_testkit::place::Scratch;
use instar_testkit::program::Cell;
use instar_tests::report::Report;

/// One case in so many is tried.
const EVERY: usize = 8;
/// How far into an image truncation is tried.
const CUT_MAX: usize = 64 << 10;

/// A damaged image.
struct Damaged {
    seed: &'static Seed,
    overlay: Overlay<'static>,
    what: String,
}

fn damaged() -> Vec<Damaged> {
    let mut all = Vec::new();
    let mut noise = Noise::new(7);
    for seed in seeds() {
        let whole = || Overlay::new(&seed.bytes);
        for len in (0..seed.bytes.len().min(CUT_MAX)).step_by(512) {
            all.push(Damaged { seed, overlay: whole().cut(len), what: format!("{} cut to {len}", seed.id) });
        }
        for (at, width) in fields(seed.format) {
            let Some(at) = at.of(seed.bytes.len()) else { continue };
            let random: Vec<u8> = (0..width).map(|_| noise.next() as u8).collect();
            for value in [vec![0; width], vec![0xff; width], random] {
                let what = format!("{} with {at:#x}: {}", seed.id, value.escape_ascii());
                let mut overlay = whole().with(at, &value);
                for (sum_at, sum) in mended(seed.format, &overlay, at) {
                    overlay = overlay.with(sum_at, &sum);
                }
                all.push(Damaged { seed, overlay, what });
            }
        }
    }
    all
}

#[test]
fn damaged_images_end_in_output_or_one_line() {
    let scratch = Scratch::new("damaged");
    let report = Report::new("hostile damaged");
    // The sample moves by one from image to image, so that every kind of damage meets every format.
    let sample: Vec<Damaged> = damaged().into_iter().step_by(EVERY).collect();
    each(&sample, |at, damaged| {
        let path = scratch.path().join(format!("{at}.img"));
        std::fs::write(&path, damaged.overlay.bytes()).expect("the image");
        // The KVM cell runs the same code behind the same wire; a part of the sample says so.
        let cells = Cell::all().iter().filter(|cell| **cell == Cell::Process || at % 4 == 0);
        for cell in cells {
            check_one(&report, &damaged.what, &native(*cell).arg(&path));
            check_one(&report, &damaged.what, &native(*cell).args(["-f", damaged.seed.format]).arg(&path));
        }
        let _ = std::fs::remove_file(&path);
    });
    assert!(report.count() > 200);
    report.end();
}
