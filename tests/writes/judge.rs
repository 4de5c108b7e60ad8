//! How a copy is judged: what others read from it, and what they say of it.

use crate::formats::Format;
use instar_testkit::oracle::{Oracle, maker, newest, version};
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::{End, Ran, Run};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Set `INSTAR_SEED` for others.
pub fn seed() -> u64 {
    number("INSTAR_SEED", 1)
}

/// As many cases as this, of 500 in all; `INSTAR_WRITES` says how many that are instead.
pub fn count(normal: u64) -> u64 {
    (normal * number("INSTAR_WRITES", 500) / 500).max(1)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The cells in turn.
pub fn cell(turn: u64) -> Cell {
    Cell::all()[(turn % Cell::all().len() as u64) as usize]
}

/// The program in the cells and the faces in turn, with all the ways of qemu-img.
pub fn ours(turn: u64) -> Run {
    let cell = cell(turn);
    if (turn / 2).is_multiple_of(2) {
        program().quirky(&maker().version, cell)
    } else {
        program().native(cell).env("INSTAR_UNSAFE_QUIRKS", "1")
    }
}

/// Runs it; it must end well and have nothing to complain of.
pub fn quietly(run: &Run) -> Result<Ran, String> {
    let ran = run.go();
    if ran.end == End::Code(0) && ran.stderr.is_empty() {
        Ok(ran)
    } else {
        Err(format!("  {}\n  ends with {:?}: {}", run.line(), ran.end, ran.err()))
    }
}

/// A disk of random content: noise, patterns, what can be pressed, and much that is nothing.
pub fn content(dice: &mut Dice, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("a small disk")];
    for _ in 0..if len == 0 { 0 } else { 2 + dice.below(12) } {
        let at = (dice.below(len) / 512 * 512) as usize;
        let most = [1, 8, 128, 1024, 4096][dice.below(5) as usize];
        let run = ((1 + dice.below(most)) * 512) as usize;
        let piece = &mut bytes[at..(at + run).min(len as usize)];
        let byte = dice.below(256) as u8;
        match dice.below(4) {
            0 => piece.fill(byte),
            1 => piece.iter_mut().enumerate().for_each(|(n, b)| *b = (n / 7) as u8 ^ byte),
            _ => piece.fill_with(|| dice.below(256) as u8),
        }
    }
    bytes
}

/// Writes a disk as a file with holes.
pub fn put(path: &Path, bytes: &[u8]) {
    let file = File::create(path).expect("a file");
    file.set_len(bytes.len() as u64).expect("its length");
    for (number, piece) in bytes.chunks(4096).enumerate().filter(|(_, piece)| piece.iter().any(|b| *b != 0)) {
        file.write_all_at(piece, number as u64 * 4096).expect("its bytes");
    }
}

/// The oracles that read what we wrote: mostly the reference, now and then the newest and one that is old.
pub fn reader(turn: u64, format: &Format) -> &'static Oracle {
    match turn % 8 {
        3 => newest(),
        // Later options are nothing to it.
        6 if format.options.is_empty() => version("5.2").unwrap_or(maker()),
        _ => maker(),
    }
}

/// What is read from an image, through a file in its folder.
pub fn read(run: Run, folder: &Path, words: &[String], limit: u64) -> Result<Vec<u8>, String> {
    let raw = folder.join("read.raw");
    let _ = std::fs::remove_file(&raw);
    quietly(&run.folder(folder).args(["convert", "-O", "raw"]).args(words).arg("read.raw"))?;
    let len = std::fs::metadata(&raw).map_err(|e| e.to_string())?.len();
    if len > limit {
        return Err(format!("  {len} bytes are read"));
    }
    std::fs::read(raw).map_err(|e| e.to_string())
}

/// Whether a copy holds what it should; a disk may have become longer, by nothing but zeroes.
pub fn same(want: &[u8], got: &[u8]) -> Result<(), String> {
    if let Some(at) = want.iter().zip(got).position(|(want, got)| want != got) {
        return Err(format!("  the content differs at {at}"));
    }
    let more = got.get(want.len()..).ok_or_else(|| format!("  {} bytes, not {}", got.len(), want.len()))?;
    match more.iter().position(|byte| *byte != 0) {
        Some(at) => Err(format!("  something is at {} after the end", at)),
        None => Ok(()),
    }
}

/// Whether qemu-img has nothing to say against an image.
pub fn sound(oracle: &Oracle, folder: &Path, format: &Format, words: &[String]) -> Result<(), String> {
    if !format.checks {
        return Ok(());
    }
    let run = oracle.img().folder(folder).arg("check").args(words);
    let ran = run.go();
    // Formats that count nothing say that, and end well.
    if ran.end == End::Code(0) { Ok(()) } else { Err(format!("  {}\n  {}{}", run.line(), ran.out(), ran.err())) }
}

/// Everything that others can say of a new image: its content, that it is sound, and what we read of it.
pub fn accepted(folder: &Path, format: &Format, name: &str, want: &[u8], turn: u64) -> Result<(), String> {
    let words = format.words(name);
    let limit = want.len() as u64 + (4 << 20);
    let oracle = reader(turn, format);
    let theirs = read(oracle.img(), folder, &words, limit).map_err(|e| format!("  {} reads:\n{e}", oracle.version))?;
    same(want, &theirs)?;
    if format.name != "vpc" && theirs.len() != want.len().next_multiple_of(512) {
        return Err(format!("  {} bytes, not {}", theirs.len(), want.len()));
    }
    sound(oracle, folder, format, &words)?;
    let again = read(ours(turn + 1), folder, &words, limit).map_err(|e| format!("  we read:\n{e}"))?;
    same(&theirs, &again)
}
