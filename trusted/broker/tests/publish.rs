//! Publishing: what stands under a name is the former file or the new one, and nothing else is left behind.
#![allow(missing_docs)]

use instar_broker::publish::{FileType, Hints, Refused, Target, Wish, publish_all};
use instar_testkit::place::{Scratch, admit_somebody, admits_somebody, skipped};
use rustix::fs::{XattrFlags, ftruncate, getxattr, setxattr};
use rustix::io::{Errno, pwrite};
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

const NEW: &[u8] = b"what is new";
const OLD: &[u8] = b"what stood there";

fn wish() -> Wish<'static> {
    Wish { locking: true, direct: false, sync: false, hints: Hints::default(), is_source: &|_| false }
}

fn make(path: &Path) -> Target {
    let target = Target::create(path, &wish()).expect("a target");
    assert!(target.is_fresh() && target.is_empty() && target.kind() == FileType::RegularFile);
    assert_eq!(pwrite(&*target.file(), NEW, 0), Ok(NEW.len()));
    target
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_new_file_appears_whole_or_not_at_all() {
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("new");
    drop(make(&path));
    assert!(names(scratch.path()).is_empty());
    for durable in [false, true] {
        let target = make(&path);
        target.publish(durable).expect("it appears");
        assert_eq!((names(scratch.path()), fs::read(&path).expect("a file")), (vec!["new".to_owned()], NEW.to_vec()));
        fs::remove_file(&path).expect("gone");
    }
}

#[test]
fn what_stands_there_stays_until_the_new_one_is_whole() {
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("file");
    fs::write(&path, OLD).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o604)).expect("a mode");
    // Only root may give files away; without that the file has its own owner, which is as well.
    let owner = chown(&path, Some(12_345), Some(54_321)).map_or(None, |()| Some((12_345, 54_321)));
    drop(make(&path));
    assert_eq!((fs::read(&path).expect("a file"), names(scratch.path()).len()), (OLD.to_vec(), 1));
    let target = make(&path);
    assert_eq!(fs::read(&path).expect("a file"), OLD);
    target.publish(false).expect("it appears");
    let about = fs::metadata(&path).expect("a file");
    assert_eq!((fs::read(&path).expect("a file"), names(scratch.path()).len()), (NEW.to_vec(), 1));
    assert_eq!(about.mode() & 0o7777, 0o604);
    assert!(owner.is_none_or(|owner| owner == (about.uid(), about.gid())));
}

#[test]
fn what_is_replaced_bequeaths_its_labels_and_its_readers() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    let note = |path: &Path| {
        let mut note = [0; 64];
        getxattr(path, "user.note", &mut note[..]).map(|len| note[..len].to_vec())
    };
    fs::write(path("private"), OLD).expect("a file");
    setxattr(path("private"), "user.note", b"kept", XattrFlags::empty()).expect("an attribute");
    admit_somebody(scratch.path());
    fs::write(path("shown"), OLD).expect("a file");
    fs::set_permissions(path("shown"), Permissions::from_mode(0o660)).expect("a mode");
    assert!(admits_somebody(&path("shown")) && !admits_somebody(&path("private")));
    for name in ["private", "shown", "new"] {
        let is_admitted = !path(name).exists() || admits_somebody(&path(name));
        let before = fs::metadata(path(name)).map(|about| about.mode());
        make(&path(name)).publish(false).expect("it appears");
        assert_eq!(fs::read(path(name)).expect("a file"), NEW);
        assert_eq!(admits_somebody(&path(name)), is_admitted, "{name}");
        assert!(before.is_err() || before.ok() == fs::metadata(path(name)).map(|about| about.mode()).ok(), "{name}");
    }
    assert_eq!(note(&path("private")).as_deref(), Ok(&b"kept"[..]));
    assert_eq!(note(&path("shown")), Err(Errno::NODATA));
}

