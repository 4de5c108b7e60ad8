//! What can be seen of an image and of all below it, fit to be held against what the real program has made.

use crate::start::Scene;
use instar_testkit::oracle::Oracle;
use instar_testkit::run::{End, Ran, Run};
use instar_tests::marks::marks;
use instar_tests::report::difference;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What an image says and holds.
pub struct Seen {
    /// What the layers say of themselves, top first; nothing if that cannot be learnt.
    pub told: Vec<Value>,
    /// A name of each thing, and the thing as text.
    texts: Vec<(String, String)>,
    /// A name of each disk, and its bytes.
    disks: Vec<(String, Vec<u8>)>,
}

/// Keys of `info` that depend on the moment, on chance or on the order of clusters in the file.
const VOLATILE: &[&str] = &[
    "children",
    "actual-size",
    "date-sec",
    "date-nsec",
    "cid",
    "parent-cid",
    "uuid",
    "iters",
    "master-key-iters",
    "key-offset",
    "payload-offset",
];

fn settled(value: Value) -> Value {
    match value {
        Value::Object(all) => {
            let kept = all.into_iter().filter(|(key, _)| !VOLATILE.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key, settled(value))).collect())
        }
        Value::Array(all) => Value::Array(all.into_iter().map(settled).collect()),
        other => other,
    }
}

/// Lines of a map without places, each as long as it can be. Zeroes may be written out or only said, and files may have
/// holes where there are some: of these, the layer alone counts. `loose`: which of the layers below has something does
/// not count.
fn ranges(text: &str, disk: &[u8], loose: bool) -> String {
    let Ok(Value::Array(all)) = serde_json::from_str(text) else { return text.to_owned() };
    let mut out: Vec<(String, u64, u64)> = Vec::new();
    for entry in all {
        let told = |keys: &[&str]| {
            let told = keys.iter().map(|key| format!("{key} {}", entry.get(key).unwrap_or(&Value::Null)));
            told.collect::<Vec<String>>().join(", ")
        };
        let number = |key: &str| entry[key].as_u64().unwrap_or(0);
        let is_top = number("depth") == 0 && entry["present"] != false;
        let (zero, full) = match loose && !is_top {
            true => ("below".into(), "below".into()),
            false => (told(&["depth", "present"]), told(&["depth", "present", "data", "compressed"])),
        };
        let (start, len) = (number("start"), number("length"));
        for at in (start..start + len).step_by(512) {
            let len = (start + len - at).min(512);
            let bytes = disk.get(at as usize..(at + len) as usize).unwrap_or_default();
            let kind = if bytes.iter().all(|byte| *byte == 0) { &zero } else { &full };
            match out.last_mut() {
                Some(last) if last.0 == *kind && last.1 + last.2 == at => last.2 += len,
                _ => out.push((kind.clone(), at, len)),
            }
        }
    }
    out.iter().map(|(kind, start, len)| format!("{start} +{len}: {kind}\n")).collect()
}

/// The end of a program that was asked something, and what it said if that went wrong.
fn ended(run: &Run) -> (String, Vec<u8>) {
    let ran = run.go();
    let said = if ran.end == End::Code(0) { String::new() } else { ran.err() };
    (format!("{:?} {said}", ran.end), ran.stdout)
}

/// What `check` counts, but for what depends on where clusters are: if anything is wrong, that is all of it.
fn counts(ran: &Ran) -> String {
    if ran.end != End::Code(0) {
        return format!("{:?}\n", ran.end);
    }
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
    let keys = ["corruptions", "leaks", "check-errors", "total-clusters", "compressed-clusters"];
    keys.iter().map(|key| format!("{key} {}\n", told.get(key).unwrap_or(&Value::Null))).collect()
}

/// The bytes of a disk as the oracle reads them.
fn content(oracle: &Oracle, folder: &Path, words: &[String]) -> Result<Vec<u8>, String> {
    let raw = folder.join("seen.raw");
    let run = oracle.img().folder(folder).args(["convert", "-O", "raw"]).args(words).arg("seen.raw");
    let ran = run.go();
    let bytes = if ran.end == End::Code(0) { fs::read(&raw).map_err(|e| e.to_string()) } else { Err(ran.err()) };
    let _ = fs::remove_file(raw);
    bytes
}

