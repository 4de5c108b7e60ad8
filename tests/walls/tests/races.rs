//! Lanes: work shared correctly, and a lane that rewrites what another lane has just handed in.

use instar_broker::Collapse;
use instar_broker::admit::Violation::{
    self, File, Granule, Leftover, Message, Operation, Range, ReadOnly, Sequence, Slot,
};
use instar_rogue::Attack::{Behave, Lane, Race, Sum, WakeOften};
use instar_rogue::{LaneAttack, Step, step};
use instar_sandbox::{Budget, Fall, Wall};
use instar_walls::{End, attack_on, attack_within, budget, lanes, op, session_with, walls};
use instar_wire::code::{Bytes, encode};
use instar_wire::io::{Answer, FileId, Op, Related, Role};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zerocopy::FromBytes;

const ROUNDS: u64 = 5000;

fn stage() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().canonicalize().expect("its path");
    fs::create_dir_all(path.join("in")).expect("a folder");
    fs::write(path.join("in/image"), [1; 16384]).expect("an image");
    fs::write(path.join("in/abcdef.raw"), [2; 2048]).expect("a file");
    fs::write(path.join("secret.raw"), [3; 2048]).expect("a secret");
    let image = path.join("in/image");
    (dir, image)
}

fn race(wall: Wall, image: &Path, rounds: u64, call: Step, other: Step) -> (End, instar_broker::Session) {
    let (session, _) = session_with(image);
    let end = attack_on(wall, lanes(2), &session, &Race(instar_rogue::Race { rounds, call, other }));
    attack_on(wall, budget(), &instar_walls::session(), &Behave).harmless();
    (end, session)
}

fn answers(end: &End) -> Vec<Answer> {
    end.told.iter().map(|told| Answer::read_from_bytes(told).expect("an answer")).collect()
}

#[test]
fn jobs_run_on_all_lanes_and_all_is_counted() {
    for wall in walls() {
        for count in [1, 2, 4] {
            let end = attack_within(*wall, lanes(count), &Sum(1000));
            assert_eq!(end.harmless().told, [1000u64.to_le_bytes()], "{count} lanes");
        }
        let end = attack_within(*wall, lanes(16), &Sum(20));
        assert_eq!(end.harmless().told, [20u64.to_le_bytes()]);
    }
}

#[test]
fn lanes_can_be_woken_again_and_again() {
    for wall in walls() {
        attack_within(*wall, lanes(4), &WakeOften(200)).harmless();
    }
}

#[test]
fn a_call_that_changes_between_two_good_ones_is_one_of_them_or_a_mixture() {
    let (_dir, image) = stage();
    let call = Step { at: 0, len: 512, ..op(Op::Read) };
    let other = Step { at: 4096, len: 1024, ..op(Op::Read) };
    for wall in walls() {
        let (end, _) = race(*wall, &image, ROUNDS, call.clone(), other.clone());
        for answer in answers(end.harmless()) {
            assert_eq!((answer.seq, answer.status, answer.value2), (1, 0, 0), "{answer:?}");
            // Torn lengths lie between: each byte is from one or the other.
            assert!([0, 512, 1024, 1536].contains(&answer.value), "{answer:?}");
        }
    }
}

#[test]
fn a_call_that_changes_to_a_bad_one_is_good_or_the_end() {
    let (_dir, image) = stage();
    let call = Step { at: 0, len: 512, ..op(Op::Read) };
    let all: [Violation; 9] = [Sequence, Operation, Leftover, File, ReadOnly, Range, Slot, Granule, Message];
    for other in [
        Step { file: 9, ..call.clone() },
        Step { at: u64::MAX, ..call.clone() },
        Step { at: 16384, ..call.clone() },
        Step { len: 16385, ..call.clone() },
        Step { len: u64::MAX, ..call.clone() },
        Step { ..step(0) },
        Step { len: 512, ..op(Op::Write) },
        Step { len: 512, slot: Bytes(vec![0xff; 512]), ..op(Op::Finish) },
        Step { len: 512, slot: Bytes(vec![0xff; 512]), ..op(Op::Related) },
    ] {
        for wall in walls() {
            let (end, session) = race(*wall, &image, 1000, call.clone(), other.clone());
            match &end.quick().result {
                Ok(_) => assert!(answers(&end).iter().all(|a| (a.seq, a.status, a.value2) == (1, 0, 0)), "{end:?}"),
                Err(Collapse::Violated(violation)) => assert!(all.contains(violation), "{end:?}"),
                Err(other) => panic!("{other:?}"),
            }
            assert_eq!(session.grants().len(), 1);
            assert_eq!(fs::read(&image).expect("it is there"), [1; 16384]);
        }
    }
}

#[test]
fn a_name_that_changes_while_it_is_judged_leads_nowhere_else() {
    let (_dir, image) = stage();
    let inside = fs::metadata(image.with_file_name("abcdef.raw")).expect("it is there");
    let name = |name: &str| encode(&Related { from: FileId(0), role: Role::Extent, name: name.into() });
    // Of one length, so that only the name changes.
    let (good, bad) = (name("./abcdef.raw"), name("../secret.xx"));
    let call = |slot: &[u8]| Step { len: slot.len() as u64, slot: Bytes(slot.to_vec()), ..op(Op::Related) };
    let bad_there = name(".././secret.raw");
    let good_there = name("././/abcdef.raw");
    for wall in walls() {
        for (good, bad) in [(&good, &bad), (&good_there, &bad_there)] {
            assert_eq!(good.len(), bad.len());
            let (end, session) = race(*wall, &image, 800, call(good), call(bad));
            end.harmless();
            for id in 1..session.grants().len() {
                let file = session.file(FileId(u32::try_from(id).expect("few"))).expect("it was granted");
                let stat = rustix::fs::fstat(&*file).expect("it is open");
                assert_eq!((stat.st_dev, stat.st_ino), (inside.dev(), inside.ino()));
            }
            assert!(answers(&end).iter().all(|answer| answer.seq == 1), "{end:?}");
        }
    }
}

#[test]
fn a_bell_scribbled_on_by_another_lane_ends_well_or_at_once() {
    let (_dir, image) = stage();
    let budget = Budget { cpu: Duration::from_millis(300), ..lanes(2) };
    for wall in walls() {
        for value in [0, 1, 2, 3, 4, 77, u32::MAX] {
            let (session, _) = session_with(&image);
            let end = attack_on(*wall, budget, &session, &Lane(LaneAttack::Scribble(value)));
            attack_on(*wall, instar_walls::budget(), &instar_walls::session(), &Behave).harmless();
            match &end.quick().result {
                Ok(_) | Err(Collapse::Violated(Sequence)) | Err(Collapse::Fell(Fall::Cpu(_), _)) => {}
                other => panic!("{value}: {other:?}"),
            }
        }
    }
}
