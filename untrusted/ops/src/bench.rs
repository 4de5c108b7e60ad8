//! `bench`: requests in a row over the disk, as many at once as there are lanes.

use crate::cx::{Cx, Hand};
use crate::goal::{former, over};
use crate::load::Load;
use crate::open::{Opened, chain, stack_for};
use alloc::vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use instar_image::{Chain, Kind, Purpose, Reader, Result, Walk};
use instar_wire::code::encode;
use instar_wire::op::bench::{Event, Request, Write};

/// Makes the requests, and says when it begins.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let purpose = if request.write.is_some() { Purpose::Write } else { Purpose::Read };
    let stack = stack_for(cx, &request.source, &request.rules, purpose, &|step| tell(Event::Step(step)))?;
    let done = match &request.write {
        Some(asked) => write(request, asked, &stack, cx),
        None => read(request, &stack, cx),
    };
    done?.inspect_err(|_| _ = tell(Event::Failed))
}

/// Has them read. What cannot even be begun is an error of its own.
fn read(request: &Request, stack: &[Opened<'_>], cx: &Cx<'_>) -> Result<Result<()>> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let chain = chain(stack, None)?;
    tell(Event::Ready)?;
    tell(Event::Begins)?;
    let course = Course { request, size: chain.size() };
    let reading = Reading { course, chain: &chain, next: AtomicU64::new(0), failed: AtomicBool::new(false) };
    let made = cx.crew.run(&|hand| reading.work(hand));
    Ok(made.and_then(|()| tell(Event::Made(0))))
}

/// Has them write.
fn write(request: &Request, asked: &Write, stack: &[Opened<'_>], cx: &Cx<'_>) -> Result<Result<()>> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let former = former(stack)?;
    tell(Event::Ready)?;
    let mut target = over(stack)?;
    tell(Event::Begins)?;
    let course = Course { request, size: target.size() };
    let load = Load::new(course, asked, &mut *target, &former, cx.drive);
    let made = cx.crew.run(&|hand| load.work(hand));
    let told = if made.is_ok() { tell(Event::Made(load.flushes())) } else { Ok(()) };
    Ok(made.and(told).and_then(|()| load.end(cx.drive)))
}

/// Where requests are.
pub struct Course<'r> {
    /// What is wanted of them.
    pub request: &'r Request,
    /// Bytes of the disk.
    pub size: u64,
}

impl Course<'_> {
    /// Whether a lane has something to do: no more at once than was asked for.
    pub fn has(&self, hand: &Hand<'_>) -> bool {
        u64::try_from(hand.lane).is_ok_and(|lane| lane < self.request.depth)
    }

    /// Where a request begins and ends. Only the first is not brought back into the disk.
    pub fn range(&self, number: u64) -> Result<(u64, u64)> {
        let beyond = || Kind::Io.what("Input/output error");
        let at = self.start(number).ok_or_else(beyond)?;
        let end = at.checked_add(self.request.size).filter(|end| *end <= self.size).ok_or_else(beyond)?;
        Ok((at, end))
    }

    fn start(&self, number: u64) -> Option<u64> {
        let Request { offset, step, size, inside, .. } = *self.request;
        if number == 0 {
            return Some(offset);
        }
        let far = u128::from(offset).saturating_add(u128::from(step).saturating_mul(u128::from(number)));
        // Where they begin again.
        let end = if inside { self.size.saturating_sub(size) } else { self.size };
        match far.checked_rem(u128::from(end)) {
            None => inside.then_some(0),
            Some(at) => u64::try_from(at).ok(),
        }
    }
}

/// Requests that read.
struct Reading<'c> {
    course: Course<'c>,
    chain: &'c Chain<'static>,
    /// The number of the next request.
    next: AtomicU64,
    failed: AtomicBool,
}

impl Reading<'_> {
    fn work(&self, hand: &Hand<'_>) -> Result<()> {
        if !self.course.has(hand) {
            return Ok(());
        }
        let mut walk = Walk::new(self.chain, hand.drive, 0, 0);
        let mut reader = Reader::new(self.chain, hand.drive);
        let mut buffer = vec![0; hand.drive.slot_len()];
        while !self.failed.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.course.request.count {
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

    fn one(&self, number: u64, walk: &mut Walk<'_>, reader: &mut Reader<'_>, buffer: &mut [u8]) -> Result<()> {
        let (at, end) = self.course.range(number)?;
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
