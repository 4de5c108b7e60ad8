//! Slots for keys that change: which passphrases open a container then, whatever happens meanwhile.

use super::super::Luks;
use super::super::disk::{Header1, MAGIC, SLOT_ENABLED};
use crate::qcow2::Qcow2;
use alloc::collections::BTreeMap;
use alloc::format;
extern crate std;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_image::edit::{Amended, Amendment};
use instar_image::{Drive, Fact, File, FileId, Format, Granted, Io, Options, Purpose, Random, Recipe, Result, Secret};
use instar_testkit::crash::{MemFiles, Recorder, Trouble, sweep};
use instar_testkit::oracle::oracles;
use instar_testkit::place::Scratch;
use instar_testkit::twin::create;
use instar_wire::fact::Field;
use instar_wire::op::Rules;
use std::path::Path;
use zerocopy::{FromBytes, IntoBytes};

const TOP: FileId = FileId(0);

/// A wish: its options, the passphrase that opens the container, and whether it is forced.
#[derive(Clone, Copy)]
struct Wish<'w> {
    format: &'static str,
    list: &'w str,
    key: &'w str,
    is_forced: bool,
}

fn secret(text: &str) -> Secret {
    Secret(text.as_bytes().to_vec())
}

impl Wish<'_> {
    fn prefix(&self) -> &'static str {
        if self.format == "qcow2" { "encrypt." } else { "" }
    }

    fn recipe(&self) -> Recipe {
        let fields = self.list.split(',').map(|word| {
            let (key, text) = word.split_once('=').expect("a key and a value");
            let value = match key {
                "keyslot" | "iter-time" => Fact::Count(text.parse().expect("a number")),
                _ => text.as_bytes().into(),
            };
            Field { name: (&*format!("{}{key}", self.prefix())).into(), value }
        });
        Recipe { format: self.format.into(), size: 0, options: Fact::Fields(fields.collect()) }
    }

    fn named(&self, key: &str) -> Option<Secret> {
        self.list.split(',').find_map(|word| word.strip_prefix(key)).map(secret)
    }

    fn go(&self, drive: &dyn Drive, granted: &Granted) -> Result<Amended> {
        let image = opened(drive, granted, self.format, self.key, Purpose::Write)?;
        let (new, old, recipe) = (self.named("new-secret="), self.named("old-secret="), self.recipe());
        let wish = Amendment {
            recipe: &recipe,
            rules: &Rules { as_qemu: true, version: 1100 },
            is_forced: self.is_forced,
            new_secret: new.as_ref(),
            old_secret: old.as_ref(),
            random: RefCell::new(Random::new(self.list.as_bytes())),
            tell: &|_, _| Ok(()),
            warn: &|_| Ok(()),
        };
        image.edit()?.amend(drive, &wish)
    }
}

fn opened<'f>(
    files: &'f dyn Io,
    granted: &Granted,
    format: &str,
    key: &str,
    purpose: Purpose,
) -> Result<alloc::boxed::Box<dyn instar_image::Image + 'f>> {
    let options = Options { purpose, key: Some(secret(key)), ..Options::default() };
    let image = match format {
        "qcow2" => Qcow2.open(File::new(files, granted), &options)?,
        _ => Luks.open(File::new(files, granted), &options)?,
    };
    image.unlock()?;
    Ok(image)
}

/// All that decides which passphrases open a container.
fn decisive(files: &MemFiles) -> Vec<u8> {
    let bytes = files.bytes(TOP);
    let start = (0..bytes.len()).step_by(512).find(|at| bytes[*at..].starts_with(&MAGIC)).expect("a header");
    let header = Header1::read_from_prefix(&bytes[start..]).expect("a header").0;
    let mut all = header.as_bytes().to_vec();
    for slot in header.slots.iter().filter(|slot| slot.active.get() == SLOT_ENABLED) {
        let from = start + slot.key_material_offset.get() as usize * 512;
        all.extend_from_slice(&bytes[from..from + 4000 * header.key_bytes.get() as usize]);
    }
    all
}

