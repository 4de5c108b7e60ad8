//! Tests of the whole: parity, hostile images, walls, locks.
