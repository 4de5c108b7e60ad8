//! A broker in the circumstances that its arguments name: runs a rogue, lets others look at it, and tells how it went.

use instar_rogue::{Attack, Gate, System};
use instar_sandbox::Wall;
use instar_walls::{EVENTS_MAX, attack_on, budget, lanes, session, start};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut budget, mut wall, mut attack) = (budget(), Wall::Process, Attack::Report);
    for argument in &arguments {
        match argument.as_str() {
            "one-gib" => {
                let limit = Rlimit { current: Some(1 << 30), maximum: Some(1 << 30) };
                setrlimit(Resource::As, limit).expect("an address space of 1 GiB");
                budget = instar_sandbox::Budget::default();
            }
            "nobody" => become_nobody(),
            "no-exec" => deny(&[(libc::SYS_execve, vec![]), (libc::SYS_execveat, vec![])], libc::EACCES),
            "no-namespaces" => deny(&[(libc::SYS_clone, namespaces())], libc::EPERM),
            "two-lanes" => budget = lanes(2),
            "kvm" => wall = Wall::Kvm,
            "bomb" => attack = Attack::Bomb,
            other => panic!("no such circumstance: {other}"),
        }
    }
    let mut cell = start(wall, budget).expect("a cell");
    let mut tell = |regions: &[u8]| {
        let numbers: Vec<String> = regions.chunks(8).map(|n| format!("{:x}", number(n))).collect();
        println!("{}", numbers.join(" "));
        std::io::stdout().flush().expect("somebody listens");
        std::io::stdin().lock().read_line(&mut String::new()).expect("somebody answers");
        Ok(())
    };
    let request = instar_rogue::request(&attack, None);
    let result = instar_broker::run(&session(), cell.as_mut(), &request, EVENTS_MAX, &mut tell);
    println!("{result:?}");
    let getpid = Attack::System(System { gate: Gate::Syscall, number: 39, args: Vec::new() });
    println!("{}", attack_on(wall, budget, &session(), &getpid).line());
    println!("{}", attack_on(wall, budget, &session(), &Attack::Overflow).line());
    println!("{}", attack_on(wall, budget, &session(), &Attack::Behave).line());
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: plain system calls on plain numbers.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
        // As a program that nobody started would be.
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
    }
}

/// Calls whose first argument asks for a namespace.
fn namespaces() -> Vec<SeccompRule> {
    let flags = [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET];
    let rule = |flag: i32| {
        let flag = u64::from(flag.cast_unsigned());
        let asks = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag);
        SeccompRule::new(vec![asks.expect("a condition")]).expect("a rule")
    };
    flags.into_iter().map(rule).collect()
}

/// From now on these calls fail so, here and in every child.
fn deny(calls: &[(i64, Vec<SeccompRule>)], errno: i32) {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls.iter().cloned().collect();
    let action = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("the filter stands");
}
