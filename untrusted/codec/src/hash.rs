//! Hashes, by the names that headers carry.

use crate::pbkdf2;
use alloc::boxed::Box;
use alloc::vec::Vec;
use digest::typenum::Unsigned;
use digest::{DynDigest, OutputSizeUser};
use hmac::EagerHash;

/// A hash function.
pub struct Hash {
    /// Its name in headers.
    pub name: &'static str,
    /// Length of what it yields.
    pub len: usize,
    begin: fn() -> Box<dyn DynDigest>,
    pub(crate) derive: pbkdf2::Derive,
}

/// Every hash that a LUKS container may name.
static HASHES: &[Hash] = &[
    of::<md5::Md5>("md5"),
    of::<sha1::Sha1>("sha1"),
    of::<sha2::Sha224>("sha224"),
    of::<sha2::Sha256>("sha256"),
    of::<sha2::Sha384>("sha384"),
    of::<sha2::Sha512>("sha512"),
    of::<ripemd::Ripemd160>("ripemd160"),
    of::<sm3::Sm3>("sm3"),
    of::<whirlpool::Whirlpool>("whirlpool"),
];

const fn of<D: EagerHash + OutputSizeUser + Default + DynDigest + 'static>(name: &'static str) -> Hash {
    Hash { name, len: D::OutputSize::USIZE, begin: || Box::new(D::default()), derive: pbkdf2::derive_with::<D> }
}

impl Hash {
    /// The hash of that name.
    pub fn by_name(name: &[u8]) -> Option<&'static Hash> {
        HASHES.iter().find(|hash| hash.name.as_bytes() == name)
    }

    /// What it yields for the parts in a row.
    pub fn digest(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut running = self.begin();
        parts.iter().for_each(|part| running.update(part));
        running.finish()
    }

    /// Begins with what comes piece by piece.
    pub fn begin(&self) -> Running {
        Running((self.begin)())
    }
}

/// A hash of what has come so far.
pub struct Running(Box<dyn DynDigest>);

impl Running {
    /// Takes a piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// What it yields.
    pub fn finish(self) -> Vec<u8> {
        self.0.finalize().into_vec()
    }
}
