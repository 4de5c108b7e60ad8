//! Every way into the operating system, from inside each cell.

use instar_rogue::{Attack, Gate, System};
use instar_sandbox::{Fall, Wall};
use instar_walls::{End, attack, for_all, walls};

const FUTEX: u64 = 202;
const SIGSYS: i32 = 31;
/// The kernel exempts the return paths of its own probes from every filter. From anywhere but a probe they do nothing:
/// the one is an invalid instruction, the other answers ENXIO.
const PROBES: [u64; 2] = [335, 336];
/// The bit that makes a number one of the x32 interface's.
const X32: u64 = 0x4000_0000;

fn call(wall: Wall, gate: Gate, number: u64, args: &[u64]) -> End {
    attack(wall, &Attack::System(System { gate, number, args: args.to_vec() }))
}

#[track_caller]
fn killed(end: &End, number: u64) {
    let (fall, words) = end.quick().fall();
    assert!(matches!(fall, Fall::Signal(SIGSYS)) && words.is_empty(), "call {number:#x}: {end:?}");
    assert_eq!(end.line(), "the worker tried a forbidden system call and was stopped (signal 31)");
}

#[test]
fn every_number_but_futex_is_deadly_in_a_process() {
    let plain = (0..=600).filter(|n| *n != FUTEX && !PROBES.contains(n));
    // The kernel looks at 32 bits of the number.
    let x32 = (0..=600).chain([1 << 20, 0x3fff_ffff]).map(|n| n | X32);
    let odd = [u64::MAX, u64::MAX >> 1, 1 << 31, 1 << 32, FUTEX | 1 << 31, 100_000];
    let numbers: Vec<u64> = plain.chain(x32).chain(odd).collect();
    for_all(&numbers, |number| killed(&call(Wall::Process, Gate::Syscall, *number, &[]), *number));
}

#[test]
fn the_kernels_own_probes_do_nothing() {
    for number in PROBES {
        let end = call(Wall::Process, Gate::Syscall, number, &[]);
        match &end.quick().result {
            Ok(_) => assert_eq!(end.told, [(-6i64).to_le_bytes()], "{number}"),
            Err(_) => assert!(matches!(end.fall().0, Fall::Signal(4 | SIGSYS)), "{number}: {end:?}"),
        }
    }
}

#[test]
fn futex_waits_and_wakes_and_does_nothing_else() {
    // On a null address both are refused by the kernel, so the rogue lives to tell: EFAULT.
    for op in [0, 1] {
        let end = call(Wall::Process, Gate::Syscall, FUTEX, &[0, op, 0, 0]);
        assert_eq!(end.harmless().told, [(-14i64).to_le_bytes().to_vec()], "operation {op}");
    }
    let others: Vec<u64> =
        (2..32).flat_map(|op| [op, op | 128, op | 256]).chain([128, 129, 256, 257, 0xffff_ffff]).collect();
    for_all(&others, |op| killed(&call(Wall::Process, Gate::Syscall, FUTEX, &[0, *op, 0, 0]), *op));
}

#[test]
fn old_gates_are_shut_in_a_process() {
    for number in [0, 1, 11, 20, 240, FUTEX, 422] {
        for gate in [Gate::Int80, Gate::Sysenter] {
            let end = call(Wall::Process, gate.clone(), number, &[]);
            let (fall, _) = end.quick().fall();
            // Forbidden where the kernel has 32-bit calls; a fault or no instruction where kernel or processor has not.
            assert!(matches!(fall, Fall::Signal(4 | 11 | SIGSYS)), "{gate:?} {number}: {end:?}");
        }
    }
}

#[test]
fn no_gate_leads_out_of_a_machine() {
    if !walls().contains(&Wall::Kvm) {
        return;
    }
    let numbers: Vec<u64> = (0..=600).step_by(25).chain([FUTEX, X32, u64::MAX]).collect();
    for_all(&numbers, |number| {
        for gate in [Gate::Syscall, Gate::Int80, Gate::Sysenter] {
            let end = call(Wall::Kvm, gate.clone(), *number, &[]);
            let (fall, _) = end.quick().fall();
            assert!(matches!(fall, Fall::Fault { .. }), "{gate:?} {number}: {end:?}");
        }
    });
}
