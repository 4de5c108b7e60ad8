//! What every image format offers.

use crate::bitmap::Bitmap;
use crate::census::{Census, Finding, Scope};
use crate::edit::Edit;
use crate::file::{Drive, File};
use crate::layer::Layer;
use crate::measure::Content;
use crate::probe::Claim;
use crate::site::Site;
use crate::target::Target;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_wire::code::Secret;
use instar_wire::error::{Error, Kind, Result};
use instar_wire::io::Granted;
pub use instar_wire::op::check::{Fixed, Repair, Summary};
use instar_wire::op::measure::Measured;
use instar_wire::op::{Recipe, info};

/// How a file is to be opened, beyond its bytes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// First byte of a raw image in its file.
    pub raw_offset: Option<u64>,
    /// Length of a raw image in its file.
    pub raw_size: Option<u64>,
    /// What it is opened for.
    pub purpose: Purpose,
    /// Refuse what qemu-img refuses although it could be read.
    pub as_qemu: bool,
    /// The qemu-img version whose refusals count, as in [`instar_wire::op::Rules`]; zero for the newest.
    pub version: u32,
    /// What opens an encrypted image.
    pub key: Option<Secret>,
    /// The file that the user says belongs to it: the header of luks, the data of qcow2.
    pub beside: Option<Granted>,
}

/// What an image is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be told of, by itself.
    #[default]
    Describe,
    /// The same, but whatever holds the guest's bytes must be there.
    DescribeWhole,
    /// To be read: who has no key to it is refused before anything else is looked at.
    Read,
    /// The same, and to be written to.
    Write,
    /// The same, on a device: what ends an image there is not where the device ends, and behind it lies what others left.
    WriteOver,
    /// To be written to, and to stand on another image than it says after that.
    WriteToStand,
    /// To be checked: what is wrong with it need not keep it from being opened.
    Check,
    /// The same, and to be repaired.
    Repair,
}

impl Options {
    /// The file that holds the guest's bytes is opened, if that is another one.
    pub fn opens_data_file(&self) -> bool {
        self.purpose != Purpose::Describe
    }

    /// It may be opened with errors that would keep it from being read.
    pub fn for_check(&self) -> bool {
        matches!(self.purpose, Purpose::Check | Purpose::Repair)
    }

    /// It will be written to.
    pub fn for_writing(&self) -> bool {
        matches!(self.purpose, Purpose::Write | Purpose::WriteOver | Purpose::WriteToStand | Purpose::Repair)
    }

    /// Whether the ways of a qemu-img before this version are wanted.
    pub fn is_before(&self, version: u32) -> bool {
        self.as_qemu && (1..version).contains(&self.version)
    }

    /// Refuses at once who has no key to what is encrypted and will be read; qemu-img's name for the key is `name`.
    pub fn demand_key(&self, file: &File<'_>, name: &'static str) -> Result<()> {
        match (self.purpose, &self.key) {
            (Purpose::Read | Purpose::Check, None) => Err(no_key(file, name)),
            (_, None) if self.for_writing() => Err(no_key(file, name)),
            _ => Ok(()),
        }
    }
}

/// qemu-img's words for the absence of a key that goes by this name.
pub fn no_key(file: &File<'_>, name: &'static str) -> Error {
    Kind::Key.what("Parameter '{}' is required for cipher").file(file.id()).arg(name)
}

/// A format: recognised by its bytes, opened into an [`Image`].
pub trait Format: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Whether the file looks like it.
    fn probe(&self, file: &File<'_>) -> Result<Claim>;
    /// Reads and checks the headers; whatever is refused is refused here.
    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>>;
    /// How large an image of this format would be, made by a recipe and holding this much.
    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        let _ = (recipe, content);
        Err(not_made(self.name()))
    }
    /// Lays out a new image that holds nothing.
    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        let _ = (recipe, site);
        Err(not_made(self.name()))
    }
}

/// The error for a format that is only read.
fn not_made(name: &'static str) -> Error {
    Kind::Unsupported.what("Format driver '{}' does not support image creation").arg(name)
}

