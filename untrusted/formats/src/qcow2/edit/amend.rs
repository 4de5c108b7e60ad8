//! Other options for an image that is there.

use super::super::disk::{
    COMPRESSION, DATA_FILE_RAW, EXT_BACKING_FORMAT, EXT_DATA_FILE, EXT_FEATURE_NAMES, LAZY_REFCOUNTS,
};
use super::super::front::Front;
use super::super::layout::{NAMED_MIN, feature_names};
use super::super::open::{Compression, Crypt, Layout};
use super::Editor;
use super::bitmap::Entry;
use super::remake::Wanted;
use super::work::Work;
use crate::luks::edit::{Slots, change_slots};
use crate::luks::unlock::needed;
use alloc::vec::Vec;
use instar_image::edit::{Amended, Amendment};
use instar_image::num::wide;
use instar_image::{Drive, Error, File, Freed, Kind, Result};

/// From this version on nobody amends what lies below.
const BELOW_UNTIL: u32 = 601;
/// What stands before the names of options that are about keys.
const KEYS: &str = "encrypt.";
/// The width of counts in images of version 2, as a power of 2.
const ORDER2: u32 = 4;

/// What is to become of an image.
struct Plan {
    version: u32,
    order: u32,
    is_lazy: bool,
    /// Packed clusters are packed with Deflate from now on.
    is_deflated: bool,
    /// What it is to say of its data file.
    data_file: Option<Vec<u8>>,
    is_raw: bool,
    /// What it is to say of what lies below: the name, and the format.
    below: Option<(Vec<u8>, Vec<u8>)>,
    /// It is to have another size.
    is_resized: bool,
}

fn refuse(words: &'static str) -> Error {
    Kind::Unsupported.what(words)
}

impl Editor<'_, '_> {
    pub(super) fn set_options(&self, drive: &dyn Drive, wish: &Amendment<'_>) -> Result<Amended> {
        let file = |error: Error| Error { file: error.file.or(Some(self.image.file.id())), ..error };
        let has_slots = wish.has(KEYS);
        let (plan, slots) = self.plan(drive, wish).map_err(file)?;
        if let (Some(slots), Some(luks)) = (slots, &self.image.checked.extensions.luks) {
            let place = &self.image.checked.extensions.luks_place;
            let len = place.end.min(self.image.file.len()).saturating_sub(place.start);
            let start = self.image.file.place(place.start).at;
            let header = File::slice(self.image.file.io(), self.image.file.id(), start, len);
            let key = needed(self.image.key.as_ref(), &self.image.file, "encrypt.key-secret")?;
            change_slots(drive, &header, luks, key, &slots, wish).map_err(file)?;
        }
        let layout = &self.image.checked.layout;
        // A size that is new is about an image that is not older yet.
        let next = if plan.is_resized { Plan { version: plan.version.max(layout.version), ..plan } } else { plan };
        let has_done = self.carry_out(drive, &next, wish).map_err(file)?;
        Ok(match next.is_resized {
            true => Amended::UpToSize,
            false if has_done || has_slots => Amended::Done,
            false => Amended::Not,
        })
    }

