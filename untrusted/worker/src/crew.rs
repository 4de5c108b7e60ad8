//! All lanes at work on one job.

use crate::port::{Door, Port};
use instar_ops::cx::{Crew, Hand};
use instar_wire::error::{Error, Result};
use spinning_top::Spinlock;

/// The lanes of a cell, asked through lane 0.
pub struct Lanes<'p>(pub &'p Port<'p>);

impl Crew for Lanes<'_> {
    fn lanes(&self) -> usize {
        self.0.door().lanes()
    }

    fn run(&self, job: &(dyn Fn(&Hand<'_>) -> Result<()> + Sync)) -> Result<()> {
        let failed: Spinlock<Option<Error>> = Spinlock::new(None);
        let lens = self.0.lens();
        let work = |door: &dyn Door| {
            let port = Port::new(door, lens.clone());
            let hand = Hand { lane: door.number(), drive: &port, emit: &|event| port.emit(event) };
            if let Err(error) = job(&hand) {
                failed.lock().get_or_insert(error);
            }
        };
        // A single lane has nobody to wake.
        if self.lanes() == 1 {
            work(self.0.door())
        } else {
            self.0.door().on_all_lanes(&work)
        }
        failed.into_inner().map_or(Ok(()), Err)
    }
}
