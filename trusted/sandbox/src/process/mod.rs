//! The process cell: a program that may wait on its bell, and nothing else.

mod child;
mod filter;

use crate::lanes::{self, Lanes};
use crate::window::{Turn, Window};
use crate::{Budget, Cell, Fall, Serve, Wall};
use instar_wire::boot::{
    BELL_BROKER, BELL_BROKER_WORKER_ASLEEP, BELL_WORKER, BELL_WORKER_BROKER_ASLEEP, BOOT_MAGIC, Boot,
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a bell is slept on before the worker's health is looked at.
const PATIENCE: Duration = Duration::from_millis(10);
/// Looks at the bell before sleeping, where another processor can ring it meanwhile.
const SPIN: u32 = 4000;

/// A worker process and its window.
pub struct ProcessCell {
    window: Window,
    budget: Budget,
    worker: Pid,
    spin: u32,
}

impl ProcessCell {
    /// Starts the program behind every wall that can be had here.
    pub fn start(program: &'static [u8], budget: Budget) -> Result<ProcessCell, Fall> {
        let filter = filter::program()?;
        let window = Window::new(budget.shape, filter.len(), true)?;
        // Asked of the scheduler alone: the standard library would go through the control groups' files.
        let many = rustix::thread::sched_getaffinity(None).is_ok_and(|set| set.count() > 1);
        let spin = if many { SPIN } else { 0 };
        let wall_at = budget.shape.len();
        window.put(wall_at, &filter);
        window.set_boot(&Boot {
            magic: BOOT_MAGIC,
            lanes: budget.shape.lanes as u64,
            slot_len: budget.shape.slot_len as u64,
            heap_len: budget.heap_len as u64,
            stack_len: budget.stack_len as u64,
            wall_at: wall_at as u64,
            wall_len: (filter.len() / 8) as u64,
            spin: spin.into(),
            ..Boot::default()
        });
        let worker = child::spawn(program, &window, &budget)?;
        Ok(ProcessCell { window, budget, worker, spin })
    }

    /// Serves one lane until the cell is over.
    fn serve_lane(&self, lane: usize, lanes: &Lanes, serve: &dyn Serve) -> Result<(), Fall> {
        while self.await_bell(lane, lanes)? {
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
    fn await_bell(&self, lane: usize, lanes: &Lanes) -> Result<bool, Fall> {
        let bell = self.window.bell(lane);
        let rung = || matches!(bell.load(Ordering::Acquire), BELL_BROKER | BELL_BROKER_WORKER_ASLEEP);
        for _ in 0..self.spin {
            if rung() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        loop {
            let _ = bell.compare_exchange(BELL_WORKER, BELL_WORKER_BROKER_ASLEEP, Ordering::AcqRel, Ordering::Acquire);
            if rung() {
                return Ok(true);
            }
            if lanes.over() {
                return Ok(false);
            }
            let in_time = child::wait(bell, BELL_WORKER_BROKER_ASLEEP, PATIENCE);
            if !in_time && lane == 0 && !rung() {
                self.look_after()?;
            }
        }
    }

    /// Whether the worker still lives within its means.
    fn look_after(&self) -> Result<(), Fall> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let used = child::cpu_time(self.worker);
        match waitid(WaitId::Pid(self.worker), options) {
            Ok(Some(status)) => Err(match (status.terminating_signal(), status.exit_status()) {
                (Some(libc::SIGXCPU), _) => Fall::Cpu(self.budget.cpu),
                (Some(signal), _) => Fall::Signal(signal),
                (None, code) => child::explain(code.unwrap_or(-1)),
            }),
            Ok(None) if used > self.budget.cpu => Err(Fall::Cpu(self.budget.cpu)),
            Ok(None) => Ok(()),
            Err(error) => Err(Fall::Host("the worker is lost", error.into())),
        }
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

/// Workers that have been killed and not yet been seen to die.
static DYING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

impl Drop for ProcessCell {
    /// Kills the worker without waiting for its death, which takes longer than many a command; the next cell's end
    /// buries it, or the end of this process.
    fn drop(&mut self) {
        let _ = kill_process(self.worker, Signal::KILL);
        let mut dying = DYING.lock().unwrap_or_else(PoisonError::into_inner);
        dying.push(self.worker);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        dying.retain(|worker| matches!(waitid(WaitId::Pid(*worker), options), Ok(None)));
    }
}
