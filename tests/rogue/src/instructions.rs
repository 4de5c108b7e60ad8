//! Privileged, legacy and merely odd instructions, each to be run once.

use crate::instructions;

/// Runs the instruction of that number; `at` may be written.
pub fn run(number: u64, at: *mut u8) {
    macro_rules! table {
        ($($name:literal => ($($line:literal),*),)*) => {{
            let list: &[fn(*mut u8)] = &[$({
                fn attack(at: *mut u8) {
                    // SAFETY: none; that is what the cell is for.
                    unsafe {
                        core::arch::asm!($($line,)* inout("rdi") at => _, inout("rax") 0u64 => _, inout("rcx") 0u64 => _,
                            inout("rdx") 0u64 => _, out("rsi") _, out("r8") _, out("r11") _);
                    }
                }
                attack
            },)*];
            list
        }};
    }
    let list = instructions!(table);
    if let Some(attack) = usize::try_from(number).ok().and_then(|n| list.get(n)) {
        attack(at);
    }
}
