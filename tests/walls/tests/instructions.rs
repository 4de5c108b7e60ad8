//! Privileged, legacy and odd instructions, from inside each cell.

use instar_rogue::{Attack, INSTRUCTIONS};
use instar_sandbox::Wall;
use instar_walls::{attack, for_all, walls};

/// How an instruction ends: the signals in a process, the vectors in a machine.
struct Ends {
    process: &'static [i32],
    kvm: &'static [u8],
    /// It may also do nothing at all.
    harmless: bool,
}

const fn ends(process: &'static [i32], kvm: &'static [u8]) -> Ends {
    Ends { process, kvm, harmless: false }
}

/// What processors say to each; where they differ, all that they may say.
fn ends_of(name: &str) -> Ends {
    match name {
        "int3" | "int 0x03 long" => ends(&[5], &[3, 13]),
        "icebp" => ends(&[5], &[1, 13]),
        "trap flag" => ends(&[5], &[1]),
        "int 0x20" | "int 0x21" => ends(&[11], &[6, 13]),
        "into" | "bound" | "ud2" | "salc" | "rsm" => ends(&[4], &[6]),
        "vmxon" | "vmrun" | "monitor" | "mwait" => ends(&[4, 11], &[6, 13]),
        // Vector 0 is also what a kernel reports that has nothing to report.
        "divide by zero" => ends(&[8], &[0, 8]),
        "alignment" => Ends { harmless: true, ..ends(&[7], &[17]) },
        // A hypervisor may answer, refuse, or try to write the other maker's instruction over read-only text.
        "vmcall" | "vmmcall" => Ends { harmless: true, ..ends(&[4, 11], &[6, 13, 14]) },
        // They tell what cannot be kept secret, or change nothing but the worker's own registers.
        "cpuid" | "rdtsc" | "pause" | "arpl or movsxd" => Ends { harmless: true, ..ends(&[11], &[13]) },
        "sgdt" | "sidt" | "sldt" | "str" | "smsw" => Ends { harmless: true, ..ends(&[11], &[13]) },
        "xgetbv" | "wrfsbase" => Ends { harmless: true, ..ends(&[4, 11], &[6, 13]) },
        "xsetbv" => ends(&[4, 11], &[6, 13]),
        _ => ends(&[11], &[13]),
    }
}

#[test]
fn every_instruction_is_harmless_or_the_end() {
    let numbers: Vec<usize> = (0..INSTRUCTIONS.len()).collect();
    for wall in walls() {
        for_all(&numbers, |number| {
            let name = INSTRUCTIONS[*number];
            let ends = ends_of(name);
            let end = attack(*wall, &Attack::Instruction(*number as u64));
            match (&end.result, wall) {
                (Ok(_), _) => assert!(ends.harmless, "{name} did nothing: {end:?}"),
                (Err(_), Wall::Process) => end.signal(ends.process),
                (Err(_), Wall::Kvm) => {
                    end.fault(ends.kvm);
                }
            }
            assert!(end.told.is_empty(), "{name}: {end:?}");
        });
    }
}
