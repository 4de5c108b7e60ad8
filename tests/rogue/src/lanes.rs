//! Attacks that take several lanes: sums that must be right, lanes that misbehave, and races on the window.

use crate::attack::{bell, call, call_of, emit, overflow, spin};
use crate::{LaneAttack, Race, Step};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use instar_wire::boot::CALL_AT;
use instar_wire::io::{Answer, Call, Op};
use instar_worker::port::Door;
use instar_worker::rt::jobs::{next_seq, on_all_lanes};
use instar_worker::rt::lane::{Lane, shape};
use spinning_top::Spinlock;
use zerocopy::IntoBytes;

/// Different answers that a race tells of.
const ANSWERS_MAX: usize = 64;

/// Runs a job on all lanes.
fn on_all(lane: &Lane, job: &(dyn Fn(&Lane) + Sync)) {
    on_all_lanes(lane, job, &|| next_seq(lane));
}

/// Adds 0..4096 up, each lane its share, so many times.
pub fn sum(lane: &Lane, times: u64) {
    const COUNT: u64 = 4096;
    let lanes = lane.boot.lanes;
    let mut right = 0u64;
    for _ in 0..times {
        let (total, done) = (AtomicU64::new(0), AtomicU64::new(0));
        on_all(lane, &|lane| {
            let share: u64 = (0..COUNT).filter(|n| n % lanes == lane.number() as u64).sum();
            total.fetch_add(share, Ordering::Relaxed);
            done.fetch_add(1, Ordering::Relaxed);
        });
        if total.into_inner() == COUNT * (COUNT - 1) / 2 && done.into_inner() == lanes {
            right += 1;
        }
    }
    emit(lane, &right.to_le_bytes());
}

/// Wakes and wakes; each time the others find no job and park again.
pub fn wake_often(lane: &Lane, times: u64) {
    for _ in 0..times {
        call(lane, Op::Wake, Call::default());
    }
    call(lane, Op::Join, Call::default());
}

/// Lane 1 misbehaves.
pub fn attack(lane: &Lane, attack: &LaneAttack) {
    let (over, gone) = (AtomicBool::new(false), AtomicBool::new(false));
    // Lane 0 has made one call and will make another to wake lane 1, which has made one: to park.
    let due = 3;
    on_all(lane, &|lane| match (lane.number(), attack) {
        (1, LaneAttack::SpinWhileJoined) | (_, LaneAttack::SpinAll) => spin(),
        // SAFETY: ends the cell.
        (1, LaneAttack::DieWhileJoined) => unsafe { core::arch::asm!("ud2") },
        (1, LaneAttack::Overflow) => {
            core::hint::black_box(overflow(0));
        }
        (1, LaneAttack::Call(op)) => {
            lane.call(&Call { seq: next_seq(lane), op: *op, ..Call::default() });
        }
        (1, LaneAttack::Borrow) => {
            lane.call(&Call { seq: due, op: Op::Holes as u32, ..Call::default() });
        }
        (1, LaneAttack::Scribble(value)) => {
            while !over.load(Ordering::Relaxed) {
                bell(lane).store(*value, Ordering::SeqCst);
            }
            gone.store(true, Ordering::Release);
        }
        (0, LaneAttack::Scribble(_)) => {
            for _ in 0..2000 {
                call(lane, Op::Read, Call { len: 64, ..Call::default() });
            }
            over.store(true, Ordering::Relaxed);
            // The next call has to meet an undisturbed bell.
            while !gone.load(Ordering::Acquire) {
                core::hint::spin_loop()
            }
        }
        _ => {}
    });
}

/// Lane 0 calls, lane 1 rewrites its call and its slot meanwhile; the different answers are told afterwards.
pub fn race(lane: &Lane, race: &Race) {
    let (over, gone) = (AtomicBool::new(false), AtomicBool::new(lane.boot.lanes < 2));
    let mut answers: Vec<Vec<u8>> = Vec::new();
    let seen = Spinlock::new(&mut answers);
    on_all(lane, &|lane| match lane.number() {
        0 => {
            let mut seen = seen.lock();
            for _ in 0..race.rounds {
                lane.put(0, &race.call.slot.0);
                let call = call_of(lane, &race.call);
                let answer = lane.call(&call);
                // What the number is does not matter, only that it is this call's.
                let answer = Answer { seq: u64::from(answer.seq == call.seq), ..answer };
                if seen.len() < ANSWERS_MAX && !seen.iter().any(|a| a == answer.as_bytes()) {
                    seen.push(answer.as_bytes().to_vec());
                }
            }
            over.store(true, Ordering::Release);
            while !gone.load(Ordering::Acquire) {
                core::hint::spin_loop()
            }
        }
        1 => {
            while !over.load(Ordering::Acquire) {
                rewrite(lane, &race.other);
                rewrite(lane, &race.call);
            }
            gone.store(true, Ordering::Release);
        }
        _ => {}
    });
    answers.iter().for_each(|answer| emit(lane, answer));
}

/// Writes a step over lane 0's call, all but its number, and over its slot.
fn rewrite(lane: &Lane, step: &Step) {
    let window = lane.boot.window_at as usize;
    let (page, slot) = (shape(&lane.boot).page_at(0), shape(&lane.boot).slot_at(0));
    let call = Call { seq: 0, op: step.op, file: step.file, at: step.at, len: step.len, ..Call::default() };
    let bytes = call.as_bytes().get(8..).unwrap_or_default();
    // SAFETY: inside the window; that somebody else uses these bytes is the point.
    unsafe {
        let to = (window + page + CALL_AT + 8) as *mut u8;
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        let to = (window + slot) as *mut u8;
        core::ptr::copy_nonoverlapping(step.slot.0.as_ptr(), to, step.slot.0.len());
    }
}
