//! A worker that attacks its cell: what it can be told to try, and, inside a cell, how it tries it.
#![no_std]
extern crate alloc;

#[cfg(freestanding)]
pub mod attack;
#[cfg(freestanding)]
mod instructions;
#[cfg(freestanding)]
mod lanes;

use alloc::vec::Vec;
use instar_wire::code::{Bytes, encode};
use instar_wire::io::{FileId, Granted};
use instar_wire::message;
use instar_wire::op::{Request, Rules, Source, info};

message! {
    /// One attack.
    pub enum Attack {
        /// None: do as a worker should and finish.
        Behave = 0,
        /// Make these calls, and tell what each is answered.
        Script(Vec<Step>) = 1,
        /// Enter the operating system.
        System(System) = 2,
        /// Touch memory.
        Touch(Touch) = 3,
        /// Run the instruction of that number in [`INSTRUCTIONS`].
        Instruction(u64) = 4,
        /// Loop.
        Spin = 5,
        /// Make calls without end.
        CallForever = 6,
        /// Sleep, as far as the cell lets it, without end.
        Sleep = 7,
        /// Allocate until there is no more; then tell how much there was.
        Bomb = 8,
        /// Recurse until the stack ends.
        Overflow = 9,
        /// Panic with a message.
        Panic(Bytes) = 10,
        /// Leave these bytes as last words, whatever length they claim, and do the other thing.
        Words(Words) = 11,
        /// Return from main.
        Return = 12,
        /// Put a value into lane 0's bell and then do the other thing.
        Bell(Bell) = 13,
        /// Add numbers up on all lanes, so many times, and tell how often the sum was right.
        Sum(u64) = 14,
        /// Lane 1 does this; the others work or wait.
        Lane(LaneAttack) = 15,
        /// Lane 1 rewrites lane 0's call and slot while lane 0 makes calls.
        Race(Race) = 16,
        /// Copy the bytes that make a system call to memory, and jump there.
        Inject(Region) = 17,
        /// Tell where things are: a list of numbers.
        Report = 18,
        /// Wake the other lanes so many times in a row, without joining them.
        WakeOften(u64) = 19,
    }
}

message! {
    /// A call and what to put into the slot before.
    pub struct Step {
        /// Difference from the number that the call should have.
        pub skew: i64,
        /// Its operation.
        pub op: u32,
        /// Its file.
        pub file: u32,
        /// Its offset.
        pub at: u64,
        /// Its length.
        pub len: u64,
        /// Its second file.
        pub file2: u32,
        /// Its argument.
        pub arg: u32,
        /// Its second offset.
        pub at2: u64,
        /// The first of the fields that must be zero.
        pub zero: u64,
        /// The second of the fields that must be zero.
        pub zero2: u64,
        /// The slot's first bytes.
        pub slot: Bytes,
        /// Tell the answer and so many bytes of the slot.
        pub tell: Option<u64>,
    }
}

message! {
    /// A way into the operating system.
    pub enum Gate {
        /// `syscall`.
        Syscall = 1,
        /// `int 0x80`.
        Int80 = 2,
        /// `sysenter`.
        Sysenter = 3,
    }
}

message! {
    /// A system call.
    pub struct System {
        /// How.
        pub gate: Gate,
        /// Its number.
        pub number: u64,
        /// Its arguments.
        pub args: Vec<u64>,
    }
}

message! {
    /// Parts of a worker's memory.
    pub enum Region {
        /// From address 0.
        Zero = 0,
        /// From the program's first byte.
        Text = 1,
        /// From a constant.
        Constant = 2,
        /// From the program's end.
        ImageEnd = 3,
        /// From a local variable.
        Stack = 4,
        /// From the heap's first byte.
        Heap = 5,
        /// From the heap's end.
        HeapEnd = 6,
        /// From the window's first byte.
        Window = 7,
        /// From the window's last slot's end.
        WindowEnd = 8,
        /// From what the boot page calls the wall: in a machine, the doorbell.
        Wall = 9,
    }
}