/// Looks at it; `deep`: at every file of the folder, too.
pub fn look(oracle: &Oracle, folder: &Path, scene: &Scene, deep: bool) -> Seen {
    let mut seen = Seen { told: Vec::new(), texts: Vec::new(), disks: Vec::new() };
    let words = scene.named();
    let ask = |verb: &str, json: &str| oracle.img().folder(folder).args([verb, json]);
    let (end, out) = ended(&ask("info", "--output=json").arg("--backing-chain").args(&words));
    let told = settled(serde_json::from_slice(&out).unwrap_or_default());
    seen.told = told.as_array().cloned().unwrap_or_default();
    let pretty = serde_json::to_string_pretty(&told).unwrap_or_default();
    seen.texts.push(("info".into(), format!("{end}\n{pretty}")));
    seen.disk(oracle, folder, "the disk", &words);
    let snapshots = seen.told.first().and_then(|told| told["snapshots"].as_array()).cloned().unwrap_or_default();
    for snapshot in &snapshots {
        let of = format!("snapshot.id={}", snapshot["id"].as_str().unwrap_or_default());
        seen.disk(oracle, folder, &of, &[vec!["-l".to_owned(), of.clone()], words.clone()].concat());
    }
    if deep {
        for (name, format) in &scene.below {
            seen.disk(oracle, folder, name, &["-f".into(), (*format).into(), name.clone()]);
            let ran = ask("check", "--output=json").args(["-f", format, name]).go();
            seen.texts.push((format!("check of {name}"), counts(&ran)));
        }
    }
    let (end, out) = ended(&ask("map", "--output=json").args(&words));
    let disk = seen.disks.first().map_or(&[][..], |(_, bytes)| bytes);
    let map = ranges(&String::from_utf8_lossy(&out), disk, scene.is_loose);
    seen.texts.push(("map".into(), format!("{end}\n{map}")));
    let ran = ask("check", "--output=json").args(&words).go();
    // What is wrong is told with the place where it is.
    seen.texts.push(("check".into(), counts(&ran)));
    if scene.format == "qcow2" {
        let marks = marks(&folder.join("disk"));
        let told = |(bitmap, bits): &(_, Vec<u8>)| format!("{bitmap:?} {}\n", runs(bits));
        seen.texts.push(("bitmaps".into(), marks.iter().map(told).collect()));
    }
    seen
}

/// Which bytes of a bitmap are set, in short.
fn runs(bits: &[u8]) -> String {
    let mut out: Vec<(usize, u8, usize)> = Vec::new();
    for (at, byte) in bits.iter().enumerate() {
        match out.last_mut() {
            Some(last) if last.1 == *byte => last.2 += 1,
            _ => out.push((at, *byte, 1)),
        }
    }
    let set = out.iter().filter(|(_, byte, _)| *byte != 0);
    set.map(|(at, byte, len)| format!("\n  {at}: {byte:02x} x{len}")).collect()
}

impl Seen {
    fn disk(&mut self, oracle: &Oracle, folder: &Path, what: &str, words: &[String]) {
        match content(oracle, folder, words) {
            Ok(bytes) => self.disks.push((what.to_owned(), bytes)),
            Err(why) => self.texts.push((what.to_owned(), why)),
        }
    }

    /// The first thing that is not as in the other, in short: its name, and how it differs.
    pub fn differs(&self, want: &Seen) -> Option<(String, String)> {
        // Bytes that are lost are the worst.
        for (what, bytes) in &want.disks {
            let Some((_, ours)) = self.disks.iter().find(|(name, _)| name == what) else {
                let why = self.texts.iter().find(|(name, _)| name == what).map(|(_, why)| why.as_str());
                return Some((what.clone(), format!("  {what} cannot be read: {}\n", why.unwrap_or("no such"))));
            };
            if ours != bytes {
                let at = ours.iter().zip(bytes).position(|(a, b)| a != b);
                let number = ours.iter().zip(bytes).filter(|(a, b)| a != b).count();
                let at = at.map_or("at its end".into(), |at| format!("at {at} ({:#x} not {:#x})", ours[at], bytes[at]));
                let lens = format!("{} bytes, not {}", ours.len(), bytes.len());
                return Some((what.clone(), format!("  {what} differs {at}, {number} bytes; {lens}\n")));
            }
        }
        let other =
            |(what, text): &&(String, String)| !self.texts.iter().any(|(name, ours)| name == what && ours == text);
        let all: Vec<&(String, String)> = want.texts.iter().filter(other).collect();
        let (what, text) = all.iter().find(|(what, _)| what.starts_with("check")).or(all.first())?;
        let ours = self.texts.iter().find(|(name, _)| name == what).map_or("", |(_, text)| text.as_str());
        Some((what.clone(), difference(what, text.as_bytes(), ours.as_bytes())))
    }

    /// The bytes of the disk, if they could be read.
    fn bytes(&self) -> Option<&[u8]> {
        self.disks.first().filter(|(what, _)| what == "the disk").map(|(_, bytes)| &bytes[..])
    }

    /// Whether the disk reads as the former one, as far as both reach, and as zeroes behind it.
    pub fn keeps(&self, former: &Seen) -> bool {
        let (Some(ours), Some(former)) = (self.bytes(), former.bytes()) else { return false };
        let rest = ours.get(former.len()..).unwrap_or_default();
        ours.iter().zip(former).all(|(a, b)| a == b) && rest.iter().all(|byte| *byte == 0)
    }

    /// Whether the disk, longer than the former one, reads as another as far as that one reached.
    pub fn has_grown_alike(&self, former: &Seen, other: &Seen) -> bool {
        let (Some(ours), Some(theirs), Some(former)) = (self.bytes(), other.bytes(), former.bytes()) else {
            return false;
        };
        let is_same = ours.iter().zip(theirs).take(former.len()).all(|(a, b)| a == b);
        ours.len() == theirs.len() && ours.len() > former.len() && is_same
    }

    /// Whether the oracle calls it sound.
    pub fn wrong(&self) -> Option<&str> {
        let (_, text) = self.texts.iter().find(|(what, _)| what == "check")?;
        (text.starts_with("Code(2)") || text.starts_with("Code(3)")).then_some(text)
    }
}
