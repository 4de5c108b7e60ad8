//! A processor that starts in 64-bit mode without privileges, and what its exits mean.

use super::layout::{Layout, TABLES_AT};
use super::watch;
use crate::Fall;
use instar_wire::boot::PAGE;
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MP_STATE_RUNNABLE};
use kvm_bindings::{kvm_cpuid_entry2, kvm_mp_state, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::arch::x86_64::__cpuid_count;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Protected, paged, write protection for everybody, floating-point errors as exceptions.
const CR0: u64 = 0x8005_0033;
/// Long page tables and SSE; the time stamp counter is not for programs.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 2;
/// 64-bit mode, enabled and active; pages can be no-execute.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// Set in every value of the flags.
const FLAGS: u64 = 2;
/// General protection: what the processor says to most things that are not allowed.
const GENERAL_PROTECTION: u8 = 13;
const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;
const INVALID_INSTRUCTION: u8 = 6;

/// Why a vCPU stopped.
pub enum Stop {
    /// It rang the doorbell.
    Bell,
    /// A signal came.
    Signal,
    /// It cannot go on.
    Fall(Fall),
}

/// One processor of a machine.
pub struct Vcpu {
    fd: VcpuFd,
    bell_at: usize,
    bell_from: u64,
}

fn fail(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Fall {
    move |e| Fall::Host(what, e.into())
}

impl Vcpu {
    /// The processor of that lane, at the program's first instruction.
    pub fn new(vm: &VmFd, layout: &Layout, features: &CpuId, lane: usize) -> Result<Vcpu, Fall> {
        let fd = vm.create_vcpu(lane as u64).map_err(fail("create a vCPU"))?;
        fd.set_cpuid2(features).map_err(fail("set a vCPU's features"))?;
        let mut s = fd.get_sregs().map_err(fail("look at a vCPU"))?;
        let data = kvm_segment {
            limit: !0,
            selector: 0x2b,
            type_: 3,
            present: 1,
            dpl: 3,
            db: 1,
            s: 1,
            g: 1,
            ..Default::default()
        };
        s.cs = kvm_segment { selector: 0x33, type_: 11, db: 0, l: 1, ..data };
        (s.ds, s.es, s.fs, s.gs, s.ss) = (data, data, data, data, data);
        // Without a bitmap of ports no port is allowed.
        s.tr.limit = 0;
        (s.idt, s.gdt) = Default::default();
        (s.cr0, s.cr2, s.cr3, s.cr4, s.efer) = (CR0, 0, TABLES_AT as u64, CR4, EFER);
        fd.set_sregs(&s).map_err(fail("set up a vCPU"))?;
        let regs = kvm_regs {
            rip: layout.entry as u64,
            rsp: layout.stack_top(lane) as u64,
            rflags: FLAGS,
            rdi: layout.window_at as u64,
            rsi: lane as u64,
            ..Default::default()
        };
        fd.set_regs(&regs).map_err(fail("set up a vCPU"))?;
        // All but the first would wait for another to wake them.
        fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).map_err(fail("set up a vCPU"))?;
        Ok(Vcpu { fd, bell_at: layout.bell_at, bell_from: layout.bell_from as u64 })
    }

    /// The machine goes on as long as this is open somewhere.
    pub fn descriptor(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Makes this thread the one whose signals stop it.
    pub fn enter(&self) -> Result<(), Fall> {
        const KVM_SET_SIGNAL_MASK: u64 = 0x4004_ae8b;
        #[repr(C, packed)]
        struct Mask {
            len: u32,
            signals: u64,
        }
        let mask = Mask { len: 8, signals: watch::signals_while_running() };
        // SAFETY: the structure that this request reads.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) } {
            0 => Ok(()),
            _ => Err(Fall::Host("set a vCPU's signals", io::Error::last_os_error())),
        }
    }

    /// Lets it run until it stops.
    pub fn run(&mut self) -> Stop {
        let bell = self.bell_from;
        let page = bell..bell + PAGE as u64;
        let (vector, address) = match self.fd.run() {
            Ok(VcpuExit::MmioWrite(at, bytes)) if at == bell && bytes.len() == 8 => return Stop::Bell,
            Ok(VcpuExit::Intr) => return Stop::Signal,
            Err(e) if [libc::EINTR, libc::EAGAIN].contains(&e.errno()) => return Stop::Signal,
            Err(e) => return Stop::Fall(fail("run a vCPU")(e)),
            Ok(VcpuExit::Shutdown) => return Stop::Fall(self.fault()),
            Ok(VcpuExit::MmioRead(at, _) | VcpuExit::MmioWrite(at, _)) if page.contains(&at) => {
                (GENERAL_PROTECTION, self.bell_at as u64 + (at - bell))
            }
            Ok(VcpuExit::MmioRead(at, _) | VcpuExit::MmioWrite(at, _)) => (GENERAL_PROTECTION, at),
            Ok(VcpuExit::IoIn(port, _) | VcpuExit::IoOut(port, _)) => (GENERAL_PROTECTION, port.into()),
            Ok(VcpuExit::Hlt) => (GENERAL_PROTECTION, 0),
            Ok(_) => (INVALID_INSTRUCTION, 0),
        };
        let instruction = self.fd.get_regs().map_or(0, |r| r.rip);
        Stop::Fall(Fall::Fault { vector, error: 0, address, instruction })
    }

    /// What the processor says about the exception that nobody handled.
    fn fault(&self) -> Fall {
        let (Ok(events), Ok(s), Ok(regs)) = (self.fd.get_vcpu_events(), self.fd.get_sregs(), self.fd.get_regs()) else {
            return Fall::Host("look at a vCPU", io::ErrorKind::Other.into());
        };
        let (vector, error) = match events.exception {
            // A processor that handles exceptions without the kernel keeps the first one's number to itself.
            e if e.nr == 0 && s.cr2 != 0 => (PAGE_FAULT, 0),
            e if e.nr == 0 => (DOUBLE_FAULT, 0),
            e => (e.nr, e.error_code),
        };
        Fall::Fault { vector, error, address: s.cr2, instruction: regs.rip }
    }
}

/// What a program may know of the processor: what it can compute with, and nothing that has to be switched on.
///
/// The kernel may add to it, as long as nothing but computing is meant.
pub fn features() -> Result<CpuId, Fall> {
    // SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES.
    const LEAF_1_C: u32 = 1 << 0 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25;
    // FPU, PAE, CMPXCHG8B, CMOV, MMX, FXSR, SSE, SSE2.
    const LEAF_1_D: u32 = 1 << 0 | 1 << 6 | 1 << 8 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26;
    // BMI1, BMI2, fast string moves, ADX, SHA.
    const LEAF_7_B: u32 = 1 << 3 | 1 << 8 | 1 << 9 | 1 << 19 | 1 << 29;
    // No-execute pages and 64-bit mode, which we use; asking would take longer than knowing.
    const LEAF_E1_D: u32 = 1 << 20 | 1 << 29;
    let leaf = |function, flags| kvm_cpuid_entry2 { function, flags, ..Default::default() };
    let (one, seven) = (__cpuid_count(1, 0), __cpuid_count(7, 0));
    let leaves = [
        kvm_cpuid_entry2 { eax: 7, ..leaf(0, 0) },
        kvm_cpuid_entry2 { ecx: one.ecx & LEAF_1_C, edx: one.edx & LEAF_1_D, ..leaf(1, 0) },
        kvm_cpuid_entry2 { ebx: seven.ebx & LEAF_7_B, ..leaf(7, KVM_CPUID_FLAG_SIGNIFCANT_INDEX) },
        kvm_cpuid_entry2 { eax: 0x8000_0001, ..leaf(0x8000_0000, 0) },
        kvm_cpuid_entry2 { edx: LEAF_E1_D, ..leaf(0x8000_0001, 0) },
    ];
    CpuId::from_entries(&leaves).map_err(|_| Fall::Host("list a vCPU's features", io::ErrorKind::Other.into()))
}
