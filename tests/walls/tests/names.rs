//! Names that lead out of the image's directory, and other names that no image should use, from inside each cell.

use instar_broker::Session;
use instar_broker::admit::Violation::ReadOnly;
use instar_broker::policy::{DEPTH_MAX, Refusal};
use instar_broker::session::Why;
use instar_rogue::Attack::{Behave, Script};
use instar_rogue::Step;
use instar_sandbox::{Budget, Wall};
use instar_walls::{End, attack_on, budget, op, session_with, walls};
use instar_wire::boot::Shape;
use instar_wire::code::{Bytes, decode, encode};
use instar_wire::io::{FileId, Granted, Op, Related, Role, Status};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, mknodat, utimensat};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// More than a grant is long on the wire.
const GRANT_MAX: u64 = 64;

struct Stage {
    dir: tempfile::TempDir,
    _socket: UnixListener,
}

impl Stage {
    fn new() -> Stage {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().canonicalize().expect("its path");
        fs::create_dir_all(path.join("in/sub")).expect("folders");
        fs::create_dir(path.join("out")).expect("a folder");
        fs::write(path.join("in/image"), [1; 4096]).expect("an image");
        fs::write(path.join("in/inside"), [2; 2048]).expect("a file");
        fs::write(path.join("out/secret"), "secret").expect("a secret");
        for (link, target) in [
            ("link-in", "sub/../inside"),
            ("link-out", "../out/secret"),
            ("link-missing", "../out/nothing"),
            ("link-dir", "../out"),
            ("link-dev", "/dev/zero"),
            ("link-mem", "/proc/self/mem"),
            ("link-link", "link-out"),
        ] {
            symlink(target, path.join("in").join(link)).expect("a link");
        }
        symlink(path.join("out/secret"), path.join("in/link-absolute")).expect("a link");
        mknodat(CWD, path.join("in/fifo"), FileType::Fifo, Mode::RWXU, 0).expect("a fifo");
        let socket = UnixListener::bind(path.join("in/socket")).expect("a socket");
        Stage { dir, _socket: socket }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("its path")
    }

    /// Has the rogue ask for the names in turn; tells how that ended and what the session knows.
    fn ask(&self, wall: Wall, names: &[&[u8]]) -> (End, Session) {
        let steps: Vec<Step> = names.iter().map(|name| related(0, Role::Backing, name)).collect();
        let (session, _) = session_with(&self.path().join("in/image"));
        let end = attack_on(wall, budget(), &session, &Script(steps));
        attack_on(wall, budget(), &session, &Behave).harmless();
        end.harmless();
        (end, session)
    }
}

/// Asks for a file.
fn related(from: u32, role: Role, name: &[u8]) -> Step {
    let message = encode(&Related { from: FileId(from), role, name: name.into() });
    Step { len: message.len() as u64, slot: Bytes(message), tell: Some(GRANT_MAX), ..op(Op::Related) }
}

/// Who of our descriptors leads there.
fn descriptors_below(path: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").expect("our descriptors").flatten();
    links.filter_map(|entry| fs::read_link(entry.path()).ok()).filter(|target| target.starts_with(path)).collect()
}

