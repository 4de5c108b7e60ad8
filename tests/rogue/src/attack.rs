//! The rogue at work: takes its request as a worker does, and then does what it must not.

use crate::{Attack, Bell, Gate, How, Region, Step, System, Then, Touch, Words, instructions, lanes};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use instar_wire::boot::{BELL_AT, LAST_WORDS_AT};
use instar_wire::code::{decode, encode};
use instar_wire::io::{Answer, Call, Op, PIECE_LAST};
use instar_wire::op::{Outcome, Request};
use instar_worker::port::Door;
use instar_worker::rt::jobs::next_seq;
use instar_worker::rt::lane::{Lane, shape};
use zerocopy::IntoBytes;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}
static CONSTANT: &[u8] = b"a constant that nobody may change";

/// Takes the attack out of the request and tries it; if that does no harm, finishes as a worker should.
pub fn main(lane: &Lane) {
    let answer = call(lane, Op::Start, Call::default());
    let mut bytes = vec![0; answer.value as usize];
    lane.get(0, &mut bytes);
    let attack = decode::<Request>(&bytes)
        .ok()
        .and_then(|request| request.files().first()?.pinned.clone())
        .and_then(|bytes| decode::<Attack>(&bytes.0).ok())
        .expect("an attack");
    if matches!(attack, Attack::Return) {
        return;
    }
    try_it(lane, attack);
    finish(lane);
}

fn finish(lane: &Lane) {
    let outcome = encode(&Outcome::Done);
    lane.put(0, &outcome);
    call(lane, Op::Finish, Call { len: outcome.len() as u64, ..Call::default() });
}

/// A call with the number that is due.
pub fn call(lane: &Lane, op: Op, call: Call) -> Answer {
    lane.call(&Call { seq: next_seq(lane), op: op as u32, ..call })
}

/// Tells the broker's test something.
pub fn emit(lane: &Lane, bytes: &[u8]) {
    let piece = [&[PIECE_LAST], bytes].concat();
    lane.put(0, &piece);
    call(lane, Op::Emit, Call { len: piece.len() as u64, ..Call::default() });
}

fn try_it(lane: &Lane, attack: Attack) {
    match attack {
        Attack::Behave | Attack::Return => {}
        Attack::Script(steps) => steps.iter().for_each(|step| take(lane, step)),
        Attack::System(system) => emit(lane, &enter(&system).to_le_bytes()),
        Attack::Touch(touch) => self::touch(lane, &touch),
        Attack::Instruction(number) => {
            let mut room = [0u64; 64];
            instructions::run(number, room.as_mut_ptr().cast());
        }
        Attack::Spin => spin(),
        Attack::CallForever => loop {
            call(lane, Op::Read, Call { len: 512, ..Call::default() });
        },
        Attack::Sleep => sleep(),
        Attack::Bomb => bomb(lane),
        Attack::Overflow => {
            core::hint::black_box(overflow(0));
        }
        Attack::Panic(message) => panic!("{}", alloc::string::String::from_utf8_lossy(&message.0)),
        Attack::Words(words) => last_words(lane, &words),
        Attack::Bell(bell) => scribble(lane, &bell),
        Attack::Sum(times) => lanes::sum(lane, times),
        Attack::Lane(attack) => lanes::attack(lane, &attack),
        Attack::Race(race) => lanes::race(lane, &race),
        Attack::Inject(region) => inject(lane, region),
        Attack::Report => report(lane),
        Attack::WakeOften(times) => lanes::wake_often(lane, times),
    }
}

/// The call that a step describes, with its number.
pub fn call_of(lane: &Lane, step: &Step) -> Call {
    Call {
        seq: next_seq(lane).wrapping_add_signed(step.skew),
        op: step.op,
        file: step.file,
        at: step.at,
        len: step.len,
        file2: step.file2,
        arg: step.arg,
        at2: step.at2,
        zero: [step.zero, step.zero2],
    }
}

fn take(lane: &Lane, step: &Step) {
    lane.put(0, &step.slot.0);
    let answer = lane.call(&call_of(lane, step));
    if let Some(len) = step.tell {
        let mut told = vec![0; len as usize];
        lane.get(0, &mut told);
        emit(lane, &[answer.as_bytes(), &told].concat());
    }
}

fn enter(system: &System) -> u64 {
    let arg = |n| system.args.get(n).copied().unwrap_or(0);
    let mut result = system.number;
    // SAFETY: none; that is what the cell is for.
    unsafe {
        match system.gate {
            Gate::Syscall => core::arch::asm!("syscall", inout("rax") result, in("rdi") arg(0), in("rsi") arg(1),
                in("rdx") arg(2), in("r10") arg(3), in("r8") arg(4), in("r9") arg(5), out("rcx") _, out("r11") _),
            Gate::Int80 => core::arch::asm!("int 0x80", inout("rax") result, in("rdi") arg(0), in("rsi") arg(1),
                in("rdx") arg(2), in("rcx") arg(3), out("r8") _, out("r9") _, out("r10") _, out("r11") _),
            Gate::Sysenter => core::arch::asm!("sysenter", inout("rax") result, in("rdi") arg(0), in("rsi") arg(1),
                in("rdx") arg(2), in("rcx") arg(3), out("r8") _, out("r9") _, out("r10") _, out("r11") _),
        }
    }
    result
}