/// Another user's program, or one in a container, may not say everything of a new file that is said of the former one.
#[test]
fn what_cannot_be_made_alike_is_written_where_it_stands() {
    if !geteuid().is_root() {
        return skipped("a label that may not be given: that takes a file with a label, made by root");
    }
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("file");
    fs::write(&path, OLD).expect("a file");
    setxattr(&path, "security.label", b"secret", XattrFlags::empty()).expect("an attribute");
    let before = fs::metadata(&path).expect("a file").ino();
    let without = |path: &Path| {
        let own = capabilities(None).expect("what this thread may do");
        let less = CapabilitySets { effective: own.effective - CapabilitySet::SYS_ADMIN, ..own };
        set_capabilities(None, less).expect("less");
        let target = make(path);
        assert!(!target.is_unseen());
        target.publish(false).expect("it is there");
    };
    std::thread::scope(|scope| scope.spawn(|| without(&path)).join()).expect("it ran");
    assert_eq!((fs::metadata(&path).expect("a file").ino(), fs::read(&path).expect("a file")), (before, NEW.to_vec()));
    let target = make(&path);
    assert!(target.is_unseen(), "root may say it");
    target.publish(false).expect("it appears");
    assert_ne!(fs::metadata(&path).expect("a file").ino(), before);
    let mut label = [0; 6];
    assert_eq!((getxattr(&path, "security.label", &mut label[..]), &label), (Ok(6), b"secret"));
}

#[test]
fn a_link_stays_and_leads_to_the_new_file() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("below")).expect("a folder");
    symlink("below/file", path("dangling")).expect("a link");
    symlink("dangling", path("twice")).expect("a link");
    make(&path("twice")).publish(false).expect("it appears");
    assert_eq!(fs::read(path("below/file")).expect("a file"), NEW);
    assert!(["dangling", "twice"].iter().all(|name| path(name).is_symlink()));
    symlink("loop", path("loop")).expect("a link");
    assert!(matches!(Target::create(&path("loop"), &wish()), Err(Refused::System(Errno::LOOP))));
}

#[test]
fn a_file_with_several_names_stays_the_same_file() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    fs::write(path("one"), OLD).expect("a file");
    fs::hard_link(path("one"), path("two")).expect("a name");
    let before = fs::metadata(path("one")).expect("a file").ino();
    let target = make(&path("one"));
    target.publish(false).expect("it appears");
    assert_eq!(fs::metadata(path("one")).expect("a file").ino(), before);
    assert_eq!(fs::read(path("two")).expect("a file"), NEW);
    assert_eq!(names(scratch.path()).len(), 2);
}

#[test]
fn a_name_that_is_taken_meanwhile_is_replaced() {
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("file");
    let target = make(&path);
    fs::write(&path, OLD).expect("a file");
    target.publish(false).expect("it appears");
    assert_eq!((fs::read(&path).expect("a file"), names(scratch.path()).len()), (NEW.to_vec(), 1));
}

#[test]
fn long_names_are_no_trouble() {
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("n".repeat(255));
    fs::write(&path, OLD).expect("a file");
    make(&path).publish(true).expect("it appears");
    assert_eq!((fs::read(&path).expect("a file"), names(scratch.path()).len()), (NEW.to_vec(), 1));
}

#[test]
fn what_cannot_be_made_is_refused_and_nothing_happens() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("folder")).expect("a folder");
    fs::write(path("source"), OLD).expect("a file");
    let source = fs::metadata(path("source")).expect("a file");
    let is_source = |identity: (u64, u64)| identity == (source.dev(), source.ino());
    let wish = Wish { is_source: &is_source, ..wish() };
    for name in ["folder", "no/such", ""] {
        let path = if name.is_empty() { Path::new("").to_path_buf() } else { path(name) };
        let refused = Target::create(&path, &wish).expect_err(name);
        assert!(matches!(refused, Refused::System(Errno::ISDIR | Errno::NOENT)), "{name}: {refused:?}");
    }
    assert!(matches!(Target::create(&path("source"), &wish), Err(Refused::Source)));
    assert!(matches!(Target::open(&path("source"), &wish), Err(Refused::Source)));
    assert!(matches!(Target::open(&path("nothing"), &wish), Err(Refused::System(Errno::NOENT))));
    assert_eq!((names(scratch.path()).len(), fs::read(path("source")).expect("a file")), (2, OLD.to_vec()));
}

#[test]
fn two_do_not_make_the_same_file_at_once() {
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("file");
    fs::write(&path, OLD).expect("a file");
    let first = make(&path);
    assert!(matches!(Target::create(&path, &wish()), Err(Refused::InUse(_))));
    first.publish(false).expect("it appears");
    make(&path).publish(false).expect("it appears");
}

