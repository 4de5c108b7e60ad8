//! Damaged images of every format, given to every verb that reads or changes them.

use crate::changes::change;
use crate::fields::{fields, mended};
use crate::overlay::Overlay;
use crate::seeds::seeds;
use crate::trial::Trial;
use instar_testkit::build::mutate::Noise;
use instar_testkit::images::each;
use instar_testkit::place::Scratch;
use instar_testkit::program::Cell;
use instar_testkit::random::make;
use instar_tests::report::Report;
use std::path::Path;

/// Set `INSTAR_SEED` for others.
const SEED: u64 = 1;
/// Set `INSTAR_HOSTILE` for more.
const IMAGES: u64 = 140;
/// So far into a file its tables are looked for.
const NEAR: usize = 4 << 20;
/// The fields of a LUKS header that say how long opening it shall take.
const PATIENCE: &[usize] = &[164, 212];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn damaged_images_harm_no_verb() {
    let (first, count) = (number("INSTAR_SEED", SEED), number("INSTAR_HOSTILE", IMAGES));
    eprintln!("hostile verbs: INSTAR_SEED={first} INSTAR_HOSTILE={count}");
    let scratch = Scratch::new("verbs");
    let report = Report::new("hostile verbs");
    let numbers: Vec<u64> = (0..count).map(|n| first + n).collect();
    each(&numbers, |_, number| {
        let folder = scratch.folder(&format!("seed{number}"));
        one(&report, &folder, *number);
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(folder);
        }
    });
    assert!(count < 20 || report.count() as u64 >= 5 * count, "most images can be made");
    report.end();
}

/// Makes the image of a seed, harms it, and tries it.
fn one(report: &Report, folder: &Path, number: u64) {
    let mut noise = Noise::new(number);
    let cell = Cell::all()[usize::from(number % 4 == 3) % Cell::all().len()];
    let own = noise.below(5) < 2;
    let (name, format, options) = if own {
        let seed = &seeds()[noise.below(seeds().len() as u64) as usize];
        std::fs::write(folder.join("disk"), &seed.bytes).expect("an image");
        std::fs::write(folder.join("below"), vec![0x44; 128 << 10]).expect("a file that it may name");
        std::fs::write(folder.join("other"), vec![0x55; 1 << 20]).expect("a file that it may name");
        ("disk".to_owned(), seed.format, None)
    } else {
        match make(folder, number) {
            Ok(made) => (made.name, made.format, made.options),
            Err(_) => return report.excuse("the real program fails to make an image"),
        }
    };
    let image = std::fs::read(folder.join(&name)).expect("the image");
    let (harmed, how) = harm(&image, format, &mut noise);
    std::fs::write(folder.join(&name), harmed.bytes()).expect("the damaged image");
    let what = format!("seed {number}, {format}, {}", how.join(", "));
    let trial = Trial { report, what, folder, name: &name, format, options: options.as_deref(), cell };
    trial.judge();
    change(&trial);
}

/// The image with some damage, and what that is.
fn harm<'a>(image: &'a [u8], format: &str, noise: &mut Noise) -> (Overlay<'a>, Vec<String>) {
    let mut harmed = Overlay::new(image);
    let mut how = Vec::new();
    for _ in 0..=noise.below(3) / 2 {
        let (next, told) = match noise.below(10) {
            0 | 1 => cut(harmed, noise),
            2..=4 => field(harmed, format, noise),
            5..=8 => word(harmed, format, noise),
            _ => bytes(harmed, noise),
        };
        harmed = next;
        how.push(told);
    }
    (harmed, how)
}

/// Cut off, often near an end.
fn cut<'a>(image: Overlay<'a>, noise: &mut Noise) -> (Overlay<'a>, String) {
    let len = image.len_now() as u64;
    let short = noise.below(len.clamp(1, 70_000));
    let len = [noise.below(len.max(1)), short, len.saturating_sub(short)][noise.below(3) as usize] as usize;
    (image.cut(len), format!("cut to {len}"))
}

/// A field of the header has another value.
fn field<'a>(image: Overlay<'a>, format: &str, noise: &mut Noise) -> (Overlay<'a>, String) {
    let all = fields(format);
    let (at, width) = all[noise.below(all.len() as u64) as usize];
    match at.of(image.len_now()).filter(|at| format != "luks" || !PATIENCE.contains(at)) {
        Some(at) => changed(image, format, at, width, noise),
        None => bytes(image, noise),
    }
}

/// A word of what may be a table has another value.
fn word<'a>(image: Overlay<'a>, format: &str, noise: &mut Noise) -> (Overlay<'a>, String) {
    let width = if noise.below(2) == 0 { 4 } else { 8 };
    for _ in 0..200 {
        let end = image.len_now().min(NEAR) / width;
        let at = noise.below(end.max(1) as u64) as usize * width;
        let found = image.piece(at, width).unwrap_or_default();
        // Neither nothing nor a pattern.
        if found.iter().any(|byte| *byte != 0) && found.iter().any(|byte| Some(byte) != found.first()) {
            return changed(image, format, at, width, noise);
        }
    }
    bytes(image, noise)
}

/// The same place with another number: an extreme, one nearby, one that is used elsewhere, or none that means anything.
fn changed<'a>(image: Overlay<'a>, format: &str, at: usize, width: usize, noise: &mut Noise) -> (Overlay<'a>, String) {
    let old = image.piece(at, width).unwrap_or_else(|| vec![0; width]);
    let elsewhere = (0..20).find_map(|_| {
        let there = noise.below(image.len_now().clamp(1, NEAR) as u64) as usize / width * width;
        image.piece(there, width).filter(|found| found.iter().any(|byte| *byte != 0) && *found != old)
    });
    let mut value = match noise.below(6) {
        0 => vec![[0, 0x7f, 0x80, 0xff][noise.below(4) as usize]; width],
        1 | 2 => elsewhere.unwrap_or_else(|| vec![1; width]),
        3 => (0..width).map(|_| noise.next() as u8).collect(),
        _ => old,
    };
    if image.piece(at, width).as_ref() == Some(&value) {
        let bit = noise.below(8 * width as u64) as usize;
        value[bit / 8] ^= 1 << (bit % 8);
    }
    let told = format!("{at:#x}: {}", value.escape_ascii());
    let mut image = image.with(at, &value);
    for (sum_at, sum) in mended(format, &image, at) {
        image = image.with(sum_at, &sum);
    }
    (image, told)
}

/// Bytes anywhere are others.
fn bytes<'a>(mut image: Overlay<'a>, noise: &mut Noise) -> (Overlay<'a>, String) {
    let count = 1 + noise.below(40);
    for _ in 0..count {
        let at = noise.below(image.len_now().max(1) as u64) as usize;
        image = image.with(at, &[noise.next() as u8]);
    }
    (image, format!("{count} bytes"))
}
