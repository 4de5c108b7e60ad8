//! LUKS containers: a disk encrypted under keys that lie in front of it.

pub mod create;
#[cfg(test)]
mod create_tests;
pub mod disk;
pub mod edit;
mod json;
mod locate;
#[cfg(test)]
mod locate_tests;
pub mod open;
mod reserve;
#[cfg(test)]
mod tests;
pub mod unlock;
pub mod version2;

use alloc::boxed::Box;
use alloc::vec;
use core::cell::OnceCell;
use disk::{Header1, MAGIC};
use instar_image::format::plain;
use instar_image::num::wide;
use instar_image::probe::Claim;
use instar_image::sector::round_up;
use instar_image::{
    Content, Edit, Fact, File, Format, Image, Kind, Layer, Measured, Options, Recipe, Result, Secret, Site, Target,
    info,
};
use open::Luks1;
use unlock::{Decrypted, Unlocked, needed};
use version2::Luks2;

/// The format: version 1, and where qemu-img's ways are not asked for, version 2.
pub struct Luks;

impl Format for Luks {
    fn name(&self) -> &'static str {
        "luks"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let header: Header1 = file.read_as(0)?;
        Ok(match header.version.get() {
            _ if header.magic != MAGIC => Claim::No,
            1 => Claim::Yes,
            // To qemu-img, such a container is raw.
            2 => Claim::Quiet,
            _ => Claim::No,
        })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let key = options.key.clone();
        if !options.as_qemu && options.beside.is_none() && self.probe(&file)? == Claim::Quiet {
            let luks = Luks2::open(&file)?;
            return Ok(Box::new(Container {
                size: luks.size,
                inner: Inner::Two(Box::new(luks)),
                file,
                header: None,
                key,
                unlocked: OnceCell::new(),
            }));
        }
        options.demand_key(&file, "key-secret")?;
        let header = options.beside.as_ref().map(|header| File::new(file.io(), header));
        let luks = match &header {
            Some(header) => Luks1::open_detached(header, options.version)?,
            None => Luks1::open(&file, 0, options.version)?,
        };
        let size = round_up(file.len()).checked_sub(luks.payload_at).ok_or_else(|| {
            Kind::Corrupt.what("Could not refresh total sector count: Input/output error").file(file.id())
        })?;
        Ok(Box::new(Container { size, inner: Inner::One(luks), file, header, key, unlocked: OnceCell::new() }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

enum Inner {
    One(Luks1),
    Two(Box<Luks2>),
}

/// An opened container.
struct Container<'a> {
    file: File<'a>,
    header: Option<File<'a>>,
    size: u64,
    inner: Inner,
    key: Option<Secret>,
    /// What the passphrase has opened, once it was asked to.
    unlocked: OnceCell<Unlocked>,
}

impl Container<'_> {
    fn unlocked(&self) -> Result<&Unlocked> {
        if let Some(unlocked) = self.unlocked.get() {
            return Ok(unlocked);
        }
        let key = needed(self.key.as_ref(), &self.file, "key-secret")?;
        let unlocked = match &self.inner {
            Inner::One(luks) => Unlocked::one(&self.header.unwrap_or(self.file), luks, self.size, key)?,
            Inner::Two(luks) => Unlocked::two(&self.file, luks, key)?,
        };
        Ok(self.unlocked.get_or_init(|| unlocked))
    }

    /// Whether the disk ends with its file.
    fn is_open_ended(&self) -> bool {
        match &self.inner {
            Inner::One(_) => true,
            Inner::Two(luks) => luks.is_open_ended,
        }
    }

    /// What qemu-img hides; the format of what is inside only shows to those who know the passphrase.
    fn hidden(&self) -> Result<Option<Fact>> {
        let mut facts = match &self.inner {
            Inner::One(luks) => Fact::fields([("version", 1u64.into()), ("key-size", luks.key_len.into())]),
            Inner::Two(_) if self.key.is_none() => return Ok(None),
            Inner::Two(_) => Fact::fields([]),
        };
        if self.key.is_some() {
            let inside = Decrypted { file: self.file, payload: self.unlocked()? };
            facts.add("inner-format", inside.inner_format()?);
        }
        Ok(Some(facts))
    }
}

impl Image for Container<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let specific = match &self.inner {
            Inner::One(luks) => luks.facts(),
            Inner::Two(luks) => luks.facts(),
        };
        let header = self.header.map(|header| info::Child { name: "header".into(), file: header.id() });
        Ok(info::Image {
            encrypted: true,
            children: header.into_iter().collect(),
            specific: Some(specific),
            limits: info::Limits { write_zeroes: 0, discard: 0, request: 512 },
            extra: if extra { self.hidden()? } else { None },
            findings: vec![info::Finding { check: "encryption".into(), ok: true, detail: "luks".into() }],
            ..plain(&self.file, "luks", self.size)
        })
    }

    fn unlock(&self) -> Result<()> {
        self.unlocked().map(|_| ())
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        locate::layer(&self.file, self.unlocked()?)
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        let inside = self.unlocked()?;
        Ok(reserve::target(&self.file, inside, locate::tweak(&self.file, inside)?))
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        let inside = self.unlocked()?;
        let unit = wide(inside.sectors.sector_len());
        let luks = match &self.inner {
            Inner::One(luks) => Some(luks),
            Inner::Two(_) => None,
        };
        Ok(Box::new(edit::Change {
            file: &self.file,
            header: self.header.as_ref().unwrap_or(&self.file),
            luks,
            key: self.key.as_ref(),
            payload_at: inside.at,
            unit,
            is_open: self.is_open_ended(),
        }))
    }
}
