//! Admission against a second opinion: every operation with every class of every field, judged twice.
//!
//! The model is written from the documentation of the wire, in wide numbers and without the code's helpers.

use super::*;

const SLOT: u64 = 8192;
const LEN: u64 = 10_000;
const EVENTS: u64 = 5000;
const GRANTS: [Grant; 2] =
    [Grant { len: LEN, writable: false, has_parts: false }, Grant { len: LEN, writable: true, has_parts: false }];
const FILES: [u32; 4] = [0, 1, 2, u32::MAX];
const OFFSETS: [u64; 11] =
    [0, 1, 512, LEN - 1, LEN, LEN + 1, SLOT - 1, SLOT, i64::MAX as u64 - 512, i64::MAX as u64, u64::MAX];
const LENGTHS: [u64; 11] = [0, 1, 512, EVENTS, EVENTS + 1, SLOT - 1, SLOT, SLOT + 1, LEN, i64::MAX as u64, u64::MAX];
const ARGUMENTS: [u32; 12] = [0, 1, 2, 8, 9, 21, 22, 1 << 16, 1 << 16 | 1, 2 << 16 | 0xffff, 3 << 16 | 8, u32::MAX];

fn frame(lane: usize) -> Frame<'static> {
    Frame { lane, lanes: 2, slot_len: SLOT, grants: &GRANTS, events_left: EVENTS }
}

/// The fields an operation gives a meaning to, in the order file, at, len, file2, at2, arg.
fn used(op: Op) -> [bool; 6] {
    match op {
        Op::Start | Op::Wake | Op::Join | Op::Park | Op::Pause | Op::Clock => [false; 6],
        Op::Related | Op::Part | Op::Emit | Op::Finish => [false, false, true, false, false, false],
        Op::Flush | Op::Length => [true, false, false, false, false, false],
        Op::SetLength => [true, false, true, false, false, false],
        Op::Holes => [true, true, true, false, false, false],
        Op::Write => [true, true, true, false, true, false],
        Op::Read => [true, true, true, false, true, true],
        Op::Zero | Op::Discard | Op::Allocate => [true, true, true, false, false, true],
        Op::Copy => [true; 6],
        Op::Share => [true, false, true, true, false, false],
    }
}

/// Whether the call may be served.
fn may(call: &Call, op: Op, lane: usize) -> bool {
    let [file, at, len, file2, at2, arg] = used(op);
    let zero = (file || call.file == 0)
        && (at || call.at == 0)
        && (len || call.len == 0)
        && (file2 || call.file2 == 0)
        && (at2 || call.at2 == 0)
        && (arg || call.arg == 0)
        && call.zero == [0, 0];
    let (known, wide) = (call.file < 2, u128::from);
    let writable = call.file == 1;
    let ends = |at: u64| wide(at) + wide(call.len) < 1 << 63;
    let readable = known && ends(call.at) && (writable || wide(call.at) + wide(call.len) <= wide(LEN));
    let first = lane == 0;
    zero && match op {
        Op::Start | Op::Wake | Op::Join => first,
        Op::Park => !first,
        Op::Pause | Op::Clock => true,
        Op::Finish => first && call.len <= SLOT,
        Op::Related | Op::Part => call.len <= SLOT,
        Op::Emit => call.len <= SLOT.min(EVENTS),
        Op::Read if call.arg == 0 => readable && wide(call.at2) + wide(call.len) <= wide(SLOT),
        Op::Read => {
            // One bit for each granule, after the data.
            let granule = 9 <= call.arg && call.arg <= 21;
            let bits = if granule { wide(call.len).div_ceil(1 << call.arg) } else { 0 };
            readable && granule && wide(call.at2) + wide(call.len) + bits.div_ceil(8) <= wide(SLOT)
        }
        Op::Write => writable && ends(call.at) && wide(call.at2) + wide(call.len) <= wide(SLOT),
        Op::Zero | Op::Allocate => writable && ends(call.at) && call.arg <= 1,
        Op::Discard => writable && ends(call.at) && call.arg <= 2,
        Op::SetLength => writable && ends(call.at),
        Op::Flush => writable,
        Op::Length => known,
        Op::Holes => readable,
        // A file that is read, another that is written, and a list between them.
        Op::Share => known && call.file2 == 1 && call.file != 1 && call.len <= SLOT,
        Op::Copy => {
            let apart = call.at.abs_diff(call.at2) >= call.len || call.file != call.file2;
            // Zeroes are written, or runs of at least one sector are passed over or become holes.
            let (manner, sectors) = (call.arg >> 16, call.arg & 0xffff);
            let sensible = if sectors == 0 { manner == 0 } else { manner == 1 || manner == 2 };
            readable && call.file2 == 1 && ends(call.at2) && apart && sensible
        }
    }
}

