//! Words in, words out: the grammar, the verbs' faces and the sentences.
#![forbid(unsafe_code)]

mod amend;
pub mod args;
mod asking;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod config;
mod convert;
mod create;
mod dd;
mod founding;
mod info;
mod making;
mod map;
mod measure;
mod opening;
pub mod profile;
mod rebase;
mod recipe;
pub mod render;
mod resize;
pub mod settings;
mod setup;
mod snapshot;
mod transfer;

use args::{Parsed, Stop};
use settings::{Face, Settings};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// A verb: its word, and what runs it.
struct Command {
    name: &'static str,
    run: fn(&Parsed, &Settings) -> Result<Told, Told>,
}

/// Every verb there is.
const COMMANDS: &[Command] = &[
    Command { name: "amend", run: amend::run },
    Command { name: "bench", run: bench::run },
    Command { name: "bitmap", run: bitmap::run },
    Command { name: "check", run: check::run },
    Command { name: "commit", run: commit::run },
    Command { name: "compare", run: compare::run },
    Command { name: "convert", run: convert::run },
    Command { name: "create", run: create::run },
    Command { name: "dd", run: dd::run },
    Command { name: "info", run: info::run },
    Command { name: "map", run: map::run },
    Command { name: "measure", run: measure::run },
    Command { name: "rebase", run: rebase::run },
    Command { name: "resize", run: resize::run },
    Command { name: "snapshot", run: snapshot::run },
    Command { name: "config", run: config::run },
];

/// The formats, as the help lists them.
const FORMATS: &str = "bochs cloop dmg iso luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc";

/// Writes to standard output.
type Print = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What a run has to say, and how it ends.
#[derive(Default)]
struct Told {
    stdout: Vec<u8>,
    /// What more goes to standard output, for those who have too much to say to hold it.
    print: Option<Print>,
    stderr: Vec<u8>,
    code: u8,
}

impl Told {
    /// A failure of one sentence; where qemu-img adds lines of hints, the native face goes on in the same line.
    fn failure(settings: &Settings, sentence: &[u8]) -> Told {
        let lines: Vec<&[u8]> = sentence.split(|b| *b == b'\n').collect();
        let joint = if settings.face == Face::Native { b"; ".as_slice() } else { b"\n" };
        // In old versions the last line of this one has no end.
        let is_endless = settings.face == Face::Qemu
            && sentence.ends_with(b"block-dirty-bitmap-remove to delete this bitmap from disk")
            && !settings.profile.ends_bitmap_hint();
        let end = if is_endless { b"".as_slice() } else { b"\n" };
        let stderr = [settings.face.prefix().as_bytes(), b": ", &lines.join(joint), end].concat();
        Told { stderr, code: 1, ..Told::default() }
    }

    /// The same, with other lines for standard error before its own.
    fn after(self, lines: &[u8]) -> Told {
        Told { stderr: [lines, &self.stderr].concat(), ..self }
    }

    /// A run that never began.
    fn stop(settings: &Settings, stop: &Stop) -> Told {
        Told {
            stderr: stderr_lines(settings, &stop.stderr),
            stdout: stop.stdout.clone(),
            code: stop.code,
            ..Told::default()
        }
    }
}

/// Lines for standard error. Natively a line that does not begin with the program's name goes on in the one before.
fn stderr_lines(settings: &Settings, lines: &[Vec<u8>]) -> Vec<u8> {
    let (prefix, text) = (settings.face.prefix(), stderr_text(settings));
    let mut out = Vec::new();
    for line in lines {
        let hint = settings.face == Face::Native && !line.starts_with(prefix.as_bytes()) && out.pop().is_some();
        out.extend_from_slice(if hint { b"; " } else { b"" });
        out.extend_from_slice(&text.show(line));
        out.push(b'\n');
    }
    out
}

/// Runs a command line, program name first.
pub fn run(mut argv: impl Iterator<Item = OsString>) -> ExitCode {
    let argv0 = argv.next().unwrap_or_default();
    let argv: Vec<OsString> = argv.collect();
    let told = tell(&argv0, &argv);
    let mut code = told.code;
    // Standard error first: a reader that closes standard output early still learns why.
    let _ = io::stderr().write_all(&told.stderr);
    let mut stdout = io::stdout().lock();
    let more = told.print.unwrap_or_else(|| Box::new(|_| Ok(())));
    let written = stdout.write_all(&told.stdout).and_then(|()| more(&mut stdout)).and_then(|()| stdout.flush());
    if let Err(error) = written {
        let _ = writeln!(io::stderr(), "{}: cannot write to standard output: {error}", base_name(&argv0));
        code = 1;
    }
    ExitCode::from(code)
}

fn base_name(argv0: &OsStr) -> String {
    let name = argv0.as_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default();
    name.escape_ascii().to_string()
}

fn tell(argv0: &OsStr, argv: &[OsString]) -> Told {
    // What is not text is no value that any setting has, and is refused as such.
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let called_qemu_img = base_name(argv0) == "qemu-img";
    let mut settings = match Settings::load(&variable) {
        Ok(settings) => settings,
        Err(sentence) => {
            let mut settings = Settings::default();
            if called_qemu_img || variable("INSTAR_FACE").as_deref() == Some("qemu-img") {
                settings.face = Face::Qemu;
            }
            return Told::failure(&settings, sentence.as_bytes());
        }
    };
    if called_qemu_img {
        settings.face = Face::Qemu;
    }
    let names: Vec<&str> = COMMANDS.iter().map(|c| c.name).collect();
    let version = version(&settings);
    let face = args::Face {
        prefix: settings.face.prefix(),
        argv0,
        native: settings.face == Face::Native,
        verbs: &names,
        formats: FORMATS,
        version: &version,
    };
    let parsed = match args::parse(argv, &face, settings.profile, &mut |path| std::fs::read(OsStr::from_bytes(path))) {
        Ok(parsed) => parsed,
        Err(stop) => return Told::stop(&settings, &stop),
    };
    if let Err(sentence) = setup::from_command_line(&mut settings, &parsed) {
        // A wrong word on the command line, as any other.
        let code = if settings.face == Face::Native { 2 } else { 1 };
        return Told { code, ..Told::failure(&settings, sentence.as_bytes()) };
    }
    let mut told = match COMMANDS.iter().find(|c| c.name == parsed.verb.name) {
        Some(command) => (command.run)(&parsed, &settings).unwrap_or_else(|told| told),
        None => Told::failure(&settings, format!("Command not found: {}", parsed.verb.name).as_bytes()),
    };
    told.stderr.splice(0..0, stderr_lines(&settings, &parsed.warnings));
    told
}

/// What `--version` says.
fn version(settings: &Settings) -> String {
    let own = env!("CARGO_PKG_VERSION");
    match settings.face {
        Face::Native => format!("instar version {own} (as qemu-img {})\n", settings.qemu_version),
        Face::Qemu => format!(
            "qemu-img version {} (instar {own})\nA sandboxed replacement of qemu-img.\n",
            settings.profile.version
        ),
    }
}

/// How to show bytes on standard output: exactly, if that is what qemu-img does and no terminal is there to obey them.
fn stdout_text(settings: &Settings) -> render::escape::Text {
    match settings.face {
        Face::Qemu if !io::stdout().is_terminal() => render::escape::Text::Raw,
        _ => render::escape::Text::Safe,
    }
}

/// How to show bytes on standard error.
fn stderr_text(settings: &Settings) -> render::escape::Text {
    match settings.face {
        Face::Qemu if settings.unsafe_quirks && !io::stderr().is_terminal() => render::escape::Text::Raw,
        _ => render::escape::Text::Safe,
    }
}
