//! Sector encryption, by the names that dm-crypt and LUKS headers give to ciphers, modes and vectors.

use crate::hash::Hash;
use crate::modes::{self, BLOCK_MAX, Blocks, Vector, copy};
use crate::twofish::Twofish;
use alloc::boxed::Box;
use cipher::array::Array;
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// What initialisation vectors count, whatever the length of a sector.
pub const UNIT: usize = 512;
/// The longest sector.
pub const SECTOR_MAX: usize = 4096;

/// A block cipher.
struct Cipher {
    name: &'static str,
    key_lens: &'static [usize],
    block_len: usize,
    /// Takes a key of one of these lengths.
    new: fn(&[u8]) -> Option<Box<dyn Blocks>>,
}

static CIPHERS: &[Cipher] = &[
    Cipher { name: "aes", key_lens: &[16, 24, 32], block_len: 16, new: aes },
    Cipher { name: "serpent", key_lens: &[16, 24, 32], block_len: 16, new: keyed::<serpent::Serpent> },
    Cipher { name: "twofish", key_lens: &[16, 24, 32], block_len: 16, new: Twofish::with_key },
    Cipher { name: "cast5", key_lens: &[16], block_len: 8, new: keyed::<cast5::Cast5> },
    Cipher { name: "sm4", key_lens: &[16], block_len: 16, new: keyed::<sm4::Sm4> },
];

struct Foreign<C>(C);

impl<C: BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync> Blocks for Foreign<C> {
    fn encrypt(&self, bytes: &mut [u8]) {
        self.0.encrypt_blocks(Array::slice_as_chunks_mut(bytes).0);
    }
    fn decrypt(&self, bytes: &mut [u8]) {
        self.0.decrypt_blocks(Array::slice_as_chunks_mut(bytes).0);
    }
}

pub(crate) fn keyed<C>(key: &[u8]) -> Option<Box<dyn Blocks>>
where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync + 'static,
{
    Some(Box::new(Foreign(C::new_from_slice(key).ok()?)))
}

fn aes(key: &[u8]) -> Option<Box<dyn Blocks>> {
    match key.len() {
        16 => keyed::<aes::Aes128>(key),
        24 => keyed::<aes::Aes192>(key),
        _ => keyed::<aes::Aes256>(key),
    }
}

