//! Images as we make them, to begin with.

use crate::disk::{Disk, File};
use instar_image::{Fact, Recipe, Secret};
use instar_ops::convert::copy;
use instar_ops::cx::{Alone, Cx};
use instar_wire::op::convert::{Bitmaps, Goal, Progress, Request, Target};
use instar_wire::op::{New, Rules, Source};

/// What an image is made of.
pub struct Order<'o> {
    /// Its format.
    pub format: &'o str,
    /// Its options.
    pub options: Fact,
    /// Size of its disk.
    pub size: u64,
    /// What it holds, from its beginning on.
    pub bytes: &'o [u8],
    /// That is packed.
    pub packed: bool,
    /// What it is encrypted with, if it is.
    pub key: Option<&'o [u8]>,
}

impl Order<'_> {
    /// The files of it, of which the first is the image.
    pub fn files(&self) -> Vec<File> {
        let disk = Disk::new(vec![File::default(), File::of(self.bytes)], 1, 2 << 20);
        let emit = |_: &[u8]| Ok(());
        let crew = Alone { drive: &disk, emit: &emit };
        let cx = Cx { io: &disk, drive: &disk, crew: &crew, emit: &emit };
        let new = New {
            recipe: Recipe { format: self.format.into(), size: self.size, options: self.options.clone() },
            file: disk.grant(0),
            beside: None,
            backing: None,
            key: self.key.map(|key| Secret(key.to_vec())),
            name: "a.vmdk".into(),
            seed: Secret(b"seed".to_vec()),
            time: 1_000_000_000,
        };
        let target = Target {
            goal: Goal::New(Box::new(new)),
            at: 0,
            len: Some(self.size),
            is_zero: true,
            is_clean: true,
            compress: self.packed,
        };
        let raw = instar_image::Granted { pinned: Some("raw".into()), ..disk.grant(1) };
        let request = Request {
            sources: vec![Source::whole(raw)],
            rules: Rules { as_qemu: false, version: 0 },
            snapshot: None,
            share: instar_wire::op::convert::Share::Whole,
            target,
            sparse: 4096,
            salvage: false,
            offload: false,
            bitmaps: Bitmaps::None,
            progress: Progress::Passed,
        };
        copy(&request, None, &cx).expect("an image that can be made");
        let mut files = disk.into_files();
        files.remove(1);
        files
    }
}
