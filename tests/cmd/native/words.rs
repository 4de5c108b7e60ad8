//! What is said when the command line is wrong, when help is asked for, and when names are strange.

use super::{Shelf, line_of, refused_so, same_everywhere, succeeded};
use instar_testkit::images::patch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A wrong command line, and the one line that it earns.
type Wrong = (&'static [&'static str], &'static str);

const WRONG: &[Wrong] = &[
    (&[], "Not enough arguments; Try 'instar --help' for more information"),
    (&["nosuch"], "Command not found: nosuch; Try 'instar --help' for more information"),
    (&["no\x1b[2J\nsuch"], "Command not found: no\\x1b[2J\\nsuch; Try 'instar --help' for more information"),
    (&["--nosuch"], "unrecognized option '--nosuch'; Try 'instar --help' for more information"),
    (&["info"], "Expecting one image file name; Try 'instar info --help' for more information"),
    (&["info", "a", "b"], "Expecting one image file name; Try 'instar info --help' for more information"),
    (&["info", "--nosuch", "x"], "unrecognized option '--nosuch'; Try 'instar info --help' for more information"),
    (&["info", "-f"], "option requires an argument -- 'f'; Try 'instar info --help' for more information"),
    (&["info", "-Z", "x"], "invalid option -- 'Z'; Try 'instar info --help' for more information"),
    (
        &["info", "--output=xml", "x"],
        "--output expects 'human' or 'json', not 'xml'; Try 'instar info --help' for more information",
    ),
    (&["info", "--qemu-version", "4.0", "x"], "'4.0' is not a qemu-img version (try 10.2, 8.2.2 or 10.0.2-upstream)"),
    (&["info", "--cell", "bogus", "x"], "command line: 'cell' must be auto, kvm or process, not 'bogus'"),
    (&["info", "-t", "bogus", "x"], "Invalid cache option: bogus"),
    (&["config", "word"], "Expecting no words; Try 'instar config --help' for more information"),
];

#[test]
fn a_wrong_command_line_is_told_in_one_line() {
    let shelf = Shelf::new("wrong");
    for (words, line) in WRONG {
        refused_so(&shelf.instar(words).go(), 2, &format!("instar: {line}"));
    }
    // The same words in the dialect of an older version.
    for (words, _) in WRONG.iter().filter(|(words, _)| words.first() == Some(&"info")) {
        let ran = shelf.instar(words).env("INSTAR_QEMU_VERSION", "5.2").go();
        assert_eq!((ran.end, ran.err().lines().count()), (End::Code(2), 1), "{words:?}: {}", ran.err());
        assert!(ran.err().starts_with("instar: "), "{}", ran.err());
    }
}