/// An opened image. Everything in it has been checked.
pub trait Image {
    /// What it is. `extra`: also what qemu-img hides.
    fn describe(&self, extra: bool) -> Result<info::Image>;
    /// Whether its format can have internal snapshots.
    fn can_have_snapshots(&self) -> bool {
        false
    }
    /// Its internal snapshots, handed out in bounded pieces.
    fn snapshots(&self, each: &mut dyn FnMut(Vec<info::Snapshot>) -> Result<()>) -> Result<()> {
        let _ = each;
        Ok(())
    }
    /// Opens the lock that its bytes are under, if there is one: who has no key is refused as if it could not be opened.
    fn unlock(&self) -> Result<()> {
        Ok(())
    }
    /// Where its bytes are. Asked once; what it takes to answer is read here and not when the image is opened.
    fn layer(&self) -> Result<Box<dyn Layer>> {
        Err(Kind::Unsupported.what("images of this format are recognised, not read"))
    }
    /// Its bitmaps; none if it can have none.
    fn bitmaps(&self) -> Option<Vec<Bitmap>> {
        None
    }
    /// Fills `bytes` with the bits of a bitmap, from byte `at` of them on.
    fn bits(&self, number: usize, at: u64, bytes: &mut [u8]) -> Result<()> {
        let _ = (number, at, bytes);
        Err(Kind::Unsupported.what("images of this format have no bitmaps"))
    }
    /// Whether it could have another bitmap if it had all these.
    fn may_add_bitmap(&self, all: &[Bitmap], new: &Bitmap) -> Result<()> {
        let _ = (all, new);
        Err(Kind::Unsupported.what("Can't store persistent bitmaps to {file}: Operation not supported"))
    }
    /// Where bytes of its disk may go. Asked once, of an image whose file may be written.
    fn target(&self) -> Result<Box<dyn Target>> {
        Err(Kind::Unsupported.what("images of this format are read, not written"))
    }
    /// What changes it where it stands. Asked once, of an image whose file may be written.
    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Err(Kind::Unsupported.what("images of this format are not changed"))
    }
    /// Where the bytes of an internal snapshot are: of the one with that number in the order of [`Self::snapshots`].
    fn snapshot(&self, number: usize) -> Result<Box<dyn Layer>> {
        let _ = number;
        Err(Kind::Unsupported.what("Failed to load snapshot"))
    }
    /// Its census, if it is of a format that can be checked.
    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        let _ = scope;
        None
    }
    /// Its censuses: of an image in several files there is one for each. None if it cannot be checked.
    fn censuses(&self, scope: Scope) -> Vec<Box<dyn Census + '_>> {
        self.census(scope).into_iter().collect()
    }
    /// Whether whoever wrote to it last did not come to an end, so that it has to be repaired before it is written to.
    fn must_be_repaired(&self) -> bool {
        false
    }
    /// Repairs what can be repaired: everything is durable when this answers. What it answers is what it found, as far as
    /// that has not been repaired; the image has to be opened anew to be looked at again.
    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        let _ = (order, report);
        Err(Kind::Unsupported.what("errors of images of this format can be found, and not be repaired"))
    }
    /// Whether the image was made on the layer below, which says this of itself; what is wrong if not.
    fn stands_on(&self, below: &info::Image) -> Result<()> {
        let _ = below;
        Ok(())
    }
    /// The file of the layer below, where the image itself knows best how to find it; a backing file is found by all.
    fn parent(&self) -> Result<Option<Granted>> {
        Ok(None)
    }
}

/// What is to be repaired.
#[derive(Clone, Copy)]
pub struct Order<'o> {
    /// The files.
    pub drive: &'o dyn Drive,
    /// Space that is lost is all, or everything is.
    pub extent: Repair,
    /// What is looked for.
    pub scope: Scope,
}

impl Order<'_> {
    /// Not only space that is lost.
    pub fn is_all(&self) -> bool {
        self.extent == Repair::All
    }
}

/// Takes what is found when it is found.
pub type Report<'r> = &'r mut dyn FnMut(Finding) -> Result<()>;

/// A description that says nothing yet but what every image has.
pub fn plain(file: &File<'_>, format: &str, virtual_size: u64) -> info::Image {
    info::Image::plain(file.id(), format, virtual_size)
}
