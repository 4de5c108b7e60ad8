//! Files whose names are hard to say.

use super::Recipe;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Names, as they would be typed.
const NAMES: &[&[u8]] = &[
    b"two words.img",
    b" leading and trailing ",
    b"new\nline.img",
    b"tab\tand\rreturn.img",
    b"bell\x07and\x1b[31mred.img",
    b"delete\x7f.img",
    "ünïcödé-日本語-🦀.img".as_bytes(),
    "line\u{2028}separator\u{85}\u{200f}.img".as_bytes(),
    b"invalid-\xff\xfe-\xc3.img",
    b"overlong-\xc0\xaf-surrogate-\xed\xa0\x80.img",
    b"quote'\"back\\slash`.img",
    b"comma,equals=.img",
    b"percent%20%s.img",
    b"./file:x.img",
    b"./json:{}.img",
    b"./nbd:localhost:1.img",
    b"./a:b.img",
    b"file:plain.img",
    b"./-dash.img",
    b"-",
    b"dots...img",
    b"./././here.img",
    b"sub/in-a-folder.img",
    b"star*[a-z]?.img",
    b"dollar$HOME~.img",
    b"#block123.img",
    b"{}.img",
];

/// Each name with two formats.
pub fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    let long = format!("{}.img", "n".repeat(250)).into_bytes();
    let deep = format!("./{}sub/deep.img", "sub/../".repeat(140)).into_bytes();
    for (at, name) in NAMES.iter().map(|n| n.to_vec()).chain([long, deep]).enumerate() {
        for format in ["qcow2", ["raw", "vmdk", "vdi", "vpc", "qed"][at % 5]] {
            let id = format!("{format} called {}", name.escape_ascii());
            let typed = name.clone();
            all.push(Recipe::new(id, format, OsStr::from_bytes(&name), move |kitchen| {
                std::fs::create_dir(kitchen.path("sub")).map_err(|e| e.to_string())?;
                kitchen.create(&format!("-f {format} plain 1M"))?;
                let real = typed.strip_prefix(b"file:").unwrap_or(&typed);
                std::fs::rename(kitchen.path("plain"), kitchen.path(OsStr::from_bytes(real))).map_err(|e| e.to_string())
            }));
        }
    }
    all
}
