//! The stage of the wall tests: a rogue in a cell, the broker outside, and what became of it.

use instar_broker::admit::Violation;
use instar_broker::policy::Policy;
use instar_broker::{Collapse, Session};
use instar_rogue::{Attack, Step, Then, Words, request, step};
use instar_sandbox::kvm::KvmCell;
use instar_sandbox::process::ProcessCell;
use instar_sandbox::{Budget, Cell, Fall, Program, Wall};
use instar_wire::boot::Shape;
use instar_wire::io::{Answer, Granted, Op};
use instar_wire::op::Outcome;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};
use zerocopy::FromBytes;

/// The rogue's programs.
pub const ROGUE: Program = Program {
    kvm: instar_sandbox::program!("INSTAR_ROGUE_KVM"),
    process: instar_sandbox::program!("INSTAR_ROGUE_PROCESS"),
};

/// What a rogue may tell, in bytes.
pub const EVENTS_MAX: u64 = 1 << 20;

/// An attack that is not meant to last is over by then, however busy the machine is.
const QUICK: Duration = Duration::from_secs(5);

/// So many starts in a row have to be slow before KVM is taken to be emulated: on a busy host others' time counts as ours.
const STARTS: usize = 3;

/// The walls that can stand here. The process cell always can; a machine that cannot have the other says so.
pub fn walls() -> &'static [Wall] {
    static WALLS: OnceLock<Vec<Wall>> = OnceLock::new();
    WALLS.get_or_init(|| {
        let falls = (0..STARTS).map_while(|_| KvmCell::start(ROGUE.kvm, budget(), true).err());
        match falls.collect::<Vec<_>>().get(STARTS - 1) {
            None => vec![Wall::Process, Wall::Kvm],
            Some(fall) => {
                eprintln!("SKIPPED: all attacks on the KVM cell: {fall}");
                vec![Wall::Process]
            }
        }
    })
}

/// Whether this machine's processor tells which exception ended a virtual machine.
pub fn exact() -> bool {
    static EXACT: OnceLock<bool> = OnceLock::new();
    *EXACT.get_or_init(|| {
        let end = attack(Wall::Kvm, &Attack::Words(Words { len: 0, bytes: "".into(), then: Then::Die }));
        matches!(end.fall(), (Fall::Fault { vector: 6, .. }, _))
    })
}

/// A budget that a rogue can use up before anyone loses patience.
pub fn budget() -> Budget {
    Budget {
        shape: Shape { lanes: 1, slot_len: 64 << 10 },
        heap_len: 16 << 20,
        stack_len: 64 << 10,
        cpu: Duration::from_secs(10),
        earns: false,
    }
}

/// The same with several lanes.
pub fn lanes(count: usize) -> Budget {
    Budget { shape: Shape { lanes: count, ..budget().shape }, ..budget() }
}

/// A cell with the rogue in it. That it can stand here has been seen.
pub fn start(wall: Wall, budget: Budget) -> Result<Box<dyn Cell>, Fall> {
    Ok(match wall {
        Wall::Kvm => Box::new(KvmCell::start(ROGUE.kvm, budget, false)?),
        Wall::Process => Box::new(ProcessCell::start(ROGUE.process, budget)?),
    })
}

/// What became of an attack.
#[derive(Debug)]
pub struct End {
    /// How the cell ended.
    pub result: Result<Outcome, Collapse>,
    /// What the rogue told on the way.
    pub told: Vec<Vec<u8>>,
    /// How long it took.
    pub time: Duration,
}

impl End {
    /// The one line that a user would see.
    pub fn line(&self) -> String {
        match &self.result {
            Ok(outcome) => format!("{outcome:?}"),
            Err(collapse) => collapse.to_string(),
        }
    }

    /// Asserts that it did no harm at all.
    #[track_caller]
    pub fn harmless(&self) -> &Self {
        assert!(matches!(self.result, Ok(Outcome::Done)), "{self:?}");
        self
    }