impl Cipher {
    fn with_key(&self, key: &[u8]) -> Option<Box<dyn Blocks>> {
        if self.key_lens.contains(&key.len()) { (self.new)(key) } else { None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Ecb,
    Cbc,
    Xts,
    Ctr,
}

const MODES: &[(&str, Mode)] = &[("ecb", Mode::Ecb), ("cbc", Mode::Cbc), ("xts", Mode::Xts), ("ctr", Mode::Ctr)];

/// How a sector's number becomes its initialisation vector.
enum Generator {
    /// 32 bits of it.
    Plain,
    /// All of it.
    Plain64,
    /// All of it, encrypted under the key's hash.
    Essiv(&'static Hash),
}

/// A cipher, a mode and a generator of vectors, such as `aes-xts-plain64`.
pub struct Suite {
    cipher: &'static Cipher,
    mode: Mode,
    generator: Generator,
}

impl Suite {
    /// Reads `CIPHER-MODE-GENERATOR[:HASH]`; ECB needs no generator.
    pub fn parse(spec: &[u8]) -> Option<Suite> {
        let mut parts = spec.splitn(3, |b| *b == b'-');
        let (cipher, mode, generator) = (parts.next()?, parts.next()?, parts.next());
        let cipher = CIPHERS.iter().find(|c| c.name.as_bytes() == cipher)?;
        let (_, mode) = *MODES.iter().find(|(name, _)| name.as_bytes() == mode)?;
        if mode == Mode::Xts && cipher.block_len != BLOCK_MAX {
            return None;
        }
        let generator = match generator {
            Some(b"plain") => Generator::Plain,
            Some(b"plain64") => Generator::Plain64,
            Some(other) => Generator::Essiv(Hash::by_name(other.strip_prefix(b"essiv:")?)?),
            None if mode == Mode::Ecb => Generator::Plain64,
            None => return None,
        };
        Some(Suite { cipher, mode, generator })
    }

    /// The suite with a key, for sectors of that length; `None` if the cipher takes no key of this length.
    pub fn keyed(&self, key: &[u8], sector_len: usize) -> Option<Sectors> {
        if !sector_len.is_multiple_of(UNIT) || !(UNIT..=SECTOR_MAX).contains(&sector_len) {
            return None;
        }
        let (own, tweak) = match self.mode {
            Mode::Xts => key.split_at_checked(key.len() / 2)?,
            _ => (key, &[][..]),
        };
        let tweak = if self.mode == Mode::Xts { Some(self.cipher.with_key(tweak)?) } else { None };
        let vectors = match &self.generator {
            Generator::Plain => Vectors::Plain,
            Generator::Plain64 => Vectors::Plain64,
            Generator::Essiv(hash) => Vectors::Essiv(self.cipher.with_key(&hash.digest(&[key]))?),
        };
        let (mode, block_len) = (self.mode, self.cipher.block_len);
        Some(Sectors { blocks: self.cipher.with_key(own)?, tweak, vectors, mode, block_len, sector_len })
    }
}

enum Vectors {
    Plain,
    Plain64,
    Essiv(Box<dyn Blocks>),
}

/// A suite with its key.
pub struct Sectors {
    blocks: Box<dyn Blocks>,
    /// XTS's second key.
    tweak: Option<Box<dyn Blocks>>,
    vectors: Vectors,
    mode: Mode,
    block_len: usize,
    sector_len: usize,
}

impl Sectors {
    /// Length of a sector.
    pub fn sector_len(&self) -> usize {
        self.sector_len
    }

    /// Decrypts whole sectors; the first begins at [`UNIT`] number `first`.
    pub fn decrypt(&self, first: u64, bytes: &mut [u8]) {
        let blocks = &*self.blocks;
        for (sector, vector) in self.sectors(first, bytes) {
            match self.mode {
                Mode::Ecb => blocks.decrypt(sector),
                Mode::Cbc => modes::cbc_decrypt(blocks, self.block_len, vector, sector),
                Mode::Ctr => modes::ctr(blocks, self.block_len, vector, sector),
                Mode::Xts => modes::xts(vector, sector, &|bytes| blocks.decrypt(bytes)),
            }
        }
    }

    /// Encrypts whole sectors; the first begins at [`UNIT`] number `first`.
    pub fn encrypt(&self, first: u64, bytes: &mut [u8]) {
        let blocks = &*self.blocks;
        for (sector, vector) in self.sectors(first, bytes) {
            match self.mode {
                Mode::Ecb => blocks.encrypt(sector),
                Mode::Cbc => modes::cbc_encrypt(blocks, self.block_len, vector, sector),
                Mode::Ctr => modes::ctr(blocks, self.block_len, vector, sector),
                Mode::Xts => modes::xts(vector, sector, &|bytes| blocks.encrypt(bytes)),
            }
        }
    }

    /// Every sector, with its initialisation vector.
    fn sectors<'a>(&'a self, first: u64, bytes: &'a mut [u8]) -> impl Iterator<Item = (&'a mut [u8], Vector)> {
        let numbers = (0u64..).step_by(self.sector_len / UNIT).map(move |n| first.wrapping_add(n));
        bytes.chunks_exact_mut(self.sector_len).zip(numbers).map(|(sector, number)| (sector, self.vector(number)))
    }

    fn vector(&self, number: u64) -> Vector {
        let mut vector = [0; BLOCK_MAX];
        let number = number.to_le_bytes();
        match &self.vectors {
            Vectors::Plain => copy(&mut vector, number.first_chunk::<4>().unwrap_or(&[0; 4])),
            Vectors::Plain64 => copy(&mut vector, &number),
            Vectors::Essiv(blocks) => {
                copy(&mut vector, &number);
                if let Some(block) = vector.get_mut(..self.block_len) {
                    blocks.encrypt(block);
                }
            }
        }
        if let Some(tweak) = &self.tweak {
            tweak.encrypt(&mut vector);
        }
        vector
    }
}
