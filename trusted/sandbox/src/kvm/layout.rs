//! What lies where in a virtual machine, and the page tables that say so.

use crate::elf::{self, Segment};
use crate::{Budget, Fall};
use instar_wire::boot::{LANES_MAX, PAGE};
use std::io;

/// A large page; also how much one table of small pages maps.
pub const LARGE: usize = 2 << 20;
/// Where the tables lie in guest-physical memory. No virtual address leads there.
pub const TABLES_AT: usize = PAGE;
/// Nothing of a program lies below; the tables have to fit under it.
const PROGRAM_AT: usize = LARGE;
/// A program, and each part of a budget, is smaller than this: all of them fit the smallest physical address space.
const PART_MAX: usize = 1 << 33;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
/// Set beforehand, so that nobody has to come by and set them.
const ACCESSED_DIRTY: u64 = 0x60;
const IS_LARGE: u64 = 0x80;
const NO_EXECUTE: u64 = 1 << 63;

/// What may be done with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum May {
    Execute,
    Read,
    Write,
}

/// A machine's memory: virtual addresses, and behind them guest-physical ones.
///
/// Virtual: program, then a guard page and a stack for each lane, doorbell, window, heap. Physical: tables, program,
/// stacks, heap; the window; the doorbell, which has no memory. Up to the heap both are the same.
pub struct Layout {
    /// First instruction.
    pub entry: usize,
    /// The program's parts.
    pub segments: Vec<Segment>,
    /// Where the first lane's guard page lies.
    stacks_at: usize,
    stack_len: usize,
    /// Virtual address of the doorbell.
    pub bell_at: usize,
    /// Virtual address of the window.
    pub window_at: usize,
    /// Virtual address of the heap.
    pub heap_at: usize,
    /// Physical address of the heap.
    pub heap_from: usize,
    /// Length of the machine's own memory, and the window's physical address.
    pub memory_len: usize,
    /// Physical address of the doorbell.
    pub bell_from: usize,
    /// The tables, first the root.
    pub tables: Vec<[u64; PAGE / 8]>,
}

impl Layout {
    /// The layout of a machine for that program and budget; `window_len` is a multiple of a page.
    pub fn new(program: &[u8], budget: &Budget, window_len: usize) -> Result<Layout, Fall> {
        let (entry, segments) = elf::parse(program)
            .filter(|(entry, segments)| is_sound(*entry, segments))
            .ok_or_else(|| Fall::Host("the worker is no program", io::ErrorKind::InvalidData.into()))?;
        let lanes = budget.shape.lanes;
        let sizes = [budget.stack_len.saturating_mul(lanes), budget.heap_len, window_len];
        if !(1..=LANES_MAX).contains(&lanes) || sizes.iter().any(|size| !(1..PART_MAX).contains(size)) {
            return Err(Fall::Host("the budget makes no sense", io::ErrorKind::InvalidInput.into()));
        }
        let program_end = segments.iter().map(|s| s.at + s.len).max().unwrap_or(PROGRAM_AT);
        let stack_len = budget.stack_len.next_multiple_of(PAGE);
        let stacks_at = program_end.next_multiple_of(PAGE);
        // One page more, so that the last stack does not end where something else begins.
        let stacks_end = stacks_at + lanes * (PAGE + stack_len) + PAGE;
        let bell_at = stacks_end;
        let window_at = bell_at + 2 * PAGE;
        let heap_at = (window_at + window_len + PAGE).next_multiple_of(LARGE);
        let heap_from = stacks_end.next_multiple_of(LARGE);
        let memory_len = heap_from + budget.heap_len.next_multiple_of(LARGE);
        let bell_from = memory_len + window_len;
        let tables = vec![[0; PAGE / 8]];
        let mut layout = Layout {
            entry,
            segments,
            stacks_at,
            stack_len,
            bell_at,
            window_at,
            heap_at,
            heap_from,
            memory_len,
            bell_from,
            tables,
        };
        layout.map_all(lanes, window_len);
        if TABLES_AT + layout.tables.len() * PAGE > PROGRAM_AT {
            return Err(Fall::Host("the budget is too large", io::ErrorKind::InvalidInput.into()));
        }
        Ok(layout)
    }

    /// Virtual address of the end of a lane's stack.
    pub fn stack_top(&self, lane: usize) -> usize {
        self.stacks_at + (lane + 1) * (PAGE + self.stack_len)
    }

    fn map_all(&mut self, lanes: usize, window_len: usize) {
        for segment in self.segments.clone() {
            let may = match (segment.write, segment.execute) {
                (true, _) => May::Write,
                (_, true) => May::Execute,
                (false, false) => May::Read,
            };
            self.map(segment.at, segment.at, segment.len, PAGE, may);
        }
        for lane in 0..lanes {
            let at = self.stack_top(lane) - self.stack_len;
            self.map(at, at, self.stack_len, PAGE, May::Write);
        }
        self.map(self.bell_at, self.bell_from, PAGE, PAGE, May::Write);
        self.map(self.window_at, self.memory_len, window_len, PAGE, May::Write);
        self.map(self.heap_at, self.heap_from, self.memory_len - self.heap_from, LARGE, May::Write);
    }

    /// Maps the pages that `at..at + len` touches to physical memory from `from` on.
    fn map(&mut self, at: usize, from: usize, len: usize, page: usize, may: May) {
        let flags = match may {
            May::Execute => 0,
            May::Read => NO_EXECUTE,
            May::Write => NO_EXECUTE | WRITE,
        } | if page == LARGE { IS_LARGE } else { 0 };
        for step in 0..len.div_ceil(page) {
            let (at, from) = (at + step * page, from + step * page);
            let above: &[u32] = if page == LARGE { &[39, 30] } else { &[39, 30, 21] };
            let table = above.iter().fold(0, |table, shift| self.below(table, index(at, *shift)));
            let entry = index(at, page.trailing_zeros());
            self.tables[table][entry] = from as u64 | flags | PRESENT | USER | ACCESSED_DIRTY;
        }
    }

    /// The table that an entry leads to, made if there is none.
    fn below(&mut self, table: usize, entry: usize) -> usize {
        let found = self.tables[table][entry] as usize & !(PAGE - 1);
        if found != 0 {
            return (found - TABLES_AT) / PAGE;
        }
        let new = self.tables.len();
        self.tables.push([0; PAGE / 8]);
        self.tables[table][entry] = (TABLES_AT + new * PAGE) as u64 | PRESENT | WRITE | USER | ACCESSED_DIRTY;
        new
    }
}

fn index(at: usize, shift: u32) -> usize {
    (at >> shift) % (PAGE / 8)
}

/// Whether a program's parts lie on pages of their own where they may, and none can be both written and executed.
fn is_sound(entry: usize, segments: &[Segment]) -> bool {
    let mut sorted: Vec<&Segment> = segments.iter().collect();
    sorted.sort_by_key(|s| s.at);
    let apart = sorted.windows(2).all(|two| two[0].at + two[0].len <= two[1].at);
    let inside = |s: &Segment| (PROGRAM_AT..PART_MAX).contains(&s.at) && s.len < PART_MAX && s.bytes.len() <= s.len;
    let walled = |s: &Segment| s.at.is_multiple_of(PAGE) && !(s.write && s.execute);
    let enters = |s: &Segment| s.execute && (s.at..s.at + s.len).contains(&entry);
    segments.iter().all(|s| inside(s) && walled(s)) && apart && segments.iter().any(enters)
}
