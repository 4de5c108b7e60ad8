//! `config`: where settings come from, which of them wins, and what is no configuration at all.

use crate::native::{Shelf, line_of, refused_so, succeeded};
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Run};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Nothing configured anywhere but on this command line.
const DEFAULTS: &str = "\
cell = auto (default)
face = instar (default)
qemu-version = 10.2 (default)
unsafe-quirks = false (default)
ignore-quirks = false (default)
allow =  (default)
cpu-seconds = 30 (default)
memory-mib = 128 (default)
";

/// The program with no more in its environment than it needs to find its configuration.
fn bare(shelf: &Shelf, words: &[&str]) -> Run {
    let kept = ["LC_ALL", "TZ", "PATH", "INSTAR_CONFIG", "HOME"];
    program().native(Cell::Process).only_env(&kept).folder(shelf.folder()).args(words)
}

/// One line of what `config` shows.
fn shown(run: &Run, name: &str) -> String {
    let text = succeeded(&run.go());
    let prefix = format!("{name} = ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
}

#[test]
fn without_configuration_everything_is_default() {
    let shelf = Shelf::new("defaults");
    for words in [&["config"][..], &["config", "--show-sources"]] {
        assert_eq!(succeeded(&bare(&shelf, words).go()), DEFAULTS);
    }
    let valid = "The configuration is valid.\n";
    assert_eq!(succeeded(&bare(&shelf, &["config", "--validate"]).go()), valid);
    let both = bare(&shelf, &["config", "--validate", "--show-sources"]).go();
    assert_eq!(succeeded(&both), format!("{DEFAULTS}{valid}"));
}

#[test]
fn later_sources_win_and_say_so() {
    let shelf = Shelf::new("precedence");
    shelf.file(
        "config.toml",
        b"cell = \"kvm\"\nqemu-version = \"7.2\"\nunsafe-quirks = true\nallow = [\"/a\", \"/b\"]\ncpu-seconds = 5\n",
    );
    let file = format!("({})", shelf.path("config.toml").display());
    let run = |words: &[&str]| bare(&shelf, words).env("INSTAR_CONFIG", shelf.path("config.toml"));
    let show = ["config", "--show-sources"];
    assert_eq!(shown(&run(&show), "cell"), format!("kvm {file}"));
    assert_eq!(shown(&run(&show), "unsafe-quirks"), format!("true {file}"));
    assert_eq!(shown(&run(&show), "cpu-seconds"), format!("5 {file}"));
    assert_eq!(shown(&run(&show), "memory-mib"), "128 (default)");
    let environment = |words: &[&str]| run(words).env("INSTAR_CELL", "process").env("INSTAR_QEMU_VERSION", "8.2");
    assert_eq!(shown(&environment(&show), "cell"), "process (environment variable INSTAR_CELL)");
    assert_eq!(shown(&environment(&show), "qemu-version"), "8.2 (environment variable INSTAR_QEMU_VERSION)");
    assert_eq!(shown(&environment(&show), "unsafe-quirks"), format!("true {file}"));
    let line = [&show[..], &["--cell", "auto", "--qemu-version=9.0", "--ignore-quirks"]].concat();
    assert_eq!(shown(&environment(&line), "cell"), "auto (command line)");
    assert_eq!(shown(&environment(&line), "qemu-version"), "9.0 (command line)");
    assert_eq!(shown(&environment(&line), "ignore-quirks"), "true (command line)");
    let quiet = environment(&show).env("INSTAR_UNSAFE_QUIRKS", "0").env("INSTAR_IGNORE_QUIRKS", "yes");
    assert_eq!(shown(&quiet, "unsafe-quirks"), "false (environment variable INSTAR_UNSAFE_QUIRKS)");
    assert_eq!(shown(&quiet, "ignore-quirks"), "true (environment variable INSTAR_IGNORE_QUIRKS)");
}

#[test]
fn directories_are_collected_from_everywhere() {
    let shelf = Shelf::new("directories");
    shelf.file("config.toml", b"allow = [\"/a\", \"/b\"]\n");
    let run = bare(&shelf, &["config", "--allow", "/d", "--allow=e"]);
    let run = run.env("INSTAR_CONFIG", shelf.path("config.toml")).env("INSTAR_ALLOW", "/c:/c/c");
    let own = shelf.path("e");
    assert_eq!(shown(&run, "allow"), format!("/a:/b:/c:/c/c:/d:{} (command line)", own.display()));
}

#[test]
fn settings_in_files_have_their_effect() {
    let shelf = Shelf::new("effect");
    shelf.file("zeroes", &[0; 1000]);
    shelf.file("quirks.toml", b"unsafe-quirks = true\nignore-quirks = true\n");
    let info = |config: &str| bare(&shelf, &["info", "zeroes"]).env("INSTAR_CONFIG", shelf.path(config)).go();
    let text = succeeded(&info("quirks.toml"));
    assert_eq!(line_of(&text, "virtual size"), "1.0 KiB (1024 bytes)");
    for (config, code) in [("cell = \"process\"\n", 1), ("face = \"qemu-img\"\nunsafe-quirks = true\n", 0)] {
        shelf.file("one.toml", config.as_bytes());
        assert_eq!(info("one.toml").end, End::Code(code), "{config}");
    }
    assert!(info("one.toml").out().contains("virtual size: 1 KiB (1024 bytes)"));
}

#[test]
fn the_users_own_file_is_found_at_home() {
    let shelf = Shelf::new("home");
    let own = shelf.path("home/.config/instar");
    std::fs::create_dir_all(&own).expect("folders");
    shelf.file("home/.config/instar/config.toml", b"memory-mib = 256\n");
    let kept = ["LC_ALL", "TZ", "PATH", "HOME"];
    let run = bare(&shelf, &["config"]).only_env(&kept).env("HOME", shelf.path("home"));
    let file = own.join("config.toml");
    assert_eq!(shown(&run, "memory-mib"), format!("256 ({})", file.display()));
    // A file that is named takes its place.
    assert_eq!(shown(&run.clone().env("INSTAR_CONFIG", "/dev/null"), "memory-mib"), "128 (default)");
    shelf.file("home/.config/instar/config.toml", b"memory-mib = 1\n");
    let line =
        format!("instar: {}: 'memory-mib' must be a number of mebibytes from 16 to 65536, not '1'", file.display());
    refused_so(&run.go(), 1, &line);
}

/// What stands in a file, and what is wrong with it.
const BROKEN: &[(&str, &str)] = &[
    ("cell = \"none\"\n", "{}: 'cell' must be auto, kvm or process, not 'none'"),
    ("face = \"qemu\"\n", "{}: 'face' must be instar or qemu-img, not 'qemu'"),
    ("nosuch = 1\n", "{}: there is no setting 'nosuch'"),
    ("\"a\\u001b\\n\" = 1\n", "{}: there is no setting 'a\\u{1b}\\n'"),
    (
        "qemu-version = \"4.0\"\n",
        "{}: 'qemu-version' must be a version of qemu-img from 5.2 on, such as 10.2, not '4.0'",
    ),
    ("unsafe-quirks = \"maybe\"\n", "{}: 'unsafe-quirks' must be true or false (1 or 0), not 'maybe'"),
    ("allow = [\"rel\"]\n", "{}: 'allow' must be absolute directories, not 'rel'"),
    ("allow = [1]\n", "{}: 'allow' is of a kind no setting has"),
    ("[cell]\nauto = true\n", "{}: 'cell' is of a kind no setting has"),
    ("cpu-seconds = 0\n", "{}: 'cpu-seconds' must be a number of seconds from 1 to 86400, not '0'"),
];

#[test]
fn broken_configuration_is_an_error_of_every_command() {
    let shelf = Shelf::new("broken");
    shelf.create("-f qcow2 disk 1M");
    let path = shelf.path("config.toml");
    for (text, words) in BROKEN {
        shelf.file("config.toml", text.as_bytes());
        let line = format!("instar: {}", words.replace("{}", &path.display().to_string()));
        refused_so(&bare(&shelf, &["config", "--validate"]).env("INSTAR_CONFIG", &path).go(), 1, &line);
        for command in
            [&["info", "disk"][..], &["config"], &["--help"], &["--version"], &["info", "--cell=auto", "disk"]]
        {
            refused_so(&bare(&shelf, command).env("INSTAR_CONFIG", &path).go(), 1, &line);
        }
        let face = bare(&shelf, &["info", "disk"]).env("INSTAR_CONFIG", &path).env("INSTAR_FACE", "qemu-img");
        refused_so(&face.go(), 1, &line.replacen("instar", "qemu-img", 1));
    }
    for text in ["cell = ", "cell = \"auto\"\ncell = \"kvm\"\n", "\0", "= 1"] {
        shelf.file("config.toml", text.as_bytes());
        let ran = bare(&shelf, &["info", "disk"]).env("INSTAR_CONFIG", &path).go();
        let begins = format!("instar: the configuration file {} is not valid: ", path.display());
        assert!(ran.err().starts_with(&begins) && ran.end == End::Code(1), "{}", ran.err());
        assert_eq!((ran.err().lines().count(), ran.out().as_str()), (1, ""), "{}", ran.err());
    }
}

#[test]
fn files_that_cannot_be_read_are_errors_too() {
    let shelf = Shelf::new("unreadable");
    shelf.file("binary", b"cell = \"\xff\"\n");
    let folder = shelf.folder().display();
    for (name, why) in [
        ("nosuch", "No such file or directory (os error 2)"),
        (".", "Is a directory (os error 21)"),
        ("binary", "stream did not contain valid UTF-8"),
    ] {
        let path = format!("{folder}/{name}");
        let line = format!("instar: cannot read the configuration file {path}: {why}");
        refused_so(&bare(&shelf, &["config"]).env("INSTAR_CONFIG", &path).go(), 1, &line);
    }
}

#[test]
fn broken_variables_are_errors_of_every_command() {
    let shelf = Shelf::new("variables");
    let broken: &[(&str, &[u8], &str)] = &[
        ("INSTAR_CELL", b"none", "'cell' must be auto, kvm or process, not 'none'"),
        ("INSTAR_CELL", b"", "'cell' must be auto, kvm or process, not ''"),
        ("INSTAR_CELL", b"auto\xff", "'cell' must be auto, kvm or process, not 'auto\u{fffd}'"),
        ("INSTAR_FACE", b"qemu", "'face' must be instar or qemu-img, not 'qemu'"),
        ("INSTAR_UNSAFE_QUIRKS", b"maybe", "'unsafe-quirks' must be true or false (1 or 0), not 'maybe'"),
        ("INSTAR_IGNORE_QUIRKS", b"2", "'ignore-quirks' must be true or false (1 or 0), not '2'"),
        ("INSTAR_ALLOW", b"rel:/a", "'allow' must be absolute directories, separated by colons, not 'rel:/a'"),
        (
            "INSTAR_QEMU_VERSION",
            b"4.0",
            "'qemu-version' must be a version of qemu-img from 5.2 on, such as 10.2, not '4.0'",
        ),
    ];
    for (name, value, words) in broken {
        for command in [&["config", "--validate"][..], &["info", "x"], &["--version"]] {
            let run = bare(&shelf, command).env(name, OsStr::from_bytes(value));
            refused_so(&run.go(), 1, &format!("instar: environment variable {name}: {words}"));
        }
    }
}

#[test]
fn only_directories_can_be_allowed_whatever_they_are_called() {
    let shelf = Shelf::new("allowed");
    std::fs::create_dir(shelf.path("a:b")).expect("a folder");
    let text = succeeded(&shelf.instar(&["--allow", "a:b", "config", "--show-sources"]).go());
    let line = text.lines().find(|line| line.starts_with("allow = ")).expect("the setting");
    assert!(line.ends_with("/a:b (command line)"), "{line}");
    let ran = shelf.ask(&["--allow", "", "config"]);
    assert_eq!((ran.code(), ran.out().as_str(), ran.err().lines().count()), (Some(2), "", 1), "{}", ran.err());
}