message! {
    /// Ways to touch memory.
    pub enum How {
        /// Load a byte.
        Load = 1,
        /// Store a byte.
        Store = 2,
        /// Jump there.
        Jump = 3,
        /// Store a byte, as to a bell that wants eight.
        Store1 = 4,
        /// Store sixteen bytes at once.
        Store16 = 5,
        /// Load eight bytes.
        Load8 = 6,
    }
}

message! {
    /// A touch of memory.
    pub struct Touch {
        /// How.
        pub how: How,
        /// Where, from what.
        pub from: Region,
        /// Where, how far from there.
        pub offset: i64,
    }
}

message! {
    /// Last words.
    pub struct Words {
        /// The length they claim to have.
        pub len: u64,
        /// What they are.
        pub bytes: Bytes,
        /// What then.
        pub then: Then,
    }
}

message! {
    /// What to do after something else.
    pub enum Then {
        /// Loop.
        Spin = 1,
        /// Execute an invalid instruction.
        Die = 2,
        /// Sleep.
        Sleep = 3,
    }
}

message! {
    /// A value for the bell, and what then.
    pub struct Bell {
        /// The value.
        pub value: u32,
        /// What then.
        pub then: Then,
    }
}

message! {
    /// What lane 1 does.
    pub enum LaneAttack {
        /// Loop, while lane 0 waits for it.
        SpinWhileJoined = 1,
        /// Execute an invalid instruction, while lane 0 waits for it.
        DieWhileJoined = 2,
        /// Loop, while lane 0 loops too.
        SpinAll = 3,
        /// Make the call with this operation.
        Call(u32) = 4,
        /// Fill its own stack beyond its end.
        Overflow = 5,
        /// Scribble this value on lane 0's bell all the time, while lane 0 makes 2,000 calls.
        Scribble(u32) = 6,
        /// Make a call with the number that is due on lane 0.
        Borrow = 7,
    }
}

message! {
    /// What lane 1 changes under lane 0.
    pub struct Race {
        /// How often lane 0 calls.
        pub rounds: u64,
        /// Lane 0's call.
        pub call: Step,
        /// What lane 1 writes over it, by turns with the call itself.
        pub other: Step,
    }
}

/// A request as the broker hands it over, in which the attack hides.
pub fn request(attack: &Attack, file: Option<&Granted>) -> Request {
    let granted = file.cloned().unwrap_or(Granted {
        id: FileId(0),
        len: 0,
        allocated: 0,
        writable: false,
        pinned: None,
        suggested: None,
    });
    let file = Granted { pinned: Some(Bytes(encode(attack))), ..granted };
    Request::Info(info::Request {
        top: Source::whole(file),
        rules: Rules { as_qemu: false, version: 0 },
        chain: false,
        open_data_file: false,
        extra: false,
    })
}

/// A step that asks for nothing wrong, to be changed.
pub fn step(op: u32) -> Step {
    let slot = Bytes(Vec::new());
    Step { skew: 0, op, file: 0, at: 0, len: 0, file2: 0, arg: 0, at2: 0, zero: 0, zero2: 0, slot, tell: None }
}

