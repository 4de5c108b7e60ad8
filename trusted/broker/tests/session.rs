//! Sessions: which files open, by what name, and what is noted of those that do not.
#![allow(missing_docs)]

use instar_broker::policy::{Policy, Refusal};
use instar_broker::publish::{Hints, Refused, Target, Wish, publish_all};
use instar_broker::session::{Meant, Why};
use instar_broker::{Mishap, Session};
use instar_testkit::place::{Scratch, admit_somebody, admits_somebody};
use instar_wire::code::Bytes;
use instar_wire::io::{FileId, Granted, Part, Related, Role};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use rustix::io::Errno;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A folder `in` with an image in it, and one `out` beside it.
struct Tree(Scratch);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(Scratch::new("session"));
        for folder in ["in/sub/deep", "in2", "out"] {
            fs::create_dir_all(tree.path(folder)).expect("folders");
        }
        for file in ["in/top", "in/base", "in/sub/mid", "in2/x", "out/base", "out/other"] {
            fs::write(tree.path(file), file).expect("a file");
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A session with `in/top` open.
    fn session(&self, policy: Policy) -> (Session, FileId) {
        let mut session = Session::new(policy, false);
        let top = session.open(self.path("in/top").as_os_str().as_bytes(), true).expect("the top");
        (session, top.id)
    }
}

fn related(session: &Session, from: FileId, role: Role, name: &[u8]) -> Result<Granted, Mishap> {
    let asked = Related { from, role, name: Bytes(name.to_vec()) };
    session.open_related(&asked).map_err(|number| session.mishap(number).expect("a note"))
}

fn backing(session: &Session, from: FileId, name: &str) -> Result<Granted, Mishap> {
    related(session, from, Role::Backing, name.as_bytes())
}

/// What became of a name: the name it opened under, or why not.
fn fate(session: &Session, from: FileId, name: &str) -> Result<Vec<u8>, Why> {
    backing(session, from, name).map(|granted| session.name(granted.id)).map_err(|mishap| mishap.why)
}

fn open_to(roots: &[PathBuf]) -> Policy {
    Policy { roots: roots.to_vec(), ..Policy::default() }
}

