//! What tests share: files in memory, image builders, the qemu-img runner.

pub mod alike;
pub mod build;
pub mod census;
pub mod content;
pub mod crash;
pub mod folder;
pub mod holder;
pub mod images;
pub mod made;
pub mod mem;
pub mod oracle;
pub mod pen;
pub mod place;
pub mod program;
pub mod random;
pub mod read_only;
pub mod resized;
pub mod run;
pub mod staged;
pub mod twin;
pub mod workshop;