#[test]
fn help_and_version_are_about_what_exists() {
    let shelf = Shelf::new("help");
    let version = shelf.told(&["--version"]);
    assert_eq!(version, concat!("instar version ", env!("CARGO_PKG_VERSION"), " (as qemu-img 10.2)\n"));
    let help = shelf.told(&["--help"]);
    assert!(help.starts_with(&version), "{help}");
    let verbs = help.lines().skip_while(|line| *line != "Verbs:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains(&"info") && verbs.contains(&"config"), "{help}");
    for verb in verbs {
        let help = shelf.told(&[verb, "--help"]);
        assert!(help.contains(&format!("instar {verb} ")), "{help}");
        assert!(!shelf.instar(&[verb]).go().err().contains("Command not found"), "{verb}");
    }
    for verb in ["check", "convert", "frobnicate"].iter().filter(|verb| !help.contains(&format!("\n  {verb} "))) {
        let line = format!("instar: Command not found: {verb}; Try 'instar --help' for more information");
        refused_so(&shelf.instar(&[verb, "x"]).go(), 2, &line);
    }
    let info = shelf.told(&["info", "--help"]);
    for option in ["-f, --format FORMAT", "--chain", "--extra-detail", "--allow DIR", "--luks-passphrase-file FILE"] {
        assert!(info.contains(&format!("\n  {option}\n")), "{option}\n{info}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_once_more_in_safe_letters() {
    let shelf = Shelf::new("gone");
    for (name, shown) in [("gone", "gone"), ("g\x1b[31m\none", "g\\x1b[31m\\none"), ("\u{202e}x", "\\u{202e}x")] {
        let line = format!("instar: Could not open '{shown}': Could not open '{shown}': No such file or directory");
        shelf.refused(&["info", name], 1, &line);
    }
}

#[test]
fn strange_names_cannot_reach_the_terminal() {
    let shelf = Shelf::new("names");
    let names: [(&[u8], &str, &str); 3] = [
        (b"a\x1b[31m\nb", "a\\x1b[31m\\nb", "a\u{1b}[31m\nb"),
        (b"bad\xff\xfe\"\\", "bad\\xff\\xfe\"\\", "bad\u{fffd}\u{fffd}\"\\"),
        ("fünf \u{1f980}".as_bytes(), "fünf \u{1f980}", "fünf \u{1f980}"),
    ];
    for (name, human, meant) in names {
        shelf.create("-f qcow2 plain 1M");
        std::fs::rename(shelf.path("plain"), shelf.path(OsStr::from_bytes(name))).expect("another name");
        let ask = |words: &[&str]| same_everywhere(&shelf.instar(words).arg(OsStr::from_bytes(name)));
        // Standard output is a pipe here: natively that makes no difference.
        let text = succeeded(&ask(&["info"]));
        assert_eq!((line_of(&text, "image"), line_of(&text, "    filename")), (human, human));
        assert!(text.bytes().all(|b| b == b'\n' || b >= b' '), "{text}");
        let json: Value = serde_json::from_str(&succeeded(&ask(&["info", "--output=json"]))).expect("valid JSON");
        assert_eq!(json["filename"], meant);
        assert_eq!(json["children"][0]["info"]["filename"], meant);
    }
}

#[test]
fn names_out_of_images_cannot_reach_the_terminal_either() {
    let shelf = Shelf::new("inner-names");
    shelf.create("-u -f qcow2 -b abcdefghij.base -F raw top 1M");
    let bytes = std::fs::read(shelf.path("top")).expect("the image");
    let at = bytes.windows(15).position(|w| w == b"abcdefghij.base").expect("the name");
    patch::write(&shelf.path("top"), at as u64, b"a\x1b[2J\nb\xff\xfe\"\\.bas").expect("a patch");
    let human = "a\\x1b[2J\\nb\\xff\\xfe\"\\.bas";
    let text = shelf.told(&["info", "top"]);
    assert_eq!(line_of(&text, "backing file"), human);
    assert!(text.bytes().all(|b| b == b'\n' || b >= b' '), "{text}");
    let json = shelf.json(&["top"]);
    assert_eq!(json["backing-filename"], "a\u{1b}[2J\nb\u{fffd}\u{fffd}\"\\.bas");
    let line = format!("instar: Could not open '{human}': Could not open '{human}': No such file or directory");
    shelf.refused(&["info", "--chain", "top"], 1, &line);
}

#[test]
fn the_wall_is_named_when_asked_for() {
    let shelf = Shelf::new("wall");
    shelf.create("-f qcow2 disk 1M");
    let quiet = shelf.told(&["info", "disk"]);
    for cell in Cell::all() {
        let ran = shelf.instar(&["info", "-v", "--cell", cell.name(), "disk"]).must();
        assert_eq!((ran.err(), ran.out()), (format!("instar: wall: {}\n", cell.name()), quiet.clone()));
        // The command line is above the environment.
        let ran = shelf.instar(&["info", "-v", "disk"]).env("INSTAR_CELL", cell.name()).must();
        assert_eq!(ran.err(), format!("instar: wall: {}\n", cell.name()));
    }
    let ran = shelf.instar(&["info", "-v", "--cell=auto", "disk"]).must();
    let walls = Cell::all().iter().map(|cell| format!("instar: wall: {}\n", cell.name()));
    assert!(walls.into_iter().any(|wall| wall == ran.err()) && ran.out() == quiet, "{}", ran.err());
    let both = shelf.instar(&["info", "-v", "--cell=auto", "nosuch"]).go();
    assert_eq!((both.end, both.err().lines().count()), (End::Code(1), 1), "no worker, no wall: {}", both.err());
}

#[test]
fn the_face_follows_the_name_and_the_environment() {
    let shelf = Shelf::new("face");
    let version = |run: &instar_testkit::run::Run| run.clone().arg("--version").must().out();
    let native = program().native(Cell::Process).folder(shelf.folder());
    assert!(version(&native).starts_with("instar version "));
    let told = version(&native.clone().env("INSTAR_FACE", "qemu-img").env("INSTAR_QEMU_VERSION", "8.2"));
    assert!(told.starts_with("qemu-img version 8.2"), "{told}");
    // A program called qemu-img is qemu-img, whatever the environment says.
    let called = program().qemu("7.2", Cell::Process).env("INSTAR_FACE", "instar");
    assert!(version(&called).starts_with("qemu-img version 7.2"));
    let ran = program().qemu("10.2", Cell::Process).arg("config").go();
    assert_eq!(ran.end, End::Code(1), "not a verb of qemu-img: {}{}", ran.out(), ran.err());
}

#[test]
fn another_version_has_another_layout() {
    let shelf = Shelf::new("version");
    shelf.create("-f qcow2 disk 1M");
    instar_testkit::oracle::maker().img().folder(shelf.folder()).args(["snapshot", "-c", "one", "disk"]).must();
    instar_testkit::images::settle(shelf.folder());
    let table = |words: &[&str]| {
        let text = shelf.told(&[&["info", "disk"], words].concat());
        text.lines().skip_while(|line| *line != "Snapshot list:").skip(1).take(2).collect::<Vec<_>>().join("\n")
    };
    let old = table(&["--qemu-version", "8.2"]);
    assert!(
        old.starts_with("ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n1 "),
        "{old}"
    );
    assert!(old.ends_with(" 00:00:00.000          0"), "{old}");
    let new = table(&["--qemu-version", "9.0"]);
    assert!(
        new.starts_with("ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n1 "),
        "{new}"
    );
    assert!(new.ends_with("  0000:00:00.000          0"), "{new}");
    assert_eq!(table(&[]), new, "the default is a new one");
    let run = shelf.instar(&["info", "disk"]).env("INSTAR_QEMU_VERSION", "8.2");
    assert!(succeeded(&same_everywhere(&run)).contains(&old));
    let both =
        same_everywhere(&shelf.instar(&["info", "--qemu-version=9.0", "disk"]).env("INSTAR_QEMU_VERSION", "8.2"));
    assert!(succeeded(&both).contains(&new), "the command line is above the environment");
}
