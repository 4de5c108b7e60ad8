//! Moving bytes: on file systems that can do everything, and on those that cannot.
#![allow(missing_docs)]

use instar_broker::Session;
use instar_broker::plane::copy::{self, Route, Stop, Zeroes};
use instar_broker::plane::{Due, allocate, discard, flush, holes, read, set_length, write, zero};
use instar_broker::policy::Policy;
use instar_broker::sys::Mapped;
use instar_sandbox::window::{Turn, Window};
use instar_testkit::place::{repository, skipped, target};
use instar_wire::boot::Shape;
use instar_wire::io::Link;
use rustix::fs::{OFlags, fcntl_getfl};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const K: u64 = 1024;

/// A folder on some file system; it goes when the value does.
struct Ground(PathBuf);

impl Ground {
    /// One on the disk that the build is on, and one in memory.
    fn all() -> Vec<Ground> {
        let disk = if target().is_dir() { target() } else { repository() };
        let places = [disk, PathBuf::from("/dev/shm")];
        let there = places.into_iter().filter(|place| place.is_dir());
        there
            .map(|place| Ground(place.join(format!("plane-{}-{:?}", std::process::id(), std::thread::current().id()))))
            .inspect(|g| fs::create_dir_all(&g.0).expect("a folder"))
            .collect()
    }

    /// A file of these bytes.
    fn file(&self, name: &str, bytes: &[u8]) -> OwnedFd {
        fs::write(self.0.join(name), bytes).expect("a file");
        OpenOptions::new().read(true).write(true).open(self.0.join(name)).expect("the file").into()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).expect("the file")
    }

    fn blocks(&self, name: &str) -> u64 {
        fs::metadata(self.0.join(name)).expect("the file").blocks()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes that repeat themselves late.
fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 + 1).collect()
}

fn read_only(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("the file").into()
}

fn copy(from: &OwnedFd, at: u64, to: &OwnedFd, to_at: u64, len: u64) -> io::Result<()> {
    copy_with(Route { from, at, to, to_at }, len, Zeroes::Written, Due::Anytime)
}

/// Bytes go to the disk in each of these ways.
const DUES: [Due; 2] = [Due::Anytime, Due::Soon];

fn copy_with(route: Route<'_>, len: u64, zeroes: Zeroes, due: Due) -> io::Result<()> {
    copy::copy(route, len, zeroes, due).map_err(|stop| match stop {
        Stop::Reading(error) | Stop::Writing(error) => error,
    })
}

fn raw_error(result: io::Result<()>) -> Option<i32> {
    result.expect_err("it cannot be done").raw_os_error()
}

#[test]
fn copies_arrive_within_and_between_file_systems() {
    let grounds = Ground::all();
    for from in &grounds {
        let bytes = pattern(700 * K + 3);
        let source = from.file("source", &bytes);
        for to in &grounds {
            let target = to.file("target", b"begin");
            copy(&source, 5, &target, 100, 600 * K + 7).expect("a copy");
            let want = [b"begin".as_slice(), &[0; 95], &bytes[5..600 * 1024 + 12]].concat();
            assert!(to.bytes("target") == want, "{} to {}", from.0.display(), to.0.display());
            copy(&source, 0, &target, 0, 0).expect("nothing to copy");
            let beyond = copy(&source, 700 * K, &target, 0, 100).expect_err("there are three bytes left");
            assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
            assert!(copy(&source, 0, &read_only(&to.0.join("target")), 0, 10).is_err(), "it may not be written");
        }
        // Within one file, apart from each other.
        copy(&source, 0, &source, 800 * K, 10).expect("a copy");
        assert_eq!(from.bytes("source")[800 * 1024..], bytes[..10]);
    }
}

#[test]
fn what_is_shared_is_the_same_and_nothing_else_changes() {
    for ground in Ground::all() {
        let from = ground.file("from", &pattern(64 * K));
        let to = ground.file("to", &vec![0; 64 * K as usize]);
        let link = |at, to| Link { at, to, len: 8 * K };
        // The third begins where no block does: no file system can have that.
        let links = [link(0, 16 * K), link(32 * K, 0), link(1, 40 * K), link(0, 48 * K)];
        let done = copy::share(&from, &to, &links);
        assert!(done == 0 || done == 2, "{done}");
        let mut want = vec![0; 64 * K as usize];
        for link in &links[..done] {
            let (at, to, len) = (link.at as usize, link.to as usize, link.len as usize);
            want[to..to + len].copy_from_slice(&pattern(64 * K)[at..at + len]);
        }
        assert!(ground.bytes("to") == want);
    }
}

