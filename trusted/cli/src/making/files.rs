//! The files of a target: whether they can be written to, and their appearance.

use super::{Aim, Lengths, Making, SECTOR, is_device};
use crate::Told;
use crate::recipe;
use crate::setup::{mishap_words, system_words, target_lasts};
use crate::stderr_text;
use instar_broker::publish::{FileType, Refused, Target, publish_all};
use instar_broker::session::Why;
use instar_broker::{Mishap, Session};

impl Making<'_> {
    /// Refuses what cannot be written over.
    pub(super) fn check_existing(&self, target: &Target, aim: &Aim, total: u64) -> Result<(), Told> {
        let why = |why| Mishap { name: aim.path.clone(), named_by: None, why };
        let words = |mishap: &Mishap| mishap_words(mishap, self.settings, stderr_text(self.settings));
        match target.kind() {
            FileType::BlockDevice | FileType::CharacterDevice => {}
            _ if aim.is_device => return Err(self.not_opened(&words(&why(Why::NotDevice)))),
            FileType::RegularFile => {}
            _ => return Err(self.not_opened(&words(&why(Why::NotRegular)))),
        }
        if !aim.is_raw() {
            return Ok(());
        }
        let have = target.len();
        let whole = have.next_multiple_of(SECTOR);
        if aim.at > whole {
            let told = if self.settings.profile.raw_offset_told() { aim.at } else { 0 };
            let words = format!("Offset ({told}) cannot be greater than size of the containing file ({whole})");
            return Err(self.not_opened(words.as_bytes()));
        }
        let (at, Some(size)) = (aim.at, aim.size) else { return self.check_room(whole - aim.at, total) };
        if size > whole - at {
            let (at, size) = if self.settings.profile.raw_offset_told() { (at, size) } else { (0, 0) };
            let words = format!(
                "The sum of offset ({at}) and size ({size}) has to be smaller or equal to the  \
                 actual size of the containing file ({whole})"
            );
            return Err(self.not_opened(words.as_bytes()));
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(self.not_opened(b"Specified size is not multiple of 512"));
        }
        self.check_room(size, total)
    }

    fn check_room(&self, have: u64, total: u64) -> Result<(), Told> {
        if self.parsed.has("compress") {
            return Err(self.say(b"Compression not supported for this file format"));
        }
        match have < total.saturating_add(self.wanted.seek) {
            true => Err(self.say(b"output file is smaller than input file")),
            false => Ok(()),
        }
    }

    /// Refuses what cannot be made as long as it has to be.
    pub(super) fn check_made(&self, target: &Target, aim: &Aim, total: u64) -> Result<(), Told> {
        let asked = self.wanted.len.unwrap_or(total.saturating_add(self.wanted.seek));
        match target.kind() {
            FileType::BlockDevice | FileType::CharacterDevice if aim.is_raw() && asked > target.len() => {
                Err(self.not_made(b"Cannot grow device files"))
            }
            FileType::BlockDevice | FileType::CharacterDevice => Ok(()),
            _ if aim.is_device => {
                let mishap = Mishap { name: aim.path.clone(), named_by: None, why: Why::NotDevice };
                let words = mishap_words(&mishap, self.settings, stderr_text(self.settings));
                Err(self.not_made(&recipe::no_device(&words, self.settings)))
            }
            FileType::RegularFile if target.is_fresh() => Ok(()),
            _ => Err(self.not_made(b"Could not resize file: Invalid argument")),
        }
    }

    pub(super) fn refusal(&self, refused: &Refused, aim: &Aim) -> Told {
        // A device is never made, whether it was asked for by that word or not.
        let on_device = aim.is_device || is_device(&aim.path);
        let words = recipe::refusal(refused, &aim.path, self.exists() || on_device, self.settings);
        match (self.exists(), on_device) {
            (true, _) => self.not_opened(&words),
            (false, true) => self.not_made(&recipe::no_device(&words, self.settings)),
            (false, false) => self.not_made(&words),
        }
    }

    /// Lets it appear.
    pub fn publish(&mut self, session: &Session) -> Result<Lengths, Told> {
        let Some(target) = self.target.take() else { return Ok(Lengths::default()) };
        if self.wanted.is_stream {
            self.end_stream(&target)?;
            return Ok(Lengths { copied: self.total, file: self.total });
        }
        let lengths = Lengths { copied: self.total, file: target.len() };
        let mut all = session.take_parts(self.promised.id);
        all.append(&mut self.beside);
        all.push(target);
        publish_all(all, target_lasts(self.parsed)).map_err(|errno| self.not_made(system_words(errno).as_bytes()))?;
        Ok(lengths)
    }

    /// What follows in a stream comes behind what was copied.
    fn end_stream(&self, target: &Target) -> Result<(), Told> {
        let len = self.wanted.len.unwrap_or(self.total).max(self.total);
        target.pad(len - self.total, self.base.saturating_add(len)).map_err(|error| {
            let words = error.to_string();
            self.not_made(words.split(" (os error").next().unwrap_or_default().as_bytes())
        })
    }
}
