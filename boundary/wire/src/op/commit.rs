//! `commit`: what an image has goes into one below it.

use super::convert::Request as Copy;
use crate::io::Granted;
use crate::message;
use alloc::boxed::Box;
use alloc::vec::Vec;

message! {
    /// Put what the upper layers have into one below.
    pub struct Request {
        /// What is copied: the source is the image, the target the one below.
        pub copy: Box<Copy>,
        /// The image has nothing of its own afterwards.
        pub empties: bool,
        /// Nothing is done but to open the images, and tell of them.
        pub looks: bool,
    }
}

impl Request {
    /// The files granted with the request.
    pub fn files(&self) -> Vec<&Granted> {
        self.copy.files()
    }
}