/// Which of these passphrases open the container, which takes its time.
fn open_with(files: &MemFiles, format: &str, keys: &[&str]) -> Vec<bool> {
    let granted = files.granted(TOP);
    keys.iter().map(|key| opened(files, &granted, format, key, Purpose::Read).is_ok()).collect()
}

const KEYS: [&str; 4] = ["one", "two", "three", ""];

/// Does it, after a look at all that a crash may leave: at any moment some passphrase opens it that opened it before or
/// opens it then.
fn survives(start: &MemFiles, wish: Wish<'_>) -> MemFiles {
    let granted = start.granted(TOP);
    let recorder = Recorder::new(start, Trouble::Never);
    let about = format!("{} {} by {}", wish.format, wish.list, wish.key);
    assert_eq!(wish.go(&recorder, &granted).unwrap_or_else(|e| panic!("{about}: {e:?}")), Amended::Done, "{about}");
    let (whole, ..) = recorder.end();
    let (before, after) = (open_with(start, wish.format, &KEYS), open_with(&whole, wish.format, &KEYS));
    let known = RefCell::new(BTreeMap::new());
    let swept = sweep(
        start,
        |drive| wish.go(drive, &granted).map(drop),
        |files, how| {
            let mut known = known.borrow_mut();
            let now = known.entry(decisive(files)).or_insert_with(|| open_with(files, wish.format, &KEYS)).clone();
            if how.is_over() {
                return if now == after { Ok(()) } else { Err(format!("{now:?}, not {after:?}")) };
            }
            let kept = (0..KEYS.len()).all(|key| now[key] || !(before[key] && after[key]));
            let strange = (0..KEYS.len()).any(|key| now[key] && !before[key] && !after[key]);
            let lost = !now.contains(&true) && after.contains(&true);
            if kept && !strange && !lost { Ok(()) } else { Err(format!("{now:?} between {before:?} and {after:?}")) }
        },
    );
    swept.unwrap_or_else(|bad| panic!("{about}: {bad:?}"));
    whole
}

fn make(path: &Path, format: &str) -> MemFiles {
    let secret = "--object secret,id=one,data=one";
    let list = match format {
        "qcow2" => "encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=1,encrypt.cipher-alg=aes-128",
        _ => "key-secret=one,iter-time=1,cipher-alg=aes-128",
    };
    create(path, &format!("-f {format} {secret} -o {list} a.img 64k"));
    MemFiles::load(path, &["a.img"])
}

/// All versions agree on which passphrases open it.
fn agrees(files: &MemFiles, path: &Path, format: &str) {
    files.save(path);
    let ours = open_with(files, format, &KEYS);
    let name = if format == "qcow2" { "encrypt.key-secret" } else { "key-secret" };
    for oracle in oracles() {
        let theirs = KEYS.map(|key| {
            let (secret, image) =
                (format!("secret,id=k,data={key}"), format!("driver={format},file.filename=a.img,{name}=k"));
            let words = ["--object", &secret, "--image-opts", "-c", "read 0 64k", &image];
            let ran = oracle.io().folder(path).args(words).go();
            ran.out().contains("read 65536/65536")
        });
        assert_eq!(ours, theirs, "{format}, {}", oracle.version);
    }
}

