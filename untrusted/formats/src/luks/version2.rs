//! LUKS containers of version 2: a binary header in two copies, each with a text in JSON.

use super::disk::{HEADER2_LENS, Header2, MAGIC, MAGIC_SECOND, TEXT_AT};
use super::json::Json;
use alloc::vec::Vec;
use instar_image::sector::round_up;
use instar_image::text::until_nul;
use instar_image::{Error, Fact, File, Kind, Result};

/// The text is read in pieces of this length; it ends with a NUL and is mostly padding.
const PIECE_LEN: u64 = 64 << 10;

/// A checked header of version 2.
pub struct Luks2 {
    header: Header2,
    second: bool,
    pub(super) text: Json,
    /// Where the guest's data begins.
    pub payload_at: u64,
    /// Size of the disk inside.
    pub size: u64,
    /// It ends with its file.
    pub is_open_ended: bool,
}

impl Luks2 {
    /// Reads the first header that holds together: the one at the start, or the copy behind it.
    pub fn open(file: &File<'_>) -> Result<Luks2> {
        let first = Luks2::open_copy(file, 0, &MAGIC);
        if first.is_ok() {
            return first;
        }
        let copies = HEADER2_LENS.iter().find_map(|at| Luks2::open_copy(file, *at, &MAGIC_SECOND).ok());
        copies.map_or(first, Ok)
    }

    fn open_copy(file: &File<'_>, at: u64, magic: &[u8; 6]) -> Result<Luks2> {
        let corrupt = |phrase: &'static str| -> Error { Kind::Corrupt.what(phrase).file(file.id()).at(at) };
        let header: Header2 = file.read_as(at)?;
        if header.magic != *magic || header.version.get() != 2 {
            return Err(corrupt("no LUKS2 header"));
        }
        if header.hdr_offset.get() != at || !HEADER2_LENS.contains(&header.hdr_size.get()) {
            return Err(corrupt("LUKS2 header is not where or as long as it says"));
        }
        let bytes = read_text(file, at, header.hdr_size.get())?;
        let text = Json::parse(&bytes).ok_or_else(|| corrupt("LUKS2 header's text is not valid JSON, or too large"))?;
        let data = text.get("segments").and_then(first_segment).map(|(_, segment)| segment);
        let Some(payload_at) = data.and_then(|s| s.get("offset")).and_then(Json::count) else {
            return Err(corrupt("LUKS2 header describes no data segment"));
        };
        let end = round_up(file.len());
        let is_open_ended = matches!(data.and_then(|s| s.get("size")), Some(Json::Text(_)));
        let size = match data.and_then(|s| s.get("size")) {
            Some(Json::Text(word)) if word == b"dynamic" => end.checked_sub(payload_at),
            Some(size) => size.count(),
            None => None,
        };
        let size = size.ok_or_else(|| corrupt("LUKS2 data segment lies outside of the file"))?;
        Ok(Luks2 { header, second: at != 0, text, payload_at, size, is_open_ended })
    }

    /// What is known of it, in qemu-img's words where version 1 has the same.
    pub fn facts(&self) -> Fact {
        let data = self.text.get("segments").and_then(first_segment).map(|(_, segment)| segment);
        let mut facts = Fact::fields([
            ("version", 2u64.into()),
            ("label", until_nul(&self.header.label).into()),
            ("subsystem", until_nul(&self.header.subsystem).into()),
            ("uuid", until_nul(&self.header.uuid).into()),
            ("checksum-alg", until_nul(&self.header.csum_alg).into()),
            ("header-size", self.header.hdr_size.get().into()),
            ("header-copy", if self.second { "secondary" } else { "primary" }.into()),
            ("sequence", self.header.seqid.get().into()),
        ]);
        copy(&mut facts, data, &[("encryption", "encryption"), ("sector_size", "sector-size")]);
        let slots = members(self.text.get("keyslots"));
        if let Some(len) = slots.iter().find_map(|(_, slot)| slot.get("key_size")?.count()) {
            facts.add("key-size", len);
        }
        facts.add("slots", slots.iter().map(|(id, slot)| slot_facts(id, slot)).collect::<Vec<Fact>>());
        let segments = members(self.text.get("segments"));
        facts.add("segments", segments.iter().map(|(id, s)| segment_facts(id, s)).collect::<Vec<Fact>>());
        facts.add("payload-offset", self.payload_at);
        facts
    }
}

/// The text behind the binary header, up to its NUL.
fn read_text(file: &File<'_>, at: u64, header_len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = at.saturating_add(header_len);
    let mut from = at.saturating_add(TEXT_AT);
    while from < end {
        let len = PIECE_LEN.min(end.saturating_sub(from));
        let piece = file.read_vec(from, usize::try_from(len).unwrap_or(0))?;
        let part = until_nul(&piece);
        bytes.extend_from_slice(part);
        if part.len() < piece.len() {
            break;
        }
        from = from.saturating_add(len);
    }
    Ok(bytes)
}

/// The members of an object in the order of their numbers.
pub(super) fn members(object: Option<&Json>) -> Vec<(&[u8], &Json)> {
    let all = object.map(Json::members).unwrap_or_default();
    let mut list: Vec<(&[u8], &Json)> = all.iter().map(|(id, value)| (id.as_slice(), value)).collect();
    list.sort_by_key(|(id, _)| (id.len(), *id));
    list
}

/// The data segment that is used, with its number; those with a flag `backup-…` belong to a reencryption under way.
pub(super) fn first_segment(segments: &Json) -> Option<(&[u8], &Json)> {
    let backup = |s: &Json| {
        let flags = s.get("flags").map(Json::elements).unwrap_or_default();
        flags.iter().filter_map(Json::text).any(|flag| flag.starts_with(b"backup-"))
    };
    members(Some(segments)).into_iter().find(|(_, s)| !backup(s))
}

/// Takes over the named members of `from` that are texts or counts, under other names.
fn copy(facts: &mut Fact, from: Option<&Json>, names: &[(&str, &str)]) {
    for (theirs, ours) in names {
        match from.and_then(|f| f.get(theirs)) {
            Some(Json::Text(text)) if text.is_empty() || !text.iter().all(u8::is_ascii_digit) => {
                facts.add(ours, text.as_slice());
            }
            Some(value) => {
                if let Some(count) = value.count() {
                    facts.add(ours, count);
                }
            }
            None => {}
        }
    }
}

fn slot_facts(id: &[u8], slot: &Json) -> Fact {
    let mut facts = Fact::fields([("id", id.into())]);
    copy(&mut facts, Some(slot), &[("type", "type"), ("key_size", "key-size"), ("priority", "priority")]);
    let mut kdf = Fact::fields([]);
    let names = ["type", "hash", "iterations", "time", "memory", "cpus"].map(|name| (name, name));
    copy(&mut kdf, slot.get("kdf"), &names);
    facts.add("kdf", kdf);
    let mut area = Fact::fields([]);
    let names = [
        ("type", "type"),
        ("offset", "offset"),
        ("size", "size"),
        ("encryption", "encryption"),
        ("key_size", "key-size"),
    ];
    copy(&mut area, slot.get("area"), &names);
    facts.add("area", area);
    facts
}

fn segment_facts(id: &[u8], segment: &Json) -> Fact {
    let mut facts = Fact::fields([("id", id.into())]);
    let names = [
        ("type", "type"),
        ("offset", "offset"),
        ("size", "size"),
        ("encryption", "encryption"),
        ("sector_size", "sector-size"),
        ("iv_tweak", "iv-tweak"),
    ];
    copy(&mut facts, Some(segment), &names);
    facts
}