    /// What is asked for, if it can be had.
    fn plan(&self, drive: &dyn Drive, wish: &Amendment<'_>) -> Result<(Plan, Option<Slots>)> {
        let layout = &self.image.checked.layout;
        let has_slots = wish.has(KEYS);
        match self.image.checked.crypt {
            Crypt::None if has_slots => {
                return Err(refuse("Can't amend encryption options - encryption not present"));
            }
            Crypt::Aes if has_slots => return Err(refuse("Only LUKS encryption options can be amended")),
            _ => {}
        }
        let version = version(wish, layout)?;
        let (data_file, is_raw) = self.apart(wish)?;
        let order = order(wish, layout, version)?;
        let slots = if has_slots { Some(Slots::of(wish, KEYS)?) } else { None };
        let below = self.below(wish)?;
        let was_lazy = layout.compatible & LAZY_REFCOUNTS != 0;
        let is_lazy =
            wish.recipe.options.get("lazy_refcounts").map_or(was_lazy, |_| wish.recipe.is_on("lazy_refcounts"));
        let asks_late = wish.recipe.is_on("lazy_refcounts") && (!was_lazy || !wish.rules.as_qemu);
        if asks_late && version < 3 {
            let words =
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)";
            return Err(refuse(words));
        }
        let is_deflated = match wish.recipe.text("compression_type") {
            None => false,
            Some(b"zlib") => layout.compression == Compression::Zstd,
            Some(b"zstd") if layout.compression == Compression::Zstd => false,
            Some(_) => return Err(refuse("clusters can be packed anew with zlib, and with nothing else")),
        };
        let size = wish.recipe.number("size").filter(|size| *size != 0);
        if size.is_some_and(|size| !size.is_multiple_of(512)) {
            return Err(refuse("The new size must be a multiple of 512"));
        }
        let is_resized = size.is_some_and(|size| size != layout.disk_size());
        let plan = Plan { version, order, is_lazy, is_deflated, data_file, is_raw, below, is_resized };
        if version < layout.version {
            self.refuse_older(drive, &plan, wish, size.unwrap_or(layout.disk_size()))?;
        }
        Ok((plan, slots))
    }

    /// What is asked of the file that the clusters lie in.
    fn apart(&self, wish: &Amendment<'_>) -> Result<(Option<Vec<u8>>, bool)> {
        let checked = &self.image.checked;
        let was_raw = checked.layout.autoclear & DATA_FILE_RAW != 0;
        let name = wish.recipe.text("data_file");
        if name.is_some() && !checked.layout.has_data_file() {
            return Err(refuse("data-file can only be set for images that use an external data file"));
        }
        if wish.recipe.is_on("data_file_raw") && !was_raw {
            return Err(refuse("data-file-raw cannot be set on existing images"));
        }
        let is_raw =
            was_raw && wish.recipe.options.get("data_file_raw").is_none_or(|_| wish.recipe.is_on("data_file_raw"));
        let name = name.map(<[u8]>::to_vec).or_else(|| checked.extensions.data_file.clone());
        Ok((name.filter(|name| !name.is_empty()), is_raw))
    }

    /// What is asked of the image below: in most versions nothing but what is there already.
    fn below(&self, wish: &Amendment<'_>) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let (name, format) = (wish.recipe.text("backing_file"), wish.recipe.text("backing_fmt"));
        if name.is_none() && format.is_none() {
            return Ok(None);
        }
        let checked = &self.image.checked;
        let (known, known_format) = (checked.backing.as_deref(), checked.extensions.backing_format.as_deref());
        if !wish.rules.as_qemu || wish.rules.version >= BELOW_UNTIL {
            let words = "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.";
            return if name == known && format == known_format { Ok(None) } else { Err(refuse(words)) };
        }
        let (name, format) = (name.or(known).unwrap_or_default(), format.or(known_format).unwrap_or_default());
        if checked.layout.autoclear & DATA_FILE_RAW != 0 && !name.is_empty() {
            return Err(Kind::Unsupported.what("Invalid argument"));
        }
        if name.len() > 1023 {
            return Err(Kind::Unsupported.what("Invalid argument"));
        }
        if name == known.unwrap_or_default() && format == known_format.unwrap_or_default() {
            return Ok(None);
        }
        let words = "Deprecated use of amend to alter the backing file; use qemu-img rebase instead";
        (wish.warn)(refuse(words))?;
        Ok(Some((name.to_vec(), format.to_vec())))
    }

    /// What no image of version 2 can have.
    fn refuse_older(&self, drive: &dyn Drive, plan: &Plan, wish: &Amendment<'_>, size: u64) -> Result<()> {
        let layout = &self.image.checked.layout;
        if plan.order != ORDER2 {
            return Err(refuse("compat=0.10 requires refcount_bits=16"));
        }
        if layout.has_data_file() {
            return Err(refuse("Cannot downgrade an image with a data file"));
        }
        if self.kept()?.iter().any(|kept| kept.size.is_some_and(|own| own != size)) {
            return Err(refuse("Internal snapshots prevent downgrade of image"));
        }
        let is_packed_anew = layout.compression != Compression::Zstd || plan.is_deflated;
        if !is_packed_anew && self.has_packed(drive)? {
            return Err(refuse(
                "Cannot downgrade an image with zstd compression type and existing compressed clusters",
            ));
        }
        let strange = layout.incompatible & !COMPRESSION;
        if strange != 0 {
            let words = "Cannot downgrade an image with incompatible features {} set";
            return Err(refuse(words).arg(instar_image::text::hex(strange)));
        }
        let count = wide(self.image.checked.bitmaps.len());
        if count > 0 && !wish.rules.as_qemu {
            return Err(refuse("compat=0.10 has no bitmaps, and the image has {}").arg(count));
        }
        Ok(())
    }

    /// Does it; whether there was anything to be done.
    fn carry_out(&self, drive: &dyn Drive, plan: &Plan, wish: &Amendment<'_>) -> Result<bool> {
        let (layout, checked) = (&self.image.checked.layout, &self.image.checked);
        let (is_older, is_newer) = (plan.version < layout.version, plan.version > layout.version);
        // What only images of version 2 leave out they leave out of themselves.
        let is_lazy = plan.is_lazy && plan.version >= 3;
        let changes_lazy = !is_older && is_lazy != (layout.compatible & LAZY_REFCOUNTS != 0);
        let changes_file =
            plan.data_file != checked.extensions.data_file || plan.is_raw != (layout.autoclear & DATA_FILE_RAW != 0);
        let changes_front = is_newer || changes_lazy || changes_file || plan.below.is_some();
        let remakes = is_older || plan.is_deflated;
        let recounts = plan.order != layout.refcount_order;
        if !remakes && !recounts {
            if changes_front {
                let mut front = Front::read(&self.image.file, layout)?;
                self.put_front(&mut front, plan);
                front.publish(drive)?;
            }
            if is_newer {
                (wish.tell)(1, 1)?;
            }
            return Ok(changes_front);
        }
        let mut work = Work::new(self.image, drive, Freed::Other)?;
        let parts = u64::from(remakes).saturating_add(u64::from(recounts));
        if remakes {
            let wanted = Wanted { is_plain: is_older, is_deflated: plan.is_deflated };
            let tell = |done, all: u64| (wish.tell)(done, all.saturating_mul(parts));
            let is_other = self.remake(&mut work, wanted, &tell)?;
            if !is_other && !recounts && checked.extensions.bitmaps.is_none() {
                // The trees are such already: the header says it, and that is all.
                self.put_front(&mut work.front, plan);
                return work.front.publish(drive).map(|()| true);
            }
        }
        if is_older && checked.extensions.bitmaps.is_some() {
            for bitmap in &checked.bitmaps {
                let own = Entry::of(bitmap);
                work.drop_bits(own.table_at, own.table_count)?;
            }
            self.replace_bitmaps(&mut work, &[])?;
        }
        work.order = plan.order;
        self.put_front(&mut work.front, plan);
        let before = parts.saturating_sub(1);
        work.publish_telling(&mut |done, all| {
            (wish.tell)(before.saturating_mul(all).saturating_add(done), parts.saturating_mul(all))
        })?;
        Ok(true)
    }

    /// Header and extensions say it.
    fn put_front(&self, front: &mut Front, plan: &Plan) {
        let layout = &self.image.checked.layout;
        let header = &mut front.header;
        header.version = plan.version.into();
        if plan.version >= 3 {
            header.refcount_order = plan.order.into();
            let flag = |bits: u64, flag: u64, is_on: bool| bits & !flag | if is_on { flag } else { 0 };
            header.compatible_features = flag(layout.compatible, LAZY_REFCOUNTS, plan.is_lazy).into();
            let autoclear = header.autoclear_features.get();
            header.autoclear_features = flag(autoclear, DATA_FILE_RAW, plan.is_raw).into();
        }
        if plan.is_deflated {
            header.incompatible_features = (layout.incompatible & !COMPRESSION).into();
            header.compression_type = 0;
        }
        if plan.version < layout.version {
            front.set(EXT_FEATURE_NAMES, None);
        } else if plan.version > layout.version
            && layout.cluster_len >= NAMED_MIN
            && front.get(EXT_FEATURE_NAMES).is_none()
        {
            front.set(EXT_FEATURE_NAMES, Some(&feature_names()));
        }
        if layout.has_data_file() {
            front.set(EXT_DATA_FILE, plan.data_file.as_deref());
        }
        if let Some((name, format)) = &plan.below {
            front.set_name(name);
            front.set(EXT_BACKING_FORMAT, Some(&format[..]).filter(|format| !format.is_empty()));
        }
    }
}

/// The version of the format that is asked for.
fn version(wish: &Amendment<'_>, layout: &Layout) -> Result<u32> {
    match wish.recipe.text("compat") {
        None => Ok(layout.version),
        Some(b"0.10" | b"v2") => Ok(2),
        Some(b"1.1" | b"v3") => Ok(3),
        Some(other) => Err(refuse("Unknown compatibility level {}").arg(other)),
    }
}

/// The width of counts that is asked for, as a power of 2.
fn order(wish: &Amendment<'_>, layout: &Layout, version: u32) -> Result<u32> {
    let Some(bits) = wish.recipe.number("refcount_bits") else { return Ok(layout.refcount_order) };
    // qemu-img counts in 32 bits.
    let bits = if wish.rules.as_qemu { bits & u64::from(u32::MAX) } else { bits };
    if !bits.is_power_of_two() || bits > 64 {
        return Err(refuse("Refcount width must be a power of two and may not exceed 64 bits"));
    }
    let order = bits.trailing_zeros();
    if version < 3 && order != ORDER2 && order != layout.refcount_order {
        let words =
            "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)";
        return Err(refuse(words));
    }
    Ok(order)
}
