//! Argon2, which makes a key out of a passphrase with much memory: as much as a header asks for, up to a limit.

use alloc::vec::Vec;
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// The order in which memory is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// Argon2i.
    I,
    /// Argon2id.
    Id,
}

/// What a derivation costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// How often the memory is gone through.
    pub passes: u32,
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Parts of the memory that could be worked on at the same time.
    pub lanes: u32,
}

/// Why no key was derived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// More work than the limit allows.
    Work,
    /// More memory than the limit allows, or than there is.
    Memory,
    /// Parameters that Argon2 does not know.
    Senseless,
}

/// The most that a derivation may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Memory in KiB. What the heap cannot give is refused as well.
    pub memory_kib: u32,
    /// Passes times KiB: each step takes about a microsecond.
    pub steps: u64,
}

/// Fills `key`.
pub fn derive(
    variant: Variant,
    cost: Cost,
    limit: Limit,
    password: &[u8],
    salt: &[u8],
    key: &mut [u8],
) -> Result<(), Refused> {
    if cost.memory_kib > limit.memory_kib {
        return Err(Refused::Memory);
    }
    if u64::from(cost.passes).saturating_mul(cost.memory_kib.into()) > limit.steps {
        return Err(Refused::Work);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(key.len()));
    let params = params.map_err(|_| Refused::Senseless)?;
    let count = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(count).map_err(|_| Refused::Memory)?;
    memory.resize(count, Block::new());
    let algorithm = match variant {
        Variant::I => Algorithm::Argon2i,
        Variant::Id => Algorithm::Argon2id,
    };
    let argon = Argon2::new(algorithm, Version::V0x13, params);
    argon.hash_password_into_with_memory(password, salt, key, memory).map_err(|_| Refused::Senseless)
}
