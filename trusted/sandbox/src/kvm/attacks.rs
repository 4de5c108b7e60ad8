//! What a program must not do in a virtual machine, a few instructions each, and how that ends.

use super::KvmCell;
use crate::{Budget, Fall};
use std::arch::global_asm;
use std::time::{Duration, Instant};

/// Small programs between labels; `rdi` is the boot page, the doorbell stands at 56 in it, the heap at 32.
macro_rules! attacks {
    ($($name:ident: $code:literal => $vector:pat,)*) => {
        $(global_asm!(
            concat!(".pushsection .rodata\n.globl attack_", stringify!($name), "\nattack_", stringify!($name), ":\n"),
            $code,
            concat!("ud2\n.globl attack_end_", stringify!($name), "\nattack_end_", stringify!($name), ":\n.popsection"),
        );)*
        fn all() -> Vec<(&'static str, &'static [u8], fn(u8) -> bool)> {
            unsafe extern "C" {
                $(#[link_name = concat!("attack_", stringify!($name))] static $name: u8;)*
            }
            mod end {
                unsafe extern "C" {
                    $(#[link_name = concat!("attack_end_", stringify!($name))] pub safe static $name: u8;)*
                }
            }
            vec![$((
                stringify!($name),
                // SAFETY: the bytes between the two labels above.
                unsafe {
                    let start = &raw const $name;
                    std::slice::from_raw_parts(start, (&raw const end::$name).offset_from_unsigned(start))
                },
                |vector| matches!(vector, $vector),
            )),*]
        }
    };
}

attacks! {
    write_text: "mov rax, 0x200000\n mov [rax], rax" => 14,
    read_nothing: "xor eax, eax\n mov rax, [rax]" => 14,
    read_tables: "mov eax, 0x1000\n mov rax, [rax]" => 14,
    read_beyond: "mov rax, [rsp]" => 14,
    read_wild: "mov rax, 0x7fffffffffff\n mov rax, [rax]" => 14,
    read_kernel: "mov rax, -4096\n mov rax, [rax]" => 14,
    read_crooked: "mov rax, 0x8000000000000000\n mov rax, [rax]" => 12 | 13,
    run_heap: "mov rax, [rdi+32]\n mov byte ptr [rax], 0xc3\n call rax" => 14,
    run_stack: "push 0xc3\n jmp rsp" => 14,
    run_window: "jmp rdi" => 14,
    run_bell: "mov rax, [rdi+56]\n jmp rax" => 14,
    halt: "hlt" => 13,
    no_interrupts: "cli" => 13,
    port_in: "in al, 0x80" => 13,
    port_out: "mov dx, 0x3f8\n out dx, al" => 13,
    port_string: "mov dx, 0x3f8\n lea rsi, [rip]\n outsb" => 13,
    breakpoint: "int3" => 3 | 8 | 13,
    interrupt: "int 0x80" => 6 | 8 | 13,
    system_call: "mov eax, 60\n syscall" => _,
    system_enter: "mov eax, 1\n sysenter" => 6 | 8 | 13,
    load_gdt: "lgdt [rsp-16]" => 13,
    load_idt: "lidt [rsp-16]" => 13,
    load_task: "mov eax, 8\n ltr ax" => 13,
    write_cr3: "mov cr3, rax" => 13,
    read_cr0: "mov rax, cr0" => 13,
    write_dr7: "xor eax, eax\n mov dr7, rax" => 13,
    read_msr: "mov ecx, 0xc0000080\n rdmsr" => 13,
    write_msr: "mov ecx, 0xc0000082\n wrmsr" => 13,
    extended_control: "xor ecx, ecx\n xsetbv" => 6 | 13,
    swap_gs: "swapgs" => 6 | 13,
    invalidate: "invlpg [rdi]" => 13,
    interrupt_return: "push 0\n push rsp\n push 2\n push 8\n lea rax, [rip]\n push rax\n iretq" => 13 | 14,
    far_jump: "push 0x10\n lea rax, [rip]\n push rax\n .byte 0x48\n retf" => 13 | 14,
    old_mode: "push 0x23\n lea rax, [rip]\n push rax\n .byte 0x48\n retf" => 13 | 14,
    load_segment: "mov eax, 0x10\n mov ds, ax" => 13 | 14,
    divide: "xor ecx, ecx\n div ecx" => 0 | 8,
    undefined: "ud2" => 6 | 8,
    single_step: "pushfq\n or qword ptr [rsp], 0x100\n popfq\n nop\n nop" => 1 | 6 | 8,
    alignment: "pushfq\n or qword ptr [rsp], 0x40000\n popfq\n mov rax, [rsp-13]" => 8 | 17,
    deep_stack: "2: push rax\n jmp 2b" => 14,
    bell_read: "mov rax, [rdi+56]\n mov rax, [rax]" => 13,
    bell_beside: "mov rax, [rdi+56]\n mov [rax+64], rax" => 13,
    bell_byte: "mov rax, [rdi+56]\n mov [rax], al" => 13,
    bell_locked: "mov rax, [rdi+56]\n lock inc qword ptr [rax]" => 13,
    bell_wide: "mov rax, [rdi+56]\n vpxor xmm0, xmm0, xmm0\n vmovdqu [rax], ymm0" => 6 | 13,
    bell_crossing: "mov rax, [rdi+56]\n mov [rax+4092], rax" => 13 | 14,
    bell_float: "mov rax, [rdi+56]\n fxsave64 [rax]" => 6 | 13,
    bell_stack: "mov rsp, [rdi+56]\n add rsp, 64\n push rax" => 13,
    vm_call: "vmcall\n ud2" => 6 | 8 | 13,
    monitor: "monitor" => 6 | 8 | 13,
}

/// An ELF file with that code alone.
pub fn program(code: &[u8]) -> &'static [u8] {
    let mut elf = vec![0u8; 120];
    elf[..5].copy_from_slice(b"\x7fELF\x02");
    let mut put = |at: usize, value: u64, len: usize| elf[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    put(24, 0x20_0000, 8);
    put(32, 64, 8);
    put(54, 56, 2);
    put(56, 1, 2);
    put(64, 1, 4);
    put(68, 5, 4);
    put(72, 120, 8);
    put(80, 0x20_0000, 8);
    put(96, code.len() as u64, 8);
    put(104, code.len() as u64, 8);
    elf.extend_from_slice(code);
    elf.leak()
}

#[test]
fn a_program_that_does_what_it_must_not_falls_at_once() {
    if super::tests::no_kvm() {
        return;
    }
    let mut wrong = Vec::new();
    for (name, code, expected) in all() {
        let begin = Instant::now();
        let budget = Budget { cpu: Duration::from_millis(100), ..Budget::default() };
        let outcome = KvmCell::start(program(code), budget, false).map(drop);
        eprintln!("{name}: {outcome:x?} after {:?}", begin.elapsed());
        if !matches!(outcome, Err(Fall::Fault { vector, .. }) if expected(vector)) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
