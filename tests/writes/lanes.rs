//! However many lanes work on a copy, and in whichever cell, the bytes are the same.

use crate::formats::{FORMATS, Format};
use crate::judge::{content, count, put, seed};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_tests::report::Report;
use std::collections::BTreeMap;
use std::path::Path;

const LANES: &[&str] = &["1", "2", "8"];
struct Case {
    format: &'static Format,
    options: Vec<String>,
    packed: bool,
    seed: u64,
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for round in 0..count(3) {
        // Keys are never the same twice.
        for format in FORMATS.iter().filter(|format| format.name != "luks") {
            for packed in [false, true].into_iter().filter(|packed| !packed || format.packed.is_some()) {
                let seed = seed() + all.len() as u64;
                let mut dice = Dice::new(seed);
                let mut options = if round == 0 { Vec::new() } else { format.some(&mut dice, 2) };
                if packed {
                    options.retain(|option| !option.starts_with("subformat") && !option.starts_with("preallocation"));
                    options.extend(format.packed.filter(|need| !need.is_empty()).map(str::to_owned));
                }
                all.push(Case { format, options, packed, seed });
            }
        }
    }
    all
}

impl Case {
    /// A source by chance: a plain disk, a compressed image, or one that stands on another.
    fn source(&self, folder: &Path, dice: &mut Dice) -> Vec<&'static str> {
        let len = (2 << 20) + dice.below(8 << 11) * 512;
        put(&folder.join("in.raw"), &content(dice, len));
        let img = |line: &str| _ = maker().img().folder(folder).args(line.split(' ')).must();
        match self.seed % 3 {
            0 => vec!["-f", "raw", "in.raw"],
            1 => {
                img("convert -c -f raw -O qcow2 -o cluster_size=4k in.raw in.qcow2");
                vec!["-f", "qcow2", "in.qcow2"]
            }
            _ => {
                img("create -q -f qcow2 -b in.raw -F raw -o cluster_size=16k in.qcow2");
                let writes = ["-c", "write -P 3 5000k 300k", "-c", "write -z 64k 128k", "-c", "write -P 9 1M 1k"];
                maker().io().folder(folder).args(["-f", "qcow2"]).args(writes).arg("in.qcow2").go();
                vec!["-f", "qcow2", "in.qcow2"]
            }
        }
    }

    /// Every file that comes about, by its name.
    fn files(&self, folder: &Path, source: &[&str], lanes: &str, cell: Cell) -> Result<Vec<(String, Vec<u8>)>, String> {
        let place = folder.join("made");
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).expect("a folder");
        let mut run = program().native(cell).env("INSTAR_UNSAFE_QUIRKS", "1").folder(folder);
        run = run.args(["convert", "--reproducible", "-m", lanes, "-O", self.format.name]);
        run =
            run.args(self.packed.then_some("-c")).args(self.format.asked(&self.options)).args(source).arg("made/made");
        let ran = run.go();
        if ran.code() != Some(0) {
            return Err(format!("  {}\n  {}", run.line(), ran.err()));
        }
        let entries = std::fs::read_dir(&place).expect("a folder").flatten();
        let named = entries.map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path())));
        Ok(named
            .map(|(name, bytes)| (name, bytes.expect("its bytes")))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect())
    }

    fn judge(&self, folder: &Path) -> Result<bool, String> {
        let mut dice = Dice::new(self.seed);
        let source = self.source(folder, &mut dice);
        let mut first: Option<Vec<(String, Vec<u8>)>> = None;
        for (lanes, cell) in LANES.iter().flat_map(|lanes| Cell::all().iter().map(move |cell| (lanes, *cell))) {
            let files = match (self.files(folder, &source, lanes, cell), &first) {
                (Ok(files), _) => files,
                // Some options do not go together.
                (Err(why), None) if !self.options.is_empty() && !why.contains("worker") => return Ok(false),
                (Err(why), _) => return Err(why),
            };
            let want = first.get_or_insert_with(|| files.clone());
            for ((name, want), (other, got)) in want.iter().zip(&files) {
                if name != other || want != got {
                    let at = want.iter().zip(got).position(|(a, b)| a != b);
                    return Err(format!("  -m {lanes} {cell:?}: {name} differs at {at:?}, {} bytes", got.len()));
                }
            }
            if want.len() != files.len() {
                return Err(format!("  -m {lanes} {cell:?}: {} files, not {}", files.len(), want.len()));
            }
        }
        Ok(true)
    }
}

#[test]
fn any_number_of_lanes_writes_the_same_bytes() {
    let scratch = Scratch::new("writes-lanes");
    let report = Report::new("writes lanes");
    let cases = cases();
    let refused = std::sync::atomic::AtomicUsize::new(0);
    each(&cases, |number, case| {
        let folder = scratch.folder(&format!("case{number}"));
        report.tried();
        let about = || format!("{} {:?}, packed: {}, seed {}", case.format.name, case.options, case.packed, case.seed);
        match case.judge(&folder) {
            Ok(true) => {}
            Ok(false) => _ = refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            Err(why) => report.fault(format!("{}\n{why}", about())),
        }
    });
    assert!(refused.into_inner() < cases.len() / 3, "most of these options do not go together");
    report.end();
}
