//! Facts about an image as a tree of plain data: numbers, truths, texts, lists, named fields.

use crate::code::Bytes;
use crate::message;
use alloc::string::String;
use alloc::vec::Vec;

message! {
    /// One fact.
    pub enum Fact {
        /// True or false.
        Truth(bool) = 1,
        /// A number without a sign.
        Count(u64) = 2,
        /// A number with a sign.
        Signed(i64) = 3,
        /// Bytes that may be text.
        Text(Bytes) = 4,
        /// Facts in order.
        List(Vec<Fact>) = 5,
        /// Facts by name; the order in which they are shown is the reader's business.
        Fields(Vec<Field>) = 6,
        /// A number of millionths.
        Millionths(u64) = 7,
    }
}

message! {
    /// A named fact.
    pub struct Field {
        /// Its name, spelt as the JSON key.
        pub name: Bytes,
        /// Its value.
        pub value: Fact,
    }
}

impl Fact {
    /// Named facts from pairs; the shortest way to write a tree.
    pub fn fields<const N: usize>(pairs: [(&str, Fact); N]) -> Fact {
        Fact::Fields(pairs.into_iter().map(|(name, value)| Field { name: name.into(), value }).collect())
    }

    /// Adds a named fact to a `Fields`; on anything else it does nothing.
    pub fn add(&mut self, name: &str, value: impl Into<Fact>) {
        if let Fact::Fields(fields) = self {
            fields.push(Field { name: name.into(), value: value.into() });
        }
    }

    /// The fact of that name in a `Fields`.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        match self {
            Fact::Fields(fields) => fields.iter().find(|f| f.name.0 == name.as_bytes()).map(|f| &f.value),
            _ => None,
        }
    }
}

impl From<bool> for Fact {
    fn from(value: bool) -> Self {
        Fact::Truth(value)
    }
}
impl From<u64> for Fact {
    fn from(value: u64) -> Self {
        Fact::Count(value)
    }
}
impl From<u32> for Fact {
    fn from(value: u32) -> Self {
        Fact::Count(value.into())
    }
}
impl From<i64> for Fact {
    fn from(value: i64) -> Self {
        Fact::Signed(value)
    }
}
impl From<&str> for Fact {
    fn from(value: &str) -> Self {
        Fact::Text(value.into())
    }
}
impl From<&[u8]> for Fact {
    fn from(value: &[u8]) -> Self {
        Fact::Text(value.into())
    }
}
impl From<String> for Fact {
    fn from(value: String) -> Self {
        Fact::Text(value.into())
    }
}
impl From<Bytes> for Fact {
    fn from(value: Bytes) -> Self {
        Fact::Text(value)
    }
}
impl From<Vec<Fact>> for Fact {
    fn from(value: Vec<Fact>) -> Self {
        Fact::List(value)
    }
}
