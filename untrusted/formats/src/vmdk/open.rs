//! Opening a VMware disk: its descriptor and all its extents, checked.

use super::descriptor::{self, ExtentKind, ExtentLine, Line};
use super::disk::{COWD, DESCRIPTOR_AT, Hosted, KDMV};
use super::sparse::{self, Sparse};
use alloc::vec::Vec;
use instar_image::sector::{INVALID, SECTORS_MAX, TOO_LARGE};
use instar_image::{Error, File, FileId, Kind, Result, Role, num};

/// Bytes of a descriptor that are looked at for extents.
const TEXT_MAX: u64 = (1 << 20) - 1;
/// Bytes of a descriptor that are looked at for identifiers and the parent.
pub const HEAD_LEN: usize = 20 * 512;
/// Extents that a disk may have.
pub const EXTENTS_MAX: usize = 4096;
/// Extents may have descriptors of their own, but not for ever.
const DEPTH_MAX: u32 = 4;
/// The types of disk that have a descriptor of their own.
const TYPES: [&[u8]; 6] =
    [b"monolithicFlat", b"vmfs", b"vmfsSparse", b"seSparse", b"twoGbMaxExtentSparse", b"twoGbMaxExtentFlat"];

/// A part of the disk.
pub struct Extent {
    /// Its file.
    pub file: FileId,
    /// The word the descriptor has for it; empty for a disk in one file.
    pub word: &'static str,
    /// Its sectors.
    pub sectors: u64,
    /// Where they are.
    pub body: Body,
}

/// A file that the descriptor names.
pub struct ExtentFile {
    /// The file.
    pub file: FileId,
    /// Its name in the descriptor.
    pub name: Vec<u8>,
    /// Extents before it.
    pub number: usize,
}

/// Where an extent's sectors are.
pub enum Body {
    /// In a row.
    Flat {
        /// The sector of the file in which they begin.
        start: u64,
    },
    /// In grains.
    Sparse(Sparse),
}

/// What a VMware disk is, checked.
pub struct Checked {
    /// Its parts, in their order.
    pub extents: Vec<Extent>,
    /// The further files, in the order in which they were opened.
    pub files: Vec<ExtentFile>,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// The type of the disk.
    pub create_type: Vec<u8>,
    /// The content identifier.
    pub cid: u32,
    /// That of the parent.
    pub parent_cid: u32,
    /// The name of the parent.
    pub parent: Option<Vec<u8>>,
    /// The descriptor.
    pub text: Vec<u8>,
    /// Where that begins.
    pub text_at: u64,
}

/// Reads and checks the descriptor, and opens all extents.
pub fn open(file: &File<'_>) -> Result<Checked> {
    let mut opening = Opening { extents: Vec::new(), files: Vec::new(), create_type: Vec::new() };
    let head_at = text_at(file)?;
    match head_at {
        0 => opening.described(file, 0, 0)?,
        _ => opening.headed(file, "", 0)?,
    }
    let head = file.read_vec(head_at, HEAD_LEN)?;
    let invalid = || Kind::Corrupt.what(INVALID).file(file.id());
    let parent = descriptor::parent(&head).ok_or_else(invalid)?.filter(|name| !name.is_empty());
    let cid = descriptor::cid(&head).ok_or_else(invalid)?;
    let parent_cid = descriptor::parent_cid(&head).ok_or_else(invalid)?;
    if opening.extents.is_empty() {
        return Err(Kind::Corrupt.what("no extent in the image descriptor can be read").file(file.id()));
    }
    let sectors = opening.extents.iter().fold(0u64, |sum, extent| sum.saturating_add(extent.sectors));
    if sectors > SECTORS_MAX {
        return Err(Kind::TooBig.what(TOO_LARGE).file(file.id()));
    }
    Ok(Checked {
        extents: opening.extents,
        files: opening.files,
        virtual_size: sectors.saturating_mul(512),
        create_type: opening.create_type,
        cid,
        parent_cid,
        parent: parent.map(<[u8]>::to_vec),
        text: descriptor::text_of(&head).to_vec(),
        text_at: head_at,
    })
}

/// Where the descriptor begins.
pub fn text_at(file: &File<'_>) -> Result<u64> {
    let magic = magic(file)?;
    Ok(if &magic == KDMV || &magic == COWD { DESCRIPTOR_AT } else { 0 })
}

