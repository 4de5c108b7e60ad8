//! Forged calls: every operation with every field at its edges, numbers out of order, and messages that are none.

use instar_broker::admit::Violation::{
    self, Events, File, Granule, Lane, Leftover, Message, Operation, Range, ReadOnly,
};
use instar_broker::admit::Violation::{Sequence, Slot};
use instar_broker::{Collapse, Session};
use instar_rogue::Attack::{self, Behave, Script};
use instar_rogue::{LaneAttack, Step, step};
use instar_sandbox::kvm::KvmCell;
use instar_sandbox::process::ProcessCell;
use instar_sandbox::{Cell, WORKER, Wall};
use instar_walls::{EVENTS_MAX, End, attack_on, budget, for_all, lanes, op, session_with, walls};
use instar_wire::code::{Bytes, encode};
use instar_wire::error::Kind;
use instar_wire::fact::Fact;
use instar_wire::io::{FileId, Freed, Op, Part, Related, Role, Status};
use instar_wire::op::Outcome;
use std::path::PathBuf;

const LEN: u64 = 10_000;
const SLOT: u64 = 64 << 10;
const EDGES: [u64; 7] = [0, 1, 9, SLOT + 1, u32::MAX as u64, i64::MAX as u64, u64::MAX];

struct Stage {
    _dir: tempfile::TempDir,
    image: PathBuf,
}

impl Stage {
    fn new() -> Stage {
        let dir = tempfile::tempdir().expect("a folder");
        let image = dir.path().join("image");
        std::fs::write(&image, (0..LEN).map(|n| (n % 251) as u8).collect::<Vec<_>>()).expect("an image");
        Stage { _dir: dir, image }
    }

    fn session(&self) -> Session {
        session_with(&self.image).0
    }

    /// Has the rogue make these calls, and sees to it that all is as before.
    #[track_caller]
    fn try_on(&self, wall: Wall, steps: Vec<Step>) -> End {
        let session = self.session();
        let end = attack_on(wall, budget(), &session, &Script(steps));
        let bytes = std::fs::read(&self.image).expect("the image is there");
        assert!(bytes.len() as u64 == LEN && bytes.iter().enumerate().all(|(n, b)| *b == (n % 251) as u8), "{end:?}");
        attack_on(wall, budget(), &self.session(), &Behave).harmless();
        end
    }
}

/// What must become of one call with these fields, from lane 0, with one file that may be read: a model of its own,
/// in the words of the wire's documentation.
fn model(s: &Step) -> Option<Violation> {
    use Op::*;
    let Some(op) = Op::from_code(s.op) else { return Some(Operation) };
    let uses: &[&str] = match op {
        Read => &["file", "at", "len", "at2", "arg"],
        Zero | Discard | Allocate => &["file", "at", "len", "arg"],
        Write => &["file", "at", "len", "at2"],
        Holes => &["file", "at", "len"],
        Copy => &["file", "at", "len", "file2", "at2", "arg"],
        Share => &["file", "file2", "len"],
        SetLength => &["file", "len"],
        Flush | Length => &["file"],
        Related | Part | Emit | Finish => &["len"],
        Start | Wake | Join | Park | Pause | Clock => &[],
    };
    let fields = [
        ("file", u64::from(s.file)),
        ("at", s.at),
        ("len", s.len),
        ("file2", u64::from(s.file2)),
        ("arg", u64::from(s.arg)),
        ("at2", s.at2),
        ("zero", s.zero),
        ("zero2", s.zero2),
    ];
    if fields.iter().any(|(name, value)| *value != 0 && !uses.contains(name)) {
        return Some(Leftover);
    }
    let outside = u128::from(s.at) + u128::from(s.len) > u128::from(LEN);
    match op {
        Start | Wake | Join | Pause | Clock => None,
        Park => Some(Lane),
        Write if u128::from(s.at2) + u128::from(s.len) > u128::from(SLOT) => Some(Slot),
        Zero | Allocate if s.arg > 1 => Some(Leftover),
        Discard if Freed::from_code(s.arg).is_none() => Some(Leftover),
        Copy if s.file2 != 0 => Some(File),
        Share if s.file != 0 || s.file2 != 0 => Some(File),
        Write | Zero | Discard | Allocate | SetLength | Flush if s.file != 0 => Some(File),
        Write | Zero | Discard | Allocate | SetLength | Flush | Copy | Share => Some(ReadOnly),
        Read | Holes | Length if s.file != 0 => Some(File),
        Read | Holes if outside => Some(Range),
        Read if s.arg != 0 && !(9..=21).contains(&s.arg) => Some(Granule),
        Read if u128::from(s.at2) + u128::from(s.len) > u128::from(SLOT) => Some(Slot),
        Read | Holes | Length => None,
        Emit if s.len > EVENTS_MAX => Some(Events),
        Related | Part | Emit | Finish if s.len > SLOT => Some(Slot),
        // What is in the slot is neither a message nor a piece of one.
        Related | Part | Finish | Emit => Some(Message),
    }
}

