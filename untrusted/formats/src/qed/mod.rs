//! QEMU enhanced disks.

mod census;
mod create;
pub mod disk;
mod edit;
mod locate;
pub mod open;
mod reserve;
#[cfg(test)]
mod reserve_tests;
#[cfg(test)]
mod tests;

use crate::qcow::{backing, backing_finding};
use alloc::boxed::Box;
use instar_image::format::plain;
use instar_image::probe::Claim;
use instar_image::{
    Census, Content, Edit, Fact, File, Format, Image, Layer, Measured, Options, Order, Purpose, Recipe, Report, Result,
    Scope, Site, Summary, Target, info, tally,
};
use open::Checked;

/// The format.
pub struct Qed;

impl Format for Qed {
    fn name(&self) -> &'static str {
        "qed"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if open::is_ours(file)? { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        let will_stand = options.purpose == Purpose::WriteToStand;
        Ok(Box::new(QedImage { file, checked, will_stand }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened image.
struct QedImage<'a> {
    file: File<'a>,
    checked: Checked,
    /// Something else will lie below it than it says.
    will_stand: bool,
}

impl Image for QedImage<'_> {
    /// `dirty` stays false: qemu-img never tells that an image needs a check, so that is among what it hides.
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let checked = &self.checked;
        let name = checked.backing.as_ref();
        let format: Option<&[u8]> = checked.backing_raw.then_some(b"raw");
        let hidden = || {
            Fact::fields([
                ("needs-check", checked.needs_check.into()),
                ("table-size", checked.table_clusters.into()),
                ("header-size", checked.header_clusters.into()),
            ])
        };
        let mut told = info::Image {
            cluster_size: Some(checked.cluster_len.into()),
            backing: backing(name, format),
            limits: info::Limits { write_zeroes: checked.cluster_len, discard: 0, request: 512 },
            extra: extra.then(hidden),
            ..plain(&self.file, "qed", checked.size)
        };
        told.findings.push(backing_finding(name));
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked, self.will_stand)
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(edit::Change { file: &self.file, checked: &self.checked }))
    }

    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        Some(Box::new(census::Roll { file: &self.file, checked: &self.checked, scope, mend: None }))
    }

    fn must_be_repaired(&self) -> bool {
        self.checked.needs_check
    }

    /// Whatever is asked for: entries that lead nowhere are emptied. Each is right by itself.
    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        let Order { drive, scope, .. } = *order;
        let roll = census::Roll { file: &self.file, checked: &self.checked, scope, mend: Some(drive) };
        let summary = tally::check(&roll, scope, report)?;
        drive.flush(self.file.id())?;
        if self.checked.needs_check && summary.corruptions == 0 && summary.failures == 0 {
            let features = self.checked.features & !disk::NEED_CHECK;
            drive.write(self.file.place(disk::FEATURES_AT), &features.to_le_bytes())?;
            drive.flush(self.file.id())?;
        }
        Ok(summary)
    }
}
