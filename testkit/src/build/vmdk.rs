//! VMware disks: descriptors of every kind, and the sparse extents that qemu-img cannot write.

/// A descriptor's text.
pub struct Descriptor {
    /// The type of the disk.
    pub create_type: String,
    /// Its content identifier.
    pub cid: u32,
    /// Its parent's.
    pub parent_cid: u32,
    /// The name of its parent.
    pub parent: Option<String>,
    /// The lines of its extents, such as `RW 2048 VMFS "disk-flat.vmdk"`.
    pub extents: Vec<String>,
}

impl Default for Descriptor {
    fn default() -> Self {
        Descriptor {
            create_type: "monolithicSparse".into(),
            cid: 0x1234_5678,
            parent_cid: u32::MAX,
            parent: None,
            extents: vec!["RW 2048 SPARSE \"disk.vmdk\"".into()],
        }
    }
}

impl Descriptor {
    /// A descriptor of that type with those extents.
    pub fn of(create_type: &str, extents: &[&str]) -> Self {
        let extents = extents.iter().map(|line| (*line).to_string()).collect();
        Descriptor { create_type: create_type.into(), extents, ..Self::default() }
    }

    /// The text.
    pub fn text(&self) -> Vec<u8> {
        let mut out = format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID={:08x}\ncreateType=\"{}\"\n",
            self.cid, self.parent_cid, self.create_type
        );
        if let Some(parent) = &self.parent {
            out += &format!("parentFileNameHint=\"{parent}\"\n");
        }
        out += &format!("\n# Extent description\n{}\n\n# The Disk Data Base\n#DDB\n\n", self.extents.join("\n"));
        out += "ddb.virtualHWVersion = \"4\"\nddb.adapterType = \"ide\"\n";
        out.into_bytes()
    }
}

/// The fields of a hosted sparse extent's header.
pub struct Hosted {
    /// Version.
    pub version: u32,
    /// Flags.
    pub flags: u32,
    /// Sectors of the disk.
    pub capacity: u64,
    /// Sectors of a grain.
    pub grain: u64,
    /// Entries of a grain table.
    pub table_entries: u32,
    /// The sector of the grain directory; all ones: in the footer.
    pub directory: u64,
    /// 1: grains are deflated.
    pub compression: u16,
}

impl Default for Hosted {
    fn default() -> Self {
        Hosted { version: 1, flags: 3, capacity: 2048, grain: 128, table_entries: 512, directory: 26, compression: 0 }
    }
}