#[test]
fn copies_do_with_zeroes_as_they_are_told() {
    // Data, a short run of zeroes, data, a long one that ends with the copy.
    let mut bytes = pattern(900 * K);
    bytes[8 * 1024..12 * 1024].fill(0);
    bytes[100 * 1024..500 * 1024].fill(0);
    bytes[600 * 1024..].fill(0);
    for (ground, due) in Ground::all().iter().flat_map(|ground| DUES.map(|due| (ground, due))) {
        let source = ground.file("source", &bytes);
        for (zeroes, at) in [
            (Zeroes::Written, 0),
            (Zeroes::Skipped(4 * K), 0),
            (Zeroes::Skipped(512), 0),
            (Zeroes::Skipped(64 * K), 4 * K),
            (Zeroes::Skipped(16 << 20), 0),
            (Zeroes::Holes(4 * K), 0),
            (Zeroes::Holes(64 * K), 12 * K + 512),
        ] {
            let name = format!("{zeroes:?} from {at} on {}, {due:?}", ground.0.display());
            let old = vec![0xee; bytes.len()];
            let fresh = matches!(zeroes, Zeroes::Skipped(_));
            let target = ground.file("target", if fresh { b"" } else { &old });
            set_length(&target, bytes.len() as u64).expect("a length");
            let route = Route { from: &source, at, to: &target, to_at: at };
            copy_with(route, bytes.len() as u64 - at, zeroes, due).expect("a copy");
            let first = at as usize;
            let before = if fresh { &vec![0; first] } else { &old[..first] };
            assert!(ground.bytes("target") == [before, &bytes[first..]].concat(), "{name}");
            flush(&target).expect("durable");
            let saved = ground.blocks("target") * 512 < 700 * K;
            let asked = !matches!(zeroes, Zeroes::Written | Zeroes::Skipped(0x100_0000));
            assert_eq!(saved, asked, "{name}: {} blocks", ground.blocks("target"));
        }
    }
}

#[test]
fn copies_at_once_arrive_whole() {
    const LANES: u64 = 4;
    const LEN: u64 = 1100 * K + 77;
    let bytes = pattern(LANES * LEN);
    for (ground, due) in Ground::all().iter().flat_map(|ground| DUES.map(|due| (ground, due))) {
        let source = ground.file("source", &bytes);
        let target = ground.file("target", b"begin");
        set_length(&target, 5 + LANES * LEN).expect("a length");
        std::thread::scope(|scope| {
            for lane in 0..LANES {
                let (source, target) = (&source, &target);
                scope.spawn(move || {
                    let route = Route { from: source, at: lane * LEN, to: target, to_at: 5 + lane * LEN };
                    copy_with(route, LEN, Zeroes::Skipped(4 * K), due).expect("a copy");
                });
            }
        });
        assert!(ground.bytes("target") == [&b"begin"[..], &bytes].concat(), "{}", ground.0.display());
    }
}

#[test]
fn pages_take_what_the_file_has_room_for() {
    for ground in Ground::all() {
        let file = ground.file("disk", &pattern(64 * K));
        let pages = Mapped::new(file.as_fd(), 4097, 60 * 1024).expect("its pages");
        assert!(pages.write(4097, b"new") && pages.write(8191, b"new"));
        assert!(!pages.write(4095, b"new") && !pages.write(64 * K + 4000, b"new"), "outside of what was asked for");
        let mut want = pattern(64 * K);
        want[4097..4100].copy_from_slice(b"new");
        want[8191..8194].copy_from_slice(b"new");
        assert!(ground.bytes("disk") == want, "{}", ground.0.display());
        // Whoever shortens the file does no harm.
        set_length(&file, 16 * K).expect("a length");
        assert!(!pages.write(20 * K, b"new"));
        assert!(ground.bytes("disk") == want[..16 * 1024]);
        assert!(Mapped::new(read_only(&ground.0.join("disk")).as_fd(), 0, 4096).is_none());
    }
}

