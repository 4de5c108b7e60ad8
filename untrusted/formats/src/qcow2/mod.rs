//! QEMU copy-on-write images, versions 2 and 3.

pub mod bitmaps;
mod census;
#[cfg(test)]
mod census_tests;
mod clusters;
mod create;
pub mod disk;
mod edit;
mod extensions;
mod front;
mod layout;
mod locate;
#[cfg(test)]
mod locate_tests;
pub mod open;
mod refcounts;
mod reserve;
pub mod snapshots;
mod tables;
#[cfg(test)]
mod tests;

use crate::luks::unlock::{Unlocked, needed};
use crate::qcow::{backing, backing_finding, encryption_finding, open::aes};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use bitmaps::Bitmap;
use clusters::Clusters;
use core::cell::OnceCell;
use core::ops::Range;
use disk::{BITMAPS, CORRUPT, DATA_FILE_RAW, DIRTY, LAZY_REFCOUNTS};
use edit::Editor;
use instar_codec::unpack::Codec;
use instar_image::format::plain;
use instar_image::probe::Claim;
use instar_image::{
    Census, Content, Edit, Fact, File, Format, Granted, Image, Kind, Layer, Measured, Options, Order, Place, Purpose,
    Recipe, Report, Result, Scope, Secret, Site, Summary, Target, info,
};
use locate::{Lock, Map};
use open::{Checked, Compression, Crypt, Table};
use reserve::Writing;
use reserve::marks::{Marks, Records};

/// The format.
pub struct Qcow2;

impl Format for Qcow2 {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if open::is_ours(file)? { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file, options)?;
        if options.for_writing() && options.purpose != Purpose::Repair && checked.layout.incompatible & CORRUPT != 0 {
            let words = "qcow2: Image is corrupt; cannot be opened read/write";
            return Err(Kind::Corrupt.what(words).file(file.id()));
        }
        let key = options.key.clone();
        let has_room = options.purpose == Purpose::WriteOver;
        let will_stand = options.purpose == Purpose::WriteToStand;
        Ok(Box::new(Qcow2Image { file, checked, key, has_room, will_stand, lock: OnceCell::new() }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened image.
struct Qcow2Image<'a> {
    file: File<'a>,
    checked: Checked,
    key: Option<Secret>,
    /// It ends where its counts end, and not with its file.
    has_room: bool,
    /// Something else will lie below it than it says.
    will_stand: bool,
    /// What the key has opened, once it was asked to.
    lock: OnceCell<Option<Lock>>,
}

impl Image for Qcow2Image<'_> {
    fn describe(&self, _extra: bool) -> Result<info::Image> {
        let Checked { layout, extensions, backing: name, .. } = &self.checked;
        let limit = |len: u64| u32::try_from(len).unwrap_or(0);
        let encrypted = self.checked.crypt != Crypt::None;
        Ok(info::Image {
            cluster_size: Some(layout.cluster_len),
            encrypted,
            dirty: Some(layout.incompatible & DIRTY != 0),
            backing: backing(name.as_ref(), extensions.backing_format.as_deref()),
            specific: Some(self.specific()),
            limits: info::Limits {
                write_zeroes: limit(layout.subcluster_len()),
                discard: limit(layout.cluster_len),
                request: if encrypted { 512 } else { 1 },
            },
            children: self.checked.data_file.iter().map(data_file).collect(),
            findings: self.findings(),
            warnings: extensions.warnings.clone(),
            ..plain(&self.file, "qcow2", layout.disk_size())
        })
    }

    fn can_have_snapshots(&self) -> bool {
        true
    }

    fn snapshots(&self, each: &mut dyn FnMut(Vec<info::Snapshot>) -> Result<()>) -> Result<()> {
        // Of an image whose bytes lie elsewhere, qemu-img tells none.
        if self.checked.layout.has_data_file() {
            return Ok(());
        }
        snapshots::tell(&self.file, self.checked.layout.snapshots, each)
    }

    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        Some(Box::new(census::Roll { file: &self.file, checked: &self.checked, scope, mend: None }))
    }

    fn unlock(&self) -> Result<()> {
        self.lock().map(|_| ())
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        self.map(self.checked.layout.l1)
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        let Checked { layout, .. } = &self.checked;
        self.refuse_unsound()?;
        let map = self.whole_map(layout.l1)?;
        let clusters = Clusters::open(&self.file, layout, self.has_room)?;
        let is_over = self.checked.backing.is_some() || self.will_stand;
        let marks = Some(Marks::read(&self.file, &self.checked)?);
        let records = Records::of(&self.checked.bitmaps);
        Ok(Box::new(Writing { map, clusters, is_over, marks, records, packed_end: None, is_changed: false }))
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        self.refuse_unsound()?;
        Ok(Box::new(Editor { image: self }))
    }

    fn must_be_repaired(&self) -> bool {
        self.checked.layout.incompatible & (DIRTY | CORRUPT) == DIRTY
    }

    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        edit::repair(self, order, report)
    }

    fn bitmaps(&self) -> Option<Vec<instar_image::bitmap::Bitmap>> {
        let all = self.checked.bitmaps.iter().map(Bitmap::plain);
        (self.checked.layout.version >= 3).then(|| all.collect())
    }

    fn bits(&self, number: usize, at: u64, bytes: &mut [u8]) -> Result<()> {
        let bitmap = self.checked.bitmaps.get(number);
        let bitmap = bitmap.ok_or_else(|| Kind::Unsupported.what("there is no such bitmap").file(self.file.id()))?;
        bitmap.read(&self.file, &self.checked.layout, at, bytes)
    }

    fn may_add_bitmap(&self, all: &[instar_image::bitmap::Bitmap], new: &instar_image::bitmap::Bitmap) -> Result<()> {
        edit::bitmap::may_add(&self.checked.layout, all, new)
    }

    /// Like qemu-img's, a snapshot is as large as the disk is now.
    fn snapshot(&self, number: usize) -> Result<Box<dyn Layer>> {
        self.map(snapshots::l1(&self.file, &self.checked.layout, number)?)
    }
}