/// The header of a hosted sparse extent.
pub fn hosted_header(disk: &Hosted) -> Vec<u8> {
    let mut out = vec![0u8; 512];
    out[..4].copy_from_slice(b"KDMV");
    out[4..8].copy_from_slice(&disk.version.to_le_bytes());
    out[8..12].copy_from_slice(&disk.flags.to_le_bytes());
    let words = [(12, disk.capacity), (20, disk.grain), (28, 1), (36, 20), (48, 21), (56, disk.directory), (64, 128)];
    for (at, word) in words {
        out[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    out[44..48].copy_from_slice(&disk.table_entries.to_le_bytes());
    out[73..77].copy_from_slice(b"\n \r\n");
    out[77..79].copy_from_slice(&disk.compression.to_le_bytes());
    out
}

/// An empty hosted sparse extent with its descriptor.
pub fn hosted(disk: &Hosted, descriptor: &Descriptor) -> Vec<u8> {
    let mut out = hosted_header(disk);
    out.extend(descriptor.text());
    out.resize(65536, 0);
    out
}

/// What a grain is.
#[derive(Clone, Copy)]
pub enum Grain {
    /// Data: this byte over and over.
    Data(u8),
    /// The same, compressed and marked if the flags say so.
    Packed(u8),
    /// The same, with this length in its marker.
    Marked(u8, u32),
    /// These bytes, whatever they are.
    Bytes(&'static [u8]),
    /// This entry of its table, wherever it leads.
    Entry(u32),
}

/// A hosted sparse extent with its tables and some grains. The directory lies where the header says.
pub fn sparse(disk: &Hosted, descriptor: &Descriptor, grains: &[(u64, Grain)]) -> Vec<u8> {
    let grain_len = disk.grain as usize * 512;
    let per_table = u64::from(disk.table_entries);
    let tables = disk.capacity.div_ceil(disk.grain * per_table);
    let table_sectors = (per_table * 4).div_ceil(512);
    let first_table = disk.directory + (tables * 4).div_ceil(512);
    let mut out = hosted(disk, descriptor);
    out.resize(out.len().max((first_table + tables * table_sectors) as usize * 512), 0);
    let put = |out: &mut Vec<u8>, at: u64, word: u32| {
        out[at as usize..][..4].copy_from_slice(&word.to_le_bytes());
    };
    for table in 0..tables {
        put(&mut out, disk.directory * 512 + 4 * table, (first_table + table * table_sectors) as u32);
    }
    for (number, grain) in grains {
        let sector = (out.len() / 512) as u32;
        let (table, index) = (number / per_table, number % per_table);
        let at = (first_table + table * table_sectors) * 512 + 4 * index;
        let packed = |fill: u8, len: Option<u32>| {
            let bytes = zlib(&vec![fill; grain_len]);
            let mark = len.unwrap_or(bytes.len() as u32);
            let marker = [&(number * disk.grain).to_le_bytes()[..], &mark.to_le_bytes()].concat();
            [if disk.flags & 1 << 17 == 0 { Vec::new() } else { marker }, bytes].concat()
        };
        match grain {
            Grain::Data(fill) => out.extend(vec![*fill; grain_len]),
            Grain::Packed(fill) => out.extend(packed(*fill, None)),
            Grain::Marked(fill, len) => out.extend(packed(*fill, Some(*len))),
            Grain::Bytes(bytes) => out.extend(*bytes),
            Grain::Entry(entry) => {
                put(&mut out, at, *entry);
                continue;
            }
        }
        out.resize(out.len().next_multiple_of(512), 0);
        put(&mut out, at, sector);
    }
    out
}

/// A zlib stream of the bytes, none of them compressed.
pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let pieces: Vec<&[u8]> = bytes.chunks(65535).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let len = piece.len() as u16;
        out.push(u8::from(number + 1 == pieces.len()));
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(*piece);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// A stream: the same, with the header again at its end.
pub fn stream(front: &Hosted, footer: &Hosted, descriptor: &Descriptor) -> Vec<u8> {
    let mut out = hosted(front, descriptor);
    let mut marker = vec![0u8; 512];
    marker[0] = 1;
    marker[12] = 3;
    out.extend(marker);
    out.extend(hosted_header(footer));
    out.extend([0; 512]);
    out
}

/// ESX's older sparse extent of `sectors`, in grains of `grain` sectors, with data in some of them.
pub fn cowd(sectors: u32, grain: u32, grains: &[(u32, u8)], descriptor: Option<&Descriptor>) -> Vec<u8> {
    let entries = sectors.div_ceil(grain * 4096).max(1);
    let directory_at = 4usize;
    let tables_at = directory_at + (entries as usize * 4).div_ceil(512);
    let data_at = tables_at + entries as usize * 32;
    let grain_len = grain as usize * 512;
    let mut out = vec![0u8; data_at * 512 + grain_len * grains.len()];
    out[..4].copy_from_slice(b"COWD");
    let words = [1, 3, sectors, grain, directory_at as u32, entries, data_at as u32];
    for (place, word) in words.iter().enumerate() {
        out[4 + 4 * place..8 + 4 * place].copy_from_slice(&u32::to_le_bytes(*word));
    }
    if let Some(descriptor) = descriptor {
        let text = descriptor.text();
        out[512..512 + text.len()].copy_from_slice(&text);
    }
    for entry in 0..entries as usize {
        let table = (tables_at + 32 * entry) as u32;
        out[directory_at * 512 + 4 * entry..][..4].copy_from_slice(&table.to_le_bytes());
    }
    for (number, (place, fill)) in grains.iter().enumerate() {
        let sector = data_at + number * grain as usize;
        out[tables_at * 512 + 4 * *place as usize..][..4].copy_from_slice(&(sector as u32).to_le_bytes());
        out[sector * 512..][..grain_len].fill(*fill);
    }
    out
}

/// ESX's newer sparse extent of `sectors`, with data in some of its grains of 4 KiB (of the first grain table).
pub fn se_sparse(sectors: u64, grains: &[(u32, u8)]) -> Vec<u8> {
    let tables_at = 16u64;
    let grains_at = tables_at + 64;
    let mut out = vec![0u8; grains_at as usize * 512 + 4096 * grains.len()];
    let words = [
        (0, 0xcafe_babe),
        (8, 0x2_0000_0001),
        (16, sectors),
        (24, 8),
        (32, 64),
        (80, 1),
        (88, 1),
        (128, 8),
        (136, 8),
        (144, tables_at),
        (152, 64),
        (192, grains_at),
        (200, 8 * grains.len() as u64),
        (512, 0xcafe_cafe),
        (520, 1),
        (8 * 512, 1 << 60),
    ];
    for (at, word) in words {
        out[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
    }
    for (number, (place, fill)) in grains.iter().enumerate() {
        // An allocated grain is marked 3; the lower twelve bits of its number stand above the others.
        let number = number as u64;
        let entry = 3u64 << 60 | (number & 0xfff) << 48 | number >> 12;
        out[tables_at as usize * 512 + 8 * *place as usize..][..8].copy_from_slice(&entry.to_le_bytes());
        out[grains_at as usize * 512 + 4096 * number as usize..][..4096].fill(*fill);
    }
    out
}
