//! Jobs: one function run on every lane at once.

use super::lane::Lane;
use crate::port::Door;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use instar_wire::io::{Call, Op};

type Job<'a> = &'a (dyn Fn(&Lane) + Sync);

/// The job under way: a pointer to a `Job` on lane 0's stack.
static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(core::ptr::null_mut());
/// The last sequence number of each lane.
static SEQS: [AtomicU64; instar_wire::boot::LANES_MAX] = [const { AtomicU64::new(0) }; instar_wire::boot::LANES_MAX];

/// Makes a call that only lane control needs.
pub fn control(lane: &Lane, seq: u64, op: Op) {
    lane.call(&Call { seq, op: op as u32, ..Call::default() });
}

/// Runs `job` on every lane and returns when all are done. `next_seq` counts lane 0's calls.
pub fn on_all_lanes(lane: &Lane, job: Job<'_>, next_seq: &dyn Fn() -> u64) {
    // SAFETY: only the lifetime changes; `JOB` is cleared below, after every lane has parked again.
    let job: Job<'static> = unsafe { core::mem::transmute(job) };
    JOB.store((&raw const job).cast_mut(), Ordering::Release);
    control(lane, next_seq(), Op::Wake);
    job(lane);
    control(lane, next_seq(), Op::Join);
    JOB.store(core::ptr::null_mut(), Ordering::Release);
}

/// The life of a lane other than 0: park, run the job, park again.
pub fn serve(lane: &Lane) -> ! {
    let seq = SEQS.get(lane.number()).unwrap_or(&SEQS[0]);
    loop {
        control(lane, seq.fetch_add(1, Ordering::Relaxed) + 1, Op::Park);
        let job = JOB.load(Ordering::Acquire);
        // SAFETY: the pointer is null or was stored by `on_all_lanes`, which waits for this lane before it returns.
        if let Some(job) = unsafe { job.as_ref() } {
            job(lane);
        }
    }
}

/// The sequence counter of a lane, for jobs that make calls of their own.
pub fn next_seq(lane: &Lane) -> u64 {
    SEQS.get(lane.number()).unwrap_or(&SEQS[0]).fetch_add(1, Ordering::Relaxed) + 1
}
