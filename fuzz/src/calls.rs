//! Calls made of bytes, and a cell that makes them.

use crate::Reader;
use instar_sandbox::window::{Turn, Window};
use instar_sandbox::{Cell, Fall, Next, Serve, Wall};
use instar_wire::boot::{CALL_AT, LAST_WORDS_AT, Shape};
use instar_wire::code::encode;
use instar_wire::io::{Call, FileId, Part, Related, Role};
use zerocopy::IntoBytes;

/// Two lanes with little room.
pub const SHAPE: Shape = Shape { lanes: 2, slot_len: 8192 };

/// A call, the lane that makes it, and what lies in the slot.
#[derive(Debug)]
pub struct Made {
    /// The lane.
    pub lane: usize,
    /// The call; its number says how far it is off.
    pub call: Call,
    /// The slot's beginning.
    pub slot: Vec<u8>,
}

/// The next call; most of them are nearly right.
pub fn next_call(input: &mut Reader<'_>) -> Made {
    let head = input.byte();
    let (lane, skewed, strict) = (usize::from(head & 1), head & 6 == 6, head & 8 == 0);
    let op = u32::from(input.byte() % 24);
    let slot = slot(input);
    let mut call = Call { op, len: slot.len() as u64, ..Call::default() };
    if !strict || (2..=10).contains(&op) || op == 20 {
        (call.file, call.at, call.len) = (input.number() as u32, input.number(), input.number());
    }
    // A list of what is to be shared lies in the slot.
    if strict && op == 21 {
        (call.file, call.file2, call.len) = (input.number() as u32, input.number() as u32, slot.len() as u64 / 24 * 24);
    }
    if !strict || [2, 3, 4, 5].contains(&op) {
        (call.file2, call.arg, call.at2) = (input.number() as u32, input.number() as u32, input.number());
    }
    if skewed {
        (call.seq, call.zero) = (input.number(), [input.number(), input.number()]);
    }
    Made { lane, call, slot }
}

/// A name in its message, or bytes as they come.
fn slot(input: &mut Reader<'_>) -> Vec<u8> {
    let kind = input.byte();
    if kind > 99 {
        return input.text().to_vec();
    }
    let from = FileId(u32::from(kind / 4 % 4));
    if kind > 79 {
        return encode(&Part { from, name: input.text().into() });
    }
    let role = match kind % 4 {
        0 => Role::Backing,
        1 => Role::DataFile,
        2 => Role::Extent,
        _ => Role::Parent,
    };
    encode(&Related { from, role, name: input.text().into() })
}

/// A cell whose worker is a list of bytes.
pub struct Puppet<'a> {
    window: Window,
    input: std::sync::Mutex<Reader<'a>>,
}

impl<'a> Puppet<'a> {
    /// A cell that makes the calls of that input.
    pub fn new(input: &'a [u8]) -> Option<Puppet<'a>> {
        Some(Puppet { window: Window::new(SHAPE, 0).ok()?, input: Reader(input).into() })
    }
}

impl Cell for Puppet<'_> {
    fn wall(&self) -> Wall {
        Wall::Process
    }

    fn window(&self) -> &Window {
        &self.window
    }

    fn run(&mut self, serve: &dyn Serve) -> Result<(), Fall> {
        let input = self.input.get_mut().expect("nobody else");
        let mut last = [0u64; SHAPE.lanes];
        while !input.is_empty() {
            let Made { lane, mut call, slot } = next_call(input);
            last[lane] += 1;
            call.seq = last[lane].wrapping_add(call.seq);
            self.window.put(SHAPE.page_at(lane) + CALL_AT, call.as_bytes());
            self.window.put(SHAPE.slot_at(lane), &slot);
            if serve.serve(&Turn::new(&self.window, lane)) == Next::End {
                return Ok(());
            }
        }
        // What it says last may be anything.
        self.window.put(LAST_WORDS_AT, &[0xff; 64]);
        Err(Fall::Signal(4))
    }
}