/// What an admitted call has to look like.
fn faithful(call: &Call, op: Op) -> Admitted {
    let range = Range { file: FileId(call.file), at: call.at, len: call.len };
    let (len, skip) = (usize::try_from(call.len).unwrap_or(0), usize::try_from(call.at2).unwrap_or(0));
    match op {
        Op::Start => Admitted::Start,
        Op::Read => Admitted::Read(range, skip, (call.arg != 0).then_some(call.arg)),
        Op::Write => Admitted::Write(range, skip),
        Op::Copy => Admitted::Copy(range, FileId(call.file2), call.at2, (call.arg >> 16, call.arg & 0xffff)),
        Op::Zero => Admitted::Zero(range, call.arg == 1),
        Op::Discard => Admitted::Discard(range, Freed::ALL[call.arg as usize]),
        Op::Allocate => Admitted::Allocate(range, call.arg == 1),
        Op::SetLength => Admitted::SetLength(FileId(call.file), call.len),
        Op::Holes => Admitted::Holes(range),
        Op::Flush => Admitted::Flush(FileId(call.file)),
        Op::Related => Admitted::Related(len),
        Op::Emit => Admitted::Emit(len),
        Op::Finish => Admitted::Finish(len),
        Op::Wake => Admitted::Wake,
        Op::Join => Admitted::Join,
        Op::Park => Admitted::Park,
        Op::Part => Admitted::Part(len),
        Op::Pause => Admitted::Pause,
        Op::Clock => Admitted::Clock,
        Op::Length => Admitted::Length(FileId(call.file)),
        Op::Share => Admitted::Share(FileId(call.file), FileId(call.file2), len),
    }
}

fn check(call: &Call, lane: usize) {
    let mut past = Past { seq: call.seq - 1 };
    let said = admit(call, &mut past, &frame(lane));
    match Op::from_code(call.op) {
        None => assert_eq!(said, Err(Violation::Operation), "{call:?}"),
        Some(op) if may(call, op, lane) => assert_eq!(said, Ok(faithful(call, op)), "{call:?} on lane {lane}"),
        Some(_) => assert!(said.is_err(), "{said:?} {call:?} on lane {lane}"),
    }
    // Only what was admitted counts.
    assert_eq!(past.seq, call.seq - u64::from(said.is_err()));
}

#[test]
fn every_operation_with_every_class_of_fields() {
    let seconds = || FILES.into_iter().flat_map(|file| OFFSETS.map(|at| (file, at)));
    for op in (0..=22).chain([u32::MAX]) {
        for (file, at, len) in FILES.iter().flat_map(|f| OFFSETS.iter().flat_map(move |a| LENGTHS.map(|l| (*f, *a, l))))
        {
            for (file2, at2) in seconds() {
                for arg in ARGUMENTS {
                    let call = Call { seq: 7, op, file, at, len, file2, arg, at2, zero: [0, 0] };
                    check(&call, 0);
                    check(&call, 1);
                }
            }
        }
    }
}

#[test]
fn spare_fields_are_zero() {
    for op in Op::ALL {
        for zero in [[1, 0], [0, 1], [u64::MAX; 2]] {
            let call = Call { seq: 1, op: *op as u32, zero, ..Call::default() };
            for lane in 0..2 {
                assert_eq!(admit(&call, &mut Past::default(), &frame(lane)), Err(Violation::Leftover));
            }
        }
    }
}

#[test]
fn numbers_follow_each_other() {
    let edges = [0, 1, 2, 1 << 32, u64::MAX - 1, u64::MAX];
    for last in edges {
        for seq in edges.into_iter().chain([3, (1 << 32) + 1]) {
            let mut past = Past { seq: last };
            let call = Call { seq, op: Op::Holes as u32, ..Call::default() };
            let follows = u128::from(seq) == u128::from(last) + 1;
            let want = if follows { Ok(()) } else { Err(Violation::Sequence) };
            assert_eq!(admit(&call, &mut past, &frame(0)).map(drop), want, "{seq} after {last}");
            assert_eq!(past.seq, if follows { seq } else { last });
        }
    }
}

#[test]
fn without_grants_no_file_is_known() {
    let frame = Frame { grants: &[], ..frame(0) };
    for op in [
        Op::Read,
        Op::Write,
        Op::Copy,
        Op::Zero,
        Op::Discard,
        Op::Allocate,
        Op::SetLength,
        Op::Holes,
        Op::Flush,
        Op::Length,
        Op::Share,
    ] {
        let call = Call { seq: 1, op: op as u32, ..Call::default() };
        assert_eq!(admit(&call, &mut Past::default(), &frame), Err(Violation::File), "{op:?}");
    }
}

#[test]
fn what_is_shared_lies_inside_the_file_that_has_it() {
    for (grant, at, to, len) in GRANTS.iter().flat_map(|g| {
        OFFSETS.iter().flat_map(move |a| OFFSETS.iter().flat_map(move |t| LENGTHS.iter().map(move |l| (g, *a, *t, *l))))
    }) {
        let wide = u128::from;
        let ends = |at: u64| wide(at) + wide(len) < 1 << 63;
        let want = ends(at) && ends(to) && (grant.writable || wide(at) + wide(len) <= wide(grant.len));
        assert_eq!(may_link(&Link { at, to, len }, grant).is_ok(), want, "{grant:?} {at} {to} {len}");
    }
}