#[test]
fn every_field_of_every_operation_at_its_edges() {
    let stage = Stage::new();
    let mut steps = Vec::new();
    for code in (0..=23).chain([255, 1 << 16, u32::MAX]) {
        // What is in the slot is no message, whatever its length.
        let base = Step { slot: Bytes(vec![0xee; 16]), ..step(code) };
        for edge in EDGES {
            let short = edge as u32;
            steps.push(Step { file: short, ..base.clone() });
            steps.push(Step { at: edge, ..base.clone() });
            steps.push(Step { len: edge, ..base.clone() });
            steps.push(Step { file2: short, ..base.clone() });
            steps.push(Step { arg: short, ..base.clone() });
            steps.push(Step { at2: edge, ..base.clone() });
            steps.push(Step { zero: edge, ..base.clone() });
            steps.push(Step { zero2: edge, ..base.clone() });
            steps.push(Step { at: edge, len: u64::MAX - edge, ..base.clone() });
            steps.push(Step { at: LEN - 512, len: edge, ..base.clone() });
        }
    }
    let mut seen = std::collections::HashSet::new();
    steps.retain(|step| seen.insert(encode(step)));
    for wall in walls() {
        // Who judges is the same for both; the machine gets a sample.
        let every = if *wall == Wall::Kvm { 4 } else { 1 };
        let steps: Vec<&Step> = steps.iter().step_by(every).collect();
        for_all(&steps, |step| {
            let end = stage.try_on(*wall, vec![(*step).clone()]);
            match model(step) {
                Some(violation) => end.violated(violation),
                None => end.harmless(),
            };
        });
    }
}

#[test]
fn numbers_that_do_not_follow_are_refused() {
    let stage = Stage::new();
    for wall in walls() {
        for skew in [-1, 1, -2, 2, 1000, i64::MIN, i64::MAX] {
            stage.try_on(*wall, vec![Step { skew, ..op(Op::Holes) }]).violated(Sequence);
            // The same after calls that were in order: a replay, or a gap.
            let good = Step { len: 512, tell: Some(0), ..op(Op::Read) };
            let end = stage.try_on(*wall, vec![good.clone(), good, Step { skew, ..op(Op::Holes) }]);
            end.violated(Sequence);
            assert!(end.answers().iter().all(|(answer, _)| answer.status == Status::Done as u32), "{end:?}");
        }
    }
}

#[test]
fn what_may_be_read_is_read_exactly() {
    let stage = Stage::new();
    for wall in walls() {
        let read = |at, len, arg| Step { at, len, arg, tell: Some(len), ..op(Op::Read) };
        let end = stage.try_on(*wall, vec![read(0, 512, 0), read(LEN - 1, 1, 0), read(LEN, 0, 0), read(0, 1000, 9)]);
        for ((answer, slot), (at, len)) in
            end.harmless().answers().iter().zip([(0, 512), (LEN - 1, 1), (LEN, 0), (0, 1000)])
        {
            assert_eq!((answer.status, answer.value), (0, len));
            assert!(slot.iter().zip(at..).all(|(byte, n)| *byte == (n % 251) as u8) && slot.len() as u64 == len);
        }
    }
}

#[test]
fn lane_control_is_for_its_lane() {
    let stage = Stage::new();
    for wall in walls() {
        for code in [Op::Start, Op::Finish, Op::Wake, Op::Join] {
            let attack = Attack::Lane(LaneAttack::Call(code as u32));
            attack_on(*wall, lanes(2), &stage.session(), &attack).violated(Lane);
        }
        stage.try_on(*wall, vec![op(Op::Park)]).violated(Lane);
        // Each lane counts for itself.
        let borrow = Attack::Lane(LaneAttack::Borrow);
        attack_on(*wall, lanes(2), &stage.session(), &borrow).violated(Sequence);
        // With no other lanes there is nobody to wait for.
        stage.try_on(*wall, vec![op(Op::Join), op(Op::Wake), op(Op::Wake), op(Op::Join)]).harmless();
    }
}

