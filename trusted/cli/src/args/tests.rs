//! Whole command lines, against the recorded answers and against what the oracles were asked.
use std::ffi::{OsStr, OsString};

use super::records::{self, Answer, VERSIONS};
use super::*;
use crate::profile::Profile;

fn face(native: bool) -> Face<'static> {
    Face {
        prefix: if native { "instar" } else { "qemu-img" },
        argv0: OsStr::new(if native { "instar" } else { "qemu-img" }),
        native,
        verbs: if native { &["info", "check", "config"] } else { &["info"] },
        formats: "raw qcow2",
        version: "qemu-img version\n",
    }
}

fn run_as(native: bool, argv: &[&str], version: &str) -> Result<Parsed, Stop> {
    let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
    let mut read = |_: &[u8]| Err(std::io::Error::from_raw_os_error(2));
    parse(&argv, &face(native), Profile::parse(version).unwrap(), &mut read)
}

fn ended(lines: &[Vec<u8>]) -> String {
    lines.iter().map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}

/// The answer as far as arguments alone decide it; the help is compared by its presence.
fn answered(argv: &[&str], version: &str) -> Option<Answer> {
    let stop = run_as(false, argv, version).err()?;
    Some(Answer {
        stdout: String::from_utf8_lossy(&stop.stdout).into_owned(),
        stderr: ended(&stop.stderr),
        code: stop.code.to_string(),
    })
}

/// Cases that stop at their arguments in every version.
const STOPPED: &[&str] = &[
    "noargs.",
    "noval.",
    "badopt.",
    "badshort.",
    "top.unknown-short",
    "top.T",
    "top.trace-help",
    "top.empty",
    "outbad.",
    "check.output-bad",
    "io-and-f.",
    "convert.Sbad2",
    "convert.Shuge",
    "convert.ratebad",
    "convert.m17",
    "bench.d-bad",
    "bench.o-bad",
    "bench.s-bad",
    "bench.pat-bad",
    "bench.t-bad",
    "bench.i-bad",
    "bench.none",
    "bench.flush",
    "info.obj-",
    "more-obj.",
    "create.noname",
    "create.size-neg",
    "create.size-huge",
    "create.size-8E",
    "create.size-space",
    "create.opt-empty",
    "create.o6",
    "more-create.emptysize",
    "resize.badsize",
    "resize.nosize",
    "resize.plusbad",
    "resize.size-file",
    "resize.raw-badpre",
    "measure.size-huge",
    "measure.nothing",
    "measure.both",
    "two.",
    "dd.bsneg",
    "dd.skipneg",
    "dd.bare",
    "dd.seek",
    "bitmap.noname",
    "bitmap.b-nomerge",
    "bitmap.F-nob",
    "bitmap.extra",
    "snapshot.a-d",
    "snapshot.none",
    "amend.noo",
    "amend.badt",
    "convert.badt",
    "convert.badT",
    "convert.n-o",
    "convert.tz-only",
    "convert.C-c",
    "convert.salvage-C",
    "compare.badT",
];

/// Cases that stop at their arguments in some versions and go on in others.
const SOMETIMES: &[&str] = &[
    "create.size-exp",
    "resize.opt-last",
    "bench.c0",
    "info.t",
    "info.b-short",
    "info.limits-raw",
    "dd.n",
    "snapshot.f",
    "bitmap.remove-all",
    "rebase.c",
    "convert.F-only",
    "map.max",
    "map.past",
];

fn chosen(id: &str, list: &[&str]) -> bool {
    list.iter().any(|start| id.starts_with(start))
}

