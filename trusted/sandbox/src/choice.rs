//! Choosing a wall: KVM where it is native, else a process, else nothing at all.

use crate::kvm::KvmCell;
use crate::process::ProcessCell;
use crate::{Budget, Cell, Fall, Program};
use std::fmt;

/// Which wall is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// A virtual machine where that is native, else a process.
    Auto,
    /// A virtual machine.
    Kvm,
    /// A process.
    Process,
}

/// Why no wall stands; with advice, because nothing runs without one.
#[derive(Debug)]
pub struct NoWall {
    kvm: Option<Fall>,
    process: Option<Fall>,
}

impl fmt::Display for NoWall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no wall can be put around the parsers here, so nothing is run")?;
        if let Some(fall) = &self.kvm {
            write!(f, "; kvm: {fall} (give this user access to /dev/kvm)")?;
        }
        if let Some(fall) = &self.process {
            write!(f, "; process: {fall} (allow fork, mremap and seccomp filters)")?;
        }
        Ok(())
    }
}

/// Starts a cell for the program.
pub fn start(choice: Choice, program: &Program, budget: Budget) -> Result<Box<dyn Cell>, NoWall> {
    let mut none = NoWall { kvm: None, process: None };
    if choice != Choice::Process {
        match KvmCell::start(program.kvm, budget, choice == Choice::Auto) {
            Ok(cell) => return Ok(Box::new(cell)),
            Err(fall) => none.kvm = Some(fall),
        }
    }
    if choice != Choice::Kvm {
        match ProcessCell::start(program.process, budget) {
            Ok(cell) => return Ok(Box::new(cell)),
            Err(fall) => none.process = Some(fall),
        }
    }
    Err(none)
}