#[test]
fn slots_survive_every_crash() {
    let scratch = Scratch::new("luks-slots");
    let path = scratch.path();
    for format in ["luks", "qcow2"] {
        let mut files = make(path, format);
        for (list, key, is_forced, wanted) in [
            ("state=active,new-secret=two,iter-time=1", "one", false, [true, true, false, false]),
            ("state=active,new-secret=three,keyslot=6,iter-time=1", "two", false, [true, true, true, false]),
            ("state=inactive,keyslot=0", "two", false, [false, true, true, false]),
            ("state=inactive,old-secret=three", "two", false, [false, true, false, false]),
            ("state=active,new-secret=three,keyslot=1,iter-time=1", "two", true, [false, false, true, false]),
            ("state=active,new-secret=one,keyslot=7,iter-time=1", "three", false, [true, false, true, false]),
            ("state=inactive,old-secret=three", "three", false, [true, false, false, false]),
        ] {
            files = survives(&files, Wish { format, list, key, is_forced });
            assert_eq!(open_with(&files, format, &KEYS), wanted, "{format}: {list}");
            agrees(&files, path, format);
        }
        // Nobody can read it any more: that is what was asked for.
        let list = "state=inactive,keyslot=7";
        let whole = survives(&files, Wish { format, list, key: "one", is_forced: true });
        assert_eq!(open_with(&whole, format, &KEYS), [false; 4], "{format}");
        agrees(&whole, path, format);
    }
}

#[test]
fn what_would_lose_all_is_refused() {
    let scratch = Scratch::new("luks-refused");
    let path = scratch.path();
    for format in ["luks", "qcow2"] {
        let files = make(path, format);
        for (list, said) in [
            ("state=active", "'new-secret' is required to activate a keyslot"),
            ("new-secret=two", "Parameter 'state' is missing"),
            ("state=on", "Parameter '{}' does not accept value '{}'"),
            ("state=active,new-secret=two,old-secret=one", "'old-secret' must not be given when activating keyslots"),
            (
                "state=active,new-secret=two,keyslot=0",
                "Refusing to overwrite active keyslot {} - please erase it first",
            ),
            ("state=active,new-secret=two,keyslot=8", "Invalid keyslot {} specified, must be between 0 and {}"),
            ("state=inactive", "To erase keyslot(s), either explicit keyslot index"),
            ("state=inactive,keyslot=0", "Attempt to erase the only active keyslot {}"),
            ("state=inactive,keyslot=3", "Given keyslot {} is already erased (inactive) "),
            ("state=inactive,old-secret=one", "All the active keyslots match the (old) password"),
            ("state=inactive,old-secret=two", "No keyslots match given (old) password for erase operation"),
            ("state=inactive,keyslot=0,old-secret=two", "Given keyslot {} doesn't contain the given old password"),
            ("state=inactive,new-secret=two", "'new-secret' must not be given when erasing keyslots"),
            ("state=inactive,iter-time=1", "'iter-time' must not be given when erasing keyslots"),
        ] {
            let recorder = Recorder::new(&files, Trouble::Never);
            let error = Wish { format, list, key: "one", is_forced: false }.go(&recorder, &files.granted(TOP));
            let words = String::from_utf8_lossy(&error.map(drop).unwrap_err().what.0).into_owned();
            assert!(words.starts_with(said), "{format}, {list}: {words}");
            assert!(recorder.end().0.bytes(TOP) == files.bytes(TOP), "{format}, {list}");
        }
    }
}

#[test]
fn all_slots_are_filled_and_no_more() {
    let scratch = Scratch::new("luks-full");
    let path = scratch.path();
    let mut files = make(path, "luks");
    let wish = Wish { format: "luks", list: "state=active,new-secret=two,iter-time=1", key: "one", is_forced: false };
    for _ in 1..8 {
        let recorder = Recorder::new(&files, Trouble::Never);
        wish.go(&recorder, &files.granted(TOP)).unwrap();
        files = recorder.end().0;
    }
    let recorder = Recorder::new(&files, Trouble::Never);
    let error = wish.go(&recorder, &files.granted(TOP)).map(drop).unwrap_err();
    assert_eq!(error.what.0, b"Can't add a keyslot - all keyslots are in use");
    let list = "state=active,new-secret=three,keyslot=4,iter-time=1";
    let recorder = Recorder::new(&files, Trouble::Never);
    Wish { format: "luks", list, key: "one", is_forced: true }.go(&recorder, &files.granted(TOP)).unwrap();
    files = recorder.end().0;
    assert_eq!(open_with(&files, "luks", &KEYS), [true, true, true, false]);
    agrees(&files, path, "luks");
}