#[test]
fn recorded_answers() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in records::cases(|id| chosen(id, STOPPED) || chosen(id, SOMETIMES)) {
        let argv: Vec<&str> = case.argv.iter().map(String::as_str).collect();
        for version in VERSIONS {
            let Some(want) = records::answer(version, &case.id) else { continue };
            let got = answered(&argv, version);
            let usage = want.stderr.contains("--help' for more");
            let help = want.stdout.contains("Supported formats");
            let same = got.as_ref().is_some_and(|got| {
                (&got.stderr, &got.code, got.stdout.is_empty()) == (&want.stderr, &want.code, !help)
            });
            let may_go_on = chosen(&case.id, SOMETIMES) && !usage && got.is_none();
            compared += usize::from(same);
            if !same && !may_go_on {
                wrong.push(format!("{} {version}: {argv:?}\n  want {want:?}\n  got  {got:?}", case.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 600 || records::cases(|_| true).is_empty(), "only {compared} answers compared");
}

/// Cases that stop at the description of their image in every version.
const NOT_DESCRIBED: &[&str] = &[
    "badfmt.",
    "imageopts-bad.",
    "imageopts-drv.",
    "imageopts-path.",
    "json-bad.",
    "json-drv.",
    "info-uri.https",
    "info-uri.rbd",
    "info-uri.iscsi",
    "info-uri.gluster",
    "info-uri.empty",
    "more-create.size",
];

/// What is said about the image that a command line names.
fn described(parsed: &Parsed) -> Result<node::Described, Complaint> {
    let named = parsed.named(0, "format");
    let described = node::describe(&named, &parsed.profile)?;
    described.node.check_known(&parsed.profile, false).map_err(|c| c.not_opened(named.name))?;
    Ok(described)
}

#[test]
fn recorded_refusals_of_images() {
    for case in records::cases(|id| chosen(id, NOT_DESCRIBED)) {
        let argv: Vec<&str> = case.argv.iter().map(String::as_str).collect();
        for version in VERSIONS {
            let Some(want) = records::answer(version, &case.id) else { continue };
            let lines = match run_as(false, &argv, version) {
                Ok(parsed) => described(&parsed).unwrap_err().lines("qemu-img"),
                Err(stop) => stop.stderr,
            };
            let lines: Vec<u8> = lines.into_iter().flat_map(|l| [l, b"\n".into()].concat()).collect();
            assert_eq!(String::from_utf8_lossy(&lines), want.stderr, "{} {version}", case.id);
        }
    }
}

#[test]
fn recorded_names() {
    let named = [
        "info.luks-sec",
        "more-info.blkdebug",
        "more-info.raw-offset",
        "more-info.throttle",
        "more-info.luks-wrongpw",
        "info-uri.nullsize",
        "info-uri.file",
        "json.info",
        "info-uri.devzero",
    ];
    for case in records::cases(|id| named.contains(&id)) {
        let argv: Vec<&str> = case.argv.iter().map(String::as_str).collect();
        for version in VERSIONS {
            let Some(want) = records::answer(version, &case.id) else { continue };
            let parsed = run_as(false, &argv, version).unwrap();
            let name = described(&parsed).unwrap().node.display_name();
            let line = format!("image: {}", String::from_utf8(name).unwrap());
            assert_eq!(Some(line.as_str()), want.stdout.lines().next(), "{} {version}", case.id);
        }
    }
}

/// Command line, and its answer in the old, the interim and the new dialect; `"-"`: it goes on.
const DIALECTS: &[(&str, &str, &str, &str)] = &[
    (
        "info --f",
        "unrecognized option '--f'",
        "option '--f' is ambiguous; possibilities: '--format' '--force-share'",
        "option '--f' is ambiguous; possibilities: '--format' '--force-share'",
    ),
    (
        "info --force-share=1",
        "unrecognized option '--force-share=1'",
        "option '--force-share' doesn't allow an argument",
        "option '--force-share' doesn't allow an argument",
    ),
    ("info -qZ", "unrecognized option 'info'", "invalid option -- 'q'", "invalid option -- 'q'"),
    ("info -UZ x", "unrecognized option '-UZ'", "invalid option -- 'Z'", "invalid option -- 'Z'"),
    (
        "info -Uf",
        "missing argument for option '-Uf'",
        "option requires an argument -- 'f'",
        "option requires an argument -- 'f'",
    ),
    (
        "info --=x",
        "unrecognized option '--=x'",
        "option '--=x' is ambiguous; possibilities: '--help' '--format' '--output' '--backing-chain' '--object' \
      '--image-opts' '--force-share'",
        "option '--=x' is ambiguous; possibilities: '--help' '--format' '--image-opts' '--backing-chain' '--cache' \
      '--force-share' '--limits' '--output' '--object'",
    ),
    (
        "info x --out",
        "missing argument for option '--out'",
        "option '--output' requires an argument",
        "option '--output' requires an argument",
    ),
    ("info - -", "Expecting one image file name", "Expecting one image file name", "Expecting one image file name"),
    (
        "info --output=xml --nosuch",
        "unrecognized option '--nosuch'",
        "--output expects 'human' or 'json' not 'xml'",
        "--output expects 'human' or 'json', not 'xml'",
    ),
    (
        "measure --output=xml a b",
        "--output must be used with human or json as argument.",
        "--output expects 'human' or 'json' not 'xml'",
        "--output expects 'human' or 'json', not 'xml'",
    ),
    (
        "check -r nosuch a b",
        "Unknown option value for -r (expecting 'leaks' or 'all'): nosuch",
        "--repair (-r) expects 'leaks' or 'all' not 'nosuch'",
        "--repair (-r) expects 'leaks' or 'all', not 'nosuch'",
    ),
    (
        "check -T nosuch x",
        "Invalid source cache option: nosuch",
        "Invalid source cache option: nosuch",
        "Invalid source cache option: nosuch",
    ),
    ("resize x -1M", "-", "-", "-"),
    ("resize x -1M --shrink", "unrecognized option 'x'", "-", "-"),
    ("resize x --shrink -1M", "-", "invalid option -- '1'", "invalid option -- '1'"),
    ("resize -1M x", "unrecognized option 'resize'", "invalid option -- '1'", "invalid option -- '1'"),
    ("resize x -1M -2M", "unrecognized option 'x'", "invalid option -- '2'", "invalid option -- '2'"),
    (
        "resize x 5 6",
        "Expecting image file name and size",
        "Extra argument(s) in command line",
        "Extra argument(s) in command line",
    ),
    (
        "resize -- x -1M y",
        "Expecting image file name and size",
        "Expecting image file name and size",
        "Expecting image file name and size",
    ),
    ("dd count=1k if=a of=b", "-", "Invalid count specified: '1k'.", "-"),
    (
        "dd count=99E if=a of=b",
        "Invalid count specified. Must be between 0 and 9223372036854775807.",
        "Invalid count specified: '99E'.",
        "Invalid count specified. Must be between 0 and 9223372036854775807.",
    ),
    (
        "bitmap --remove -g 1 nope",
        "granularity only supported with --add",
        "granularity only supported with --add",
        "granularity only supported with --add",
    ),
    ("convert -n -b x a b", "unrecognized option '-b'", "invalid option -- 'b'", "-"),
    ("create o 1M extra", "Unexpected argument: extra", "Unexpected argument: extra", "Unexpected argument: extra"),
    (
        "rebase x",
        "Must specify backing file (-b) or use unsafe mode (-u)",
        "Must specify backing file (-b) or use unsafe mode (-u)",
        "Must specify backing file (-b) or use unsafe mode (-u)",
    ),
    (
        "snapshot -l -l x",
        "Cannot mix '-l', '-a', '-c', '-d'",
        "Cannot mix '-l', '-a', '-c', '-d'",
        "Cannot mix '-l', '-a', '-c', '-d'",
    ),
    ("-zV", "unrecognized option 'qemu-img'", "invalid option -- 'z'", "invalid option -- 'z'"),
    ("nosuch", "Command not found: nosuch", "Command not found: nosuch", "Command not found: nosuch"),
    ("amend -f qcow2 -o help", "-", "-", "-"),
    ("convert -o help -O qcow2", "-", "-", "-"),
    (
        "measure -f raw --size 1M",
        "--image-opts, -f, and -l require a filename argument.",
        "--image-opts, -f, and -l require a filename argument.",
        "--image-opts, -f, and -l require a filename argument.",
    ),
];

#[test]
fn dialects_of_usage_errors() {
    for (line, old, interim, new) in DIALECTS {
        let argv: Vec<&str> = line.split(' ').collect();
        for (version, want) in [("7.2", old), ("10.0.13", interim), ("11.1.3", new)] {
            let got = answered(&argv, version).map_or("-\n".into(), |answer| answer.stderr);
            let first = got.lines().next().unwrap_or_default();
            let text = first.split_once(": ").map_or(first, |(_, text)| text);
            assert_eq!(text, *want, "{line} in {version}");
        }
    }
}

#[test]
fn options_are_known_by_one_key() {
    for version in VERSIONS {
        let parsed = run_as(false, &["convert", "-pf", "raw", "a", "-Oqcow2", "-o", "x=1", "b", "-S4k"], version);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.value("source-format"), Some(OsStr::new("raw")));
        assert_eq!(parsed.value("target-format"), Some(OsStr::new("qcow2")));
        assert!(parsed.has("progress") && !parsed.has("quiet"));
        assert_eq!(parsed.number("sparse-size"), Some(4096));
        assert_eq!(parsed.words, ["a", "b"]);
        let parsed = run_as(false, &["dd", "if=a", "bs=1k", "of=b=c"], version).unwrap();
        assert_eq!((parsed.number("bs"), parsed.value("of")), (Some(1024), Some(OsStr::new("b=c"))));
        let parsed = run_as(false, &["create", "-f", "qcow2", "a", "1M"], version).unwrap();
        assert_eq!(parsed.number("size"), Some(1 << 20));
        let parsed = run_as(false, &["resize", "a", "-2k"], version).unwrap();
        assert_eq!((parsed.number("size"), parsed.words[1].as_os_str()), (Some(2048), OsStr::new("-2k")));
    }
}

#[test]
fn the_native_face_has_its_own_words() {
    let code = |argv: &[&str]| run_as(true, argv, "5.2").unwrap_err().code;
    assert_eq!((code(&["info"]), code(&["info", "--nosuch"]), code(&["check", "-T", "x", "y"])), (2, 2, 2));
    let lines = run_as(true, &["info", "--nosuch"], "5.2").unwrap_err().stderr;
    assert_eq!(
        lines,
        [&b"instar: unrecognized option '--nosuch'"[..], b"Try 'instar info --help' for more information"]
    );
    let parsed =
        run_as(true, &["--allow", "/a", "info", "x", "--allow=/b", "--chain", "-v", "--qemu-version", "8.2"], "10.2");
    let parsed = parsed.unwrap();
    assert_eq!(parsed.values("allow").collect::<Vec<_>>(), ["/a", "/b"]);
    assert!(parsed.has("chain") && parsed.has("verbose"));
    assert_eq!(parsed.profile, Profile::parse("8.2").unwrap());
    assert!(run_as(true, &["config", "--show-sources"], "10.2").unwrap().has("show-sources"));
    assert!(run_as(false, &["config"], "10.2").is_err() && run_as(false, &["info", "-v", "x"], "10.2").is_err());
    assert_eq!(run_as(true, &["--qemu-version", "x", "info", "y"], "10.2").unwrap_err().code, 2);
}

#[test]
fn our_options_stand_before_the_verb_in_the_other_face() {
    let parsed = run_as(false, &["--qemu-version=7.2", "--unsafe-quirks", "info", "x"], "10.2").unwrap();
    assert!(parsed.has("unsafe-quirks"));
    let stop = run_as(false, &["--qemu-version=7.2", "info", "-Z"], "10.2").unwrap_err();
    assert_eq!(stop.stderr[0], b"qemu-img: unrecognized option '-Z'");
    assert!(run_as(false, &["info", "--unsafe-quirks", "x"], "10.2").is_err());
}

#[test]
fn usage_errors_repeat_the_name_as_called() {
    let face = Face { argv0: OsStr::new("/a/b/qemu-img"), ..face(false) };
    let stop = |version: &str, word: &str| {
        let argv = [OsString::from("info"), OsString::from(word)];
        let mut read = |_: &[u8]| Ok(Vec::new());
        let stop = parse(&argv, &face, Profile::parse(version).unwrap(), &mut read).unwrap_err();
        ended(&stop.stderr)
    };
    assert_eq!(
        stop("10.2", "-Z"),
        "/a/b/qemu-img info: invalid option -- 'Z'\nTry '/a/b/qemu-img info --help' for more information\n"
    );
    assert_eq!(stop("8.2", "-Z"), "qemu-img: unrecognized option '-Z'\nTry 'qemu-img --help' for more information\n");
    let argv = [OsString::from("info")];
    let stop = parse(&argv, &face, Profile::default(), &mut |_: &[u8]| Ok(Vec::new())).unwrap_err();
    assert_eq!(stop.stderr[0], b"qemu-img: Expecting one image file name");
}

#[test]
fn help_and_version_are_orderly_ends() {
    let end = |argv: &[&str], version| {
        let stop = run_as(false, argv, version).unwrap_err();
        assert_eq!((stop.code, stop.stderr.len()), (0, 0), "{argv:?}");
        String::from_utf8(stop.stdout).unwrap()
    };
    assert_eq!(end(&["-Vx"], "10.2"), "qemu-img version\n");
    assert!(end(&["info", "-h", "x"], "10.2").contains("--force-share"));
    assert!(end(&["info", "--he"], "8.2.2").contains("Supported formats: raw qcow2"));
    assert!(end(&["--help", "info"], "10.2").contains("\n  info"));
    assert!(end(&["info", "--object", "help"], "10.2").contains("  secret\n"));
}
