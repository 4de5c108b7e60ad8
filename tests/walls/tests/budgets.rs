//! Loops, sleeps, bombs, overflows and last words: a cell ends them all within its budget.

use instar_rogue::Attack::{Behave, Bell, Bomb, CallForever, Lane, Overflow, Panic, Return, Sleep, Spin, Words};
use instar_rogue::{LaneAttack, Then};
use instar_sandbox::{Budget, Fall, Wall};
use instar_walls::{End, attack, attack_on, attack_within, budget, for_all, lanes, session_with, walls};
use std::time::Duration;

const CPU: Duration = Duration::from_millis(300);
const SIGILL: i32 = 4;
const SIGSEGV: i32 = 11;
const INVALID_INSTRUCTION: u8 = 6;
const PAGE_FAULT: u8 = 14;

fn short() -> Budget {
    Budget { cpu: CPU, ..budget() }
}

/// The cell ran out of processor time: not before it had it, and not long after.
#[track_caller]
fn used_up(end: &End, patience: u32) {
    let (fall, _) = end.fall();
    assert!(matches!(fall, Fall::Cpu(CPU)), "{end:?}");
    assert_eq!(end.line(), "the worker used up its processor time of 0.3 s and was stopped");
    assert!(end.time >= CPU / 5 && end.time < CPU * patience, "{end:?}");
}

/// It executed an invalid instruction, as a worker does that cannot go on.
#[track_caller]
fn stopped_itself(end: &End, wall: Wall) {
    match wall {
        Wall::Process => end.signal(&[SIGILL]),
        Wall::Kvm => {
            end.fault(&[INVALID_INSTRUCTION]);
        }
    }
}

#[test]
fn an_endless_loop_ends() {
    for wall in walls() {
        used_up(&attack_within(*wall, short(), &Spin), 10);
    }
}

#[test]
fn an_endless_loop_of_admitted_calls_ends() {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("image");
    std::fs::write(&image, vec![7; 4096]).expect("an image");
    for wall in walls() {
        let (session, _) = session_with(&image);
        used_up(&attack_on(*wall, short(), &session, &CallForever), 20);
        attack_on(*wall, budget(), &session, &Behave).harmless();
    }
}

#[test]
fn an_endless_sleep_ends() {
    for wall in walls() {
        let end = attack_within(*wall, short(), &Sleep);
        match wall {
            Wall::Process => used_up(&end, 20),
            // There is nothing that a machine could sleep on.
            Wall::Kvm => {
                end.fault(&[PAGE_FAULT, INVALID_INSTRUCTION, 13]);
            }
        }
    }
}

#[test]
fn a_scribbled_bell_keeps_nobody_waiting() {
    let values: Vec<u32> = (0..6).chain([77, 0x5a5a_5a5a, u32::MAX]).collect();
    for wall in walls() {
        for_all(&values, |value| {
            for then in [Then::Spin, Then::Die, Then::Sleep] {
                let attack = Bell(instar_rogue::Bell { value: *value, then: then.clone() });
                let end = attack_within(*wall, short(), &attack);
                match (wall, &then, value) {
                    // A bell that rings hands the last call in again, and that is out of order.
                    (Wall::Process, _, 1 | 3) => {
                        end.violated(instar_broker::admit::Violation::Sequence);
                    }
                    (Wall::Kvm, Then::Sleep, _) => {
                        end.fault(&[PAGE_FAULT, INVALID_INSTRUCTION, 13]);
                    }
                    (_, Then::Spin | Then::Sleep, _) => used_up(&end, 20),
                    (_, Then::Die, _) => stopped_itself(&end, *wall),
                }
            }
        });
    }
}

#[test]
fn a_lane_that_loops_or_dies_ends_the_cell() {
    let four = Budget { cpu: CPU, ..lanes(4) };
    for wall in walls() {
        used_up(&attack_within(*wall, four, &Lane(LaneAttack::SpinWhileJoined)), 10);
        used_up(&attack_within(*wall, four, &Lane(LaneAttack::SpinAll)), 10);
        stopped_itself(&attack_within(*wall, four, &Lane(LaneAttack::DieWhileJoined)), *wall);
        let end = attack_within(*wall, four, &Lane(LaneAttack::Overflow));
        match wall {
            Wall::Process => end.signal(&[SIGSEGV]),
            Wall::Kvm => {
                end.fault(&[PAGE_FAULT]);
            }
        }
    }
}

#[test]
fn memory_ends_with_the_budget() {
    for wall in walls() {
        let end = attack(*wall, &Bomb);
        stopped_itself(&end, *wall);
        let told = end.told.first().expect("the rogue tells how much it had").as_slice();
        let had = u64::from_le_bytes(told.try_into().expect("a number"));
        let heap = budget().heap_len as u64;
        assert!((heap / 2..=heap).contains(&had), "{had} of {heap}");
        let line = end.line();
        assert!(line.starts_with("the worker could not go on and was stopped: "), "{line}");
        assert!(line.ends_with("memory allocation of 1048576 bytes failed"), "{line}");
    }
}

#[test]
fn a_stack_ends_at_its_guard() {
    for wall in walls() {
        let end = attack(*wall, &Overflow);
        match wall {
            Wall::Process => end.signal(&[SIGSEGV]),
            Wall::Kvm => {
                end.fault(&[PAGE_FAULT]);
            }
        }
    }
}

#[test]
fn last_words_are_one_line_whatever_they_say() {
    for wall in walls() {
        let end = attack(*wall, &Panic("\x1b[2Ja \"panic\"\nof\ttwo lines\u{202e}".into()));
        stopped_itself(&end, *wall);
        let line = end.line();
        let words = r#"\x1b[2Ja \"panic\"\nof\ttwo lines\xe2\x80\xae"#;
        assert_eq!(line, format!("the worker could not go on and was stopped: {words}"));

        let end = attack(*wall, &Panic("x".repeat(5000).as_str().into()));
        assert!(end.line().len() < 1100 && end.line().ends_with("xxxx"), "{end:?}");
        stopped_itself(&end, *wall);
    }
}

#[test]
fn forged_last_words_are_cut() {
    for wall in walls() {
        for (len, shown) in [(0, 0), (1, 1), (1024, 1024), (1025, 1024), (u64::MAX, 1024), (1 << 63, 1024)] {
            let words = instar_rogue::Words { len, bytes: vec![0xff; 4000].as_slice().into(), then: Then::Die };
            let end = attack(*wall, &Words(words));
            stopped_itself(&end, *wall);
            assert_eq!(end.fall().1, r"\xff".repeat(shown), "{len}");
        }
    }
}

#[test]
fn words_do_not_hide_what_the_wall_says() {
    for wall in walls() {
        let words = instar_rogue::Words { len: 9, bytes: "all right".into(), then: Then::Spin };
        used_up(&attack_within(*wall, short(), &Words(words)), 10);
    }
}

#[test]
fn coming_back_from_main_is_the_end() {
    for wall in walls() {
        let end = attack(*wall, &Return);
        stopped_itself(&end, *wall);
        let words = "the worker could not go on and was stopped: the program came to an end without saying so";
        assert_eq!(end.line(), words);
    }
}
