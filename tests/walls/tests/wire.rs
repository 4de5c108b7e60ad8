//! The code of the wire: what goes in comes out, and what was never put in does no harm.

use instar_wire::code::{Bytes, Code, DEPTH_MAX, Input, Malformed, decode, encode};
use instar_wire::error::{Error, Kind};
use instar_wire::fact::Fact;
use instar_wire::io::{FileId, Granted, Related, Role};
use instar_wire::op::info::{Backing, Child, Event, Finding, Image, Limits, Snapshot};
use instar_wire::op::{Outcome, Request, Rules, Source, info};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;

/// The system's allocator, counting what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(change: impl Fn(usize) -> usize) {
    let held = HELD.with(|held| {
        held.set(change(held.get()));
        held.get()
    });
    PEAK.with(|peak| peak.set(peak.get().max(held)));
}

// SAFETY: all calls are passed on as they come.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|held| held.wrapping_add(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(|held| held.wrapping_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes that decoding may take hold of for each byte of a message: a list of facts of two bytes, grown by doubling.
const GROWTH_MAX: usize = 64;

/// Decodes bytes that may be anything: an error, or a message that is those very bytes; little memory in any case.
fn swallow<T: Code + Debug>(bytes: &[u8]) -> Result<(), Malformed> {
    PEAK.set(HELD.get());
    let before = HELD.get();
    let decoded = decode::<T>(bytes);
    let took = PEAK.get() - before;
    assert!(took <= bytes.len() * GROWTH_MAX + 1024, "{took} bytes for {}", bytes.len());
    let value = decoded?;
    assert_eq!(encode(&value), bytes, "{value:?}");
    Ok(())
}

