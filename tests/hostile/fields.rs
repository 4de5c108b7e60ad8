//! The fields of every header, by their offset and width, and how a checksum is made good again.

use crate::overlay::Overlay;
use std::sync::OnceLock;

/// A place in an image.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// Counted from its beginning.
    Start(usize),
    /// Counted from its end.
    End(usize),
}

impl At {
    /// The offset in an image of this length, if it is inside.
    pub fn of(self, len: usize) -> Option<usize> {
        match self {
            At::Start(at) => (at < len).then_some(at),
            At::End(back) => len.checked_sub(back),
        }
    }
}

/// Offsets and widths.
type Fields = &'static [(usize, usize)];

const QCOW2: Fields = &[
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 4),
    (104, 1),
    (105, 7),
    (112, 4),
    (116, 4),
    (120, 8),
    (128, 8),
];
const QCOW: Fields = &[(0, 4), (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 1), (33, 1), (34, 2), (36, 4), (40, 8)];
const QED: Fields = &[(0, 4), (4, 4), (8, 4), (12, 4), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (56, 4), (60, 4)];
const VMDK: Fields = &[
    (0, 4),
    (4, 4),
    (8, 4),
    (12, 8),
    (20, 8),
    (28, 8),
    (36, 8),
    (44, 4),
    (48, 8),
    (56, 8),
    (64, 8),
    (72, 1),
    (73, 1),
    (74, 1),
    (75, 1),
    (76, 1),
    (77, 2),
    (512, 8),
    (520, 64),
];
const VPC_FOOTER: Fields = &[
    (0, 8),
    (8, 4),
    (12, 4),
    (16, 8),
    (24, 4),
    (28, 4),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 2),
    (58, 1),
    (59, 1),
    (60, 4),
    (64, 4),
    (68, 16),
    (84, 1),
];
const VPC_DYNAMIC: Fields =
    &[(512, 8), (520, 8), (528, 8), (536, 4), (540, 4), (544, 4), (548, 4), (552, 16), (576, 64)];
const VHDX: Fields = &[
    (0, 8),
    (0x10000, 4),
    (0x10004, 4),
    (0x10008, 8),
    (0x10030, 16),
    (0x10040, 2),
    (0x10042, 2),
    (0x10044, 4),
    (0x10048, 8),
    (0x30000, 4),
    (0x30004, 4),
    (0x30008, 4),
    (0x30010, 16),
    (0x30020, 8),
    (0x30028, 4),
    (0x3002c, 4),
    (0x30030, 16),
    (0x30040, 8),
    (0x30048, 4),
    (0x200000, 8),
    (0x20000a, 2),
    (0x200020, 16),
    (0x200030, 4),
    (0x200034, 4),
    (0x200038, 4),
    (0x210000, 4),
    (0x210004, 4),
    (0x210008, 8),
];
const VDI: Fields = &[
    (0x40, 4),
    (0x44, 4),
    (0x48, 4),
    (0x4c, 4),
    (0x50, 4),
    (0x154, 4),
    (0x158, 4),
    (0x15c, 4),
    (0x160, 4),
    (0x164, 4),
    (0x168, 4),
    (0x16c, 4),
    (0x170, 8),
    (0x178, 4),
    (0x17c, 4),
    (0x180, 4),
    (0x184, 4),
    (0x188, 16),
    (0x198, 16),
    (0x1a8, 16),
    (0x1b8, 16),
];
const PARALLELS: Fields =
    &[(0, 16), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4), (36, 8), (44, 4), (48, 4), (52, 4), (56, 8), (64, 4)];
const LUKS: Fields = &[
    (0, 6),
    (6, 2),
    (8, 32),
    (40, 32),
    (72, 32),
    (104, 4),
    (108, 4),
    (112, 20),
    (132, 32),
    (164, 4),
    (168, 40),
    (208, 4),
    (212, 4),
    (216, 32),
    (248, 4),
    (252, 4),
    (256, 4),
    (544, 4),
    (588, 4),
];
const BOCHS: Fields =
    &[(0, 32), (32, 16), (48, 16), (64, 4), (68, 4), (72, 4), (76, 4), (80, 4), (84, 4), (88, 8), (512, 4)];
