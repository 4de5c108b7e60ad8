//! The two cells: a micro-VM without an operating system, and a process that can do next to nothing.
//!
//! Both run the same worker code behind the same lanes; neither gives it a system call, a descriptor or a path.
//! There is no third choice: where neither wall can stand, nothing runs.

mod choice;
mod dying;
mod elf;
mod hands;
pub mod kvm;
mod lanes;
pub mod process;
pub mod window;

pub use choice::{Choice, NoWall, start};
use instar_wire::boot::Shape;
use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::thread::available_parallelism;
use std::time::Duration;
use window::{Turn, Window};

/// How many processors there are for this program; for that several files are read, the first time.
pub fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

/// Serves the calls of a cell's lanes.
pub trait Serve: Sync {
    /// Serves the call that lies in the lane's page; everything there is hostile.
    fn serve(&self, turn: &Turn<'_>) -> Next;

    /// Processor time that the worker has earned by what it had done so far, beyond its budget.
    fn earned(&self) -> Duration {
        Duration::ZERO
    }
}

/// What becomes of a lane after its call was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It has its answer and runs on.
    Resume,
    /// It waits until lane 0 wakes it.
    Park,
    /// It wakes the parked lanes and runs on.
    Wake,
    /// It waits until all other lanes are parked.
    Join,
    /// The cell ends: the worker is done, or has done what it must not.
    End,
}

/// What a worker may use.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Lanes and their data slots.
    pub shape: Shape,
    /// Length of the heap in bytes.
    pub heap_len: usize,
    /// Length of each lane's stack in bytes.
    pub stack_len: usize,
    /// Processor time of all lanes together.
    pub cpu: Duration,
    /// It grows by what [`Serve::earned`] says.
    pub earns: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            shape: Shape { lanes: 1, slot_len: 256 << 10 },
            heap_len: 128 << 20,
            stack_len: 256 << 10,
            cpu: Duration::from_secs(30),
            earns: false,
        }
    }
}

/// A cell that is ready to run its worker.
pub trait Cell {
    /// Its wall, in a word.
    fn wall(&self) -> Wall;
    /// The memory it shares with its worker.
    fn window(&self) -> &Window;
    /// Runs the worker to its end and serves its lanes. Whatever happens inside, this returns.
    fn run(&mut self, serve: &dyn Serve) -> Result<(), Fall>;
}

/// The kinds of wall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wall {
    /// A virtual machine.
    Kvm,
    /// A process.
    Process,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wall::Kvm => "kvm",
            Wall::Process => "process",
        })
    }
}

/// The worker as two programs for the two walls; ELF, linked at a fixed address.
#[derive(Clone, Copy)]
pub struct Program {
    /// For a virtual machine.
    pub kvm: &'static [u8],
    /// For a process.
    pub process: &'static [u8],
}

/// Bytes on pages of their own, which can lie somewhere else without being copied.
#[repr(C, align(4096))]
pub struct Paged<T: ?Sized>(pub T);

/// The bytes of a program whose file the environment names at compile time.
#[macro_export]
macro_rules! program {
    ($file:literal) => {{
        static BYTES: &$crate::Paged<[u8]> = &$crate::Paged(*include_bytes!(env!($file)));
        &BYTES.0
    }};
}

/// The worker that this build carries.
pub const WORKER: Program = Program { kvm: program!("INSTAR_WORKER_KVM"), process: program!("INSTAR_WORKER_PROCESS") };

/// How a cell came down before its worker was done.
#[derive(Debug)]
pub enum Fall {
    /// The worker did what its memory or its privilege forbids.
    Fault {
        /// The processor's number for it.
        vector: u8,
        /// What the processor says about it.
        error: u32,
        /// The address it touched.
        address: u64,
        /// The instruction that did it.
        instruction: u64,
    },
    /// A signal ended the worker; 31 means a forbidden system call.
    Signal(i32),
    /// The worker ended without a word.
    Gone(i32),
    /// The worker used up its processor time.
    Cpu(Duration),
    /// The host could not run it.
    Host(&'static str, io::Error),
}

impl fmt::Display for Fall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fall::Fault { vector, error, address, instruction } => write!(
                f,
                "the worker broke a rule of its cell and was stopped (fault {vector}, error {error:#x}, address {address:#x}, instruction {instruction:#x})"
            ),
            Fall::Signal(libc::SIGSYS) => {
                f.write_str("the worker tried a forbidden system call and was stopped (signal 31)")
            }
            Fall::Signal(signal) => {
                write!(f, "the worker broke a rule of its cell and was stopped (signal {signal})")
            }
            Fall::Gone(code) => write!(f, "the worker ended without an answer (status {code})"),
            Fall::Cpu(budget) => {
                write!(f, "the worker used up its processor time of {} s and was stopped", budget.as_secs_f32())
            }
            Fall::Host(what, error) => write!(f, "cannot run a cell: {what}: {error}"),
        }
    }
}
