//! Where the two halves of each lane run: the one here and the one in the worker, which take turns.
//!
//! Whoever sleeps on a bell is woken on another processor if he may run there, and that takes the longer the deeper that one
//! sleeps. So both look at the bell for a while where there is a processor for each; where there is none to spare they stay
//! on one, where waking is a matter of putting the other one first.

use crate::processors;
use instar_wire::boot::{ANYWHERE, LANES_MAX};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Looks at the bell before sleeping on it.
const SPIN: u32 = 4000;

/// How the halves of a cell's lanes wait for each other.
pub struct Halves {
    /// How often each looks at the bell before it sleeps on it.
    pub spin: u32,
    /// The processor of each lane.
    pub processors: [u16; LANES_MAX],
}

impl Halves {
    /// For so many lanes, on the processors that this thread may use.
    pub fn of(lanes: usize) -> Halves {
        let mut halves = Halves { spin: 0, processors: [ANYWHERE; LANES_MAX] };
        let Ok(allowed) = sched_getaffinity(None) else { return halves };
        let count = usize::try_from(allowed.count()).unwrap_or(0);
        // A single lane's work is short: not worth reading the files that tell of a smaller share of the processors.
        let free = if lanes == 1 { count } else { processors().min(count) };
        if free >= 2 * lanes {
            halves.spin = SPIN;
        } else if lanes > 1 {
            // From where this one runs on, so that several programs do not all meet on the first ones.
            let all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
            let (before, behind): (Vec<_>, Vec<_>) = all.partition(|cpu| *cpu < sched_getcpu());
            let round = behind.into_iter().chain(before).cycle();
            for (own, cpu) in halves.processors.iter_mut().take(lanes).zip(round) {
                *own = u16::try_from(cpu).unwrap_or(ANYWHERE);
            }
        }
        halves
    }

    /// Has this thread, which is the half of a lane, run where the other half does, for as long as the answer lives.
    pub fn stay(&self, lane: usize) -> Option<Stay> {
        let cpu = self.processors.get(lane).filter(|cpu| **cpu != ANYWHERE)?;
        let before = sched_getaffinity(None).ok()?;
        let mut only = CpuSet::new();
        only.set(usize::from(*cpu));
        // Where that is not allowed any more, everything still goes on.
        sched_setaffinity(None, &only).ok()?;
        Some(Stay(before))
    }
}

/// A thread that stays where it is.
pub struct Stay(CpuSet);

impl Drop for Stay {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<u16> {
        let set = sched_getaffinity(None).expect("the processors");
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).filter_map(|cpu| u16::try_from(cpu).ok()).collect()
    }

    #[test]
    fn halves_spin_where_each_has_a_processor_and_share_one_where_not() {
        let free = processors();
        for lanes in 2..=LANES_MAX {
            let halves = Halves::of(lanes);
            let (own, rest) = halves.processors.split_at(lanes);
            assert!(rest.iter().all(|cpu| *cpu == ANYWHERE));
            if 2 * lanes <= free {
                assert!(halves.spin > 0 && own.iter().all(|cpu| *cpu == ANYWHERE), "{lanes} lanes");
                continue;
            }
            assert_eq!(halves.spin, 0, "{lanes} lanes");
            // All processors that may be used get as many, but for one.
            let counts: Vec<_> = allowed().iter().map(|cpu| own.iter().filter(|one| *one == cpu).count()).collect();
            let (least, most) = (counts.iter().min().expect("one"), counts.iter().max().expect("one"));
            assert!(counts.iter().sum::<usize>() == lanes && most - least <= 1, "{lanes} lanes: {counts:?}");
        }
    }

    #[test]
    fn a_thread_stays_and_may_go_where_it_might_before() {
        let before = allowed();
        let mut processors = [ANYWHERE; LANES_MAX];
        processors[1] = *before.last().expect("one");
        let halves = Halves { spin: 0, processors };
        assert!(halves.stay(0).is_none() && halves.stay(LANES_MAX).is_none());
        let stay = halves.stay(1).expect("it is allowed");
        assert_eq!(allowed(), [processors[1]]);
        drop(stay);
        assert_eq!(allowed(), before);
    }
}
