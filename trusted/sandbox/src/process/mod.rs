//! The process cell: a program that may wait on its bell, and nothing else.

mod child;
mod filter;
mod halves;
#[cfg(test)]
mod tests;

use crate::dying;
use crate::lanes::{self, Lanes};
use crate::window::{Turn, Window};
use crate::{Budget, Cell, Fall, Serve, Wall};
use halves::Halves;
use instar_wire::boot::{
    BELL_BROKER, BELL_BROKER_WORKER_ASLEEP, BELL_WORKER, BELL_WORKER_BROKER_ASLEEP, BOOT_MAGIC, Boot,
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::io::PipeWriter;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a bell is slept on before the worker's health is looked at.
const PATIENCE: Duration = Duration::from_millis(10);
/// Time slept through counts so much less than time computed through.
const SLEEP_SHARE: u32 = 4;

/// A worker process and its window.
pub struct ProcessCell {
    window: Window,
    budget: Budget,
    worker: Pid,
    /// By which the worker knows when it starts whether we are still there.
    _pipe: PipeWriter,
    halves: Halves,
    health: Mutex<Health>,
}

/// What was seen when the worker was last looked at.
struct Health {
    /// When that was.
    looked: Instant,
    /// Its processor time.
    used: Duration,
    /// How long it had the turn and did nothing with it.
    slept: Duration,
}

impl ProcessCell {
    /// Starts the program behind every wall that can be had here.
    pub fn start(program: &'static [u8], budget: Budget) -> Result<ProcessCell, Fall> {
        ProcessCell::start_behind(program, budget, &filter::program()?)
    }

    fn start_behind(program: &'static [u8], budget: Budget, filter: &[u8]) -> Result<ProcessCell, Fall> {
        let window = Window::new(budget.shape, filter.len())?;
        let halves = Halves::of(budget.shape.lanes);
        let wall_at = budget.shape.len();
        window.put(wall_at, filter);
        window.set_boot(&Boot {
            magic: BOOT_MAGIC,
            lanes: budget.shape.lanes as u64,
            slot_len: budget.shape.slot_len as u64,
            heap_len: budget.heap_len as u64,
            stack_len: budget.stack_len as u64,
            wall_at: wall_at as u64,
            wall_len: (filter.len() / 8) as u64,
            spin: halves.spin.into(),
            processors: halves.processors,
            ..Boot::default()
        });
        let (worker, pipe) = child::spawn(program, &window, &budget)?;
        Ok(ProcessCell { window, budget, worker, _pipe: pipe, halves, health: Mutex::new(Health::new()) })
    }

    /// Serves one lane until the cell is over.
    fn serve_lane(&self, lane: usize, lanes: &Lanes, serve: &dyn Serve) -> Result<(), Fall> {
        let _stay = self.halves.stay(lane);
        while self.await_bell(lane, lanes, serve)? {
            let turn = Turn::new(&self.window, lane);
            if !lanes.follow(lane, serve.serve(&turn)) {
                break;
            }
            let bell = self.window.bell(lane);
            if bell.swap(BELL_WORKER, Ordering::AcqRel) == BELL_BROKER_WORKER_ASLEEP {
                child::wake(bell);
            }
        }
        Ok(())
    }

    /// Waits until the lane's bell rings; false when the cell is over.
    ///
    /// Time alone decides when the worker is looked after: it could keep the bell from ever timing out.
    fn await_bell(&self, lane: usize, lanes: &Lanes, serve: &dyn Serve) -> Result<bool, Fall> {
        let bell = self.window.bell(lane);
        let rung = || matches!(bell.load(Ordering::Acquire), BELL_BROKER | BELL_BROKER_WORKER_ASLEEP);
        let since = Instant::now();
        if self.health().looked + PATIENCE <= since {
            self.look_after(since, serve)?;
        }
        for _ in 0..self.halves.spin {
            if rung() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        let mut next = since + PATIENCE;
        loop {
            let before =
                bell.compare_exchange(BELL_WORKER, BELL_WORKER_BROKER_ASLEEP, Ordering::AcqRel, Ordering::Acquire);
            if rung() {
                return Ok(true);
            }
            if lanes.over() {
                return Ok(false);
            }
            match before {
                Ok(_) | Err(BELL_WORKER | BELL_WORKER_BROKER_ASLEEP) => {
                    child::wait(bell, BELL_WORKER_BROKER_ASLEEP, PATIENCE);
                }
                // No bell says this. It cannot be slept on either.
                Err(_) => thread::sleep(PATIENCE / 10),
            }
            if Instant::now() >= next && !rung() {
                self.look_after(since, serve)?;
                next = Instant::now() + PATIENCE;
            }
        }
    }

    /// The processor time that the worker may use by now.
    fn means(&self, serve: &dyn Serve) -> Duration {
        if self.budget.earns { self.budget.cpu.saturating_add(serve.earned()) } else { self.budget.cpu }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the worker, which has had the turn since then, still lives within its means.
    fn look_after(&self, since: Instant, serve: &dyn Serve) -> Result<(), Fall> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let (now, used) = (Instant::now(), child::cpu_time(self.worker));
        let spent = self.health().spent(since, now, used);
        match waitid(WaitId::Pid(self.worker), options) {
            Ok(Some(status)) => Err(match (status.terminating_signal(), status.exit_status()) {
                (Some(libc::SIGXCPU), _) => Fall::Cpu(self.budget.cpu),
                (Some(signal), _) => Fall::Signal(signal),
                (None, code) => child::explain(code.unwrap_or(-1)),
            }),
            Ok(None) if spent > self.means(serve) => Err(Fall::Cpu(self.means(serve))),
            Ok(None) => Ok(()),
            Err(error) => Err(Fall::Host("the worker is lost", error.into())),
        }
    }
}

impl Health {
    fn new() -> Health {
        Health { looked: Instant::now(), used: Duration::ZERO, slept: Duration::ZERO }
    }

    /// Takes a look, and tells what the worker has had of its processor time.
    fn spent(&mut self, since: Instant, now: Instant, used: Duration) -> Duration {
        if used == self.used {
            self.slept += now.saturating_duration_since(self.looked.max(since));
        }
        (self.looked, self.used) = (now, used);
        used + self.slept / SLEEP_SHARE
    }
}

impl Cell for ProcessCell {
    fn wall(&self) -> Wall {
        Wall::Process
    }

    fn window(&self) -> &Window {
        &self.window
    }

    fn run(&mut self, serve: &dyn Serve) -> Result<(), Fall> {
        let cell = &*self;
        lanes::run_all(
            cell.budget.shape.lanes,
            |lane, lanes| cell.serve_lane(lane, lanes, serve),
            || {
                let _ = kill_process(cell.worker, Signal::KILL);
                for lane in 0..cell.budget.shape.lanes {
                    child::wake(cell.window.bell(lane));
                }
            },
        )
    }
}

impl Drop for ProcessCell {
    /// Kills the worker.
    fn drop(&mut self) {
        let _ = kill_process(self.worker, Signal::KILL);
        dying::leave(self.worker, ());
    }
}
