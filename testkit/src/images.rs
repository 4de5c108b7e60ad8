//! Many images of every kind, made with the real programs: the same ones for the same seed.

pub mod chains;
pub mod foreign;
pub mod luks;
pub mod names;
pub mod options;
pub mod patch;
pub mod qcow2;

use crate::oracle::{Oracle, maker, version};
use crate::run::End;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How to make one image.
pub struct Recipe {
    /// What it is about.
    pub id: String,
    /// The name of the format.
    pub format: &'static str,
    /// The name of the file.
    pub name: OsString,
    /// Whether it is worth mentioning that it could not be made.
    pub must: bool,
    make: Box<Make>,
}

/// What makes an image.
type Make = dyn Fn(&Kitchen<'_>) -> Result<(), String> + Send + Sync;

/// Where an image is made.
pub struct Kitchen<'a> {
    /// A folder of its own.
    pub folder: &'a Path,
    /// The name that the image is to have.
    pub name: &'a OsStr,
    oracle: &'a Oracle,
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is about.
    pub id: String,
    /// The name of the format.
    pub format: &'static str,
    /// The folder it lies in.
    pub folder: PathBuf,
    /// The name of the file, as it would be typed.
    pub name: OsString,
}

/// A passphrase that all encrypted images share.
pub const SECRET: &str = "secret,id=sec0,data=123456";

impl Recipe {
    /// An image called `name`.
    pub fn new(
        id: impl Into<String>,
        format: &'static str,
        name: impl AsRef<OsStr>,
        make: impl Fn(&Kitchen<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Recipe { id: id.into(), format, name: name.as_ref().to_owned(), must: true, make: Box::new(make) }
    }

    /// The same, of which it is not known whether it can be made.
    #[must_use]
    pub fn perhaps(mut self) -> Self {
        self.must = false;
        self
    }

    /// One command of `qemu-img create`, its words separated by blanks; `@` stands for the name.
    pub fn create(id: impl Into<String>, format: &'static str, line: impl Into<String>) -> Self {
        let line = line.into();
        Self::new(id, format, format!("disk.{format}"), move |kitchen| kitchen.create(&line))
    }
}

impl Kitchen<'_> {
    /// A qemu-img command.
    pub fn img<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<(), String> {
        let run = self.oracle.img().folder(self.folder).args(words);
        match run.go() {
            ran if ran.end == End::Code(0) => Ok(()),
            ran => Err(format!("{}\n{}{}", run.line(), ran.out(), ran.err())),
        }
    }

    /// `qemu-img create -q --object secret…` and the words of a line; `@` stands for the name.
    pub fn create(&self, line: &str) -> Result<(), String> {
        let words = line.split_whitespace().map(|w| if w == "@" { self.name } else { OsStr::new(w) });
        let before = ["create", "-q", "--object", SECRET].map(OsStr::new);
        self.img(before.into_iter().chain(words))
    }

    /// Commands of qemu-io on an image.
    pub fn io(&self, format: &str, name: &OsStr, commands: &[&str]) -> Result<(), String> {
        let mut run = self.oracle.io().folder(self.folder).args(["-f", format]);
        for command in commands {
            run = run.args(["-c", command]);
        }
        match run.arg(name).go() {
            ran if ran.end == End::Code(0) => Ok(()),
            ran => Err(format!("qemu-io {commands:?}\n{}{}", ran.out(), ran.err())),
        }
    }

    /// The path of a file here.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.join(name.as_ref())
    }

    /// Writes over a place in the image.
    pub fn patch(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        patch::write(&self.path(self.name), at, bytes)
    }

    /// A new file.
    pub fn file(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> Result<(), String> {
        std::fs::write(self.path(name), bytes).map_err(|e| e.to_string())
    }

    /// The same place with the tools of another version, if it is here.
    pub fn with(&self, other: &str) -> Result<Kitchen<'_>, String> {
        let oracle = version(other).ok_or_else(|| format!("no oracle {other}"))?;
        Ok(Kitchen { oracle, ..*self })
    }
}

/// Every recipe there is.
pub fn recipes(seed: u64) -> Vec<Recipe> {
    let mut all = Vec::new();
    all.extend(options::alone());
    all.extend(options::sizes());
    all.extend(options::pairs(seed));
    all.extend(qcow2::recipes());
    all.extend(luks::recipes());
    all.extend(chains::recipes(seed));
    all.extend(names::recipes());
    all.extend(foreign::recipes());
    all
}

/// Makes the images, each in a folder of its own under `under`, and tells which could not be made.
pub fn make(under: &Path, recipes: &[Recipe]) -> (Vec<Image>, Vec<String>) {
    let made = Mutex::new(Vec::new());
    let failed = Mutex::new(Vec::new());
    each(recipes, |at, recipe| {
        let folder = under.join(format!("{at:03}"));
        std::fs::create_dir_all(&folder).expect("a folder for an image");
        let kitchen = Kitchen { folder: &folder, name: &recipe.name, oracle: maker() };
        match (recipe.make)(&kitchen) {
            Ok(()) => {
                let image = Image { id: recipe.id.clone(), format: recipe.format, folder, name: recipe.name.clone() };
                made.lock().expect("the list").push((at, image));
            }
            Err(why) if recipe.must => failed.lock().expect("the list").push(format!("{}: {why}", recipe.id)),
            Err(_) => {}
        }
    });
    let mut made = made.into_inner().expect("the list");
    made.sort_by_key(|(at, _)| *at);
    settle(under);
    (made.into_iter().map(|(_, image)| image).collect(), failed.into_inner().expect("the list"))
}

/// Waits until the file system has decided how much space each file takes, which both programs will print.
pub fn settle(folder: &Path) {
    let folder = std::fs::File::open(folder).expect("the folder");
    rustix::fs::syncfs(&folder).expect("syncfs");
}

/// Does something for every item, several at once; a panic in one reaches the caller.
pub fn each<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?)))
                {
                    work(at, item);
                }
            });
        }
    });
}
