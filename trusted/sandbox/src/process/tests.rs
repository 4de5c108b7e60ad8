//! The system-call policy: every rule has its reason, and no rule is there that could be spared.

use super::ProcessCell;
use super::filter::{RULES, Rule, program_of};
use crate::window::Turn;
use crate::{Budget, Cell, Fall, Next, Serve, WORKER};
use instar_wire::code::{Bytes, encode};
use instar_wire::io::{Answer, FileId, Granted, Op, Status};
use instar_wire::op::{Request, Rules, Source, info};
use std::thread;
use std::time::Duration;

/// A broker that takes its time, so that each side comes to sleep on the bell and has to be woken.
struct Slow;

impl Serve for Slow {
    fn serve(&self, turn: &Turn<'_>) -> Next {
        thread::sleep(Duration::from_millis(15));
        let call = turn.call();
        let mut answer = Answer { seq: call.seq, ..Answer::default() };
        match Op::from_code(call.op) {
            Some(Op::Start) => {
                let request = encode(&request());
                turn.copy_in(0, &request);
                answer.value = request.len() as u64;
            }
            Some(Op::Finish) => return Next::End,
            _ => answer.status = Status::Failed as u32,
        }
        turn.answer(&answer);
        Next::Resume
    }
}

/// Tell what a file of 1 MiB is.
fn request() -> Request {
    let file = Granted {
        id: FileId(0),
        len: 1 << 20,
        allocated: 0,
        writable: false,
        pinned: Some(Bytes(b"raw".to_vec())),
        suggested: None,
    };
    Request::Info(info::Request {
        top: Source::whole(file),
        rules: Rules { as_qemu: false, version: 0 },
        chain: false,
        open_data_file: false,
        extra: false,
    })
}

fn run_behind(allowed: &[Rule]) -> Result<(), Fall> {
    let filter = program_of(allowed)?;
    let mut cell = ProcessCell::start_behind(WORKER.process, Budget::default(), &filter)?;
    // Asleep as soon as it can be.
    cell.spin = 0;
    cell.run(&Slow)
}

/// How a worker falls behind that filter; one that is quick may now and then come through without having to wake.
fn fall_behind(allowed: &[Rule]) -> Fall {
    (0..20).find_map(|_| run_behind(allowed).err()).expect("a rule that is not needed")
}

#[test]
fn the_policy_is_enough() {
    assert!(run_behind(RULES).is_ok());
}

#[test]
fn every_rule_and_every_value_is_needed() {
    for (index, (number, values)) in RULES.iter().enumerate() {
        let without: Vec<_> = RULES.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, rule)| *rule).collect();
        // A filter has to allow something; no worker asks for its number.
        let fall = fall_behind(&[&without[..], &[(libc::SYS_getpid, &[])]].concat());
        assert!(matches!(fall, Fall::Signal(libc::SIGSYS)), "{number}: {fall:?}");
        for value in *values {
            let rest: Vec<u64> = values.iter().copied().filter(|v| v != value).collect();
            let rule: Rule = (*number, rest.leak());
            let fall = fall_behind(&[&without[..], &[rule]].concat());
            assert!(matches!(fall, Fall::Signal(libc::SIGSYS)), "{number} {value}: {fall:?}");
        }
    }
}

#[test]
fn every_rule_has_a_reason() {
    let policy = include_str!("policy.toml");
    let rules = policy.split("\n[").skip(1);
    let with_reason =
        rules.clone().filter(|rule| rule.lines().any(|line| line.starts_with("reason = \"") && line.len() > 40));
    assert_eq!((rules.count(), with_reason.count()), (RULES.len(), RULES.len()));
}
