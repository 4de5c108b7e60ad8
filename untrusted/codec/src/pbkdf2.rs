//! PBKDF2 with HMAC, which makes a key out of a passphrase by many rounds of a hash.

use crate::hash::Hash;
use hmac::{EagerHash, Hmac};

/// Password, salt, iterations, and room for the key.
pub(crate) type Derive = fn(&[u8], &[u8], u32, &mut [u8]);

/// Fills `key`. The caller has bounded `iterations`, each of which hashes twice for every [`Hash::len`] bytes of key.
pub fn derive(hash: &Hash, password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
    (hash.derive)(password, salt, iterations, key);
}

pub(crate) fn derive_with<D: EagerHash>(password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
    // HMAC takes passwords of any length: there is no failure to hand on.
    let _ = pbkdf2::pbkdf2::<Hmac<D>>(password, salt, iterations, key);
}