/// Hands a list of instructions, with their names, to a macro. Each starts with plausible operands in registers:
/// `rdi` an address that may be written, `rax`, `rcx`, `rdx` small numbers.
#[macro_export]
macro_rules! instructions {
    ($with:ident) => {
        $with! {
            "hlt" => ("hlt"),
            "cli" => ("cli"),
            "sti" => ("sti"),
            "in" => ("in al, 0x60"),
            "in dx" => ("mov edx, 0x3f8", "in eax, dx"),
            "out" => ("out 0x80, al"),
            "out dx" => ("mov edx, 0x3f8", "out dx, eax"),
            "rep outsb" => ("mov rsi, rdi", "mov ecx, 1", "mov edx, 0x3f8", "rep outsb"),
            "mov from cr0" => ("mov rax, cr0"),
            "mov to cr0" => ("mov cr0, rax"),
            "mov from cr3" => ("mov rax, cr3"),
            "mov to cr3" => ("mov cr3, rax"),
            "mov to cr4" => ("mov cr4, rax"),
            "mov to cr8" => ("mov cr8, rax"),
            "mov to dr7" => ("mov dr7, rax"),
            "clts" => ("clts"),
            "lmsw" => ("lmsw ax"),
            "rdmsr" => ("mov ecx, 0xc0000080", "rdmsr"),
            "wrmsr" => ("mov ecx, 0xc0000082", "wrmsr"),
            "rdpmc" => ("xor ecx, ecx", "rdpmc"),
            "lgdt" => ("lgdt [rdi]"),
            "lidt" => ("lidt [rdi]"),
            "lldt" => ("lldt ax"),
            "ltr" => ("ltr ax"),
            "invlpg" => ("invlpg [rdi]"),
            "invd" => ("invd"),
            "wbinvd" => ("wbinvd"),
            "swapgs" => ("swapgs"),
            "sysret" => ("xor ecx, ecx", "xor r11d, r11d", "sysretq"),
            "sysexit" => ("sysexitq"),
            "iretq to ring 0" => ("mov rax, rsp", "push 0x18", "push rax", "pushfq", "push 0x10", "lea rax, [rip]", "push rax", "iretq"),
            "far return to ring 0" => ("push 0x10", "lea rax, [rip]", "push rax", "retfq"),
            "far jump to ring 0" => ("mov dword ptr [rdi], 0x200000", "mov word ptr [rdi+4], 0x10", "jmp fword ptr [rdi]"),
            "mov to ss" => ("mov eax, 0x18", "mov ss, eax"),
            "mov to ds" => ("mov eax, 0x1000", "mov ds, eax"),
            "int3" => ("int3"),
            "icebp" => (".byte 0xf1"),
            "int 0x03 long" => (".byte 0xcd, 0x03"),
            "int 0x20" => ("int 0x20"),
            "int 0x21" => ("int 0x21"),
            "into" => (".byte 0xce"),
            "bound" => (".byte 0x62, 0x07"),
            "ud2" => ("ud2"),
            "salc" => (".byte 0xd6"),
            "divide by zero" => ("xor edx, edx", "xor ecx, ecx", "div ecx"),
            "trap flag" => ("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop"),
            "alignment" => ("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov eax, [rdi+1]", "pushfq", "and qword ptr [rsp], ~0x40000", "popfq"),
            "iopl" => ("pushfq", "or qword ptr [rsp], 0x3000", "popfq", "cli"),
            "vmcall" => ("mov eax, 1", "vmcall"),
            "vmmcall" => ("mov eax, 1", "vmmcall"),
            "vmxon" => ("vmxon [rdi]"),
            "vmrun" => ("vmrun rax"),
            "monitor" => ("mov rax, rdi", "xor ecx, ecx", "xor edx, edx", "monitor"),
            "mwait" => ("mwait"),
            "rsm" => ("rsm"),
            "cpuid" => ("mov r8, rbx", "xor eax, eax", "xor ecx, ecx", "cpuid", "mov rbx, r8"),
            "rdtsc" => ("rdtsc"),
            "sgdt" => ("sgdt [rdi]"),
            "sidt" => ("sidt [rdi]"),
            "sldt" => ("sldt ax"),
            "str" => ("str ax"),
            "smsw" => ("smsw ax"),
            "pause" => ("pause"),
            "xgetbv" => ("xor ecx, ecx", "xgetbv"),
            "xsetbv" => ("xor ecx, ecx", "mov eax, 7", "xsetbv"),
            "wrfsbase" => ("wrfsbase rax"),
            "arpl or movsxd" => (".byte 0x63, 0xc0"),
        }
    };
}

macro_rules! names {
    ($($name:literal => ($($line:literal),*),)*) => {
        /// The instructions that [`Attack::Instruction`] knows, by number.
        pub const INSTRUCTIONS: &[&str] = &[$($name,)*];
    };
}
instructions!(names);