#[test]
fn an_existing_file_is_written_where_it_stands() {
    let scratch = Scratch::new("publish");
    let path = scratch.path().join("file");
    fs::write(&path, OLD).expect("a file");
    let target = Target::open(&path, &wish()).expect("the file");
    assert!(!target.is_fresh() && target.len() == OLD.len() as u64);
    assert_eq!(pwrite(&*target.file(), b"WHAT", 0), Ok(4));
    target.publish(true).expect("done");
    assert_eq!(fs::read(&path).expect("a file"), b"WHAT stood there");
}

#[test]
fn a_device_is_not_made_longer_nor_replaced() {
    let target = Target::create(Path::new("/dev/null"), &wish()).expect("the device");
    assert!(!target.is_fresh() && target.kind() == FileType::CharacterDevice);
    assert!(ftruncate(&*target.file(), 1).is_err());
    target.publish(true).expect("done");
    assert!(OpenOptions::new().write(true).open("/dev/null").is_ok());
}

/// What is in a folder: names and contents.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap_or_default())).collect()
}

#[test]
fn files_that_belong_together_appear_together() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    for durable in [false, true] {
        fs::write(path("two"), OLD).expect("a file");
        fs::write(path("late"), OLD).expect("a file");
        fs::hard_link(path("late"), path("later")).expect("another name");
        let targets = ["one", "two", "late", "main"].map(|name| make(&path(name)));
        // What comes meanwhile is replaced as well.
        fs::write(path("main"), OLD).expect("a file");
        assert!(publish_all(targets.into(), durable).is_ok());
        let want = ["late", "later", "main", "one", "two"].map(|name| (name.to_owned(), NEW.to_vec()));
        assert_eq!(contents(scratch.path()), want);
        names(scratch.path()).iter().for_each(|name| fs::remove_file(path(name)).expect("gone"));
    }
    assert!(publish_all(Vec::new(), true).is_ok());
}

#[test]
fn a_failure_midway_leaves_everything_as_it_was() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    for (durable, bad) in [false, true].into_iter().flat_map(|durable| (0..5).map(move |bad| (durable, bad))) {
        let every = ["new", "old", "newer", "older", "main"];
        fs::write(path("old"), OLD).expect("a file");
        fs::set_permissions(path("old"), Permissions::from_mode(0o604)).expect("a mode");
        fs::write(path("older"), b"older").expect("a file");
        let inode = fs::metadata(path("old")).expect("a file").ino();
        let targets = every.map(|name| make(&path(name)));
        // A folder comes to stand at one of the names.
        let _ = fs::remove_file(path(every[bad]));
        fs::create_dir(path(every[bad])).expect("a folder");
        fs::write(path(every[bad]).join("inside"), OLD).expect("a file");
        let before = contents(scratch.path());
        assert_eq!(publish_all(targets.into(), durable), Err(Errno::ISDIR), "{}", every[bad]);
        assert_eq!(contents(scratch.path()), before, "{}", every[bad]);
        assert!(bad == 1 || fs::metadata(path("old")).expect("a file").ino() == inode, "the very same file");
        for name in names(scratch.path()) {
            fs::remove_file(path(&name)).or_else(|_| fs::remove_dir_all(path(&name))).expect("gone");
        }
    }
}

#[test]
fn a_folder_that_vanishes_takes_nothing_else_along() {
    let scratch = Scratch::new("publish");
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("elsewhere")).expect("a folder");
    fs::write(path("old"), OLD).expect("a file");
    let targets = ["new", "old", "elsewhere/part", "main"].map(|name| make(&path(name)));
    fs::remove_dir(path("elsewhere")).expect("gone");
    assert!(publish_all(targets.into(), false).is_err());
    assert_eq!(contents(scratch.path()), [("old".to_owned(), OLD.to_vec())]);
    // A name that leads to another's is noticed before anything happens.
    symlink("main", path("link")).expect("a link");
    let targets = ["old", "link", "main"].map(|name| make(&path(name)));
    assert_eq!(publish_all(targets.into(), false), Err(Errno::EXIST));
    assert_eq!((fs::read(path("old")).expect("a file"), names(scratch.path()).len()), (OLD.to_vec(), 2));
}
