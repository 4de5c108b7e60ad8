//! Files to copy, and copies held against the real program: what is said, and every file afterwards.

use crate::against::{differences, exact};
use instar_testkit::images::each;
use instar_testkit::oracle::{maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::Run;
use instar_tests::report::Report;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder with a copy of every file.
pub struct Shelf(Scratch);

/// What can be seen of a folder: a line for each name.
pub type State = BTreeMap<String, String>;

/// What belongs to a file whose name is said.
const COMPANIONS: &[(&str, &[&str])] = &[
    ("top.qcow2", &["mid.qcow2", "base.raw"]),
    ("mid.qcow2", &["base.raw"]),
    ("badfmt.qcow2", &["base.raw"]),
    ("link.raw", &["a.raw"]),
    ("hard1", &["big.raw", "hard2"]),
    ("big.raw", &["hard1", "hard2"]),
];

impl Shelf {
    /// A fresh one, with every file.
    pub fn new() -> Shelf {
        Shelf::of(|_| true)
    }

    /// A fresh one, with the files that a line of words is about.
    pub fn about(line: &str) -> Shelf {
        let goes_with = |name: &str| {
            let mut said = COMPANIONS.iter().filter(|(said, _)| line.contains(said));
            said.any(|(_, more)| more.contains(&name))
        };
        Shelf::of(|name| line.contains(name) || goes_with(name))
    }

    fn of(wanted: impl Fn(&str) -> bool) -> Shelf {
        let scratch = Scratch::new("copies");
        let entries = fs::read_dir(originals()).expect("the folder").flatten();
        let names = entries.filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
        let names: Vec<PathBuf> = names.collect();
        if !names.is_empty() {
            Run::new("cp").args(["-a", "--sparse=always"]).args(names).arg(scratch.path()).must();
        }
        Shelf(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Every file with its mode, its length, the number of its names, and its bytes.
    pub fn state(&self) -> State {
        let entries = fs::read_dir(self.path()).expect("the folder").flatten();
        let tell = |entry: fs::DirEntry| {
            let about = entry.metadata().expect("a file");
            let bytes = if about.is_file() { fs::read(entry.path()).expect("its bytes") } else { Vec::new() };
            let sum = bytes.iter().fold(0u64, |sum, byte| sum.rotate_left(7).wrapping_mul(31) ^ u64::from(*byte));
            let told = format!("{:o}, {} bytes, {} names, {sum:x}", about.mode(), bytes.len(), about.nlink());
            (entry.file_name().to_string_lossy().into_owned(), told)
        };
        entries.map(tell).collect()
    }
}

/// The files, made once.
fn originals() -> &'static Path {
    static ORIGINALS: OnceLock<Scratch> = OnceLock::new();
    ORIGINALS.get_or_init(make).path()
}

/// Bytes that look like chance.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|n| ((n ^ seed).wrapping_mul(2_654_435_761) >> 21) as u8 | 1).collect()
}

fn make() -> Scratch {
    let scratch = Scratch::new("originals");
    let folder = scratch.path();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a file");
    let mut a = vec![0; 3 << 20];
    let places = [(0, 4096), (12288, 512), (70_000, 100), (1 << 17, 1 << 16), (500_000, 1000), (1 << 20, 200_000)];
    for (at, len) in places.into_iter().chain([((2 << 20) + 4096, 4096), ((3 << 20) - 700, 700)]) {
        a[at..at + len].copy_from_slice(&noise(len, at as u32));
    }
    write("a.raw", &a);
    write("b.raw", &[&noise(100_000, 1)[..], &[0; 200_000], &noise(212, 2)].concat());
    write("odd.raw", &noise(1000, 3));
    write("odd2.raw", &noise(70_001, 4));
    write("one.raw", b"x");
    write("empty.raw", b"");
    write("zero.raw", &vec![0; 1 << 20]);
    write("small.raw", &noise(65_536, 5));
    write("big.raw", &noise(5 << 20, 6));
    fs::File::create(folder.join("hole.raw")).and_then(|file| file.set_len(10 << 20)).expect("a hole");
    let img = |line: &str| _ = maker().img().folder(folder).args(line.split(' ')).must();
    let io = |line: &str, words: &[&str]| {
        let words = words.iter().flat_map(|word| ["-c", word]);
        maker().io().folder(folder).args(line.split(' ')).args(words).must();
    };
    img("convert -f raw -O qcow2 a.raw d.qcow2");
    img("convert -f raw -O qcow2 -c a.raw c.qcow2");
    img("create -q -f raw base.raw 2M");
    io("-f raw base.raw", &["write -P 7 0 1500000"]);
    img("create -q -f qcow2 -b base.raw -F raw mid.qcow2 2M");
    io("-f qcow2 mid.qcow2", &["write -P 9 100000 300000"]);
    img("create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 3M");
    io("-f qcow2 top.qcow2", &["write -P 11 200000 70000", "write -z 800000 300000"]);
    img("create -q -f qcow2 snap.qcow2 2M");
    for (number, name) in ["s1", "s2", "1", ""].into_iter().enumerate() {
        io("-f qcow2 snap.qcow2", &[&format!("write -P {} 0 100000", number + 1)]);
        if !name.is_empty() {
            img(&format!("snapshot -c {name} snap.qcow2"));
        }
    }
    img("create -q -f qcow2 miss.qcow2 -u -b nowhere.raw -F raw 1M");
    img("create -q -f qcow2 badfmt.qcow2 -u -b base.raw -F qcow2 1M");
    let seal = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    img(&format!("create -q -f qcow2 -o {seal} --object secret,id=s,data=abc enc.qcow2 1M"));
    img("create -q -f luks -o key-secret=s,iter-time=10 --object secret,id=s,data=abc d.luks 1M");
    img("create -q -f qcow2 empty.qcow2 0");
    img("convert -f raw -O vmdk a.raw d.vmdk");
    img("convert -f raw -O vpc a.raw d.vpc");
    let cut = fs::read(folder.join("d.qcow2")).expect("an image");
    write("trunc.qcow2", &cut[..300_000]);
    symlink("a.raw", folder.join("link.raw")).expect("a link");
    symlink("nowhere", folder.join("dangling")).expect("a link");
    fs::hard_link(folder.join("big.raw"), folder.join("hard1")).expect("a name");
    fs::hard_link(folder.join("big.raw"), folder.join("hard2")).expect("a name");
    fs::create_dir(folder.join("dir")).expect("a folder");
    Run::new("mkfifo").arg(folder.join("fifo")).must();
    scratch
}

/// The machine's devices are everyone's, and so are the locks on them: whoever opens one keeps all other tests from it.
fn alone() -> fs::File {
    let file = fs::File::create(std::env::temp_dir().join("instar-devices.lock")).expect("a lock file");
    file.lock().expect("the lock");
    file
}

/// Runs the verb with each line: with the reference version and the others in turn.
pub fn compare(title: &'static str, verb: &str, lines: &[&str]) {
    let report = Report::new(title);
    each(lines, |number, line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut oracles = oracles().iter().filter(|oracle| *oracle != maker()).cycle().skip(number / 2);
        let oracle = oracles.next().filter(|_| number % 2 == 1).unwrap_or(maker());
        let _alone = line.contains("/dev/").then(alone);
        {
            let (theirs, ours) = (Shelf::about(line), Shelf::about(line));
            let ask = |run: Run, shelf: &Shelf| run.folder(shelf.path()).called("qemu-img").arg(verb).args(&words);
            let want = ask(oracle.img(), &theirs).go();
            let cell = Cell::all()[(number / 2) % Cell::all().len()];
            let run = ask(program().quirky(&oracle.version, cell), &ours);
            let got = run.go();
            report.tried();
            let mut differs = differences(&want, &got, exact);
            let (theirs, ours) = (theirs.state(), ours.state());
            if theirs != ours {
                let only = |a: &State, b: &State| {
                    format!("{:?}", a.iter().filter(|(k, v)| b.get(*k) != Some(v)).collect::<Vec<_>>())
                };
                differs += &format!("  files:\n  -{}\n  +{}\n", only(&theirs, &ours), only(&ours, &theirs));
            }
            if !differs.is_empty() {
                report.fault(format!("{} {} {verb} {line}\n{differs}", oracle.version, cell.name()));
            }
        }
    });
    report.end();
}
