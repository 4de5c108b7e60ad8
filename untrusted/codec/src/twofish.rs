//! Twofish with its key-dependent tables made once per key: many times faster than taking every byte through them anew.

use crate::modes::{Blocks, copy};
use alloc::boxed::Box;

/// The four tables of four bits each that either permutation of bytes is built from.
type Nibbles = [[u8; 16]; 4];

const Q0: Nibbles = [
    [0x8, 0x1, 0x7, 0xD, 0x6, 0xF, 0x3, 0x2, 0x0, 0xB, 0x5, 0x9, 0xE, 0xC, 0xA, 0x4],
    [0xE, 0xC, 0xB, 0x8, 0x1, 0x2, 0x3, 0x5, 0xF, 0x4, 0xA, 0x6, 0x7, 0x0, 0x9, 0xD],
    [0xB, 0xA, 0x5, 0xE, 0x6, 0xD, 0x9, 0x0, 0xC, 0x8, 0xF, 0x3, 0x2, 0x4, 0x7, 0x1],
    [0xD, 0x7, 0xF, 0x4, 0x1, 0x2, 0x6, 0xE, 0x9, 0xB, 0x3, 0x0, 0x8, 0x5, 0xC, 0xA],
];
const Q1: Nibbles = [
    [0x2, 0x8, 0xB, 0xD, 0xF, 0x7, 0x6, 0xE, 0x3, 0x1, 0x9, 0x4, 0x0, 0xA, 0xC, 0x5],
    [0x1, 0xE, 0x2, 0xB, 0x4, 0xC, 0x3, 0x7, 0x6, 0xD, 0xA, 0x5, 0xF, 0x9, 0x0, 0x8],
    [0x4, 0xC, 0x7, 0x5, 0x1, 0x6, 0x9, 0xA, 0x0, 0xE, 0xD, 0x8, 0x2, 0xB, 0x3, 0xF],
    [0xB, 0x9, 0x5, 0x1, 0xC, 0x3, 0xD, 0xE, 0x6, 0x4, 0x7, 0xF, 0x2, 0x0, 0x8, 0xA],
];
/// Which permutation a byte of a word goes through, from the last step to the first.
const ORDER: [[&Nibbles; 5]; 4] =
    [[&Q1, &Q0, &Q0, &Q1, &Q1], [&Q0, &Q0, &Q1, &Q1, &Q0], [&Q1, &Q1, &Q0, &Q0, &Q0], [&Q0, &Q1, &Q1, &Q0, &Q1]];
/// The columns of the matrix that spreads a word, and the polynomial it is multiplied under.
const MDS: [[u8; 4]; 4] =
    [[0x01, 0x5B, 0xEF, 0xEF], [0xEF, 0xEF, 0x5B, 0x01], [0x5B, 0xEF, 0x01, 0xEF], [0x5B, 0x01, 0xEF, 0x5B]];
const MDS_POLYNOMIAL: u16 = 0x169;
/// The columns of the code that makes words of the key's bytes, and its polynomial.
const RS: [[u8; 4]; 8] = [
    [0x01, 0xA4, 0x02, 0xA4],
    [0xA4, 0x56, 0xA1, 0x55],
    [0x55, 0x82, 0xFC, 0x87],
    [0x87, 0xF3, 0xC1, 0x5A],
    [0x5A, 0x1E, 0x47, 0x58],
    [0x58, 0xC6, 0xAE, 0xDB],
    [0xDB, 0x68, 0x3D, 0x9E],
    [0x9E, 0xE5, 0x19, 0x03],
];
const RS_POLYNOMIAL: u16 = 0x14D;

/// Words made of the key, at most four.
type Words = [[u8; 4]; 4];

/// The cipher with a key.
pub struct Twofish {
    /// For whitening before and after, two words each; then two per round.
    whitening: [[u32; 4]; 2],
    rounds: [[u32; 2]; 16],
    /// What each byte of a word becomes.
    tables: [[u32; 256]; 4],
}

impl Twofish {
    /// Takes keys of 16, 24 and 32 bytes.
    pub fn with_key(key: &[u8]) -> Option<Box<dyn Blocks>> {
        let (mut even, mut odd, mut substitution) = (Words::default(), Words::default(), Words::default());
        let parts = key.as_chunks::<8>().0;
        let places = even.iter_mut().zip(&mut odd);
        for (part, (even, odd)) in parts.iter().zip(places) {
            copy(even, part);
            copy(odd, part.last_chunk::<4>()?);
        }
        for (part, word) in parts.iter().rev().zip(&mut substitution) {
            *word = spread(part, &RS, RS_POLYNOMIAL);
        }
        let count = parts.len();
        let mut expanded = (0u8..20).map(|n| {
            let a = whole(n.wrapping_mul(2), &even, count);
            let b = whole(n.wrapping_mul(2).wrapping_add(1), &odd, count).rotate_left(8);
            let sum = a.wrapping_add(b);
            [sum, sum.wrapping_add(b).rotate_left(9)]
        });
        let mut white = || -> Option<[u32; 4]> {
            let ([a, b], [c, d]) = (expanded.next()?, expanded.next()?);
            Some([a, b, c, d])
        };
        let whitening = [white()?, white()?];
        let mut rounds = [[0; 2]; 16];
        rounds.iter_mut().zip(expanded).for_each(|(round, words)| *round = words);
        let mut tables = [[0; 256]; 4];
        for (place, table) in tables.iter_mut().enumerate() {
            for (entry, byte) in table.iter_mut().zip(0..=255) {
                *entry = column(place, byte, &substitution, count);
            }
        }
        Some(Box::new(Twofish { whitening, rounds, tables }))
    }

