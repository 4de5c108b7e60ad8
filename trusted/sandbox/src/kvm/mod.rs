//! The KVM cell: a virtual machine whose processors have no privileged mode, and so no operating system.

#[cfg(test)]
mod attacks;
mod layout;
mod memory;
mod parting;
#[cfg(test)]
mod tests;
mod vcpu;
mod watch;

use crate::lanes::{self, Lanes};
use crate::window::{Turn, Window};
use crate::{Budget, Cell, Fall, Serve, Wall};
use instar_wire::boot::{BOOT_MAGIC, Boot};
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use layout::{LARGE, Layout, TABLES_AT};
use memory::Memory;
use parting::Parting;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vcpu::{Stop, Vcpu};
use watch::{Deaf, Meter, Timer};
use zerocopy::IntoBytes;

/// Processor time from a worker's first instruction to its first call. It has a loop there that takes a fiftieth of a
/// millisecond where a processor carries instructions out, and more than this where the kernel does. A busy machine
/// can add several milliseconds to anything.
const NATIVE: Duration = Duration::from_millis(20);

/// A virtual machine and its window.
///
/// The machine is closed before its memory goes away, and it ends last: the fields are dropped in this order.
pub struct KvmCell {
    vcpus: Vec<Mutex<Vcpu>>,
    _memory: Memory,
    window: Window,
    budget: Budget,
    first_call_waits: bool,
    _parting: Option<Parting>,
}

impl KvmCell {
    /// Starts the program in a machine of its own and lets it come to its first call.
    ///
    /// `native_only`: not where KVM is emulated, which works but is two thousand times slower.
    pub fn start(program: &'static [u8], budget: Budget, native_only: bool) -> Result<KvmCell, Fall> {
        let kvm = Kvm::new().map_err(|e| Fall::Host("/dev/kvm", e.into()))?;
        let window = Window::new(budget.shape, 0)?;
        let layout = Layout::new(program, &budget, window.len())?;
        // A large page comes as fast as five small ones. Of the tables and of the heap's end only a few are used.
        let large_pages = LARGE..layout.memory_len - LARGE;
        let mut memory = Memory::new(layout.memory_len, LARGE, large_pages)?;
        memory.put(TABLES_AT, layout.tables.as_bytes());
        for segment in &layout.segments {
            memory.put(segment.at, program.get(segment.bytes.clone()).unwrap_or_default());
        }
        window.set_boot(&Boot {
            magic: BOOT_MAGIC,
            lanes: budget.shape.lanes as u64,
            slot_len: budget.shape.slot_len as u64,
            window_at: layout.window_at as u64,
            heap_at: layout.heap_at as u64,
            heap_len: budget.heap_len as u64,
            stack_len: budget.stack_len as u64,
            wall_at: layout.bell_at as u64,
            ..Boot::default()
        });
        let vm = kvm.create_vm().map_err(|e| Fall::Host("create a virtual machine", e.into()))?;
        keep_controllers_in_kernel(&vm);
        give_memory(&vm, 0, 0, memory.address(), memory.len())?;
        give_memory(&vm, 1, layout.memory_len, window.address(), window.len())?;
        let features = vcpu::features()?;
        let vcpus = (0..budget.shape.lanes).map(|lane| Vcpu::new(&vm, &layout, &features, lane));
        let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
        let parting = Parting::prepare(vcpus.iter().map(Vcpu::descriptor).collect());
        let vcpus = vcpus.into_iter().map(Mutex::new).collect();
        let mut cell = KvmCell { vcpus, _memory: memory, window, budget, first_call_waits: false, _parting: parting };
        cell.first_call_waits = cell.come_to_first_call(native_only)?;
        Ok(cell)
    }

