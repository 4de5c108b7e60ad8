//! How messages become bytes: little-endian, length-prefixed, and checked on the way back in.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// Nesting that a message may reach; deeper ones are refused.
pub const DEPTH_MAX: u32 = 16;

/// The bytes are not a message of the expected kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Bytes of a message that have not been read yet.
pub struct Input<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Input<'a> {
    /// All of `bytes`, unread.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input { rest: bytes, depth: 0 }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<T, Malformed> {
        if self.depth >= DEPTH_MAX {
            return Err(Malformed);
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}

/// A value that can cross the wall.
pub trait Code: Sized {
    /// Append the value to `out`.
    fn put(&self, out: &mut Vec<u8>);
    /// Read a value back; never trusts a length it has not seen the bytes for.
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed>;
}

/// The whole message as bytes.
pub fn encode<T: Code>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// A message that must fill `bytes` exactly.
pub fn decode<T: Code>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut input = Input::new(bytes);
    let value = T::get(&mut input)?;
    if input.left() == 0 { Ok(value) } else { Err(Malformed) }
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Code for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
                Ok(<$t>::from_le_bytes(input.array()?))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i64);

impl Code for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

impl<T: Code> Code for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        if bool::get(input)? { Ok(Some(T::get(input)?)) } else { Ok(None) }
    }
}

impl<T: Code> Code for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        Ok(Box::new(T::get(input)?))
    }
}

/// A list. Every element is at least one byte long, so a count beyond the bytes at hand is a lie and allocates nothing.
impl<T: Code> Code for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (u32::try_from(self.len()).unwrap_or(u32::MAX)).put(out);
        for item in self {
            item.put(out);
        }
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let count = usize::try_from(u32::get(input)?).map_err(|_| Malformed)?;
        if count > input.left() {
            return Err(Malformed);
        }
        input.nested(|input| {
            let mut list = Vec::new();
            for _ in 0..count {
                list.push(T::get(input)?);
            }
            Ok(list)
        })
    }
}

/// A byte string: names and texts that came out of an image are bytes, not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bytes(pub Vec<u8>);

impl core::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Bytes(text.into_bytes())
    }
}

impl Code for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        (u32::try_from(self.0.len()).unwrap_or(u32::MAX)).put(out);
        out.extend_from_slice(&self.0);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let len = usize::try_from(u32::get(input)?).map_err(|_| Malformed)?;
        Ok(Bytes(input.take(len)?.to_vec()))
    }
}

/// Bytes that never show themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl Code for Secret {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        Vec::get(input).map(Secret)
    }
}

/// Declares a structure that crosses the wall, field after field.
#[macro_export]
macro_rules! message {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }
        impl $crate::code::Code for $name {
            fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                $($crate::code::Code::put(&self.$field, out);)*
            }
            fn get(input: &mut $crate::code::Input<'_>) -> core::result::Result<Self, $crate::code::Malformed> {
                Ok($name { $($field: $crate::code::Code::get(input)?,)* })
            }
        }
    };
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident $(($inner:ty))? = $tag:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$vmeta])* $variant $(($inner))?,)* }
        impl $crate::code::Code for $name {
            // An enum of one variant is still a list that grows.
            #[allow(irrefutable_let_patterns)]
            fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                $($crate::message!(@put self, out, $name, $variant, $tag $(, $inner)?);)*
            }
            fn get(input: &mut $crate::code::Input<'_>) -> core::result::Result<Self, $crate::code::Malformed> {
                match <u8 as $crate::code::Code>::get(input)? {
                    $($tag => Ok($crate::message!(@get input, $name, $variant $(, $inner)?)),)*
                    _ => Err($crate::code::Malformed),
                }
            }
        }
    };
    (@put $self:ident, $out:ident, $name:ident, $variant:ident, $tag:literal, $inner:ty) => {
        if let $name::$variant(inner) = $self {
            let tag: u8 = $tag;
            $crate::code::Code::put(&tag, $out);
            $crate::code::Code::put(inner, $out);
        }
    };
    (@put $self:ident, $out:ident, $name:ident, $variant:ident, $tag:literal) => {
        if let $name::$variant = $self {
            let tag: u8 = $tag;
            $crate::code::Code::put(&tag, $out);
        }
    };
    (@get $input:ident, $name:ident, $variant:ident, $inner:ty) => {
        $name::$variant(<$inner as $crate::code::Code>::get($input)?)
    };
    (@get $input:ident, $name:ident, $variant:ident) => { $name::$variant };
}
