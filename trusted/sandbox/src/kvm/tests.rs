//! The cell with the real worker inside, and with programs of a few bytes that try its lanes and its clock.

use super::KvmCell;
use super::attacks::program;
use crate::window::Turn;
use crate::{Budget, Cell, Fall, Next, Serve, WORKER, Wall};
use instar_wire::boot::Shape;
use instar_wire::code::decode;
use instar_wire::io::{Answer, Op};
use instar_wire::op::Outcome;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Rings once, then `jmp .`
const RING_THEN_LOOP: &[u8] = b"\x48\x8b\x47\x38\x48\x89\x30\xeb\xfe";
/// `jmp .`
const LOOP: &[u8] = b"\xeb\xfe";
/// Lane 0 rings and rings; the others `jnz .`
const OTHERS_LOOP: &[u8] = b"\x48\x85\xf6\x75\xfe\x48\x8b\x47\x38\x48\x89\x30\xeb\xfb";
/// Lane 0 rings once and loops; the others `ud2`.
const OTHERS_FALL: &[u8] = b"\x48\x85\xf6\x74\x02\x0f\x0b\x48\x8b\x47\x38\x48\x89\x30\xeb\xfe";

/// Answers the start with an empty request, and notes what the worker says at its end.
#[derive(Default)]
struct Empty {
    finish: Mutex<Vec<u8>>,
}

impl Serve for Empty {
    fn serve(&self, turn: &Turn<'_>) -> Next {
        let call = turn.call();
        turn.answer(&Answer { seq: call.seq, ..Answer::default() });
        match Op::from_code(call.op) {
            Some(Op::Start) => Next::Resume,
            Some(Op::Park) => Next::Park,
            Some(Op::Finish) => {
                *self.finish.lock().unwrap() = turn.copy_out(usize::try_from(call.len).unwrap());
                Next::End
            }
            other => panic!("an unexpected call: {other:?}"),
        }
    }
}

/// Resumes so many calls, then ends the cell.
struct Count(AtomicU32);

impl Serve for Count {
    fn serve(&self, _: &Turn<'_>) -> Next {
        let left = self.0.fetch_sub(1, Ordering::Relaxed);
        if left == 0 { Next::End } else { Next::Resume }
    }
}

/// Whether this machine has no KVM to test with; says so.
pub fn no_kvm() -> bool {
    let missing = kvm_ioctls::Kvm::new().err();
    if let Some(error) = &missing {
        eprintln!("SKIPPED: /dev/kvm cannot be opened: {error}");
    }
    missing.is_some()
}

fn budget(lanes: usize) -> Budget {
    Budget { shape: Shape { lanes, ..Budget::default().shape }, ..Budget::default() }
}

fn run(code: &[u8], lanes: usize, calls: u32) -> Result<(), Fall> {
    let begin = Instant::now();
    let short = Budget { cpu: Duration::from_millis(100), ..budget(lanes) };
    let outcome =
        KvmCell::start(program(code), short, false).and_then(|mut cell| cell.run(&Count(AtomicU32::new(calls))));
    eprintln!("{lanes} lanes: {outcome:x?} after {:?}", begin.elapsed());
    outcome
}

#[test]
fn the_worker_answers_on_any_number_of_lanes() {
    if no_kvm() {
        return;
    }
    for lanes in [1, 2, 3, 4, 16] {
        let mut cell = KvmCell::start(WORKER.kvm, budget(lanes), false).unwrap();
        let serve = Empty::default();
        cell.run(&serve).unwrap();
        assert_eq!(cell.wall(), Wall::Kvm);
        let finish = serve.finish.into_inner().unwrap();
        assert!(matches!(decode(&finish), Ok(Outcome::Failed(_))), "{finish:?}");
    }
}

