//! Bytes as calls, messages and names: what is admitted lies inside its grant, and nothing else is opened.
#![cfg_attr(fuzzing, no_main)]

#[cfg(not(fuzzing))]
fn main() {
    for path in std::env::args_os().skip(1) {
        target::run(&std::fs::read(path).expect("a readable input"));
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

mod target {
    use instar_broker::Session;
    use instar_broker::admit::{Admitted, Frame, Grant, Past, admit};
    use instar_broker::policy::{self, Policy};
    use instar_fuzz::Reader;
    use instar_fuzz::calls::{Puppet, SHAPE, next_call};
    use instar_wire::code::{Code, decode, encode};
    use instar_wire::fact::Fact;
    use instar_wire::io::{Call, FileId, Granted, Part, Related};
    use instar_wire::op::{Outcome, Request, Rules, Source, info};
    use rustix::fs::fstat;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Component, Path, PathBuf};
    use std::sync::OnceLock;

    pub fn run(data: &[u8]) {
        messages(data);
        names(data);
        judge_calls(data);
        serve_calls(data);
    }

    fn messages(data: &[u8]) {
        fn same<T: Code>(data: &[u8]) {
            if let Ok(message) = decode::<T>(data) {
                assert_eq!(encode(&message), data);
            }
        }
        same::<Request>(data);
        same::<info::Event>(data);
        same::<Outcome>(data);
        same::<Related>(data);
        same::<Part>(data);
        same::<Granted>(data);
        same::<Fact>(data);
    }

    /// What policy admits lies below its root or is what the user named.
    fn names(data: &[u8]) {
        let root = Path::new("/srv/images");
        let policy = Policy { roots: vec![root.into()], named: vec!["/data/base".into()], as_qemu: false };
        let Ok(plain) = policy::judge_name(data) else { return };
        assert!(!plain.contains(&0) && !plain.is_empty() && !policy::has_protocol(plain));
        for directory in [root, Path::new("/srv/images/a/b"), Path::new("/")] {
            match policy::judge(&policy, &directory.join(OsStr::from_bytes(plain))) {
                Ok(policy::Admitted::Below(below, rest)) => {
                    assert_eq!(below, root);
                    assert!(rest.components().count() > 0);
                    assert!(rest.components().all(|part| matches!(part, Component::Normal(_))), "{rest:?}");
                }
                Ok(policy::Admitted::Named(named)) => assert_eq!(named, Path::new("/data/base")),
                Err(_) => {}
            }
        }
    }

    const GRANTS: [Grant; 3] = [
        Grant { len: 10_000, writable: false, has_parts: false },
        Grant { len: 10_000, writable: true, has_parts: true },
        Grant { len: i64::MAX as u64, writable: false, has_parts: false },
    ];

    /// What is admitted can be carried out without another look.
    fn judge_calls(data: &[u8]) {
        let mut input = Reader(data);
        let mut pasts = [Past::default(); SHAPE.lanes];
        let slot_len = SHAPE.slot_len as u64;
        while !input.is_empty() {
            let mut made = next_call(&mut input);
            let past = &mut pasts[made.lane];
            made.call.seq = past.seq.wrapping_add(1).wrapping_add(made.call.seq);
            let frame = Frame { lane: made.lane, lanes: SHAPE.lanes, slot_len, grants: &GRANTS, events_left: 5000 };
            let before = past.seq;
            match admit(&made.call, past, &frame) {
                Ok(admitted) => {
                    assert_eq!(past.seq, before + 1);
                    sound(&made.call, &admitted, made.lane);
                }
                Err(_) => assert_eq!(past.seq, before),
            }
        }
    }

    fn sound(call: &Call, admitted: &Admitted, lane: usize) {
        let grant = |id: FileId| GRANTS[id.0 as usize];
        let inside = |at: u64, len: u64, end: u64| u128::from(at) + u128::from(len) <= u128::from(end);
        let all = i64::MAX as u64;
        assert_eq!(call.zero, [0, 0]);
        match *admitted {
            Admitted::Read(range, skip, granule) => {
                let grant = grant(range.file);
                assert!(inside(range.at, range.len, if grant.writable { all } else { grant.len }));
                let bitmap = granule.map_or(0, |g| range.len.div_ceil(1 << g).div_ceil(8));
                assert!(inside(skip as u64 + range.len, bitmap, SHAPE.slot_len as u64));
            }
            Admitted::Holes(range) => {
                let grant = grant(range.file);
                assert!(inside(range.at, range.len, if grant.writable { all } else { grant.len }));
            }
            Admitted::Write(range, skip) => {
                assert!(grant(range.file).writable && inside(range.at, range.len, all));
                assert!(inside(skip as u64, range.len, SHAPE.slot_len as u64));
            }
            Admitted::Zero(range, _) | Admitted::Discard(range, _) | Admitted::Allocate(range, _) => {
                assert!(grant(range.file).writable && inside(range.at, range.len, all));
            }
            Admitted::Copy(range, to, at, _) => {
                let from = grant(range.file);
                assert!(inside(range.at, range.len, if from.writable { all } else { from.len }));
                assert!(grant(to).writable && inside(at, range.len, all));
            }
            Admitted::Share(from, to, len) => {
                assert!((from.0 as usize) < GRANTS.len() && grant(to).writable && from != to);
                assert!(len <= SHAPE.slot_len);
            }
            Admitted::SetLength(id, len) => assert!(grant(id).writable && len <= all),
            Admitted::Length(id) => assert!((id.0 as usize) < GRANTS.len()),
            Admitted::Flush(id) => assert!(grant(id).writable),
            Admitted::Related(len) | Admitted::Part(len) => assert!(len <= SHAPE.slot_len),
            Admitted::Emit(len) => assert!(len <= SHAPE.slot_len && len <= 5000),
            Admitted::Finish(len) => assert!(lane == 0 && len <= SHAPE.slot_len),
            Admitted::Start | Admitted::Wake | Admitted::Join => assert_eq!(lane, 0),
            Admitted::Park => assert_ne!(lane, 0),
            Admitted::Pause | Admitted::Clock => {}
        }
    }

    /// A folder with an image and a neighbour, and beside it what must stay unseen.
    fn stage() -> &'static PathBuf {
        static STAGE: OnceLock<PathBuf> = OnceLock::new();
        STAGE.get_or_init(|| {
            // Always the same, so that runs side by side or one after the other can share it.
            let path = std::env::temp_dir().join("instar-fuzz-wall");
            std::fs::create_dir_all(path.join("in/a")).expect("a folder");
            for (name, len) in [("in/image", 10_000), ("in/b", 100), ("c", 7)] {
                if std::fs::metadata(path.join(name)).map_or(0, |m| m.len()) != len {
                    std::fs::write(path.join(name), vec![1; len as usize]).expect("a file");
                }
            }
            let _ = std::os::unix::fs::symlink("../c", path.join("in/l"));
            let _ = std::os::unix::fs::symlink("../in/b", path.join("in/a/l"));
            path.canonicalize().expect("its path")
        })
    }

    /// The whole broker, with a puppet for a worker.
    fn serve_calls(data: &[u8]) {
        let folder = stage();
        let mut session = Session::new(Policy::default(), false);
        let Ok(file) = session.open(folder.join("in/image").as_os_str().as_bytes(), true) else { return };
        let Some(mut puppet) = Puppet::new(data) else { return };
        let request = Request::Info(info::Request {
            top: Source::whole(file),
            rules: Rules { as_qemu: false, version: 0 },
            chain: true,
            open_data_file: false,
            extra: true,
        });
        let mut told = 0;
        let result = instar_broker::run(&session, &mut puppet, &request, 5000, &mut |event| {
            told += event.len();
            decode::<info::Event>(event).map(drop)
        });
        assert!(told <= 5000);
        if let Err(collapse) = result {
            assert!(collapse.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
        let secret = std::fs::metadata(folder.join("c")).expect("it is there");
        for id in 0..session.grants().len() {
            let file = session.file(FileId(id as u32)).expect("it was granted");
            let stat = fstat(&*file).expect("it is open");
            assert_ne!(stat.st_ino, std::os::unix::fs::MetadataExt::ino(&secret));
            assert!([10_000, 100].contains(&stat.st_size));
        }
    }
}
