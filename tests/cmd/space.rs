//! Space that an image gives back: files take as much afterwards as the real program leaves them.

use instar_testkit::oracle::{Oracle, maker, oracles};
use instar_testkit::place::{Scratch, skipped};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::Run;
use instar_tests::report::Report;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is done, and whether anything goes back then.
const LINES: &[(&str, bool)] = &[
    ("snapshot -d s top", true),
    ("snapshot -d s --image-opts driver=qcow2,file.filename=top", true),
    ("snapshot -d s --image-opts driver=qcow2,discard=off,file.filename=top", true),
    ("snapshot -d s --image-opts driver=qcow2,file.filename=top,file.discard=ignore", false),
    ("snapshot -d s --image-opts driver=qcow2,file.filename=top,file.discard=off", false),
    ("snapshot -d s --image-opts driver=qcow2,pass-discard-snapshot=off,file.filename=top", false),
    ("snapshot -a s top", true),
    ("snapshot -c more top", false),
    ("commit top", true),
    ("commit -d top", false),
    ("resize --shrink top 2M", true),
    ("amend -o refcount_bits=64 top", false),
    ("check -r leaks leaks", true),
    ("rebase -u -b other open", true),
    ("check -r leaks --image-opts driver=qcow2,file.filename=leaks,file.discard=ignore", false),
    ("convert -n -f raw -O qcow2 zeroes full", true),
    ("convert -n -f raw -O qcow2 zeroes former", true),
    ("convert -n -f raw -O qcow2 zeroes fine", true),
    ("convert -n -S 0 -f raw -O qcow2 zeroes full", false),
    ("convert -n -f raw --target-image-opts zeroes driver=qcow2,file.filename=full,discard=ignore", false),
    ("convert -n -f raw --target-image-opts zeroes driver=qcow2,file.filename=full,file.discard=ignore", false),
    ("convert -n -f raw --target-image-opts zeroes driver=qcow2,file.filename=full,pass-discard-request=off", false),
    ("commit zeroed", true),
];

/// Tables are laid out otherwise by us, so that much may differ.
const SLACK: u64 = 512 << 10;

/// Images that are filled by half, of the ways to say what a cluster has.
const FILLED: [(&str, &str); 3] = [("full", "compat=1.1"), ("former", "compat=0.10"), ("fine", "extended_l2=on")];

/// An image on another one, with a snapshot of which the disk keeps little; one that leaks most of what it has, with and
/// without a word about it; and zeroes, which go over images that are filled.
fn make(folder: &Path) {
    let img = |line: &str| maker().img().folder(folder).args(line.split(' ')).must();
    let write = |name: &str, commands: &[&str]| {
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        maker().io().folder(folder).args(["-f", "qcow2"]).args(commands).arg(name).must()
    };
    img("create -q -f qcow2 below 16M");
    img("create -q -f qcow2 -b below -F qcow2 top");
    write("top", &["write -P 1 0 8M"]);
    img("snapshot -c s top");
    write("top", &["write -P 2 0 6M", "write -z 7M 1M"]);
    img("create -q -f raw zeroes 16M");
    for (name, options) in FILLED {
        img(&format!("create -q -f qcow2 -o {options} {name} 16M"));
        write(name, &["write -P 1 0 8M"]);
    }
    img("create -q -f qcow2 -b full -F qcow2 zeroed");
    write("zeroed", &["write -z 0 8M"]);
    img("create -q -f qcow2 leaks 16M");
    write("leaks", &["write -P 1 0 8M"]);
    let mut bytes = fs::read(folder.join("leaks")).expect("an image");
    let word = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("a word"));
    let table = usize::try_from(word(&bytes, 40)).expect("an L1 table");
    let entries = usize::try_from(word(&bytes, table) & !(1 << 63)).expect("an L2 table");
    bytes[entries..entries + 100 * 8].fill(0);
    fs::write(folder.join("leaks"), &bytes).expect("an image");
    bytes[79] |= 1;
    fs::write(folder.join("open"), bytes).expect("an image");
}

/// What the images take that are changed.
fn taken(folder: &Path) -> u64 {
    let images = ["top", "leaks", "open"].into_iter().chain(FILLED.map(|(name, _)| name));
    images.map(|name| fs::metadata(folder.join(name)).expect("an image").blocks() * 512).sum()
}

/// What a line leaves of these images: what they take before, and afterwards.
fn after(made: &Path, act: impl Fn(&Path)) -> (u64, u64) {
    let scratch = Scratch::new("space");
    Run::new("cp").args(["-a", "--sparse=always", "."]).arg(scratch.path()).folder(made).must();
    let before = taken(scratch.path());
    act(scratch.path());
    (before, taken(scratch.path()))
}

fn differs(made: &Path, (line, goes_back): (&str, bool), oracle: &Oracle, cell: Cell) -> Option<String> {
    let words = || line.split(' ');
    let (before, theirs) = after(made, |folder| {
        oracle.img().folder(folder).args(words()).go();
    });
    let (_, ours) = after(made, |folder| {
        program().qemu(&oracle.version, cell).folder(folder).args(words()).go();
    });
    let is_right = goes_back == (ours + (2 << 20) < before) && ours.abs_diff(theirs) <= SLACK;
    (!is_right).then(|| format!("{before} bytes before, theirs leaves {theirs}, ours {ours}"))
}

#[test]
fn what_is_not_needed_goes_back_as_it_does_with_the_real_program() {
    let made = Scratch::new("space");
    make(made.path());
    let probe = made.path().join("probe");
    fs::write(&probe, vec![1; 1 << 20]).expect("a file");
    let punched = Run::new("fallocate").args(["-p", "-l", "1M"]).arg(&probe).go();
    if punched.code() != Some(0) {
        return skipped("space that goes back: the file system makes no holes");
    }
    let report = Report::new("cmd space");
    let all = LINES.iter().flat_map(|line| oracles().iter().map(move |oracle| (line, oracle)));
    for (number, ((line, goes_back), oracle)) in all.enumerate() {
        let cell = Cell::all()[number % Cell::all().len()];
        report.tried();
        if let Some(words) = differs(made.path(), (line, *goes_back), oracle, cell) {
            report.fault(format!("{} {} {line}: {words}", oracle.version, cell.name()));
        }
    }
    report.end();
}