    fn g(&self, word: u32) -> u32 {
        let part = |(table, byte): (&[u32; 256], u8)| table.get(usize::from(byte)).copied().unwrap_or(0);
        self.tables.iter().zip(word.to_le_bytes()).map(part).fold(0, |all, part| all ^ part)
    }

    fn f(&self, a: u32, b: u32, [first, second]: [u32; 2]) -> (u32, u32) {
        let (a, b) = (self.g(a), self.g(b.rotate_left(8)));
        let sum = a.wrapping_add(b);
        (sum.wrapping_add(first), sum.wrapping_add(b).wrapping_add(second))
    }
}

impl Blocks for Twofish {
    fn encrypt(&self, bytes: &mut [u8]) {
        let [before, after] = &self.whitening;
        for block in bytes.as_chunks_mut::<16>().0 {
            let [mut a, mut b, mut c, mut d] = load(block, before);
            for round in &self.rounds {
                let (e, f) = self.f(a, b, *round);
                (a, b, c, d) = ((c ^ e).rotate_right(1), d.rotate_left(1) ^ f, a, b);
            }
            store(block, [c, d, a, b], after);
        }
    }

    fn decrypt(&self, bytes: &mut [u8]) {
        let [before, after] = &self.whitening;
        for block in bytes.as_chunks_mut::<16>().0 {
            let [mut c, mut d, mut a, mut b] = load(block, after);
            for round in self.rounds.iter().rev() {
                let (e, f) = self.f(c, d, *round);
                (a, b, c, d) = (c, d, a.rotate_left(1) ^ e, (b ^ f).rotate_right(1));
            }
            store(block, [a, b, c, d], before);
        }
    }
}

fn load(block: &[u8; 16], white: &[u32; 4]) -> [u32; 4] {
    let mut words = *white;
    let parts = block.as_chunks::<4>().0;
    words.iter_mut().zip(parts).for_each(|(word, part)| *word ^= u32::from_le_bytes(*part));
    words
}

fn store(block: &mut [u8; 16], words: [u32; 4], white: &[u32; 4]) {
    let parts = block.as_chunks_mut::<4>().0;
    for ((part, word), white) in parts.iter_mut().zip(words).zip(white) {
        *part = (word ^ white).to_le_bytes();
    }
}

/// The product of two polynomials.
fn product(a: u8, b: u8, polynomial: u16) -> u8 {
    let mut power = u16::from(a);
    let mut sum = 0;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            sum ^= power;
        }
        power <<= 1;
        if power >> 8 == 1 {
            power ^= polynomial;
        }
    }
    let [low, _] = sum.to_le_bytes();
    low
}

/// A matrix, by its columns, times the bytes.
fn spread<const N: usize>(bytes: &[u8; N], columns: &[[u8; 4]; N], polynomial: u16) -> [u8; 4] {
    let mut word = [0; 4];
    for (byte, column) in bytes.iter().zip(columns) {
        word.iter_mut().zip(column).for_each(|(to, entry)| *to ^= product(*byte, *entry, polynomial));
    }
    word
}

/// A permutation of bytes.
fn permuted(byte: u8, [first, second, third, fourth]: &Nibbles) -> u8 {
    let at = |table: &[u8; 16], nibble: u8| table.get(usize::from(nibble & 15)).copied().unwrap_or(0);
    let mixed = |a: u8, b: u8| (a ^ b, a ^ (b >> 1 | b << 3) ^ a << 3);
    let (a, b) = mixed(byte >> 4, byte & 15);
    let (a, b) = mixed(at(first, a), at(second, b));
    at(fourth, b) << 4 | at(third, a)
}

/// What the byte at one place of a word adds to the word that the function called `h` makes.
fn column(place: usize, byte: u8, words: &Words, count: usize) -> u32 {
    let (Some([last, order @ ..]), Some(column)) = (ORDER.get(place), MDS.get(place)) else { return 0 };
    let steps = order.iter().zip(words).take(count).rev();
    let byte = steps.fold(byte, |byte, (nibbles, word)| permuted(byte, nibbles) ^ word.get(place).unwrap_or(&0));
    u32::from_le_bytes(spread(&[permuted(byte, last)], &[*column], MDS_POLYNOMIAL))
}

/// `h` of a word of four equal bytes.
fn whole(byte: u8, words: &Words, count: usize) -> u32 {
    (0..4).fold(0, |all, place| all ^ column(place, byte, words, count))
}
