//! Virtual PC disks (VHD), which qemu-img calls `vpc`.

mod census;
mod create;
pub mod disk;
mod edit;
mod locate;
pub mod open;
mod parent;
mod reserve;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use disk::{CONECTIX, DIFFERENCING, DYNAMIC, FIXED, PLATFORMS};
use instar_image::probe::Claim;
use instar_image::text::uuid;
use instar_image::{
    Census, Content, Edit, Fact, File, Format, Granted, Image, Kind, Layer, Measured, Options, Order, Recipe, Report,
    Result, Scope, Site, Summary, Target, format, info, tally,
};
use open::{Checked, Parent};

use zerocopy::IntoBytes;

/// The format.
pub struct Vpc;

impl Format for Vpc {
    fn name(&self) -> &'static str {
        "vpc"
    }

    /// qemu-img looks at the front only, where a fixed disk has nothing.
    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let front: [u8; 8] = file.read_as(0)?;
        if &front == CONECTIX {
            return Ok(Claim::Yes);
        }
        Ok(if open::find_footer(file, false)?.is_some() { Claim::Quiet } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file, options)?;
        Ok(Box::new(VpcImage { file, checked, as_qemu: options.as_qemu }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened VHD.
struct VpcImage<'a> {
    file: File<'a>,
    checked: Checked,
    as_qemu: bool,
}

impl Image for VpcImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "vpc", self.checked.virtual_size);
        let growing = self.checked.blocks.as_ref().filter(|_| self.checked.footer.disk_type.get() != FIXED);
        told.cluster_size = growing.map(|blocks| blocks.block_len.into());
        let parent = self.named();
        told.findings.push(info::Finding {
            check: "parent".into(),
            ok: parent.is_none(),
            detail: parent.map_or(Fact::List(Vec::new()), |parent| Fact::List(Vec::from([tell_parent(parent)]))),
        });
        told.extra = extra.then(|| self.extra());
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked, self.as_qemu))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked, self.as_qemu)
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(edit::Change { file: &self.file, checked: &self.checked }))
    }

    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        let roll = census::Roll { file: &self.file, checked: &self.checked };
        if scope.as_qemu { None } else { Some(Box::new(roll)) }
    }

    /// The footer at the end is made like the one at the front, which counts; qemu-img repairs nothing.
    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        let Order { drive, scope, .. } = *order;
        let roll = census::Roll { file: &self.file, checked: &self.checked };
        if scope.as_qemu {
            return Err(Kind::Unsupported.what("images of this format cannot be checked").file(self.file.id()));
        }
        let mut summary = tally::check(&roll, scope, report)?;
        if order.is_all()
            && let Some(at) = roll.second()?
        {
            drive.write(self.file.place(at), self.checked.footer.as_bytes())?;
            drive.flush(self.file.id())?;
            summary.fixed.corruptions = summary.fixed.corruptions.saturating_add(1);
        }
        Ok(summary)
    }

    /// qemu-img reads such a disk as if there were no parent.
    fn parent(&self) -> Result<Option<Granted>> {
        let Some(named) = self.named().filter(|_| !self.as_qemu) else { return Ok(None) };
        // A place relative to this disk is the one that still holds after both were moved.
        let of = |wanted: &'static [u8; 4]| named.locators.iter().filter(move |(code, _)| code == wanted);
        let places = PLATFORMS.into_iter().flat_map(of).map(|(_, text)| text.as_slice());
        let granted = instar_image::parent::open(&self.file, places.chain([named.name.as_slice()]))?;
        let file = File::new(self.file.io(), &granted);
        let wrong = |kind: Kind, phrase| kind.what(phrase).file(granted.id);
        let footer = match open::find_footer(&file, false)? {
            Some(open::Found::Front(footer) | open::Found::End(footer)) => footer,
            None => return Err(wrong(Kind::NotThisFormat, "the parent of a VHD is not a VHD")),
        };
        if footer.uuid != named.uuid {
            let phrase = "the VHD names a parent with the identifier {}, this one has {}";
            return Err(wrong(Kind::Corrupt, phrase).arg(uuid(&named.uuid)).arg(uuid(&footer.uuid)));
        }
        Ok(Some(granted))
    }
}

impl VpcImage<'_> {
    /// The parent, as the disk names it.
    fn named(&self) -> Option<&Parent> {
        self.checked.blocks.as_ref()?.parent.as_ref()
    }

    fn extra(&self) -> Fact {
        let footer = &self.checked.footer;
        let kind = match footer.disk_type.get() {
            FIXED => "fixed",
            DYNAMIC => "dynamic",
            DIFFERENCING => "differencing",
            _ => "unknown",
        };
        let geometry = Fact::fields([
            ("cylinders", u32::from(footer.cylinders.get()).into()),
            ("heads", u32::from(footer.heads).into()),
            ("sectors", u32::from(footer.sectors).into()),
        ]);
        let mut told = Fact::fields([
            ("type", kind.into()),
            ("creator", footer.creator_app.as_slice().into()),
            ("creator-version", footer.creator_version.get().into()),
            ("creator-os", footer.creator_os.as_slice().into()),
            ("current-size", footer.current_size.get().into()),
            ("original-size", footer.original_size.get().into()),
            ("geometry", geometry),
            ("uuid", uuid(&footer.uuid).into()),
            ("timestamp", footer.timestamp.get().into()),
        ]);
        if let Some(parent) = self.named() {
            told.add("parent", tell_parent(parent));
        }
        told
    }
}

fn tell_parent(parent: &Parent) -> Fact {
    let locators: Vec<Fact> = parent
        .locators
        .iter()
        .map(|(code, text)| Fact::fields([("platform", code.as_slice().into()), ("name", text.as_slice().into())]))
        .collect();
    Fact::fields([
        ("name", parent.name.as_slice().into()),
        ("uuid", uuid(&parent.uuid).into()),
        ("locators", locators.into()),
    ])
}
