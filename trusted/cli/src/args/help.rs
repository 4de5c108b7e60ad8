//! The help, made from the tables.
use super::getopt::Spelling;
use super::parse::Face;
use super::table::{self, Verb};
use crate::profile::{Family, Profile};

/// What an option's value is called and what the option does, per verb; `""` is any verb.
const MEANINGS: &[(&str, &str, &str, &str)] = &[
    ("", "a-format", "FORMAT", "the format of FILE1"),
    ("", "b-format", "FORMAT", "the format of FILE2"),
    ("", "add", "", "make a new bitmap"),
    ("", "aio", "KIND", "how requests are made: threads, native or io_uring"),
    ("", "allow", "DIR", "also open related files below DIR (may be repeated)"),
    ("", "apply", "SNAPSHOT", "go back to a snapshot"),
    ("", "backing", "FILE", "the backing file"),
    ("", "backing-cache", "MODE", "how the backing files are cached"),
    ("", "backing-chain", "", "tell it of every image down the chain"),
    ("", "backing-format", "FORMAT", "the format of the backing file"),
    ("create", "backing-unsafe", "", "do not open the backing file"),
    ("", "backing-unsafe", "", "only write the new name, compare nothing"),
    ("", "base", "FILE", "commit down to this image of the chain"),
    ("", "bitmaps", "", "copy bitmaps, too"),
    ("", "block-size", "SIZE", "the size of a block"),
    ("", "buffer-size", "SIZE", "the size of each request"),
    ("", "cache", "MODE", "how images are cached: none, writeback, writethrough, directsync or unsafe"),
    ("", "cell", "KIND", "the kind of sandbox"),
    ("", "chain", "", "tell the whole chain of backing files"),
    ("", "clear", "", "empty a bitmap"),
    ("", "cluster-size", "SIZE", "the size of a cluster"),
    ("", "compat", "LEVEL", "the compatibility level: 0.10 or 1.1"),
    ("", "compress", "", "write compressed"),
    ("", "copy-range-offloading", "", "let the storage copy where it can"),
    ("bench", "count", "COUNT", "how many requests"),
    ("", "create", "SNAPSHOT", "make a snapshot"),
    ("", "delete", "SNAPSHOT", "delete a snapshot"),
    ("", "depth", "COUNT", "how many requests at a time"),
    ("", "disable", "", "stop a bitmap"),
    ("", "drop", "", "do not empty the image afterwards"),
    ("", "enable", "", "start a bitmap"),
    ("", "extended-l2", "", "tell for every part of a cluster whether it is there"),
    ("", "extra-detail", "", "tell all that the format knows"),
    ("", "flush-interval", "COUNT", "flush after so many requests"),
    ("", "force", "", "do it although content may be lost"),
    ("", "force-share", "", "open an image that is in use"),
    ("", "format", "FORMAT", "the format of the image"),
    ("", "grain-size", "SIZE", "the size of a grain"),
    ("", "granularity", "SIZE", "how much a bit of the bitmap stands for"),
    ("", "help", "", "print this text"),
    ("", "ignore-quirks", "", "tell plain truth where qemu-img rounds"),
    ("", "image-opts", "", "names of images are lists of options"),
    ("", "lazy-refcounts", "", "write reference counts late"),
    ("", "limits", "", "tell the limits of requests"),
    ("", "list", "", "list the snapshots"),
    ("", "luks-passphrase-file", "FILE", "the passphrase of a LUKS image"),
    ("", "max-length", "SIZE", "end there, counted from the start offset"),
    ("", "merge", "BITMAP", "add the bits of another bitmap"),
    ("", "native", "", "the same as --aio native"),
    ("", "no-create", "", "write into an image that exists"),
    ("", "no-drain", "", "do not wait for requests before a flush"),
    ("", "object", "OBJECT", "define an object, such as a secret"),
    ("", "offset", "OFFSET", "where the first request goes"),
    ("", "oob-writes", "", "write in any order"),
    ("", "options", "OPTIONS", "options of the format; `help` lists them"),
    ("", "output", "human|json", "how the answer is written"),
    ("", "output-format", "FORMAT", "the format of the target"),
    ("", "parallel", "COUNT", "how many copies at a time"),
    ("", "pattern", "BYTE", "what is written"),
    ("", "preallocation", "MODE", "what is laid out beforehand: off, metadata, falloc or full"),
    ("", "progress", "", "show progress"),
    ("", "qemu-version", "VERSION", "the qemu-img version to be like"),
    ("", "quiet", "", "print errors only"),
    ("", "rate-limit", "RATE", "at most so many bytes a second"),
    ("", "refcount-bits", "COUNT", "the width of a reference count"),
    ("", "remove", "", "remove a bitmap"),
    ("", "remove-all", "", "remove all bitmaps"),
    ("", "repair", "leaks|all", "repair what is found"),
    ("", "reproducible", "", "make the same bytes whenever the same is asked for"),
    ("", "salvage", "", "go on behind errors of reading"),
    ("", "show-sources", "", "tell where every setting comes from"),
    ("", "shrink", "", "allow that content is cut off"),
    ("", "size", "SIZE", "the size of an image that is not there"),
    ("", "skip-broken-bitmaps", "", "leave out bitmaps that are not consistent"),
    ("", "snapshot", "SNAPSHOT", "read a snapshot"),
    ("", "source-cache", "MODE", "how the sources are cached"),
    ("", "source-file", "FILE", "the image that holds the bitmap to merge"),
    ("", "source-format", "FORMAT", "the format of the sources"),
    ("", "sparse-size", "SIZE", "how long zeroes must be to become a hole"),
    ("", "start-offset", "OFFSET", "begin there"),
    ("", "step-size", "SIZE", "how far one request is from the next"),
    ("", "subformat", "KIND", "the kind of image, where the format has several"),
    ("", "strict", "", "sizes and allocation must be the same, too"),
    ("", "target-cache", "MODE", "how the target is cached"),
    ("", "target-format", "FORMAT", "the format of the target"),
    ("", "target-image-opts", "", "the target's name is a list of options"),
    ("", "target-is-zero", "", "the target reads as zeroes already"),
    ("", "trace", "TRACE", "accepted; there are no trace events"),
    ("", "unsafe-quirks", "", "do what qemu-img does even where that is unsafe"),
    ("", "validate", "", "check the configuration"),
    ("", "verbose", "", "tell what is being done"),
    ("", "version", "", "print the version"),
    ("", "write", "", "write instead of reading"),
];