#[test]
fn zeroes_are_zeroes_whichever_way_they_come_about() {
    for ground in Ground::all() {
        for give_up in [false, true] {
            let bytes = pattern(300 * K);
            let file = ground.file("disk", &bytes);
            zero(&file, 1000, 200 * K, give_up).expect("zeroes");
            let (from, to) = (1000, 1000 + 200 * 1024);
            let want = [&bytes[..from], &vec![0; to - from], &bytes[to..]].concat();
            assert!(ground.bytes("disk") == want, "{} {give_up}", ground.0.display());
            // Zeroes beyond the end make the file longer.
            zero(&file, 290 * K, 70 * K, give_up).expect("zeroes");
            let longer = ground.bytes("disk");
            assert_eq!(longer.len() as u64, 360 * K, "{} {give_up}", ground.0.display());
            assert!(longer[290 * 1024..].iter().all(|b| *b == 0) && longer[..290 * 1024] == want[..290 * 1024]);
            zero(&file, 500 * K, 1, give_up).expect("a zero");
            assert_eq!(ground.bytes("disk").len() as u64, 500 * K + 1);
            assert!(zero(&read_only(&ground.0.join("disk")), 0, 10, give_up).is_err());
        }
        let file = ground.file("space", &pattern(1024 * K));
        flush(&file).expect("durable");
        let before = ground.blocks("space");
        zero(&file, 0, 1024 * K, true).expect("zeroes");
        assert!(ground.blocks("space") < before, "its space is given up on {}", ground.0.display());
    }
}

#[test]
fn space_goes_and_comes_without_a_change_of_length() {
    for ground in Ground::all() {
        let file = ground.file("disk", &pattern(1024 * K));
        flush(&file).expect("durable");
        let full = ground.blocks("disk");
        discard(&file, 256 * K, 512 * K).expect("given up");
        assert!(ground.blocks("disk") < full, "{}", ground.0.display());
        let bytes = ground.bytes("disk");
        assert!(bytes.len() as u64 == 1024 * K && bytes[256 * 1024..768 * 1024].iter().all(|b| *b == 0));
        discard(&file, 2048 * K, K).expect("beyond the end there is nothing to give up");
        assert_eq!(ground.bytes("disk").len() as u64, 1024 * K);
        allocate(&file, 0, 2048 * K).expect("set aside");
        assert!(ground.blocks("disk") * 512 >= 2048 * K, "{}", ground.0.display());
        assert!(ground.bytes("disk") == bytes, "content and length stay");
        assert_eq!(raw_error(allocate(&file, 0, 0)), Some(22));
        set_length(&file, 10).expect("shorter");
        assert_eq!(ground.bytes("disk"), bytes[..10]);
        set_length(&file, 20).expect("longer");
        assert_eq!(ground.bytes("disk"), [&bytes[..10], &[0; 10]].concat());
        assert!(set_length(&read_only(&ground.0.join("disk")), 5).is_err());
    }
}

#[test]
fn holes_are_found() {
    for ground in Ground::all() {
        let file = ground.file("disk", b"");
        set_length(&file, 1024 * K).expect("a length");
        assert_eq!(holes(&file, 0, 1024 * K, 9).expect("a run"), [(1024 * K, true)]);
        rustix::io::pwrite(&file, &pattern(128 * K), 256 * K).expect("data");
        flush(&file).expect("durable");
        for (at, len, want) in [
            (0, 1024 * K, (256 * K, true)),
            (0, 100, (100, true)),
            (255 * K, 1024 * K, (K, true)),
            (256 * K, 1024 * K, (128 * K, false)),
            (300 * K, 10, (10, false)),
            (384 * K, 1024 * K, (1024 * K, true)),
            (1024 * K, 5, (5, true)),
            (4096 * K, 5, (5, true)),
        ] {
            assert_eq!(holes(&file, at, len, 1).expect("a run"), [want], "{at} {len} on {}", ground.0.display());
        }
        let all = [(256 * K, true), (128 * K, false), (640 * K, true)];
        assert_eq!(holes(&file, 0, 1024 * K, 9).expect("runs"), all);
        assert_eq!(holes(&file, 0, 1024 * K, 2).expect("runs"), all[..2]);
        assert_eq!(holes(&file, 0, 0, 9).expect("nothing").len(), 1);
    }
    // What knows no holes is data all through.
    let device = read_only(Path::new("/dev/zero"));
    let runs = holes(&device, 0, 4096, 9).expect("a run");
    assert!(runs.iter().map(|(len, _)| len).sum::<u64>() <= 4096);
}

