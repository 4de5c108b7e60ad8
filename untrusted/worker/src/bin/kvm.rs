//! The worker as a program for the kvm cell; built for real only with `--cfg freestanding`.
#![cfg_attr(freestanding, no_std, no_main)]

#[cfg(freestanding)]
mod program {
    fn main(lane: &instar_worker::rt::lane::Lane) {
        instar_worker::main(lane);
    }

    instar_worker::program!(kvm, main);
}

#[cfg(not(freestanding))]
fn main() {}