#[test]
fn heaps_of_any_size_can_be_had() {
    if no_kvm() {
        return;
    }
    for heap_len in [4096, 3 << 20, 8 << 20, 4 << 30] {
        let mut cell = KvmCell::start(WORKER.kvm, Budget { heap_len, ..budget(1) }, false).unwrap();
        // The smallest has no room to say anything in.
        let outcome = cell.run(&Empty::default());
        assert!(outcome.is_ok() || heap_len == 4096, "{heap_len:#x}: {outcome:?}");
    }
}

#[test]
fn what_is_no_program_or_no_budget_is_refused() {
    let mut writable_text = program(LOOP).to_vec();
    writable_text[68] = 7;
    let mut low = program(LOOP).to_vec();
    low[82] = 0;
    let mut elsewhere = program(LOOP).to_vec();
    elsewhere[25] = 1;
    for bad in [&[][..], b"#!/bin/sh\n", &program(LOOP)[..100], &writable_text, &low, &elsewhere] {
        let outcome = super::Layout::new(bad, &budget(1), 4096);
        assert!(matches!(outcome, Err(Fall::Host("the worker is no program", _))), "{bad:x?}");
    }
    let large = Budget { heap_len: usize::MAX, ..budget(1) };
    let deep = Budget { stack_len: usize::MAX, ..budget(2) };
    for bad in [budget(0), budget(17), large, deep] {
        assert!(matches!(super::Layout::new(program(LOOP), &bad, 4096), Err(Fall::Host(..))), "{bad:?}");
    }
}

#[test]
fn an_endless_loop_ends() {
    if no_kvm() {
        return;
    }
    assert!(matches!(run(LOOP, 1, 0), Err(Fall::Cpu(_))));
    assert!(matches!(run(RING_THEN_LOOP, 1, 9), Err(Fall::Cpu(_))));
    assert!(matches!(run(RING_THEN_LOOP, 4, 9), Err(Fall::Cpu(_))));
    assert!(matches!(run(OTHERS_LOOP, 3, u32::MAX), Err(Fall::Cpu(_))));
}

#[test]
fn a_slow_start_is_taken_for_an_emulated_machine() {
    if no_kvm() {
        return;
    }
    let outcome = KvmCell::start(program(LOOP), budget(1), true).map(drop);
    assert!(matches!(outcome, Err(Fall::Host("KVM is emulated here", _))), "{outcome:?}");
}

#[test]
fn the_end_of_one_lane_ends_the_others() {
    if no_kvm() {
        return;
    }
    for lanes in [1, 2, 4, 8] {
        assert!(run(OTHERS_LOOP, lanes, 3).is_ok());
    }
    assert!(matches!(run(OTHERS_FALL, 2, 3), Err(Fall::Fault { vector: 6, .. })));
}

#[test]
fn the_thread_hears_what_it_heard_before() {
    if no_kvm() {
        return;
    }
    let before = super::watch::signals();
    for lanes in [1, 2] {
        let _ = run(RING_THEN_LOOP, lanes, 9);
        assert!(run(OTHERS_LOOP, lanes, 3).is_ok());
    }
    assert_eq!(super::watch::signals(), before);
}

/// Prints how long a cell takes; a loaded machine says nothing about the code, so nothing is asserted.
#[test]
fn how_long_a_cell_takes() {
    if no_kvm() {
        return;
    }
    for heap_mib in [16, 64, 128, 256] {
        let budget = Budget { heap_len: heap_mib << 20, ..Budget::default() };
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..200 {
            let begin = Instant::now();
            let mut cell = KvmCell::start(WORKER.kvm, budget, false).unwrap();
            times[0].push(begin.elapsed());
            cell.run(&Empty::default()).unwrap();
            times[1].push(begin.elapsed());
            drop(cell);
            times[2].push(begin.elapsed());
        }
        times.iter_mut().for_each(|t| t.sort());
        let [first, end, gone] = times.map(|t| (t[0], t[100]));
        eprintln!("heap {heap_mib} MiB, best and median: first call {first:?}, last {end:?}, gone {gone:?}");
    }
}