/// The help of a verb, or of the whole program.
pub fn text(face: &Face<'_>, profile: &Profile, verb: Option<&Verb>) -> String {
    match verb {
        Some(verb) => of_verb(face, profile, verb),
        None => of_all(face, profile),
    }
}

fn of_verb(face: &Face<'_>, profile: &Profile, verb: &Verb) -> String {
    let spellings = verb.spellings(profile, face.native);
    let usage = synopsis(verb, &spellings);
    format!(
        "Usage:\n  {} {usage}\n\n{}.\n\nOptions:\n{}",
        face.prefix,
        sentence(verb.about),
        rows(verb.name, &spellings)
    )
}

fn of_all(face: &Face<'_>, profile: &Profile) -> String {
    let verbs: Vec<&Verb> = face.verbs.iter().filter_map(|name| table::verb(name.as_bytes(), face.native)).collect();
    let globals = table::global_spellings(profile, face.native);
    let mut out = face.version.to_owned();
    out += &format!("usage: {} [options] VERB [options of the verb]\n\nOptions:\n", face.prefix);
    out += &rows("", &globals);
    out += "\nVerbs:\n";
    for verb in verbs {
        out += &match profile.family() {
            Family::Old => format!("  {}\n", synopsis(verb, &verb.spellings(profile, face.native))),
            _ => format!("  {:<10}{}\n", verb.name, verb.about),
        };
    }
    if profile.family() != Family::Old {
        out += &format!("\n'{} VERB --help' tells more about a verb.\n", face.prefix);
    }
    out + &format!("\nSupported formats: {}\n", face.formats)
}

