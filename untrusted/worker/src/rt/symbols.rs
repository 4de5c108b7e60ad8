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

/// Compares, 64 bytes at a time as long as they are equal.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(_a: *const u8, _b: *const u8, _len: usize) -> i32 {
    naked_asm!(
        "xor ecx, ecx",
        "4:",
        "lea r8, [rcx+64]",
        "cmp r8, rdx",
        "ja 5f",
        "movdqu xmm0, [rdi+rcx]",
        "movdqu xmm1, [rsi+rcx]",
        "pcmpeqb xmm0, xmm1",
        "movdqu xmm2, [rdi+rcx+16]",
        "movdqu xmm3, [rsi+rcx+16]",
        "pcmpeqb xmm2, xmm3",
        "pand xmm0, xmm2",
        "movdqu xmm4, [rdi+rcx+32]",
        "movdqu xmm5, [rsi+rcx+32]",
        "pcmpeqb xmm4, xmm5",
        "pand xmm0, xmm4",
        "movdqu xmm6, [rdi+rcx+48]",
        "movdqu xmm7, [rsi+rcx+48]",
        "pcmpeqb xmm6, xmm7",
        "pand xmm0, xmm6",
        "pmovmskb eax, xmm0",
        "cmp eax, 0xffff",
        "jne 5f",
        "mov rcx, r8",
        "jmp 4b",
        "5:",
        "xor eax, eax",
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