/// A message comes back as it went, and whatever is done to its bytes does no harm.
fn torture<T: Code + Debug + PartialEq>(value: &T) {
    let bytes = encode(value);
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
    assert_eq!(swallow::<T>(&bytes), Ok(()));
    for len in 0..bytes.len() {
        // A message is as long as it is, so its beginning is none.
        assert_eq!(swallow::<T>(&bytes[..len]), Err(Malformed), "{len} of {value:?}");
    }
    for extra in [0, 1, 0xff] {
        assert_eq!(swallow::<T>(&[&bytes[..], &[extra]].concat()), Err(Malformed));
    }
    let mut flipped = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = swallow::<T>(&flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    for at in 0..bytes.len() {
        // Counts and lengths that promise more than there is.
        let mut huge = bytes.clone();
        for byte in huge.iter_mut().skip(at).take(4) {
            *byte = 0xff;
        }
        let _ = swallow::<T>(&huge);
    }
}

fn granted(pinned: Option<&str>) -> Granted {
    Granted {
        id: FileId(3),
        len: 1 << 40,
        allocated: 4096,
        writable: true,
        pinned: pinned.map(Bytes::from),
        suggested: None,
    }
}

fn facts() -> Fact {
    let list = Fact::List(vec![Fact::Signed(-1), Fact::Text("x\n\u{1b}".into()), Fact::List(Vec::new())]);
    Fact::fields([("truth", true.into()), ("count", u64::MAX.into()), ("list", list), ("", Fact::Fields(Vec::new()))])
}

fn error() -> Error {
    Kind::Corrupt.what("'{}' is not '{}'").file(FileId(1)).at(512).arg("a").arg(facts())
}

fn image() -> Image {
    Image {
        file: FileId(0),
        format: "qcow2".into(),
        virtual_size: 1 << 30,
        cluster_size: Some(65536),
        encrypted: false,
        dirty: Some(true),
        backing: Some(Backing { name: "base".into(), format: Some("raw".into()) }),
        specific: Some(facts()),
        children: vec![Child { name: "file".into(), file: FileId(0) }],
        limits: Limits { write_zeroes: 65536, discard: 65536, request: 1 },
        extra: None,
        findings: vec![Finding { check: "backing-file".into(), ok: false, detail: facts() }],
        warnings: vec![error()],
    }
}

fn snapshot(icount: Option<u64>) -> Snapshot {
    let (id, name) = ("1".into(), "before\0".into());
    Snapshot { id, name, vm_state_size: 7, date_sec: u32::MAX, date_nsec: 1, vm_clock_nsec: 1 << 50, icount }
}

#[test]
fn requests() {
    for pinned in [None, Some("raw"), Some("")] {
        torture(&Request::Info(info::Request {
            top: Source::whole(granted(pinned)),
            rules: Rules { as_qemu: true, version: 1100 },
            chain: true,
            open_data_file: false,
            extra: true,
        }));
    }
}

#[test]
fn events() {
    torture(&Event::Image(Box::new(image())));
    torture(&Event::Snapshots(vec![snapshot(None), snapshot(Some(9))]));
    torture(&Event::Snapshots(Vec::new()));
}

#[test]
fn outcomes() {
    torture(&Outcome::Done);
    torture(&Outcome::Failed(error()));
    for kind in 0..=255u8 {
        let known = decode::<Kind>(&[kind]).is_ok();
        assert_eq!(known, (1..=9).contains(&kind));
    }
}

#[test]
fn grants_and_names() {
    torture(&granted(None));
    torture(&granted(Some("luks")));
    for role in [Role::Backing, Role::DataFile, Role::Extent, Role::Parent] {
        torture(&Related { from: FileId(u32::MAX), role, name: "../a\0b".into() });
    }
}

#[test]
fn facts_of_any_shape() {
    torture(&facts());
    // Every pair of values, one in the other.
    for inner in [Fact::Truth(false), Fact::Count(0), Fact::Signed(i64::MIN), Fact::Text(Bytes(vec![0; 9])), facts()] {
        torture(&Fact::List(vec![inner.clone(), inner.clone()]));
        torture(&Fact::fields([("name", inner)]));
    }
}

fn nested(depth: u32) -> Vec<u8> {
    let inner = encode(&Fact::Truth(true));
    (0..depth).fold(inner, |inner, _| [&[5, 1, 0, 0, 0][..], &inner].concat())
}

#[test]
fn nesting_ends() {
    assert_eq!(swallow::<Fact>(&nested(DEPTH_MAX)), Ok(()));
    assert_eq!(swallow::<Fact>(&nested(DEPTH_MAX + 1)), Err(Malformed));
    assert_eq!(swallow::<Fact>(&nested(100_000)), Err(Malformed));
}

#[test]
fn counts_are_not_believed() {
    for count in [1u32, 1000, u32::MAX] {
        for tag in [4, 5, 6] {
            let lie = [&[tag][..], &count.to_le_bytes()].concat();
            assert_eq!(swallow::<Fact>(&lie), Err(Malformed));
        }
    }
    // As many elements as bytes, the smallest there are.
    let many = |n: u32| [&[5][..], &n.to_le_bytes(), &[1, 0].repeat(n as usize)].concat();
    assert_eq!(swallow::<Fact>(&many(100_000)), Ok(()));
    let mut more = many(100_000);
    more[1] += 1;
    assert_eq!(swallow::<Fact>(&more), Err(Malformed));
}

#[test]
fn every_short_message_is_an_error_or_itself() {
    for len in 0..=2 {
        for number in 0..256u32.pow(len) {
            let bytes = &number.to_le_bytes()[..len as usize];
            let _ = swallow::<Fact>(bytes);
            let _ = swallow::<Event>(bytes);
            let _ = swallow::<Request>(bytes);
            let _ = swallow::<Outcome>(bytes);
            let _ = swallow::<Related>(bytes);
            let _ = swallow::<Option<bool>>(bytes);
        }
    }
}

#[test]
fn numbers_and_truths() {
    for number in [0, 1, u64::MAX] {
        torture(&number);
    }
    torture(&i64::MIN);
    torture(&Some(Some(7u16)));
    torture(&Box::new(1u32));
    assert_eq!(decode::<bool>(&[2]), Err(Malformed));
    let mut input = Input::new(&[1, 2, 3]);
    assert_eq!((input.take(4).err(), input.left()), (Some(Malformed), 3));
}
