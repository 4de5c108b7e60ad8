//! `rebase`: an image stands on another one from now on.

use super::convert::Request as Copy;
use crate::code::Bytes;
use crate::io::Granted;
use crate::message;
use alloc::boxed::Box;
use alloc::vec::Vec;

message! {
    /// Have it stand on another image.
    pub struct Request {
        /// What makes sure that it reads as before: what it had from below goes into itself. The target is the image, with
        /// what it will stand on.
        pub copy: Box<Copy>,
        /// That is done. If not, whatever was below is taken to be the same.
        pub is_safe: bool,
        /// The name that is written down; empty if it is to stand on nothing.
        pub name: Bytes,
        /// The format that is written down with it.
        pub format: Option<Bytes>,
    }
}

impl Request {
    /// The files granted with the request.
    pub fn files(&self) -> Vec<&Granted> {
        self.copy.files()
    }
}