#[test]
fn names_that_lead_out_are_refused_unseen() {
    let stage = Stage::new();
    let (secret, out) = (stage.path().join("out/secret"), stage.path().join("out"));
    // So old that any reading would change it, also where the file system is slow to note such things.
    let old = Timespec { tv_sec: 1000, tv_nsec: 0 };
    let times = Timestamps { last_access: old, last_modification: Timespec { tv_nsec: UTIME_OMIT, ..old } };
    utimensat(CWD, &secret, &times, rustix::fs::AtFlags::empty()).expect("old times");
    let before = fs::metadata(&secret).expect("it is there");
    let absolute = secret.as_os_str().as_encoded_bytes();
    let outside: Vec<&[u8]> = vec![
        b"..",
        b"../",
        b".",
        b"./",
        b"/",
        b"../out/secret",
        b"../out/nothing",
        b"sub/../../out/secret",
        b"a/../../x",
        b"/etc/passwd",
        b"//etc//passwd",
        b"/etc/shadow",
        b"/nothing/at/all",
        b"/dev/null",
        b"/dev/zero",
        b"/dev/kvm",
        b"/proc/self/fd/0",
        b"/proc/self/mem",
        b"/proc/self/environ",
        b"/dev/stdin",
        b"../in2/image",
        absolute,
        b"link-out",
        b"link-missing",
        b"link-dir/secret",
        b"link-dir/nothing",
        b"link-dev",
        b"link-mem",
        b"link-link",
        b"link-absolute",
        b"sub/../link-out",
        b"file:../out/secret",
        b"file:/etc/passwd",
    ];
    for wall in walls() {
        let (end, session) = stage.ask(*wall, &outside);
        for (number, ((answer, slot), name)) in end.answers().iter().zip(&outside).enumerate() {
            let name = String::from_utf8_lossy(name);
            assert_eq!((answer.status, answer.cause), (Status::Refused as u32, number as u32), "{name}");
            assert_eq!((answer.value, answer.value2), (0, 0), "{name}");
            let why = session.mishap(answer.cause).expect("a note").why;
            assert_eq!(why, Why::Refused(Refusal::Outside), "{name}");
            // The slot still holds the question.
            assert_eq!(slot[..5], [0, 0, 0, 0, 1], "{name}");
        }
        assert_eq!(session.grants().len(), 1);
        assert!(descriptors_below(&out).is_empty());
    }
    let after = fs::metadata(&secret).expect("it is there");
    let seen = |m: &fs::Metadata| (m.atime(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.len());
    assert_eq!(seen(&before), seen(&after));
}

#[test]
fn whether_a_refused_name_exists_makes_no_difference() {
    let stage = Stage::new();
    for wall in walls() {
        for (there, missing) in [
            ("../out/secret", "../out/nothin"),
            ("/etc/passwd", "/etc/passwx"),
            ("/dev/null", "/dev/nula"),
            ("link-out", "link-missing"),
            ("link-dir/secret", "link-dir/nothing"),
            ("link-dev", "link-mem"),
        ] {
            let answer = |name: &str| {
                let (end, session) = stage.ask(*wall, &[name.as_bytes()]);
                let why = session.mishap(0).expect("a note").why;
                (end.told[0][..64].to_vec(), why)
            };
            assert_eq!(answer(there), answer(missing), "{there} {missing}");
        }
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let stage = Stage::new();
    let long = [b'x'; 5000];
    let wide = [b'x'; 300];
    let deep = b"sub/../".repeat(700);
    let cases: Vec<(&[u8], Why)> = vec![
        (b"", Why::Refused(Refusal::Empty)),
        (b"file:", Why::Refused(Refusal::Empty)),
        (b"a\0b", Why::Refused(Refusal::Nul)),
        (b"inside\0", Why::Refused(Refusal::Nul)),
        (b"\0", Why::Refused(Refusal::Nul)),
        (b"json:{}", Why::Refused(Refusal::Protocol)),
        (b"json:{\"driver\":\"file\",\"filename\":\"inside\"}", Why::Refused(Refusal::Protocol)),
        (b"nbd:x", Why::Refused(Refusal::Protocol)),
        (b"nbd://localhost/x", Why::Refused(Refusal::Protocol)),
        (b"http://localhost/x", Why::Refused(Refusal::Protocol)),
        (b"fd:0", Why::Refused(Refusal::Protocol)),
        (b"host_device:/dev/null", Why::Refused(Refusal::Protocol)),
        (b"fat:rw:.", Why::Refused(Refusal::Protocol)),
        (b"fifo", Why::Refused(Refusal::Kind)),
        (b"sub", Why::Refused(Refusal::Kind)),
        (b"socket", Why::Refused(Refusal::Kind)),
        (b"image", Why::Refused(Refusal::Cycle)),
        (b"sub/../image", Why::Refused(Refusal::Cycle)),
        (b"nothing", Why::System(Errno::NOENT)),
        (b"inside/x", Why::System(Errno::NOTDIR)),
        (&wide, Why::System(Errno::NAMETOOLONG)),
        (&long, Why::System(Errno::NAMETOOLONG)),
        (&deep, Why::System(Errno::NAMETOOLONG)),
    ];
    for wall in walls() {
        let names: Vec<&[u8]> = cases.iter().map(|(name, _)| *name).collect();
        let (end, session) = stage.ask(*wall, &names);
        for ((answer, _), (name, why)) in end.answers().iter().zip(&cases) {
            assert_ne!(answer.status, Status::Done as u32);
            let mishap = session.mishap(answer.cause).expect("a note");
            assert_eq!(&mishap.why, why, "{}", String::from_utf8_lossy(name));
            assert!(mishap.name.len() <= 4096);
        }
        assert_eq!(session.grants().len(), 1);
    }
}

#[test]
fn names_inside_are_granted_for_reading() {
    let stage = Stage::new();
    let absolute = stage.path().join("in/inside");
    let names: [&[u8]; 6] =
        [b"inside", b"./inside", b"sub/../inside", b"file:inside", b"link-in", absolute.as_os_str().as_encoded_bytes()];
    for wall in walls() {
        let (end, session) = stage.ask(*wall, &names);
        for (number, (answer, slot)) in end.answers().iter().enumerate() {
            let id = FileId(u32::try_from(number).expect("few") + 1);
            assert_eq!((answer.status, answer.value), (0, id.0.into()));
            let len = usize::try_from(answer.value2).expect("a length");
            let got: Granted = decode(&slot[..len]).expect("a grant");
            let want = Granted { id, len: 2048, writable: false, pinned: None, suggested: None, ..got.clone() };
            assert_eq!(got, want);
            assert!(session.file(id).is_some());
        }
        let (session, _) = session_with(&stage.path().join("in/image"));
        let write = Step { file: 1, len: 1, ..op(Op::Write) };
        let end = attack_on(*wall, budget(), &session, &Script(vec![related(0, Role::Extent, b"inside"), write]));
        end.violated(ReadOnly);
        assert_eq!(fs::read(stage.path().join("in/inside")).expect("it is there"), [2; 2048]);
    }
}

#[test]
fn chains_and_notes_end() {
    // The request has to fit the slot.
    let large = Budget { shape: Shape { lanes: 1, slot_len: 256 << 10 }, ..budget() };
    let stage = Stage::new();
    for wall in walls() {
        let (session, _) = session_with(&stage.path().join("in/image"));
        let chain = (0..=DEPTH_MAX as u32).map(|from| related(from, Role::Extent, b"inside")).collect();
        let end = attack_on(*wall, large, &session, &Script(chain));
        let answers = end.harmless().answers();
        assert!(answers[..DEPTH_MAX].iter().all(|(answer, _)| answer.status == 0));
        assert_eq!(answers[DEPTH_MAX].0.status, Status::Refused as u32);
        assert_eq!(session.mishap(answers[DEPTH_MAX].0.cause).expect("a note").why, Why::Refused(Refusal::Depth));

        // A worker that asks in vain, again and again and at length, fills no memory.
        let (session, _) = session_with(&stage.path().join("in/image"));
        let long = Step { tell: None, ..related(0, Role::Backing, &[b'/'; 1000]) };
        let mut script = vec![long; 60];
        script.push(Step { tell: None, ..related(0, Role::Backing, &[&b"json:"[..], &[b'y'; 60_000]].concat()) });
        attack_on(*wall, large, &session, &Script(script)).harmless();
        assert!((0..61).all(|n| session.mishap(n).expect("a note").name.len() <= 4096));
    }
}
