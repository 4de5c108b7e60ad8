//! The rogue as a program for the kvm cell; built for real only with `--cfg freestanding`.
#![cfg_attr(freestanding, no_std, no_main)]

#[cfg(freestanding)]
mod program {
    instar_worker::program!(kvm, instar_rogue::attack::main);
}

#[cfg(not(freestanding))]
fn main() {}