    /// Asserts that the worker was stopped for this call.
    #[track_caller]
    pub fn violated(&self, violation: Violation) -> &Self {
        assert!(matches!(self.result, Err(Collapse::Violated(v)) if v == violation), "{violation:?} {self:?}");
        assert_eq!(self.line(), format!("the worker asked for {violation} and was stopped"));
        self.quick()
    }

    /// Asserts that it ended at once.
    #[track_caller]
    pub fn quick(&self) -> &Self {
        assert!(self.time < QUICK, "{self:?}");
        self
    }

    /// How the cell fell, and what it said last.
    #[track_caller]
    pub fn fall(&self) -> (&Fall, &str) {
        match &self.result {
            Err(Collapse::Fell(fall, words)) => (fall, words),
            other => panic!("the cell did not fall: {other:?} {self:?}"),
        }
    }

    /// Asserts that the processor stopped a machine so, and tells the address that it names. Processors that keep the
    /// number of an exception to themselves report a page fault without details or a double fault instead.
    #[track_caller]
    pub fn fault(&self, vectors: &[u8]) -> (u32, u64) {
        match self.quick().fall() {
            (Fall::Fault { vector, error, address, .. }, _) if vectors.contains(vector) => (*error, *address),
            (Fall::Fault { vector: 8 | 14, error: 0, address, .. }, _) if !exact() => (0, *address),
            _ => panic!("not fault {vectors:?}: {self:?}"),
        }
    }

    /// Asserts that a signal ended a process, one of these.
    #[track_caller]
    pub fn signal(&self, signals: &[i32]) {
        let (fall, _) = self.quick().fall();
        assert!(matches!(fall, Fall::Signal(s) if signals.contains(s)), "not signal {signals:?}: {self:?}");
    }

    /// The answers to a script's steps, each with what was asked of the slot.
    pub fn answers(&self) -> Vec<(Answer, &[u8])> {
        let split =
            |told: &'static str, bytes| Answer::read_from_prefix(bytes).unwrap_or_else(|e| panic!("{told}: {e}"));
        self.told.iter().map(|bytes| split("an answer", bytes.as_slice())).collect()
    }
}

/// A session without files.
pub fn session() -> Session {
    Session::new(Policy::default(), false)
}

/// A session with one file.
pub fn session_with(file: &Path) -> (Session, Granted) {
    let mut session = session();
    let granted = session.open(file.as_os_str().as_bytes(), true).expect("the image opens");
    (session, granted)
}

/// Has a cell with that budget try the attack on the session's files.
pub fn attack_on(wall: Wall, budget: Budget, session: &Session, attack: &Attack) -> End {
    let mut told = Vec::new();
    let begin = Instant::now();
    let result = match start(wall, budget) {
        Ok(mut cell) => instar_broker::run(session, cell.as_mut(), &request(attack, None), EVENTS_MAX, &mut |event| {
            told.push(event.to_vec());
            Ok(())
        }),
        Err(fall) => Err(Collapse::Fell(fall, String::new())),
    };
    let end = End { result, told, time: begin.elapsed() };
    let line = end.line();
    assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "not one clear line: {line:?}");
    end
}

/// Has a cell try the attack, and then sees to it that the next cell does its work.
pub fn attack_within(wall: Wall, budget: Budget, attack: &Attack) -> End {
    let end = attack_on(wall, budget, &session(), attack);
    attack_on(wall, self::budget(), &session(), &Attack::Behave).harmless();
    end
}

/// The same with the ordinary budget.
pub fn attack(wall: Wall, attack: &Attack) -> End {
    attack_within(wall, budget(), attack)
}

/// A step for that operation.
pub fn op(op: Op) -> Step {
    step(op as u32)
}

/// Does something for every item, on all processors.
pub fn for_all<T: Sync>(items: &[T], act: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    act(item);
                }
            });
        }
    });
}