fn sentence(about: &str) -> String {
    let mut letters = about.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn synopsis(verb: &Verb, spellings: &[Spelling]) -> String {
    let mut out = verb.name.to_owned();
    for spelling in spellings.iter().filter(|spelling| spelling.key != "help") {
        let value = if spelling.takes { format!(" {}", meaning(verb.name, spelling.key).0) } else { String::new() };
        out += &match (spelling.short, spelling.long) {
            (Some(letter), _) => format!(" [-{}{value}]", char::from(letter)),
            (None, long) => format!(" [--{}{value}]", long.unwrap_or_default()),
        };
    }
    out.push_str(if verb.words.is_empty() { "" } else { " " });
    out + verb.words
}

fn rows(verb: &str, spellings: &[Spelling]) -> String {
    spellings.iter().map(|spelling| row(verb, spelling)).collect()
}

fn row(verb: &str, spelling: &Spelling) -> String {
    let (value, about) = meaning(verb, spelling.key);
    let short = spelling.short.map(|letter| format!("-{}", char::from(letter)));
    let long = spelling.long.map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = if spelling.takes { format!(" {value}") } else { String::new() };
    format!("  {}{value}\n      {about}\n", names.join(", "))
}

fn meaning(verb: &str, key: &str) -> (&'static str, &'static str) {
    let fits = |(of, name, ..): &&(&str, &str, &str, &str)| *name == key && (of.is_empty() || *of == verb);
    MEANINGS.iter().find(fits).map_or(("", ""), |(_, _, value, about)| (value, about))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(native: bool) -> Face<'static> {
        Face {
            prefix: if native { "instar" } else { "qemu-img" },
            argv0: std::ffi::OsStr::new("qemu-img"),
            native,
            verbs: &["info", "convert"],
            formats: "raw qcow2",
            version: "qemu-img version 10.2.0\n",
        }
    }

    #[test]
    fn every_option_has_a_meaning() {
        for version in ["5.2", "10.0.2", "11.1.3"] {
            let profile = Profile::parse(version).unwrap();
            for verb in table::VERBS.iter().chain([&table::CONFIG]) {
                for spelling in verb.spellings(&profile, true) {
                    let (value, about) = meaning(verb.name, spelling.key);
                    assert!(!about.is_empty(), "{} {}", verb.name, spelling.key);
                    assert!(!spelling.takes || !value.is_empty(), "{} {}", verb.name, spelling.key);
                }
            }
            for spelling in table::global_spellings(&profile, true) {
                assert!(!meaning("", spelling.key).1.is_empty(), "{}", spelling.key);
            }
        }
    }

    #[test]
    fn clients_find_what_they_look_for() {
        let new = Profile::default();
        let info = text(&face(false), &new, table::verb(b"info", false));
        assert!(info.contains("-U, --force-share") && !info.contains("extra-detail"), "{info}");
        let convert = text(&face(false), &new, table::verb(b"convert", false));
        assert!(convert.contains("--target-is-zero"));
        let all = text(&face(false), &new, None);
        assert!(all.contains("\n  info ") && all.contains("\n  convert ") && !all.contains("\n  check "));
        assert!(all.starts_with("qemu-img version 10.2.0\n") && all.ends_with("\nSupported formats: raw qcow2\n"));
        let old = text(&face(false), &Profile::parse("8.2.2").unwrap(), None);
        assert!(old.lines().any(|line| line.starts_with("  info ") && line.contains("[-U]")), "{old}");
        assert!(old.contains("--target-is-zero"));
        let native = text(&face(true), &new, table::verb(b"info", true));
        assert!(native.contains("--luks-passphrase-file FILE") && native.contains("instar info"));
    }
}