fn magic(file: &File<'_>) -> Result<[u8; 4]> {
    if file.is_empty() {
        return Err(Kind::NotThisFormat.what("File is too small, not a valid image").file(file.id()));
    }
    file.read_as(0)
}

/// A disk while its extents are found.
struct Opening {
    extents: Vec<Extent>,
    files: Vec<ExtentFile>,
    create_type: Vec<u8>,
}

impl Opening {
    /// An extent that begins with a header.
    fn headed(&mut self, file: &File<'_>, word: &'static str, depth: u32) -> Result<()> {
        let at = |error: Error| error.file(file.id());
        match &magic(file)? {
            KDMV => self.hosted(file, word, depth),
            COWD => {
                let sparse = sparse::cowd(&file.read_as(0)?).map_err(at)?;
                self.add(file, word, sparse.sectors, Body::Sparse(sparse))
            }
            _ => Err(at(Kind::NotThisFormat.what("Image not in VMDK format"))),
        }
    }

    fn hosted(&mut self, file: &File<'_>, word: &'static str, depth: u32) -> Result<()> {
        let header: Hosted = file.read_as(0)?;
        let text_at = header.desc_offset.get().wrapping_mul(512);
        // A header without a disk only leads to its descriptor.
        if header.capacity.get() == 0 && text_at != 0 {
            let before = self.extents.len();
            self.described(file, text_at, depth)?;
            if let (false, Some(last)) = (word.is_empty(), self.extents.get_mut(before..).and_then(<[_]>::last_mut)) {
                last.word = word;
            }
            return Ok(());
        }
        if self.create_type.is_empty() {
            self.create_type = b"monolithicSparse".to_vec();
        }
        let sparse = sparse::hosted(file, header).map_err(|error| error.file(file.id()))?;
        if sparse.compressed {
            self.create_type = b"streamOptimized".to_vec();
        }
        self.add(file, word, sparse.sectors, Body::Sparse(sparse))
    }

    /// A disk described by the text at `at`.
    fn described(&mut self, file: &File<'_>, at: u64, depth: u32) -> Result<()> {
        let refuse = |error: Error| error.file(file.id()).at(at);
        let len =
            num::bounded(file.len().next_multiple_of(512).min(TEXT_MAX), TEXT_MAX, || Kind::TooBig.what(INVALID))?;
        let bytes = file.read_vec(at, len)?;
        let Some(create_type) = descriptor::create_type(&bytes) else {
            return Err(refuse(Kind::Corrupt.what("invalid VMDK image descriptor")));
        };
        if !TYPES.contains(&create_type) {
            return Err(refuse(Kind::Unsupported.what("Unsupported image type '{}'").arg(create_type)));
        }
        if depth >= DEPTH_MAX {
            return Err(refuse(Kind::TooBig.what("descriptors name descriptors, and those more")));
        }
        self.create_type = create_type.to_vec();
        for line in descriptor::lines(descriptor::text_of(&bytes)) {
            match line {
                Line::Other => {}
                Line::Bad(line) => return Err(refuse(Kind::Corrupt.what("Invalid extent line: {}").arg(line))),
                Line::Extent(line) => self.extent(file, &line, depth.saturating_add(1))?,
            }
        }
        Ok(())
    }

    fn extent(&mut self, from: &File<'_>, line: &ExtentLine<'_>, depth: u32) -> Result<()> {
        if self.files.len() >= EXTENTS_MAX {
            return Err(Kind::TooBig.what("more than {} extents").arg(EXTENTS_MAX as u64).file(from.id()));
        }
        let granted = from.related(Role::Extent, line.name)?;
        self.files.push(ExtentFile { file: granted.id, name: line.name.to_vec(), number: self.extents.len() });
        let file = File::new(from.io(), &granted);
        let word = line.kind.word();
        match line.kind {
            ExtentKind::Flat | ExtentKind::Vmfs => {
                self.add(&file, word, line.sectors, Body::Flat { start: line.start })
            }
            ExtentKind::Sparse | ExtentKind::VmfsSparse => self.headed(&file, word, depth),
            ExtentKind::SeSparse => {
                let sparse = sparse::se_sparse(&file).map_err(|error| error.file(file.id()))?;
                self.add(&file, word, sparse.sectors, Body::Sparse(sparse))
            }
        }
    }

    fn add(&mut self, file: &File<'_>, word: &'static str, sectors: u64, body: Body) -> Result<()> {
        self.extents.push(Extent { file: file.id(), word, sectors, body });
        Ok(())
    }
}
