//! Bitmaps that record what is written: they know of a copy what they know of one by the real program.

use crate::judge::{content, count, ours, put, quietly, seed};
use instar_formats::by_name;
use instar_image::{File, Options};
use instar_testkit::folder::Folder;
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::random::Dice;
use instar_tests::report::Report;
use std::path::Path;

/// A bitmap: its name, whether it is enabled, whether it is broken, and its bits.
type Bits = (Vec<u8>, bool, bool, Vec<u8>);

fn bitmaps(folder: &Path, name: &str, size: u64) -> Result<Vec<Bits>, String> {
    let folder = Folder::new(folder);
    let granted = folder.open(name.as_bytes()).map_err(|e| format!("{e:?}"))?;
    let format = by_name(b"qcow2").expect("a format");
    let image = format.open(File::new(&folder, &granted), &Options::default()).map_err(|e| format!("{e:?}"))?;
    let all = image.bitmaps().unwrap_or_default().into_iter().enumerate();
    all.map(|(number, bitmap)| {
        let mut bytes = vec![0; bitmap.len(size) as usize];
        image.bits(number, 0, &mut bytes).map_err(|e| format!("{e:?}"))?;
        Ok((bitmap.name, bitmap.is_enabled, bitmap.is_broken, bytes))
    })
    .collect()
}

fn judge(folder: &Path, seed: u64) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let size = (1 + dice.below(20 << 11)) * 512;
    let options = format!("cluster_size={}", dice.one(&["512", "4k", "64k", "2M"]));
    let img = |words: &[&str]| _ = maker().img().folder(folder).args(words).must();
    img(&["create", "-q", "-f", "qcow2", "-o", &options, "ours", &size.to_string()]);
    let write = |dice: &mut Dice| {
        let at = dice.below(size / 512) * 512;
        let len = ((1 + dice.below(2000)) * 512).min(size - at);
        let command = format!("write -P {} {at} {len}", 1 + dice.below(255));
        maker().io().folder(folder).args(["-f", "qcow2", "-c", &command, "ours"]).must();
    };
    for number in 0..1 + dice.below(4) {
        let granularity = dice.one(&["512", "4096", "65536", "1048576"]);
        let mut words = vec!["bitmap", "--add", "-g", granularity];
        words.extend(dice.once_in(3).then_some("--disable"));
        let name = format!("b{number}");
        words.extend(["ours", &name]);
        img(&words);
        write(&mut dice);
    }
    std::fs::copy(folder.join("ours"), folder.join("theirs")).expect("a copy");
    let len = if dice.once_in(2) { size } else { (1 + dice.below(size / 512)) * 512 };
    put(&folder.join("in.raw"), &content(&mut dice, len));
    let lanes = (1 + dice.below(6)).to_string();
    let mut words = vec!["convert", "-n", "-f", "raw", "-O", "qcow2", "-m", &lanes];
    let sizes = ["0", "4k", "64k"];
    let is_sparse = dice.once_in(4);
    words.extend(is_sparse.then(|| ["-S", dice.one(&sizes)]).into_iter().flatten());
    words.push("in.raw");
    quietly(&ours(seed).folder(folder).args(&words).arg("ours"))?;
    quietly(&maker().img().folder(folder).args(&words).arg("theirs"))?;
    for name in ["ours", "theirs"] {
        quietly(&maker().img().folder(folder).args(["check", "-q", name]))?;
    }
    quietly(&maker().img().folder(folder).args(["compare", "-q", "ours", "theirs"]))?;
    let (got, want) = (bitmaps(folder, "ours", size)?, bitmaps(folder, "theirs", size)?);
    if got == want {
        return Ok(());
    }
    let tell = |all: &[Bits]| -> Vec<String> {
        let of = |b: &Bits| {
            let ones: u32 = b.3.iter().map(|byte| byte.count_ones()).sum();
            format!("{} {} {} {ones} of {} bits", String::from_utf8_lossy(&b.0), b.1, b.2, b.3.len() * 8)
        };
        all.iter().map(of).collect()
    };
    Err(format!("  {words:?} {size} {options}\n  {:?}\n  {:?}", tell(&got), tell(&want)))
}

#[test]
fn enabled_bitmaps_record_what_is_copied() {
    let scratch = Scratch::new("records");
    let report = Report::new("writes records");
    let cases: Vec<u64> = (0..count(50)).map(|number| seed() + number).collect();
    each(&cases, |number, seed| {
        let folder = scratch.folder(&format!("case{number}"));
        report.tried();
        if let Err(why) = judge(&folder, *seed) {
            report.fault(format!("seed {seed}\n{why}"));
        }
        if std::env::var_os("INSTAR_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&folder);
        }
    });
    report.end();
}
