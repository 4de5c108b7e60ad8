//! Touching what is not the worker's to touch, or not in that way, from inside each cell.

use instar_broker::Collapse;
use instar_broker::admit::Violation;
use instar_rogue::How::{Jump, Load, Load8, Store, Store1, Store16};
use instar_rogue::Region::{Constant, Heap, HeapEnd, ImageEnd, Stack, Text, Wall as Bell, Window, WindowEnd, Zero};
use instar_rogue::{Attack, How, Region, Touch};
use instar_sandbox::Wall;
use instar_walls::{End, attack, attack_on, budget, exact, for_all, session, walls};

/// What the processor adds to a page fault: it was a user, and one of these.
const ABSENT: u32 = 4;
const ABSENT_STORE: u32 = 6;
const PROTECTED_STORE: u32 = 7;
const ABSENT_FETCH: u32 = 0x14;
const PROTECTED_FETCH: u32 = 0x15;
const ACCESS: u32 = 0x16;
const PAGE_FAULT: u8 = 14;
const PROTECTION: u8 = 13;
const SIGSEGV: i32 = 11;
const SIGSYS: i32 = 31;

fn touch(wall: Wall, how: &How, from: &Region, offset: i64) -> End {
    attack(wall, &Attack::Touch(Touch { how: how.clone(), from: from.clone(), offset }))
}

/// Addresses that belong to nobody, to the kernel, or to the machine's own tables.
fn foreign() -> Vec<u64> {
    const KERNEL: [u64; 7] = [
        0xffff_8000_0000_0000,
        0xffff_8880_0000_0000,
        0xffff_ffff_8000_0000,
        0xffff_ffff_8100_0000,
        0xffff_ffff_ff60_0000,
        0xffff_ffff_ffff_f000,
        u64::MAX,
    ];
    const NOBODY: [u64; 6] = [0, 1, 0xfff, 0x1f_ffff, 0x7fff_ffff_efff, 0x0000_7000_0000_0000];
    // In a machine, the root of its page tables and those below lie here in physical memory.
    let tables = (1..16).map(|page| page * 4096);
    KERNEL.into_iter().chain(NOBODY).chain(tables).collect()
}

#[test]
fn what_belongs_to_others_cannot_be_touched() {
    for wall in walls() {
        for_all(&foreign(), |address| {
            for (how, error) in [(Load, ABSENT), (Store, ABSENT_STORE), (Jump, ABSENT_FETCH)] {
                let end = touch(*wall, &how, &Zero, address.cast_signed());
                match wall {
                    // Where the kernel still emulates the calls of old, a jump to their page is one.
                    Wall::Process if *address == 0xffff_ffff_ff60_0000 => end.signal(&[SIGSEGV, SIGSYS]),
                    Wall::Process => end.signal(&[SIGSEGV]),
                    Wall::Kvm => {
                        let (said, at) = end.fault(&[PAGE_FAULT]);
                        // Whether nothing is there or something that is not for users is the hypervisor's affair.
                        assert!(!exact() || (said & ACCESS, at) == (error, *address), "{how:?} {address:#x} {end:?}");
                    }
                }
            }
        });
    }
}

#[test]
fn addresses_that_are_none_cannot_be_touched() {
    for wall in walls() {
        for address in [1u64 << 47, 1 << 63, 0xffff_7fff_ffff_ffff] {
            for how in [Load, Store] {
                let end = touch(*wall, &how, &Zero, address.cast_signed());
                match wall {
                    Wall::Process => end.signal(&[SIGSEGV]),
                    Wall::Kvm => {
                        end.fault(&[PROTECTION]);
                    }
                }
            }
        }
    }
}

#[test]
fn own_memory_is_written_or_executed_but_never_both() {
    for wall in walls() {
        for (how, from, offset, error) in [
            (Store, Text, 0, PROTECTED_STORE),
            (Store, Constant, 0, PROTECTED_STORE),
            (Jump, Constant, 0, PROTECTED_FETCH),
            (Jump, Stack, 0, PROTECTED_FETCH),
            (Jump, Heap, 0, PROTECTED_FETCH),
            (Jump, HeapEnd, -16, PROTECTED_FETCH),
            (Jump, Window, 0, PROTECTED_FETCH),
            (Jump, WindowEnd, -16, PROTECTED_FETCH),
            (Jump, ImageEnd, -1, PROTECTED_FETCH),
        ] {
            let end = touch(*wall, &how, &from, offset);
            match wall {
                Wall::Process => end.signal(&[SIGSEGV]),
                Wall::Kvm => assert!(end.fault(&[PAGE_FAULT]).0 == error || !exact(), "{how:?} {from:?} {end:?}"),
            }
        }
        for region in [Heap, Stack, Window] {
            let end = attack(*wall, &Attack::Inject(region.clone()));
            match wall {
                Wall::Process => end.signal(&[SIGSEGV]),
                Wall::Kvm => assert!(end.fault(&[PAGE_FAULT]).0 == PROTECTED_FETCH || !exact(), "{region:?} {end:?}"),
            }
        }
    }
}

#[test]
fn memory_ends_where_it_ends() {
    let stack_and_guard = (budget().stack_len + 4096).cast_signed() as i64;
    for wall in walls() {
        let edges: &[(Region, i64)] = match wall {
            // Window, heap and stacks lie side by side in no promised order; the lowest page of a stack is its guard.
            Wall::Process => {
                &[(Text, -1), (ImageEnd, 0), (Heap, -stack_and_guard), (WindowEnd, 1 << 30), (Heap, -(1 << 30))]
            }
            Wall::Kvm => &[
                (Text, -1),
                (ImageEnd, 0),
                (ImageEnd, 4095),
                (Bell, -1),
                (Bell, 4096),
                (Window, -1),
                (WindowEnd, 0),
                (Heap, -1),
                (HeapEnd, 0),
            ],
        };
        for (from, offset) in edges {
            for (how, error) in [(Load, ABSENT), (Store, ABSENT_STORE)] {
                let end = touch(*wall, &how, from, *offset);
                match wall {
                    Wall::Process => end.signal(&[SIGSEGV]),
                    Wall::Kvm => assert!(end.fault(&[PAGE_FAULT]).0 == error || !exact(), "{from:?} {offset} {end:?}"),
                }
            }
        }
    }
}

#[test]
fn a_doorbell_is_rung_in_one_way_only() {
    if !walls().contains(&Wall::Kvm) {
        return;
    }
    for (how, offset) in [(Load, 0), (Load8, 0), (Store1, 0), (Store, 8), (Load8, 4088), (Store, 4095), (Store1, 1)] {
        let end = touch(Wall::Kvm, &how, &Bell, offset);
        // The address is the bell's, whoever reports it.
        end.fault(&[PROTECTION]);
    }
    // A store of sixteen bytes comes as two, of which the first rings for the call that was served already.
    let end = attack_on(Wall::Kvm, budget(), &session(), &Attack::Touch(Touch { how: Store16, from: Bell, offset: 0 }));
    match &end.quick().result {
        Err(Collapse::Violated(violation)) => assert_eq!(*violation, Violation::Sequence),
        _ => {
            end.fault(&[PROTECTION]);
        }
    }
}
