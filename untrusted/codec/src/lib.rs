//! Ciphers, hashes, key derivations and compressions, as image formats name them.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod af;
pub mod argon2;
pub mod base64;
pub mod cipher;
pub mod hash;
mod modes;
pub mod pack;
pub mod pbkdf2;
pub mod random;
#[cfg(test)]
mod tests;
mod twofish;
pub mod unpack;
