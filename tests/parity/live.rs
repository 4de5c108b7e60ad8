//! Hundreds of images, and every version of qemu-img that is here.

use crate::deliberate::{LIVE, reason};
use instar_testkit::images::{Image, SECRET, each, make, recipes};
use instar_testkit::oracle::{Oracle, oracles};
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{Ran, Run};
use instar_tests::report::{Report, difference};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Set `INSTAR_SEED` for others.
const SEED: u64 = 20;
/// There are to be at least so many images.
const IMAGES_MIN: usize = 250;
/// One image in so many also goes through the KVM cell, unless `INSTAR_PARITY=full`.
const KVM_EVERY: usize = 3;

fn seed() -> u64 {
    std::env::var("INSTAR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

#[test]
fn info_is_the_same_for_every_image_and_every_version() {
    let seed = seed();
    let scratch = Scratch::new("parity");
    let (mut images, failed) = make(scratch.path(), &recipes(seed));
    eprintln!("parity: seed {seed}, {} images", images.len());
    assert!(failed.is_empty(), "{} images could not be made:\n{}", failed.len(), failed.join("\n"));
    assert!(images.len() >= IMAGES_MIN, "only {} images", images.len());
    if let Ok(only) = std::env::var("INSTAR_ONLY") {
        skipped(&format!("parity: every image but those whose name contains {only:?}"));
        images.retain(|image| image.id.contains(&only));
    }
    let report = Report::new("parity live");
    let cases: Vec<(usize, &Image, &Oracle)> =
        images.iter().enumerate().flat_map(|(at, image)| oracles().iter().map(move |o| (at, image, o))).collect();
    each(&cases, |_, (at, image, oracle)| {
        for form in forms(*at, image) {
            compare(&report, seed, *at, image, oracle, &form);
        }
    });
    report.end();
}

fn full() -> bool {
    std::env::var("INSTAR_PARITY").is_ok_and(|word| word == "full")
}

/// The questions asked of an image: four always, the others in turn.
fn forms(at: usize, image: &Image) -> Vec<Vec<OsString>> {
    let words =
        |before: &[&str], last: OsString| before.iter().map(OsString::from).chain([last]).collect::<Vec<OsString>>();
    let name = || image.name.clone();
    let mut forms = vec![
        words(&[], name()),
        words(&["--output=json"], name()),
        words(&["--backing-chain"], name()),
        words(&["--backing-chain", "--output=json"], name()),
    ];
    let opts = options_form(image);
    let secret = ["--object", SECRET, "--image-opts"];
    let mut more = vec![
        words(&["-f", image.format], name()),
        words(&["-U"], name()),
        words(&["--limits"], name()),
        words(&["--image-opts"], opts.clone()),
        words(&["--output=json", "--image-opts", "--backing-chain"], opts.clone()),
        words(&["--limits", "--output=json"], name()),
        words(&["-f", if image.format == "qcow2" { "raw" } else { "qcow2" }], name()),
        words(&["-f", "raw", "--output", "json"], name()),
    ];
    more.extend(json_form(image).map(|json| words(&[], json)));
    if full() {
        forms.append(&mut more);
    } else {
        let count = more.len();
        forms.extend([at, at + 1, at + 4].map(|n| more[n % count].clone()));
    }
    if image.id.contains("aes") {
        forms.push(words(&secret, [opts.as_bytes(), b",encrypt.key-secret=sec0"].concat().into_os_string()));
    } else if image.id.contains("luks made") {
        forms.push(words(&secret, [opts.as_bytes(), b",key-secret=sec0"].concat().into_os_string()));
    }
    forms
}

/// Turns bytes into an argument.
trait IntoOs {
    fn into_os_string(self) -> OsString;
}

impl IntoOs for Vec<u8> {
    fn into_os_string(self) -> OsString {
        OsString::from_vec(self)
    }
}

/// `driver=…,file.filename=…`, with the commas of the name doubled.
fn options_form(image: &Image) -> OsString {
    let mut out = format!("driver={},file.filename=", image.format).into_bytes();
    for byte in image.name.as_bytes() {
        out.extend(if *byte == b',' { &b",,"[..] } else { std::slice::from_ref(byte) });
    }
    out.into_os_string()
}

/// `json:{…}`, for names that are text.
fn json_form(image: &Image) -> Option<OsString> {
    let name = serde_json::Value::from(image.name.to_str()?);
    Some(
        format!("json:{{\"driver\":\"{}\",\"file\":{{\"driver\":\"file\",\"filename\":{name}}}}}", image.format).into(),
    )
}

fn compare(report: &Report, seed: u64, at: usize, image: &Image, oracle: &Oracle, form: &[OsString]) {
    let ask = |run: Run| run.folder(&image.folder).arg("info").args(form);
    let want = ask(oracle.img()).go();
    for cell in Cell::all() {
        if *cell == Cell::Kvm && !at.is_multiple_of(KVM_EVERY) && !full() {
            continue;
        }
        report.tried();
        let run = ask(program().quirky(&oracle.version, *cell));
        let got = run.go();
        let differs = differences(&want, &got);
        if differs.is_empty() {
            continue;
        }
        match reason(LIVE, &oracle.version, &image.id, &want, &got) {
            Some(reason) => report.excuse(reason),
            None => report.fault(format!(
                "{} | {} | {} (seed {seed}, image {at})\n  {}\n{differs}",
                image.id,
                oracle.version,
                cell.name(),
                run.line()
            )),
        }
    }
}

/// What differs in an answer.
pub fn differences(want: &Ran, got: &Ran) -> String {
    let mut out = String::new();
    if want.end != got.end {
        out += &format!("  end: {:?}, not {:?}\n", got.end, want.end);
    }
    out += &difference("stdout", &want.stdout, &got.stdout);
    out += &difference("stderr", &want.stderr, &got.stderr);
    out
}
