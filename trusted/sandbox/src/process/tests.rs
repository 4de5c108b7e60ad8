//! The system-call policy: every rule has its reason, and no rule is there that could be spared.

use super::ProcessCell;
use super::filter::{RULES, Rule, program_of};
use crate::window::Turn;
use crate::{Budget, Cell, Fall, Next, Paged, Serve, WORKER};
use instar_wire::boot::{LANES_MAX, PAGE, Shape};
use instar_wire::code::{Bytes, encode};
use instar_wire::io::{Answer, FileId, Granted, Op, Status};
use instar_wire::op::{Request, Rules, Source, info};
use rustix::process::Pid;
use std::fs;
use std::sync::Mutex;
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

/// Where a program of the next kind lies, and where in the window it leaves its registers: sixteen, and sixteen for vectors.
const PROGRAM_AT: usize = 0x20_0000;
const LEFT_AT: usize = 2 * PAGE;
const STACK_POINTER: usize = 4;
const FIRST_ARGUMENT: usize = 7;
const ENTRY: usize = 13;

/// A program that leaves its registers in the window and dies.
fn teller() -> &'static [u8] {
    let mut code = Vec::new();
    // A register goes to the window, whose address is in `rdi`, so many bytes behind its beginning.
    let mut store = |before: &[u8], number: usize, at: usize| {
        code.extend(before);
        code.push(0x87 | u8::try_from(number % 8).expect("three bits") << 3);
        code.extend(u32::try_from(LEFT_AT + at).expect("a place in a slot").to_le_bytes());
    };
    for number in 0..16 {
        store(if number < 8 { &[0x48, 0x89] } else { &[0x4c, 0x89] }, number, number * 8);
        store(if number < 8 { &[0x40, 0x0f, 0x11] } else { &[0x44, 0x0f, 0x11] }, number, 128 + number * 16);
    }
    code.extend([0x0f, 0x0b]);
    let mut file = Box::new(Paged([0; 2 * PAGE]));
    let mut put = |at: usize, bytes: &[u8]| file.0[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02");
    // Entry, program headers, their size and number; then the one header: readable, executable.
    let word = |number: usize| number.to_le_bytes();
    put(24, &[word(PROGRAM_AT), word(64)].concat());
    put(54, &[56, 0, 1, 0]);
    put(64, &[1, 0, 0, 0, 5, 0, 0, 0]);
    let (place, len) = ([word(PAGE), word(PROGRAM_AT), word(PROGRAM_AT)], word(code.len()));
    put(72, &[&place[..], &[len, len]].concat().concat());
    put(PAGE, &code);
    &Box::leak(file).0
}

#[test]
fn no_register_tells_a_worker_of_its_broker() {
    let mut cell = ProcessCell::start(teller(), Budget::default()).expect("a cell");
    let fall = cell.run(&Slow).expect_err("it dies");
    assert!(matches!(fall, Fall::Signal(libc::SIGILL)), "{fall:?}");
    let mut left = [0; 128 + 256];
    cell.window().get(LEFT_AT, &mut left);
    let (general, vectors) = left.split_at(128);
    for (number, register) in general.as_chunks().0.iter().enumerate() {
        let value = usize::from_le_bytes(*register);
        match number {
            STACK_POINTER => {}
            FIRST_ARGUMENT => assert_eq!(value, super::child::WINDOW_AT),
            ENTRY => assert_eq!(value, PROGRAM_AT),
            _ => assert_eq!(value, 0, "register {number}"),
        }
    }
    assert_eq!(vectors, [0; 256]);
}

fn run_behind(allowed: &[Rule]) -> Result<(), Fall> {
    let filter = program_of(allowed)?;
    let mut cell = ProcessCell::start_behind(WORKER.process, Budget::default(), &filter)?;
    // Asleep as soon as it can be.
    cell.halves.spin = 0;
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

/// A broker that sees where the lanes of a worker may run that has got as far as a call.
struct Watch {
    worker: Pid,
    seen: Mutex<Vec<String>>,
}

impl Serve for Watch {
    fn serve(&self, turn: &Turn<'_>) -> Next {
        if Op::from_code(turn.call().op) != Some(Op::Start) {
            return Next::Park;
        }
        let tasks = fs::read_dir(format!("/proc/{}/task", self.worker.as_raw_nonzero())).expect("tasks");
        let mut tasks: Vec<u32> = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
        tasks.sort_unstable();
        let list = |task: u32| {
            let status = fs::read_to_string(format!("/proc/{task}/status")).expect("a status");
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            list.expect("a list").trim().to_owned()
        };
        *self.seen.lock().expect("a lock") = tasks.into_iter().map(list).collect();
        Next::End
    }
}

#[test]
fn the_halves_of_a_lane_run_on_one_processor() {
    let lanes = LANES_MAX;
    let shape = Shape { lanes, ..Budget::default().shape };
    let mut cell = ProcessCell::start(WORKER.process, Budget { shape, ..Budget::default() }).expect("a cell");
    let own = cell.halves.processors.map(|cpu| cpu.to_string());
    let watch = Watch { worker: cell.worker, seen: Mutex::default() };
    cell.run(&watch).expect("it ends");
    match cell.halves.spin {
        0 => assert_eq!(watch.seen.into_inner().expect("a lock"), own),
        _ => eprintln!("SKIPPED: there are processors enough for all halves of {lanes} lanes"),
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
