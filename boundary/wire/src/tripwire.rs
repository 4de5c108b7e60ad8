//! Numbers that both sides of the wall rely on, pinned at compile time.
//!
//! A change here is a change of the wall: bump the version in [`BOOT_MAGIC`], extend `admit` and its tests and the fuzz
//! target, then change the number. Do not just update the number.

use crate::boot::{ANSWER_AT, BELL_AT, BOOT_MAGIC, Boot, CALL_AT, LANES_MAX, LAST_WORDS_AT, LAST_WORDS_MAX, PAGE};
use crate::io::{Answer, Call, Freed, Link, Op, RUN_HOLE, RUNS_MAX, ZEROES_MAX};
use core::mem::{align_of, offset_of, size_of};

const _: () = assert!(size_of::<Call>() == 64 && align_of::<Call>() == 8);
const _: () = assert!(offset_of!(Call, op) == 8 && offset_of!(Call, at) == 16 && offset_of!(Call, len) == 24);
const _: () = assert!(offset_of!(Call, file2) == 32 && offset_of!(Call, arg) == 36 && offset_of!(Call, at2) == 40);
const _: () = assert!(size_of::<Answer>() == 64 && offset_of!(Answer, value) == 16 && offset_of!(Answer, value2) == 24);
const _: () = assert!(size_of::<Boot>() == 112 && offset_of!(Boot, window_at) == 24 && offset_of!(Boot, wall_at) == 56);
const _: () = assert!(LAST_WORDS_AT == 2048 && LAST_WORDS_AT + 8 + LAST_WORDS_MAX <= PAGE);
const _: () = assert!(BELL_AT == 0 && CALL_AT == 64 && ANSWER_AT == 128 && PAGE == 4096 && LANES_MAX == 16);
const _: () = assert!(BOOT_MAGIC == 0x0005_7261_7473_6e69);

const _: () = assert!(Op::ALL.len() == 21);
const _: () = {
    let mut i = 0;
    while i < Op::ALL.len() {
        assert!(Op::ALL[i] as usize == i + 1, "operation codes are dense and never reused");
        i += 1;
    }
};
const _: () = assert!(Op::Start as u32 == 1 && Op::Read as u32 == 2 && Op::Write as u32 == 3 && Op::Copy as u32 == 4);
const _: () = assert!(Op::Zero as u32 == 5 && Op::Discard as u32 == 6 && Op::Allocate as u32 == 7);
const _: () = assert!(Op::SetLength as u32 == 8 && Op::Holes as u32 == 9 && Op::Flush as u32 == 10);
const _: () = assert!(Op::Related as u32 == 11 && Op::Emit as u32 == 12 && Op::Finish as u32 == 13);
const _: () = assert!(Op::Wake as u32 == 14 && Op::Join as u32 == 15 && Op::Park as u32 == 16);
const _: () = assert!(Op::Part as u32 == 17 && Op::Pause as u32 == 18 && Op::Clock as u32 == 19);
const _: () = assert!(Op::Length as u32 == 20 && Op::Share as u32 == 21);
const _: () = assert!(Freed::Lost as u32 == 0 && Freed::Snapshot as u32 == 1 && Freed::Other as u32 == 2);
const _: () = assert!(size_of::<Link>() == 24 && offset_of!(Link, to) == 8 && offset_of!(Link, len) == 16);
const _: () = assert!(RUNS_MAX == 1024 && RUN_HOLE == 1 << 63 && ZEROES_MAX == 0xffff);
