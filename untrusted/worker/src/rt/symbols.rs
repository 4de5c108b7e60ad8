//! The symbols that the prebuilt core and alloc expect of a C library.

use core::arch::{asm, naked_asm};

/// Copies forward.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(_to: *mut u8, _from: *const u8, _len: usize) -> *mut u8 {
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret")
}

/// Copies so that overlap does no harm.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(_to: *mut u8, _from: *const u8, _len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        "2:",
        "lea rdi, [rdi+rdx-1]",
        "lea rsi, [rsi+rdx-1]",
        "std",
        "rep movsb",
        "cld",
        "ret"
    )
}

/// Fills.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(_to: *mut u8, _byte: i32, _len: usize) -> *mut u8 {
    naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret")
}

/// Compares.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(_a: *const u8, _b: *const u8, _len: usize) -> i32 {
    naked_asm!(
        "xor eax, eax",
        "xor ecx, ecx",
        "2:",
        "cmp rcx, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi+rcx]",
        "movzx r8d, byte ptr [rsi+rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 2b",
        "3:",
        "ret"
    )
}

/// Compares for equality.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, len) }
}

/// Counts up to the terminator.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller promises a terminator.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// Never called: panics abort.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    // SAFETY: ends the cell.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Never called: panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
