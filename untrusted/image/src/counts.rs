//! How often every unit of a file is used: two bytes for each unit of a page, and no page where nothing is used.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Units of a page.
pub const PAGE: usize = 1 << 16;
/// Somebody says that nobody else uses the unit.
pub const SOLE: u16 = 1 << 15;
/// Somebody says that others use it as well.
pub const SHARED: u16 = 1 << 14;
/// Somebody uses it who must have it alone.
pub const ALONE: u16 = 1 << 13;
/// The bits of a cell that are a count; all of them say that it has no room there and is kept elsewhere.
const COUNT: u16 = ALONE - 1;

/// What is known of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell(u16);

impl Cell {
    /// Whether its count is this one, and none of these flags is set. False may also mean that the count is elsewhere.
    #[inline]
    pub fn is(self, count: u64, without: u16) -> bool {
        let own = self.0 & COUNT;
        u64::from(own) == count && own != COUNT && self.0 & without == 0
    }

    /// Whether one of these flags is set.
    pub fn has(self, flags: u16) -> bool {
        self.0 & flags != 0
    }
}

/// Counts of the units of a window.
pub struct Counts {
    /// The units that are counted.
    pub window: Range<u64>,
    pages: Vec<Option<Box<[u16]>>>,
    many: BTreeMap<u64, u64>,
}

impl Counts {
    /// Nothing is used.
    pub fn new(window: Range<u64>) -> Counts {
        Counts { window, pages: Vec::new(), many: BTreeMap::new() }
    }

    /// The page of a unit in the window, and the unit's place there.
    pub fn place(&self, unit: u64) -> (usize, usize) {
        let index = usize::try_from(unit.saturating_sub(self.window.start)).unwrap_or(usize::MAX);
        (index / PAGE, index % PAGE)
    }

    fn page(&self, number: usize) -> Option<&[u16]> {
        self.pages.get(number)?.as_deref()
    }

    /// What is known of a unit.
    pub fn cell(&self, unit: u64) -> Cell {
        let (page, at) = self.place(unit);
        Cell(self.page(page).and_then(|page| page.get(at)).copied().unwrap_or(0))
    }

    /// The cells from a unit on, to the end of its page at least.
    pub fn row(&self, unit: u64) -> impl Iterator<Item = Cell> + '_ {
        let (page, at) = self.place(unit);
        let page = self.page(page).and_then(|page| page.get(at..)).unwrap_or_default();
        page.iter().copied().chain(core::iter::repeat(0)).map(Cell)
    }

    /// How often a unit is used.
    pub fn get(&self, unit: u64) -> u64 {
        match self.cell(unit).0 & COUNT {
            COUNT => self.many.get(&unit).copied().unwrap_or(COUNT.into()),
            count => count.into(),
        }
    }

    /// The first unit from this one on that may be used: a page that is not there is passed over.
    pub fn next(&self, unit: u64) -> u64 {
        let (page, at) = self.place(unit);
        let left = u64::try_from(PAGE.saturating_sub(at)).unwrap_or(0);
        if self.page(page).is_some() { unit } else { unit.saturating_add(left) }
    }

    /// Counts a unit once that nobody has used so far; false if somebody has.
    #[inline]
    pub fn first(&mut self, unit: u64, flags: u16) -> bool {
        match self.cell_mut(unit) {
            Some(cell @ 0) => {
                *cell = 1 | flags;
                true
            }
            _ => false,
        }
    }

    /// Sets a count, and adds flags to those that are there.
    pub fn set(&mut self, unit: u64, count: u64, flags: u16) {
        let short = u16::try_from(count).ok().filter(|count| *count < COUNT);
        if short.is_none() {
            self.many.insert(unit, count);
        }
        if let Some(cell) = self.cell_mut(unit) {
            *cell = *cell & !COUNT | flags | short.unwrap_or(COUNT);
        }
    }

    /// The cell of a unit, for which there is a page from now on.
    #[inline]
    fn cell_mut(&mut self, unit: u64) -> Option<&mut u16> {
        let (page, at) = self.place(unit);
        if self.pages.get(page).is_none_or(Option::is_none) {
            self.make(page);
        }
        self.pages.get_mut(page)?.as_mut()?.get_mut(at)
    }

    #[cold]
    fn make(&mut self, page: usize) {
        if self.pages.len() <= page {
            self.pages.resize_with(page.saturating_add(1), || None);
        }
        if let Some(slot) = self.pages.get_mut(page) {
            *slot = Some(vec![0; PAGE].into_boxed_slice());
        }
    }
}
