//! Words in, words out: the grammar, the verbs' faces and the sentences.
#![forbid(unsafe_code)]
pub mod args;