/// A message in the slot, all of it or less or more.
fn message(op: Op, bytes: &[u8], len: usize) -> Step {
    Step { len: len as u64, slot: Bytes([bytes, &[0xa5; 8]].concat()), ..step(op as u32) }
}

#[test]
fn messages_cut_short_or_too_long_are_none() {
    let stage = Stage::new();
    let related = encode(&Related { from: FileId(0), role: Role::Backing, name: "below".into() });
    let error = Kind::Corrupt.what("it is '{}'").file(FileId(0)).at(7).arg(Fact::fields([("a", 1u64.into())]));
    let outcome = encode(&Outcome::Failed(error));
    let mut steps = Vec::new();
    let part = encode(&Part { from: FileId(0), name: "image-part".into() });
    for (op, bytes) in [(Op::Related, &related), (Op::Part, &part), (Op::Finish, &outcome)] {
        steps.extend((0..bytes.len() + 8).filter(|len| *len != bytes.len()).map(|len| message(op, bytes, len)));
        steps.push(message(op, &[0xff; 64], 64));
        steps.push(message(op, &[vec![1, 0, 0, 0, 1], vec![0xff; 4]].concat(), 9));
    }
    // An outcome whose facts nest deeper than any may, and one that counts what is not there.
    let head = |tail: &[u8]| [&[1, 2, 0, 0, 0, 0, 0, 0][..], tail].concat();
    let nested = head(&[1u8, 0, 0, 0, 5].repeat(2000));
    steps.push(message(Op::Finish, &nested, nested.len()));
    let counted = head(&[0xff; 12]);
    steps.push(message(Op::Finish, &counted, counted.len()));
    for wall in walls() {
        for_all(&steps, |step| {
            stage.try_on(*wall, vec![step.clone()]).violated(Message);
        });
        let named = Step { slot: Bytes(related.clone()), len: related.len() as u64, tell: Some(0), ..op(Op::Related) };
        let end = stage.try_on(*wall, vec![named]);
        assert_eq!(end.harmless().answers()[0].0.status, Status::Failed as u32, "it is not there: {end:?}");
        let stranger = encode(&Related { from: FileId(7), role: Role::Backing, name: "below".into() });
        stage.try_on(*wall, vec![message(Op::Related, &stranger, stranger.len())]).violated(File);
        // Of a file that is only read there are no parts.
        stage.try_on(*wall, vec![message(Op::Part, &part, part.len())]).violated(File);
    }
}

#[test]
fn events_are_bounded() {
    let stage = Stage::new();
    for wall in walls() {
        let emit = Step { len: SLOT, slot: Bytes(vec![0]), ..op(Op::Emit) };
        let times = usize::try_from(EVENTS_MAX / SLOT).expect("few");
        let end = stage.try_on(*wall, vec![emit.clone(); times]);
        assert_eq!(end.harmless().told.len(), times);
        let end = stage.try_on(*wall, vec![emit; times + 1]);
        assert_eq!(end.violated(Events).told.len(), times);
    }
}

#[test]
fn a_request_too_long_for_the_slot_is_not_half_given() {
    let stage = Stage::new();
    for wall in walls() {
        let mut cell: Box<dyn Cell> = match wall {
            Wall::Process => Box::new(ProcessCell::start(WORKER.process, budget()).expect("a cell")),
            Wall::Kvm => Box::new(KvmCell::start(WORKER.kvm, budget(), false).expect("a cell")),
        };
        let request = instar_rogue::request(&Script(vec![Step { slot: Bytes(vec![0; 70_000]), ..op(Op::Emit) }]), None);
        let result = instar_broker::run(&stage.session(), cell.as_mut(), &request, EVENTS_MAX, &mut |_| Ok(()));
        assert!(matches!(&result, Ok(Outcome::Failed(error)) if error.kind == Kind::Io), "{result:?}");
    }
}

#[test]
fn an_event_that_is_none_ends_the_cell() {
    let stage = Stage::new();
    for wall in walls() {
        let mut cell = instar_walls::start(*wall, budget()).expect("a cell");
        let request = instar_rogue::request(&Script(vec![Step { len: 3, slot: Bytes(vec![0]), ..op(Op::Emit) }]), None);
        let refuse = &mut |_: &[u8]| Err(instar_wire::code::Malformed);
        let result = instar_broker::run(&stage.session(), cell.as_mut(), &request, EVENTS_MAX, refuse);
        assert!(matches!(result, Err(Collapse::Violated(Message))), "{result:?}");
    }
}