const CLOOP: Fields = &[(0, 8), (128, 4), (132, 4), (136, 8), (144, 8), (152, 8)];
/// Counted from the end.
const DMG: Fields =
    &[(512, 4), (508, 4), (504, 4), (488, 8), (480, 8), (472, 8), (464, 8), (296, 8), (288, 8), (20, 8), (700, 8)];

/// The fields of a format's images.
pub fn fields(format: &str) -> Vec<(At, usize)> {
    let from_start = |list: Fields| list.iter().map(|(at, width)| (At::Start(*at), *width)).collect::<Vec<_>>();
    let from_end = |list: Fields| list.iter().map(|(at, width)| (At::End(*at), *width)).collect::<Vec<_>>();
    match format {
        "qcow2" => from_start(QCOW2),
        "qcow" => from_start(QCOW),
        "qed" => from_start(QED),
        "vmdk" => from_start(VMDK),
        "vpc" => {
            let mut all = from_start(VPC_FOOTER);
            all.extend(from_start(VPC_DYNAMIC));
            all.extend(VPC_FOOTER.iter().map(|(at, width)| (At::End(512 - at), *width)));
            all
        }
        "vhdx" => from_start(VHDX),
        "vdi" => from_start(VDI),
        "parallels" => from_start(PARALLELS),
        "luks" => from_start(LUKS),
        "bochs" => from_start(BOCHS),
        "cloop" => from_start(CLOOP),
        "dmg" => from_end(DMG),
        _ => vec![(At::Start(446), 16), (At::Start(510), 2), (At::Start(32768), 8)],
    }
}

/// What has to be written, and where, for the checksums around a changed place to hold again.
pub fn mended(format: &str, image: &Overlay<'_>, changed: usize) -> Vec<(usize, Vec<u8>)> {
    let sums: &[(usize, usize, usize)] = match format {
        "vpc" => &[(0, 512, 64), (512, 1024, 36), (image.len_now().saturating_sub(512), 512, 64)],
        "vhdx" => &[(0x10000, 4096, 4), (0x20000, 4096, 4), (0x30000, 0x10000, 4), (0x40000, 0x10000, 4)],
        _ => &[],
    };
    let around = sums.iter().filter(|(at, len, _)| (*at..at + len).contains(&changed));
    let mended = around.filter_map(|(at, len, sum_at)| {
        let mut table = image.piece(*at, *len)?;
        // A fixed VHD has data where a dynamic one has its header.
        if format == "vpc" && *at == 512 && !table.starts_with(b"cxsparse") {
            return None;
        }
        table.get_mut(*sum_at..sum_at + 4)?.fill(0);
        let sum = if format == "vpc" { byte_sum(&table).to_be_bytes() } else { crc32c(&table).to_le_bytes() };
        Some((at + sum_at, sum.to_vec()))
    });
    mended.collect()
}

/// The one's complement of the sum of all bytes.
fn byte_sum(table: &[u8]) -> u32 {
    !table.iter().fold(0, |sum, byte| sum + u32::from(*byte))
}

/// The Castagnoli checksum.
fn crc32c(table: &[u8]) -> u32 {
    static STEPS: OnceLock<Vec<u32>> = OnceLock::new();
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    let steps = STEPS.get_or_init(|| (0..256).map(|byte| (0..8).fold(byte, bit)).collect());
    !table.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ steps[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::mended;
    use crate::overlay::Overlay;
    use crate::seeds::seeds;

    #[test]
    fn the_checksums_of_good_images_stand_as_they_are() {
        for (id, places) in [("vpc", &[0, 512][..]), ("vpc fixed", &[]), ("vhdx", &[0x10000, 0x30000])] {
            let seed = seeds().iter().find(|seed| seed.id == id).expect("a seed of this name");
            let last = (seed.format == "vpc").then(|| seed.bytes.len() - 512);
            for place in places.iter().copied().chain(last) {
                let mended = mended(seed.format, &Overlay::new(&seed.bytes), place);
                assert!(!mended.is_empty());
                for (at, sum) in mended {
                    assert_eq!(seed.bytes[at..at + 4], sum, "{id} at {at:#x}");
                }
            }
        }
    }
}
