//! Space of files: what is set aside, and what goes back.
#![allow(missing_docs)]

use instar_broker::Session;
use instar_broker::plane::Due;
use instar_broker::policy::Policy;
use instar_broker::publish::{Hints, Target, Wish};
use instar_testkit::place::{Scratch, Small, skipped};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const WISH: Wish<'static> = Wish {
    locking: true,
    direct: false,
    sync: false,
    hints: Hints { no_copy_on_write: false, extent: None },
    is_source: &|_| false,
};

#[test]
fn space_is_set_aside_for_new_files_and_what_is_not_used_goes_back() {
    let scratch = Scratch::new("space");
    let places =
        (Small::ext4(scratch.path().join("ext"), 64 << 20), Small::mount(scratch.path().join("memory"), "64m"));
    let (Some(ext), Some(memory)) = places else {
        return skipped("space set aside: this user cannot mount a file system");
    };
    let kib = |file: &OwnedFd| rustix::fs::fstat(file).expect("a file").st_blocks / 2;
    let make = |place: &Path| {
        let session = Session::new(Policy::default(), true);
        let id = session.promise(b"new").id;
        let target = Target::create(&place.join("new"), &WISH).expect("a target");
        session.fulfil(id, &target);
        (session, id, target)
    };
    let (session, id, target) = make(ext.path());
    let file = target.file();
    session.set_aside(id, 1 << 20, 8 << 20);
    assert_eq!((kib(&file), target.len()), (8 << 10, 0));
    assert_eq!(rustix::io::pwrite(&*file, &[7; 1 << 20], 1 << 20), Ok(1 << 20));
    assert_eq!((kib(&file), target.len()), (8 << 10, 2 << 20));
    assert!(session.give_back());
    assert_eq!((kib(&file), target.len()), (1 << 10, 2 << 20));
    session.set_aside(id, 2 << 20, 8 << 20);
    assert!(session.give_back() && kib(&file) == 1 << 10, "there is no more after that");
    session.give_all_back();
    session.set_aside(id, 2 << 20, 8 << 20);
    assert_eq!(kib(&file), 9 << 10);
    session.give_all_back();
    assert_eq!((kib(&file), target.len()), (1 << 10, 2 << 20));
    // Not where it makes nothing quicker, and not for a file that others see.
    let (session, id, target) = make(memory.path());
    session.set_aside(id, 0, 8 << 20);
    assert!(kib(&target.file()) == 0 && !session.give_back());
    fs::write(ext.path().join("old"), b"old").expect("a file");
    let mut session = Session::new(Policy::default(), true);
    let old = ext.path().join("old");
    let id = session.open_to_write(old.as_os_str().as_bytes(), true).expect("a file").id;
    let file = session.file(id).expect("it is open");
    let before = kib(&file);
    session.set_aside(id, 0, 8 << 20);
    assert!(kib(&file) == before && !session.give_back());
}

#[test]
fn what_has_to_last_goes_to_the_disk_at_once() {
    let scratch = Scratch::new("due");
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("old"), b"old").expect("a file");
    let lasting = if Due::soon() == Due::Soon { Due::Soon } else { Due::Anytime };
    let cases = [
        ("new", (|_| {}) as fn(&mut Session), Due::Anytime),
        ("old", |_| {}, lasting),
        ("new", Session::make_lasting, lasting),
        ("new", Session::write_early, Due::soon()),
    ];
    for (number, (name, set, due)) in cases.into_iter().enumerate() {
        let mut session = Session::new(Policy::default(), true);
        set(&mut session);
        let id = session.promise(b"it").id;
        let target = Target::create(&at(name), &WISH).expect("a target");
        session.fulfil(id, &target);
        assert_eq!(session.due(id, 1 << 20), due, "{number}");
        assert_eq!(session.due(id, 64 << 10), Due::Anytime, "too little to be worth it");
    }
}