    fn come_to_first_call(&self, native_only: bool) -> Result<bool, Fall> {
        let _deaf = Deaf::new();
        let meter = Meter::new(if native_only { NATIVE } else { self.budget.cpu }, 1);
        let mut driver = Driver::new(&self.vcpus[0], 0, &meter)?;
        driver.come_to_call(&Lanes::new(1)).map_err(|fall| match fall {
            Fall::Cpu(_) if native_only => Fall::Host("KVM is emulated here", io::ErrorKind::Unsupported.into()),
            fall => fall,
        })
    }

    /// Serves one lane until the cell is over.
    fn serve_lane(&self, lane: usize, lanes: &Lanes, meter: &Meter, serve: &dyn Serve) -> Result<(), Fall> {
        let mut driver = Driver::new(&self.vcpus[lane], lane, meter)?;
        let mut waits = lane == 0 && self.first_call_waits;
        while waits || driver.come_to_call(lanes)? {
            waits = false;
            if self.budget.earns {
                meter.earn(serve.earned());
            }
            if !lanes.follow(lane, serve.serve(&Turn::new(&self.window, lane))) {
                break;
            }
        }
        Ok(())
    }
}

impl Cell for KvmCell {
    fn wall(&self) -> Wall {
        Wall::Kvm
    }

    fn window(&self) -> &Window {
        &self.window
    }

    fn run(&mut self, serve: &dyn Serve) -> Result<(), Fall> {
        let _deaf = Deaf::new();
        let meter = Meter::new(self.budget.cpu, self.vcpus.len());
        let cell = &*self;
        let outcome = lanes::run_all(
            cell.vcpus.len(),
            |lane, lanes| cell.serve_lane(lane, lanes, &meter, serve),
            || meter.stop(),
        );
        self.first_call_waits = false;
        outcome
    }
}

/// A thread that runs a vCPU within what its cell may use.
struct Driver<'a> {
    vcpu: MutexGuard<'a, Vcpu>,
    meter: &'a Meter,
    timer: Timer,
}

impl<'a> Driver<'a> {
    /// This thread, deaf to the signal as it is, for that lane.
    fn new(vcpu: &'a Mutex<Vcpu>, lane: usize, meter: &'a Meter) -> Result<Self, Fall> {
        let vcpu = vcpu.lock().unwrap_or_else(PoisonError::into_inner);
        vcpu.enter()?;
        meter.enter(lane);
        let driver = Driver { vcpu, meter, timer: Timer::new().map_err(|e| Fall::Host("a timer", e))? };
        driver.keep_to_budget()?;
        Ok(driver)
    }

    /// Runs the vCPU until it rings; false when the cell is over.
    fn come_to_call(&mut self, lanes: &Lanes) -> Result<bool, Fall> {
        while !lanes.over() {
            match self.vcpu.run() {
                Stop::Bell => return Ok(true),
                Stop::Fall(fall) => return Err(fall),
                Stop::Signal => {
                    watch::clear();
                    self.keep_to_budget()?;
                }
            }
        }
        Ok(false)
    }

    fn keep_to_budget(&self) -> Result<(), Fall> {
        let left = self.meter.left().ok_or(Fall::Cpu(self.meter.budget()))?;
        self.timer.set(left);
        Ok(())
    }
}

/// Gives the vCPUs the kernel's interrupt controllers, which a program without privileges cannot reach.
///
/// Without them every start and end of a machine patches the running kernel, on all processors at once.
fn keep_controllers_in_kernel(vm: &VmFd) {
    let split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
    // It is only faster; a kernel that cannot do it does without.
    let _ = vm.enable_cap(&split);
}

/// Lets the machine see `len` bytes of ours as its physical memory from `from` on.
fn give_memory(vm: &VmFd, slot: u32, from: usize, address: usize, len: usize) -> Result<(), Fall> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: from as u64,
        memory_size: len as u64,
        userspace_addr: address as u64,
    };
    // SAFETY: the memory is ours, holds nothing but what the machine may see, and outlives the machine.
    unsafe { vm.set_user_memory_region(region) }.map_err(|e| Fall::Host("give memory to a machine", e.into()))
}