/// The lane of a window of one slot.
fn window(slot_len: usize) -> Window {
    Window::new(Shape { lanes: 1, slot_len }, 0).expect("memory")
}

#[test]
fn slots_are_filled_and_emptied() {
    let window = window(64 << 10);
    let turn = Turn::new(&window, 0);
    for (ground, due) in Ground::all().iter().flat_map(|ground| DUES.map(|due| (ground, due))) {
        let bytes = pattern(100 * K + 17);
        let file = ground.file("disk", &bytes);
        for (at, len) in [(0, 64 << 10), (1, 4096), (100 * K, 17), (100 * K, 4096), (100 * K + 17, 512), (1 << 40, 512)]
        {
            turn.copy_in(0, &[0xEE; 64 << 10]);
            let n = read(&file, at, 0, len, &turn).expect("bytes");
            let there = bytes.get(usize::try_from(at).expect("small")..).unwrap_or_default();
            let there = &there[..there.len().min(len)];
            assert_eq!(n, there.len(), "{at}");
            let mut want = there.to_vec();
            want.resize(len, 0);
            assert!(turn.copy_out(len) == want, "{at} {len}: what lies beyond the end is zero");
        }
        turn.copy_in(0, b"written");
        write(&file, 3, 0, 7, due, &turn).expect("a write");
        assert_eq!(ground.bytes("disk")[..12], [&bytes[..3], b"written", &bytes[10..12]].concat());
        // Elsewhere in the slot, and nowhere else.
        turn.copy_in(0, &[0xEE; 64 << 10]);
        assert_eq!(read(&file, 5, 1000, 100, &turn).expect("bytes"), 100);
        let slot = turn.copy_out(2000);
        let around = slot[..1000].iter().chain(&slot[1100..]);
        assert!(around.copied().all(|byte| byte == 0xEE) && slot[1000..1100] == ground.bytes("disk")[5..105]);
        write(&file, 4096, 1010, 20, due, &turn).expect("a write");
        assert_eq!(ground.bytes("disk")[4096..4116], slot[1010..1030]);
        assert!(read(&file, 0, (64 << 10) - 8, 9, &turn).is_err() && write(&file, 0, 64 << 10, 1, due, &turn).is_err());
        assert!(write(&read_only(&ground.0.join("disk")), 0, 0, 7, due, &turn).is_err());
    }
}

#[test]
fn reads_past_the_page_cache_are_real_and_end_where_the_file_does() {
    let window = window(64 << 10);
    let turn = Turn::new(&window, 0);
    for ground in Ground::all() {
        let bytes = pattern(40 * K + 100);
        drop(ground.file("disk", &bytes));
        let mut session = Session::new(Policy::default(), false);
        session.read_directly();
        let name = ground.0.join("disk").display().to_string();
        let granted = match session.open(name.as_bytes(), true) {
            Ok(granted) => granted,
            Err(mishap) => {
                skipped(&format!("direct reads on {}: {:?}", ground.0.display(), mishap.why));
                continue;
            }
        };
        let file = session.file(granted.id).expect("it is open");
        let direct = || fcntl_getfl(&*file).expect("its flags").contains(OFlags::DIRECT);
        assert!(direct(), "{name}");
        let check = |at: usize, len: usize| {
            let n = read(&file, at as u64, 0, len, &turn).expect("bytes");
            assert_eq!(n, len.min(bytes.len().saturating_sub(at)), "{at} {len} of {name}");
            let got = turn.copy_out(len);
            assert!(got[..n] == bytes[at..at + n] && got[n..].iter().all(|b| *b == 0), "{at} {len} of {name}");
        };
        check(0, 4096);
        check(8192, 32 << 10);
        // Whole pages are read, whatever was asked for.
        check(4096, 100);
        // All the same what lies behind it stays.
        turn.copy_in(0, &[0xEE; 16 << 10]);
        assert_eq!(read(&file, 4096, 4096, 100, &turn).expect("bytes"), 100);
        let slot = turn.copy_out(16 << 10);
        assert!(slot[4096..4196] == bytes[4096..4196] && slot[4196..].iter().all(|byte| *byte == 0xEE), "{name}");
        assert!(direct(), "all of these can be had past the cache: {name}");
        check(40 << 10, 4096);
        check(1, 4096);
        check(513, 3);
        check(0, 64 << 10);
    }
}
