//! Images of formats that qemu-img reads but cannot write.

use super::Recipe;
use crate::build::dmg::{Chunk, Fork, kind};
use crate::build::{bochs, cloop, dmg};

/// All of them.
pub fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (old, extent) in [(false, 65536), (true, 65536), (false, 512), (false, 1 << 20)] {
        all.push(given(format!("bochs of extents of {extent}, old: {old}"), "bochs", move || {
            bochs::build(&bochs::Bochs { old, extent, ..Default::default() })
        }));
    }
    for block in [512, 65536] {
        all.push(given(format!("cloop of blocks of {block}"), "cloop", move || cloop::build(block, &[7; 200_000])));
    }
    for fork in [Fork::Xml, Fork::Resource] {
        for what in [kind::RAW, kind::ZERO] {
            let id = format!("dmg of {what:#x}, as a list: {}", fork == Fork::Xml);
            all.push(given(id, "dmg", move || {
                let len = if what == kind::RAW { 1024 } else { 0 };
                let chunks = [
                    Chunk { kind: what, sector: 0, count: 2, at: 0, len },
                    Chunk { kind: kind::END, sector: 2, count: 0, at: len, len: 0 },
                ];
                dmg::build(&[9; 1024], &[dmg::mish(0, &chunks)], fork, 2)
            }));
        }
    }
    all
}

fn given(id: String, format: &'static str, bytes: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Recipe {
    Recipe::new(id, format, format!("disk.{format}"), move |kitchen| kitchen.file(kitchen.name, &bytes()))
}
