//! `bench`: requests in a row over the disk, as many at once as there are lanes.

use crate::cx::{Cx, Hand};
use crate::open::{chain, stack};
use alloc::vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use instar_image::{Chain, Kind, Reader, Result, Walk};
use instar_wire::code::encode;
use instar_wire::op::bench::{Event, Request};

/// Reads, and says when it begins.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let chain = chain(&stack(cx, &request.source, &request.rules, &|step| tell(Event::Step(step)))?, None)?;
    tell(Event::Ready)?;
    let job = Job { request, chain: &chain, next: AtomicU64::new(0), failed: AtomicBool::new(false) };
    let done = cx.crew.run(&|hand| job.work(hand));
    if done.is_err() {
        tell(Event::Failed)?;
    }
    done
}

struct Job<'c> {
    request: &'c Request,
    chain: &'c Chain<'static>,
    /// The number of the next request.
    next: AtomicU64,
    failed: AtomicBool,
}

impl Job<'_> {
    fn work(&self, hand: &Hand<'_>) -> Result<()> {
        // No more at once than was asked for.
        if u64::try_from(hand.lane).is_ok_and(|lane| lane >= self.request.depth) {
            return Ok(());
        }
        let mut walk = Walk::new(self.chain, hand.drive, 0, 0);
        let mut reader = Reader::new(self.chain, hand.drive);
        let mut buffer = vec![0; hand.drive.slot_len()];
        while !self.failed.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.request.count {
                break;
            }
            let done = self.one(number, &mut walk, &mut reader, &mut buffer);
            if done.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            done?;
        }
        Ok(())
    }

    /// Where a request begins. Only the first is not brought back into the disk.
    fn place(&self, number: u64) -> Option<u64> {
        let Request { offset, step, .. } = *self.request;
        if number == 0 {
            return Some(offset);
        }
        let far = u128::from(offset).saturating_add(u128::from(step).saturating_mul(u128::from(number)));
        u64::try_from(far.checked_rem(u128::from(self.chain.size()))?).ok()
    }

    fn one(&self, number: u64, walk: &mut Walk<'_>, reader: &mut Reader<'_>, buffer: &mut [u8]) -> Result<()> {
        let beyond = || Kind::Io.what("Input/output error");
        let at = self.place(number).ok_or_else(beyond)?;
        let end = at.checked_add(self.request.size).filter(|end| *end <= self.chain.size()).ok_or_else(beyond)?;
        walk.aim(at, end);
        while let Some((len, found)) = walk.peek()? {
            let len = len.min(buffer.len() as u64);
            let piece = usize::try_from(len).unwrap_or(0);
            reader.read(&found, buffer.get_mut(..piece).unwrap_or_default())?;
            walk.advance(len);
        }
        Ok(())
    }
}