fn address(lane: &Lane, region: &Region) -> u64 {
    let local = 0u8;
    let boot = &lane.boot;
    match region {
        Region::Zero => 0,
        Region::Text => (&raw const __image_start) as u64,
        Region::Constant => CONSTANT.as_ptr() as u64,
        Region::ImageEnd => (&raw const __image_end) as u64,
        Region::Stack => core::hint::black_box(&raw const local) as u64,
        Region::Heap => boot.heap_at,
        Region::HeapEnd => boot.heap_at + boot.heap_len,
        Region::Window => boot.window_at,
        Region::WindowEnd => boot.window_at + shape(boot).len() as u64,
        Region::Wall => boot.wall_at,
    }
}

fn touch(lane: &Lane, touch: &Touch) {
    let at = address(lane, &touch.from).wrapping_add_signed(touch.offset);
    // SAFETY: none; that is what the cell is for.
    unsafe {
        match touch.how {
            How::Load => core::arch::asm!("mov al, [{}]", in(reg) at, out("al") _),
            How::Load8 => core::arch::asm!("mov rax, [{}]", in(reg) at, out("rax") _),
            How::Store => core::arch::asm!("mov byte ptr [{}], 0x5a", in(reg) at),
            How::Store1 => core::arch::asm!("mov byte ptr [{}], 0", in(reg) at),
            How::Store16 => core::arch::asm!("pxor xmm0, xmm0", "movdqu [{}], xmm0", in(reg) at, out("xmm0") _),
            How::Jump => core::arch::asm!("call {}", in(reg) at, clobber_abi("C")),
        }
    }
}

/// Writes `nop; ret` there, as a compiler at run time would, and calls it.
fn inject(lane: &Lane, region: Region) {
    let mut local = [0u8; 64];
    let room = vec![0u8; 64].leak();
    let at = match region {
        Region::Stack => local.as_mut_ptr(),
        Region::Heap => room.as_mut_ptr(),
        other => address(lane, &other) as *mut u8,
    };
    // SAFETY: none; that is what the cell is for.
    unsafe {
        at.write_volatile(0x90);
        at.add(1).write_volatile(0xc3);
        core::arch::asm!("call {}", in(reg) at, clobber_abi("C"));
    }
}

/// Loops, in a way that no compiler removes.
pub fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Sleeps for ever on a word that nobody wakes. In a machine there is no such thing as sleep.
fn sleep() -> ! {
    let word = AtomicU32::new(0);
    loop {
        enter(&System { gate: Gate::Syscall, number: 202, args: vec![word.as_ptr() as u64, 0, 0, 0] });
    }
}

fn bomb(lane: &Lane) {
    let mut total = 0u64;
    let mut hold: Vec<Box<[u8]>> = Vec::with_capacity(1 << 16);
    for size in [1usize << 20, 1 << 12] {
        let mut piece = Vec::new();
        while hold.len() < hold.capacity() && piece.try_reserve_exact(size).is_ok() {
            piece.resize(size, 0xa5);
            total += size as u64;
            hold.push(core::mem::take(&mut piece).into_boxed_slice());
        }
    }
    emit(lane, &total.to_le_bytes());
    core::hint::black_box(&hold);
    // And one that asks without asking first whether there is any.
    core::hint::black_box(vec![1u8; 1 << 20]);
}

/// Fills the stack.
pub fn overflow(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + core::hint::black_box(room)[0] }
}

fn last_words(lane: &Lane, words: &Words) {
    let at = (lane.boot.window_at as usize + LAST_WORDS_AT) as *mut u8;
    // SAFETY: the boot page can be written; the words are shorter than what is left of it.
    unsafe {
        core::ptr::copy_nonoverlapping(words.bytes.0.as_ptr(), at.add(8), words.bytes.0.len().min(1024));
        at.cast::<u64>().write_volatile(words.len);
    }
    and(&words.then);
}

fn and(then: &Then) -> ! {
    match then {
        Then::Spin => spin(),
        // SAFETY: ends the cell.
        Then::Die => unsafe { core::arch::asm!("ud2", options(noreturn)) },
        Then::Sleep => sleep(),
    }
}

/// The bell of lane 0.
pub fn bell(lane: &Lane) -> &AtomicU32 {
    let at = lane.boot.window_at as usize + shape(&lane.boot).page_at(0) + BELL_AT;
    // SAFETY: a word of the window, aligned to a page.
    unsafe { &*(at as *const AtomicU32) }
}

fn scribble(lane: &Lane, scribble: &Bell) {
    bell(lane).store(scribble.value, Ordering::SeqCst);
    and(&scribble.then);
}

fn report(lane: &Lane) {
    let regions = [Region::Text, Region::ImageEnd, Region::Window, Region::WindowEnd, Region::Heap, Region::HeapEnd];
    let told: Vec<u8> = regions.iter().flat_map(|r| address(lane, r).to_le_bytes()).collect();
    emit(lane, &told);
}