#[test]
fn names_inside_open_under_names_that_the_user_knows() {
    let tree = Tree::new();
    symlink("sub/mid", tree.path("in/inner")).expect("a link");
    symlink(tree.path("in/base"), tree.path("in/absolute")).expect("a link");
    symlink("sub", tree.path("in/folder")).expect("a link");
    let (session, top) = tree.session(Policy::default());
    let absolute = tree.text("in/base");
    for name in ["base", "./base", "sub/../base", "sub//mid", "../in/base", "inner", "absolute", "folder/mid"] {
        let shown = tree.path("in").join(name);
        // As it would be typed: joined, not tidied up.
        let joined = format!("{}/{name}", tree.text("in"));
        assert_eq!(fate(&session, top, name), Ok(joined.clone().into_bytes()), "{name}");
        assert_eq!(session.name_beside(top, name.as_bytes()), joined.into_bytes());
        assert_eq!(session.verdict(top, &name.into()), Ok(()), "{}", shown.display());
    }
    for name in [absolute.clone(), format!("file:{absolute}")] {
        assert_eq!(fate(&session, top, &name), Ok(absolute.clone().into_bytes()), "{name}");
    }
    let granted = backing(&session, top, "base").expect("it is there");
    assert_eq!((granted.len, granted.writable, granted.pinned), (7, false, None));
    let facts = session.facts(granted.id).expect("facts");
    assert_eq!((facts.len, facts.device), (7, false));
    assert!(session.conflict(granted.id).is_none() && session.file(granted.id).is_some());
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_noted() {
    let tree = Tree::new();
    symlink("../out/base", tree.path("in/out")).expect("a link");
    symlink("../out", tree.path("in/way")).expect("a link");
    mknodat(CWD, tree.path("in/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
    let (session, top) = tree.session(Policy::default());
    let absolute = tree.text("out/base");
    let long = "x/".repeat(2100);
    let refused = |refusal| Why::Refused(refusal);
    for (name, why) in [
        ("../out/base", refused(Refusal::Outside)),
        ("sub/../../out/base", refused(Refusal::Outside)),
        ("../in2/x", refused(Refusal::Outside)),
        (&absolute, refused(Refusal::Outside)),
        ("/etc/passwd", refused(Refusal::Outside)),
        ("..", refused(Refusal::Outside)),
        ("out", refused(Refusal::Outside)),
        ("way/base", refused(Refusal::Outside)),
        ("fifo", refused(Refusal::Kind)),
        ("sub", refused(Refusal::Kind)),
        ("", refused(Refusal::Empty)),
        ("file:", refused(Refusal::Empty)),
        ("base\0", refused(Refusal::Nul)),
        ("nbd:unix:/x", refused(Refusal::Protocol)),
        ("json:{}", refused(Refusal::Protocol)),
        ("missing", Why::System(Errno::NOENT)),
        ("base/x", Why::System(Errno::NOTDIR)),
        (&long, Why::System(Errno::NAMETOOLONG)),
    ] {
        let mishap = backing(&session, top, name).expect_err("refused");
        assert_eq!((&mishap.why, mishap.named_by), (&why, Some(top)), "{name}");
        assert!(mishap.name.ends_with(&name.as_bytes()[..name.len().min(90)]) || name.len() > 4096, "{name}");
        // What is decided on the name alone is decided without a look.
        if let Why::Refused(refusal) = why
            && !["out", "way/base", "fifo", "sub"].contains(&name)
        {
            assert_eq!(session.verdict(top, &name.into()), Err(refusal), "{name}");
        }
    }
    assert_eq!(session.verdict(top, &"missing".into()), Ok(()), "nobody looked whether it is there");
    let nobody = FileId(99);
    assert_eq!(fate(&session, nobody, "base"), Err(Why::Refused(Refusal::Empty)));
    assert_eq!((session.name(nobody), session.facts(nobody)), (Vec::new(), None));
}

#[test]
fn directories_and_files_can_be_allowed() {
    let tree = Tree::new();
    let (session, top) = tree.session(open_to(&[tree.path("out")]));
    assert!(fate(&session, top, "../out/base").is_ok());
    assert!(fate(&session, top, &tree.text("out/other")).is_ok());
    assert_eq!(fate(&session, top, "../in2/x"), Err(Why::Refused(Refusal::Outside)));
    let (session, top) = tree.session(Policy { named: vec![tree.path("out/base")], ..Policy::default() });
    assert!(fate(&session, top, "../out/base").is_ok(), "the user named it");
    assert_eq!(fate(&session, top, "../out/other"), Err(Why::Refused(Refusal::Outside)), "but not its neighbour");
}

#[test]
fn what_the_user_typed_is_where_names_begin() {
    let tree = Tree::new();
    let up = "../".repeat(std::env::current_dir().expect("here").components().count() - 1);
    let relative = format!("{up}{}", tree.text("in/sub/../top").trim_start_matches('/'));
    let mut session = Session::new(Policy::default(), false);
    let top = session.open(relative.as_bytes(), true).expect("the top").id;
    let want = format!("{}base", relative.strip_suffix("top").expect("its name"));
    assert_eq!(fate(&session, top, "base"), Ok(want.clone().into_bytes()));
    assert_eq!(session.name_beside(top, b"base"), want.into_bytes());
    // A directory's other name, and a link to the file alone.
    symlink("in", tree.path("linked")).expect("a link");
    symlink("../in/top", tree.path("out/top")).expect("a link");
    let top = session.open(tree.text("linked/top").as_bytes(), true).expect("the same").id;
    assert!(fate(&session, top, "base").is_ok() && fate(&session, top, &tree.text("linked/base")).is_ok());
    let mut session = Session::new(Policy::default(), false);
    let top = session.open(tree.text("out/top").as_bytes(), true).expect("the same").id;
    assert_eq!(fate(&session, top, "base"), Err(Why::Refused(Refusal::Outside)));
    assert!(fate(&session, top, "../in/base").is_ok(), "its own directory is where it really is");
}

#[test]
fn a_chain_that_comes_back_is_refused() {
    let tree = Tree::new();
    fs::hard_link(tree.path("in/top"), tree.path("in/hard")).expect("another name");
    symlink("top", tree.path("in/soft")).expect("a link");
    let (session, top) = tree.session(Policy::default());
    let cycle = Err(Why::Refused(Refusal::Cycle));
    for name in ["top", "hard", "soft", "sub/../top"] {
        assert_eq!(fate(&session, top, name), cycle, "{name}");
    }
    let base = backing(&session, top, "base").expect("it is there").id;
    let mid = related(&session, base, Role::Parent, b"sub/mid").expect("it is there").id;
    for name in ["mid", "../base", "../soft"] {
        assert_eq!(fate(&session, mid, name), cycle, "{name}");
        let parent = related(&session, mid, Role::Parent, name.as_bytes()).expect_err("refused");
        assert_eq!(parent.why, Why::Refused(Refusal::Cycle), "{name}");
    }
    // Only a chain can go round: two images may share a base, and a disk may lie in the file that describes it.
    assert!(fate(&session, top, "base").is_ok());
    assert!(related(&session, top, Role::Extent, b"top").is_ok());
}

#[test]
fn a_chain_ends_at_two_hundred() {
    let tree = Tree::new();
    let (session, top) = tree.session(Policy::default());
    let mut last = top;
    for n in 1..=201 {
        let name = format!("layer{n}");
        fs::write(tree.path("in").join(&name), "").expect("a file");
        match backing(&session, last, &name) {
            Ok(granted) => last = granted.id,
            Err(mishap) => {
                assert_eq!((n, &mishap.why), (201, &Why::Refused(Refusal::Depth)));
                assert_eq!(mishap.named_by, Some(last));
            }
        }
    }
    assert_eq!(session.grants().len(), 201);
    let extent = related(&session, last, Role::Extent, b"base").expect_err("no deeper by any way");
    assert_eq!(extent.why, Why::Refused(Refusal::Depth));
}

#[test]
fn qemus_ways_open_what_qemu_opens() {
    let tree = Tree::new();
    mknodat(CWD, tree.path("in/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
    let quirky = || Policy { as_qemu: true, ..Policy::default() };
    let (mut session, top) = tree.session(quirky());
    assert!(fate(&session, top, "../out/base").is_ok());
    assert!(fate(&session, top, "/etc/passwd").is_ok());
    assert_eq!(fate(&session, top, "fifo"), Err(Why::NotRegular), "and nobody waits for its other end");
    assert_eq!(fate(&session, top, "sub"), Err(Why::NotRegular));
    assert_eq!(fate(&session, top, "json:{}"), Err(Why::Refused(Refusal::Protocol)), "nobody interprets it");
    let path = tree.path("out/base").as_os_str().as_bytes().to_vec();
    let interpret = move |_: &Role, name: &[u8]| match name {
        b"json:{}" => Ok(Meant { path: path.clone(), pinned: Some(b"raw".to_vec()), shown: b"shown".to_vec() }),
        _ => Err(b"no".to_vec()),
    };
    session.interpret_names(Box::new(interpret.clone()));
    let granted = backing(&session, top, "json:{}").expect("it is interpreted");
    assert_eq!((granted.pinned, session.name(granted.id)), (Some("raw".into()), b"shown".to_vec()));
    assert_eq!(fate(&session, top, "nbd:x"), Err(Why::Said(b"no".to_vec())));
    // Without qemu's ways nobody is asked.
    let (mut session, top) = tree.session(Policy::default());
    session.interpret_names(Box::new(interpret));
    assert_eq!(fate(&session, top, "json:{}"), Err(Why::Refused(Refusal::Protocol)));
}

#[test]
fn what_the_user_names_must_be_a_file() {
    let tree = Tree::new();
    mknodat(CWD, tree.path("in/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
    let mut session = Session::new(Policy::default(), false);
    let mut why = |name: &str| session.open(name.as_bytes(), true).map(drop).map_err(|m| m.why);
    assert_eq!(why(&tree.text("in/fifo")), Err(Why::NotRegular));
    assert_eq!(why(&tree.text("in")), Err(Why::NotRegular));
    assert_eq!(why(&tree.text("nosuch")), Err(Why::System(Errno::NOENT)));
    assert_eq!(why(""), Err(Why::System(Errno::NOENT)));
    assert_eq!(why(&tree.text("in/top")), Ok(()));
    let blank = session.open_blank(b"nothing", 12345).expect("memory");
    assert_eq!((blank.len, session.name(blank.id)), (12345, b"nothing".to_vec()));
    let device = session.open(b"/dev/zero", true).expect("a device");
    assert!(session.facts(device.id).is_some_and(|f| f.device && f.len == 0));
}

#[test]
fn formats_are_suggested_by_one_ending_only() {
    let tree = Tree::new();
    let mut session = Session::new(Policy::default(), false);
    for (name, suggested) in
        [("disk.dmg", Some("dmg")), ("disk.DMG", None), ("disk.qcow2", None), (".dmg", Some("dmg"))]
    {
        fs::write(tree.path(name), "").expect("a file");
        let granted = session.open(tree.text(name).as_bytes(), true).expect("it is there");
        assert_eq!(granted.suggested, suggested.map(Bytes::from), "{name}");
    }
}

#[test]
fn notes_are_bounded_in_number_and_length() {
    let session = Session::new(Policy::default(), false);
    let mishap = |name: Vec<u8>| Mishap { name, named_by: None, why: Why::TooMany };
    for n in 0..1024 {
        assert_eq!(session.note(mishap(vec![b'x'; 5000])), n);
    }
    for _ in 0..100 {
        assert_eq!(session.note(mishap(b"late".to_vec())), 1023, "the last one stands for all that follow");
    }
    assert!((0..1024).all(|n| session.mishap(n).is_some_and(|m| m.name.len() == 4096)));
    assert_eq!(session.mishap(1024), None);
}

#[test]
fn locks_are_taken_when_the_session_takes_locks() {
    let tree = Tree::new();
    let locked = |path: &Path| {
        let mut session = Session::new(Policy::default(), true);
        let top = session.open(path.as_os_str().as_bytes(), true).expect("the top").id;
        session.conflict(top)
    };
    let holder = fs::File::open(tree.path("in/top")).expect("the file").into();
    let writes = instar_broker::lock::Claim { uses: &[instar_broker::lock::Right::Write], unshares: &[] };
    let held = instar_broker::lock::claim(&holder, writes).expect("locks").expect("free");
    let conflict = locked(&tree.path("in/top")).expect("it is in use");
    assert_eq!(conflict.to_string(), "Failed to get shared \"write\" lock");
    let (session, top) = tree.session(Policy::default());
    assert_eq!(session.conflict(top), None, "a session without locks does not ask");
    drop(held);
    assert_eq!(locked(&tree.path("in/top")), None);
}

/// How files are made here.
fn wish() -> Wish<'static> {
    Wish { locking: true, direct: false, sync: false, hints: Hints::default(), is_source: &|_| false }
}

#[test]
fn further_files_of_an_image_are_made_beside_it_and_nowhere_else() {
    let tree = Tree::new();
    let (mut session, top) = tree.session(Policy::default());
    let path = tree.path("out/disk.vmdk");
    let main = session.promise(tree.text("out/disk.vmdk").as_bytes()).id;
    let part = |session: &Session, from: FileId, name: &[u8]| {
        let made = session.make_part(&Part { from, name: Bytes(name.to_vec()) });
        made.map_err(|number| session.mishap(number).expect("a note").why)
    };
    let refused = Err(Why::Refused(Refusal::Part));
    assert!(!session.has_parts(main) && part(&session, main, b"disk-flat.vmdk") == refused, "nobody allowed it");
    let target = Target::create(&path, &wish()).expect("a target");
    session.fulfil(main, &target);
    session.allow_parts(main, &path, wish());
    assert!(session.has_parts(main) && !session.has_parts(top) && !session.has_parts(FileId(99)));
    assert!(session.with_grants(|grants| grants[main.0 as usize].has_parts));
    let long = [&b"disk-"[..], &[b'x'; 251]].concat();
    let bad: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"disk",
        b"disk.vmdk",
        b"disk.vmdk2",
        b"other-flat.vmdk",
        b"sub/disk-x",
        b"disk-/../x",
        b"../disk-x",
        b"/disk-x",
        b"disk-x\0",
    ];
    for name in bad {
        assert_eq!(part(&session, main, name), refused, "{}", name.escape_ascii());
    }
    assert_eq!(part(&session, main, &long), Err(Why::System(Errno::NAMETOOLONG)));
    fs::create_dir(tree.path("out/disk-dir")).expect("a folder");
    assert_eq!(part(&session, main, b"disk-dir"), Err(Why::System(Errno::ISDIR)));
    // What is read is not written over, and what others use neither.
    symlink("../in/top", tree.path("out/disk-top")).expect("a link");
    assert_eq!(part(&session, main, b"disk-top"), Err(Why::Source));
    fs::write(tree.path("out/disk-used"), b"").expect("a file");
    let user = Target::create(&tree.path("out/disk-used"), &wish()).expect("the file");
    assert!(matches!(part(&session, main, b"disk-used"), Err(Why::InUse(_))));
    drop(user);
    symlink("/dev/null", tree.path("out/disk-null")).expect("a link");
    assert_eq!(part(&session, main, b"disk-null"), Err(Why::NotRegular));
    for name in ["disk-flat.vmdk", "disk-s001.vmdk", "disk.vmdk-x", "disk-used"] {
        let granted = part(&session, main, name.as_bytes()).expect(name);
        assert!(
            granted.writable
                && granted.len == 0
                && session.name(granted.id) == tree.text(&format!("out/{name}")).into_bytes()
        );
        let file = session.file(granted.id).expect("it is open");
        assert_eq!(rustix::io::pwrite(&*file, name.as_bytes(), 0), Ok(name.len()));
        assert_eq!(part(&session, main, name.as_bytes()), Err(Why::System(Errno::EXIST)), "once is enough");
        assert!(!tree.path(&format!("out/{name}")).exists() || name == "disk-used", "nobody sees it yet");
    }
    assert!(session.take_parts(top).is_empty());
    let parts = session.take_parts(main);
    assert_eq!(parts.len(), 4);
    publish_all(parts.into_iter().chain([target]).collect(), false).expect("they appear");
    for name in ["disk-flat.vmdk", "disk-s001.vmdk", "disk.vmdk-x", "disk-used"] {
        assert_eq!(fs::read_to_string(tree.path(&format!("out/{name}"))).expect("a file"), name);
    }
    assert!(path.exists() && session.take_parts(main).is_empty());
    let again = session.open_to_write(tree.text("out/disk-flat.vmdk").as_bytes(), true).expect("a file").id;
    assert_eq!(part(&session, again, b"disk-flat.vmdk-x"), refused);
    assert!(matches!(Target::create(&tree.path("out/disk-dir"), &wish()), Err(Refused::System(Errno::ISDIR))));
}

#[test]
fn many_files_can_be_made_and_not_too_many() {
    let tree = Tree::new();
    let (session, path) = (Session::new(Policy::default(), true), tree.path("out/disk.vmdk"));
    let main = session.promise(b"disk.vmdk").id;
    session.allow_parts(main, &path, wish());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = limit.saturating_sub(100).min(32_768);
    let make = |n: u64| session.make_part(&Part { from: main, name: format!("disk-s{n:03}.vmdk").as_str().into() });
    assert!((0..count).all(|n| make(n).is_ok()), "{count}");
    if count == 32_768 {
        let note = make(count).expect_err("too many");
        assert_eq!(session.mishap(note).map(|mishap| mishap.why), Some(Why::TooMany));
    }
    let parts = session.take_parts(main);
    assert_eq!(parts.len() as u64, count);
    publish_all(parts, false).expect("they appear");
    assert_eq!(fs::read_dir(tree.path("out")).expect("the folder").count() as u64, count + 2);
}

#[test]
fn an_heir_is_like_the_file_in_all_but_its_content() {
    let tree = Tree::new();
    let other = tree.path("out/other");
    symlink("../out/other", tree.path("in/link")).expect("a link");
    fs::set_permissions(&other, Permissions::from_mode(0o640)).expect("a mode");
    rustix::fs::setxattr(&other, "user.note", b"kept", XattrFlags::empty()).expect("an attribute");
    // This one was made before.
    admit_somebody(&tree.path("out"));
    fs::write(tree.path("out/new"), b"").expect("a file");
    assert!(admits_somebody(&tree.path("out/new")) && !admits_somebody(&other));
    let heir = |session: &Session, of: FileId, name: &[u8]| {
        let made = session.make_part(&Part { from: of, name: Bytes(name.to_vec()) });
        made.map_err(|number| session.mishap(number).expect("a note").why)
    };
    let mut session = Session::new(Policy::default(), true);
    let read = session.open(tree.path("in/base").as_os_str().as_bytes(), true).expect("a file").id;
    let id = session.open_to_write(tree.path("in/link").as_os_str().as_bytes(), true).expect("a file").id;
    assert_eq!(heir(&session, id, b""), Err(Why::Refused(Refusal::Part)), "nobody allowed it");
    session.allow_heir(id);
    session.allow_heir(read);
    assert!(session.has_parts(id) && !session.has_parts(read), "what is only read stays");
    assert_eq!(heir(&session, id, b"other-2"), Err(Why::Refused(Refusal::Part)));
    let there = || fs::read_dir(tree.path("out")).expect("a folder").count();
    let (count, before) = (there(), fs::metadata(&other).expect("it is there"));
    let granted = heir(&session, id, b"").expect("an heir");
    assert!(granted.writable && granted.len == 0 && session.is_unseen(granted.id));
    assert_eq!(heir(&session, id, b""), Err(Why::System(Errno::EXIST)), "there is one");
    let file = session.file(granted.id).expect("it is open");
    assert_eq!(rustix::io::pwrite(&*file, b"new", 0), Ok(3));
    assert!(fs::read(&other).expect("bytes") == b"out/other" && there() == count, "nobody sees it yet");
    session.inherit(id).expect("its place");
    let now = fs::metadata(&other).expect("it is there");
    assert_eq!((fs::read(&other).expect("bytes"), there()), (b"new".to_vec(), count));
    assert!(now.ino() != before.ino() && now.mode() == before.mode() && now.uid() == before.uid());
    let mut note = [0; 8];
    assert_eq!(rustix::fs::getxattr(&other, "user.note", &mut note[..]), Ok(4));
    assert!(!admits_somebody(&other), "nobody else may read it now");
    assert!(note.starts_with(b"kept") && tree.path("in/link").is_symlink());
    assert_eq!(session.length(id), Some(3));
    session.inherit(id).expect("nothing more");
}

#[test]
fn a_file_with_other_names_or_without_its_own_has_no_heir() {
    let tree = Tree::new();
    let meet = |name: &str, change: &dyn Fn(&Path)| {
        let path = tree.path(name);
        let mut session = Session::new(Policy::default(), true);
        let id = session.open_to_write(path.as_os_str().as_bytes(), true).expect("a file").id;
        session.allow_heir(id);
        change(&path);
        let made = session.make_part(&Part { from: id, name: Bytes(Vec::new()) });
        let why = session.mishap(made.expect_err("no heir")).expect("a note").why;
        session.inherit(id).expect("nothing");
        why
    };
    let linked = meet("out/other", &|path| fs::hard_link(path, tree.path("out/twin")).expect("a name"));
    assert_eq!(linked, Why::System(Errno::MLINK));
    let replaced = meet("out/base", &|path| {
        fs::write(tree.path("out/new"), b"another").expect("a file");
        fs::rename(tree.path("out/new"), path).expect("its name");
    });
    assert_eq!(replaced, Why::System(Errno::MLINK));
    assert_eq!(fs::read(tree.path("out/base")).expect("bytes"), b"another");
    assert_eq!(meet("in2/x", &|path| fs::remove_file(path).expect("a file")), Why::System(Errno::NOENT));
}