/// The data file as a part of the image, where it was opened at all.
fn data_file(granted: &Granted) -> info::Child {
    info::Child { name: "data-file".into(), file: granted.id }
}

impl Qcow2Image<'_> {
    /// Nothing is written to what may be broken.
    fn refuse_unsound(&self) -> Result<()> {
        if self.checked.layout.incompatible & DIRTY != 0 {
            let words = "the image was not closed properly: it has to be checked and repaired before it is written";
            return Err(Kind::Unsupported.what(words).file(self.file.id()));
        }
        Ok(())
    }

    fn map(&self, l1: Table) -> Result<Box<dyn Layer>> {
        Ok(Box::new(self.whole_map(l1)?))
    }

    fn whole_map(&self, l1: Table) -> Result<Map> {
        let Checked { layout, data_file, .. } = &self.checked;
        let codec = match layout.compression {
            Compression::Zlib => Codec::Deflate,
            Compression::Zstd => Codec::Zstd,
        };
        let data = data_file.as_ref().map(|granted| Place { file: granted.id, at: 0 });
        if layout.has_data_file() && data.is_none() {
            return Err(Kind::Unsupported.what("'data-file' is required for this image").file(self.file.id()));
        }
        let sparse = refcounts::exceed_space(&self.file, layout);
        let lock = self.lock()?;
        Ok(Map { data, lock, sparse, ..Map::new(layout, l1, self.file.place(0), codec) })
    }

    /// What the guest's bytes are read with, if they are encrypted.
    fn lock(&self) -> Result<Option<Lock>> {
        if let Some(lock) = self.lock.get() {
            return Ok(lock.clone());
        }
        let key = || needed(self.key.as_ref(), &self.file, "encrypt.key-secret");
        let lock = match (self.checked.crypt, &self.checked.extensions.luks) {
            (Crypt::Aes, _) => Some(Lock { sectors: aes(key()?)?, by_host: false }),
            (Crypt::Luks, Some(luks)) => {
                let Range { start, end } = self.checked.extensions.luks_place;
                let len = end.min(self.file.len()).saturating_sub(start);
                let header = File::slice(self.file.io(), self.file.id(), self.file.place(start).at, len);
                Some(Lock { sectors: Unlocked::one(&header, luks, 0, key()?)?.sectors, by_host: true })
            }
            _ => None,
        };
        Ok(self.lock.get_or_init(|| lock).clone())
    }

    fn specific(&self) -> Fact {
        let Checked { layout, extensions, .. } = &self.checked;
        let compression = match layout.compression {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        };
        let modern = layout.version == 3;
        let mut facts = Fact::fields([
            ("compat", if modern { "1.1" } else { "0.10" }.into()),
            ("compression-type", compression.into()),
            ("refcount-bits", instar_image::num::power(layout.refcount_order).into()),
        ]);
        match (self.checked.crypt, &extensions.luks) {
            (Crypt::Aes, _) => facts.add("encrypt", Fact::fields([("format", "aes".into())])),
            (Crypt::Luks, Some(luks)) => {
                let mut inner = luks.facts();
                inner.add("format", "luks");
                facts.add("encrypt", inner);
            }
            _ => {}
        }
        if !modern {
            return facts;
        }
        facts.add("lazy-refcounts", layout.compatible & LAZY_REFCOUNTS != 0);
        facts.add("corrupt", layout.incompatible & CORRUPT != 0);
        facts.add("extended-l2", layout.extended_l2());
        if !self.checked.bitmaps.is_empty() {
            facts.add("bitmaps", self.checked.bitmaps.iter().map(Bitmap::facts).collect::<Vec<Fact>>());
        }
        if let Some(name) = &extensions.data_file {
            facts.add("data-file", name.as_slice());
        }
        if layout.has_data_file() {
            facts.add("data-file-raw", layout.autoclear & DATA_FILE_RAW != 0);
        }
        facts
    }

    fn findings(&self) -> Vec<info::Finding> {
        let Checked { layout, extensions, .. } = &self.checked;
        let finding = |check: &str, ok: bool, detail: Fact| info::Finding { check: check.into(), ok, detail };
        let data_file = extensions.data_file.as_deref();
        // Unknown incompatible bits have been refused; the others may be passed over by a reader, and are strange.
        let unknown = [
            ("compatible", layout.compatible & !LAZY_REFCOUNTS),
            ("autoclear", layout.autoclear & !(BITMAPS | DATA_FILE_RAW)),
        ];
        let unknown: Vec<Fact> = unknown
            .iter()
            .filter(|(_, bits)| *bits != 0)
            .map(|(kind, bits)| format!("{kind} {bits:x}").into())
            .collect();
        let mut findings = alloc::vec![
            backing_finding(self.checked.backing.as_ref()),
            finding(
                "data-file",
                data_file.is_none() && !layout.has_data_file(),
                Fact::List(data_file.map(Fact::from).into_iter().collect()),
            ),
            finding("unknown-features", unknown.is_empty(), unknown.into()),
        ];
        match self.checked.crypt {
            Crypt::None => {}
            Crypt::Aes => findings.push(encryption_finding("aes")),
            Crypt::Luks => findings.push(encryption_finding("luks")),
        }
        findings
    }
}
