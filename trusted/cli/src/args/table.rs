//! The verbs and every spelling of their options, per dialect, as data.
//!
//! A spelling is `long,s:=key@major.minor`: a long name, a short letter, `:` if a value follows,
//! the key under which the option is known if it is not the long name, and the first version that
//! has it. The order is that in which an ambiguous abbreviation lists its candidates.
use super::getopt::Spelling;
use crate::profile::{Family, Profile};

/// A verb with its options.
#[derive(Debug)]
pub struct Verb {
    /// The word on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// The words that it takes, as the help shows them.
    pub words: &'static str,
    old: &'static str,
    interim: &'static str,
    new: &'static str,
    native: &'static str,
}

/// The options before the verb, in every dialect.
const GLOBAL: &str = "help,h version,V trace,T:";

/// Our own options that the qemu-img face takes before the verb, too.
const OURS: &str = "cell: qemu-version: unsafe-quirks ignore-quirks";

/// Our own options that only the native face takes, before and after the verb.
const OURS_NATIVE: &str = "allow: verbose,v reproducible";

/// Every verb, in the order of the help.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "amend",
        about: "change format options of an image",
        words: "FILE",
        old: "help,h object: image-opts force ,f:=format ,t:=cache ,o:=options ,p=progress ,q=quiet",
        interim: "help,h quiet,q progress,p object: format,f: cache,t: options,o: image-opts force",
        new: "help,h options,o: format,f: image-opts cache,t: force progress,p quiet,q object:",
        native: "output:",
    },
    Verb {
        name: "bench",
        about: "measure the speed of requests to an image",
        words: "FILE",
        old: "help,h flush-interval: no-drain pattern: image-opts force-share,U ,c:=count ,d:=depth \
              ,f:=format ,i:=aio ,n=native ,o:=offset ,q=quiet ,s:=buffer-size ,S:=step-size ,t:=cache ,w=write",
        interim: "help,h format,f: image-opts cache,t: count,c: depth,d: offset,o: buffer-size,s: \
                  step-size,S: aio,i: native,n write,w pattern: flush-interval: no-drain force-share,U ,q=quiet",
        new: "help,h format,f: image-opts cache,t: count,c: depth,d: offset,o: buffer-size,s: step-size,S: \
              write,w pattern: flush-interval: no-drain aio,i: native,n force-share,U quiet,q object:",
        native: "output:",
    },
    Verb {
        name: "bitmap",
        about: "add, remove, clear, enable, disable or merge dirty bitmaps",
        words: "FILE BITMAP",
        old: "help,h add remove clear enable disable merge: granularity,g: source-file,b: \
              source-format,F: image-opts object: ,f:=format",
        interim: "help,h object: image-opts add remove clear enable disable merge: granularity,g: \
                  source-file,b: source-format,F: ,f:=format",
        new: "help,h format,f: image-opts add granularity,g: remove remove-all@11.1 clear enable disable \
              merge: source-file,b: source-format,F: object:",
        native: "",
    },
    Verb {
        name: "check",
        about: "look for errors in an image and repair them on request",
        words: "FILE",
        old: "help,h format,f: repair,r: output: object: image-opts force-share,U ,T:=cache ,q=quiet",
        interim: "help,h quiet,q format,f: cache,T: repair,r: output: object: image-opts force-share,U",
        new: "help,h format,f: image-opts cache,T: repair,r: force-share,U output: quiet,q object:",
        native: "chain",
    },
    Verb {
        name: "commit",
        about: "write the content of an image into its backing file",
        words: "FILE",
        old: "help,h object: image-opts ,f:=format ,t:=cache ,b:=base ,d=drop ,p=progress ,q=quiet ,r:=rate-limit",
        interim: "help,h quiet,q object: format,f: image-opts cache,t: drop,d base,b: progress,p rate,r:=rate-limit",
        new: "help,h format,f: image-opts cache,t: drop,d base,b: rate-limit,r: progress,p quiet,q object:",
        native: "output:",
    },
    Verb {
        name: "compare",
        about: "tell whether two images hold the same content",
        words: "FILE1 FILE2",
        old: "help,h object: image-opts force-share,U ,f:=a-format ,F:=b-format ,T:=cache ,p=progress \
              ,q=quiet ,s=strict",
        interim: "help,h quiet,q object: cache,T: image-opts a-format,f: left-format:=a-format b-format,F: \
                  right-format:=b-format force-share,U strict,s progress,p",
        new: "help,h a-format,f: b-format,F: image-opts strict,s cache,T: force-share,U progress,p quiet,q object:",
        native: "output:",
    },
    Verb {
        name: "convert",
        about: "copy images into a new image of any format",
        words: "FILE... TARGET",
        old: "help,h object: image-opts force-share,U target-image-opts salvage target-is-zero bitmaps \
              skip-broken-bitmaps@6.0 ,f:=source-format ,O:=target-format ,B:=backing ,F:=backing-format@6.0 \
              ,C=copy-range-offloading ,S:=sparse-size ,T:=source-cache ,t:=target-cache ,W=oob-writes \
              ,c=compress ,l:=snapshot ,m:=parallel ,n=no-create ,o:=options ,p=progress ,q=quiet ,r:=rate-limit",
        interim: "help,h quiet,q object: image-opts source-image-opts=image-opts source-format,f: source-cache,T: \
                  snapshot,l: sparse-size,S: output-format,O:=target-format options,o: output-cache,t:=target-cache \
                  backing,B: backing-format,F: force-share,U target-image-opts salvage target-is-zero bitmaps \
                  skip-broken-bitmaps rate,r:=rate-limit parallel,m: oob-writes,W copy-range-offloading,C \
                  ,c=compress ,n=no-create ,p=progress",
        new: "help,h source-format,f: image-opts source-cache,T: snapshot,l: bitmaps skip-broken-bitmaps salvage \
              target-format,O: target-image-opts target-format-options,o:=options target-cache,t: backing,B: \
              backing-format,F: sparse-size,S: no-create,n target-is-zero force-share,U rate-limit,r: parallel,m: \
              oob-writes,W copy-range-offloading,C progress,p quiet,q object: ,b:=backing ,c=compress",
        native: "",
    },
    Verb {
        name: "create",
        about: "make a new image",
        words: "FILE [SIZE]",
        old: "help,h object: ,f:=format ,F:=backing-format ,b:=backing ,o:=options ,q=quiet ,u=backing-unsafe",
        interim: "help,h quiet,q object: format,f: backing,b: backing-format,F: backing-unsafe,u options,o:",
        new: "help,h format,f: options,o: backing,b: backing-format,F: backing-unsafe,u quiet,q object: ,B:=backing",
        native: "output: cluster-size: refcount-bits: extended-l2 lazy-refcounts compat: subformat: grain-size: \
                 block-size: preallocation:",
    },
    Verb {
        name: "dd",
        about: "copy a part of an image block by block",
        words: "if=FILE of=TARGET [bs=SIZE] [count=BLOCKS] [skip=BLOCKS]",
        old: "help,h object: image-opts force-share,U ,f:=format ,O:=target-format",
        interim: "help,h object: format,f: output-format,O:=target-format image-opts force-share,U",
        new: "help,h format,f: image-opts output-format,O:=target-format force-share,U object:",
        native: "no-create,n snapshot,l: output:",
    },
    Verb {
        name: "info",
        about: "tell what an image is",
        words: "FILE",
        old: "help,h format,f: output: backing-chain object: image-opts force-share,U",
        interim: "help,h format,f: output: backing-chain,b object: image-opts force-share,U",
        new: "help,h format,f: image-opts backing-chain cache,t:@10.2 force-share,U limits@10.2 output: object:",
        native: "chain extra-detail luks-passphrase-file:",
    },
    Verb {
        name: "map",
        about: "tell where the content of an image lies",
        words: "FILE",
        old: "help,h format,f: output: object: image-opts force-share,U start-offset,s: max-length,l:",
        interim: "help,h format,f: output: object: image-opts force-share,U start-offset,s: max-length,l:",
        new: "help,h format,f: image-opts start-offset,s: max-length,l: force-share,U output: object:",
        native: "",
    },
    Verb {
        name: "measure",
        about: "tell how large an image of another format would be",
        words: "[FILE]",
        old: "help,h force-share,U image-opts object: output: size: ,f:=format ,l:=snapshot ,o:=options \
              ,O:=target-format",
        interim: "help,h target-format,O: format,f: image-opts options,o: snapshot,l: object: output: size: \
                  force-share,U",
        new: "help,h source-format,f:=format format: image-opts source-image-opts=image-opts snapshot,l: \
              target-format,O: target-format-options,o:=options options: force-share,U output: object: size,s:",
        native: "",
    },
    Verb {
        name: "rebase",
        about: "give an image another backing file",
        words: "FILE",
        old: "help,h object: image-opts force-share,U compress,c@8.2 ,f:=format ,F:=backing-format \
              ,T:=backing-cache ,b:=backing ,p=progress ,q=quiet ,t:=cache ,u=backing-unsafe",
        interim: "help,h quiet,q progress,p object: image-opts force-share,U format,f: cache,t: compress,c \
                  backing,b: backing-format,F: backing-cache,T: backing-unsafe,u",
        new: "help,h format,f: image-opts cache,t: compress,c backing,b: backing-format,F: backing-cache,T: \
              backing-unsafe,u force-share,U progress,p quiet,q object: ,B:=backing",
        native: "output:",
    },
    Verb {
        name: "resize",
        about: "make an image longer or shorter",
        words: "FILE [+-]SIZE",
        old: "help,h object: image-opts preallocation: shrink ,f:=format ,q=quiet",
        interim: "help,h quiet,q object: format,f: image-opts preallocation: shrink",
        new: "help,h format,f: image-opts preallocation: shrink quiet,q object:",
        native: "output:",
    },
    Verb {
        name: "snapshot",
        about: "list, make, apply or delete the snapshots inside an image",
        words: "FILE",
        old: "help,h force-share,U image-opts object: ,a:=apply ,c:=create ,d:=delete ,l=list ,q=quiet",
        interim: "help,h quiet,q object: format,f: image-opts force-share,U list,l apply create delete \
                  ,a:=apply ,c:=create ,d:=delete",
        new: "help,h format,f: image-opts list,l apply,a: create,c: delete,d: force-share,U quiet,q object:",
        native: "output:",
    },
];

/// The verb that only the native face has.
pub const CONFIG: Verb = Verb {
    name: "config",
    about: "tell where the configuration comes from and whether it is valid",
    words: "",
    old: "",
    interim: "",
    new: "help,h",
    native: "show-sources validate",
};

/// The verb called `name`.
pub fn verb(name: &[u8], native: bool) -> Option<&'static Verb> {
    let ours = native.then_some(&CONFIG);
    VERBS.iter().chain(ours).find(|verb| verb.name.as_bytes() == name)
}

impl Verb {
    /// The spellings of its options in the dialect of `profile`.
    pub fn spellings(&self, profile: &Profile, native: bool) -> Vec<Spelling> {
        let dialect = match profile.family() {
            Family::Old => self.old,
            Family::Interim => self.interim,
            Family::New => self.new,
        };
        let ours: &[&'static str] = if native { &[self.native, OURS, OURS_NATIVE] } else { &[] };
        read(dialect, profile).chain(ours.iter().flat_map(|list| read(list, profile))).collect()
    }

    /// The keys of options that only the native face has.
    pub fn native_keys(&self) -> Vec<&'static str> {
        self.native.split_whitespace().map(|word| word.trim_end_matches(':')).collect()
    }
}

/// The spellings of the options before the verb.
pub fn global_spellings(profile: &Profile, native: bool) -> Vec<Spelling> {
    let ours = if native { OURS_NATIVE } else { "" };
    [GLOBAL, OURS, ours].into_iter().flat_map(|list| read(list, profile)).collect()
}

fn read(list: &'static str, profile: &Profile) -> impl Iterator<Item = Spelling> {
    let since = |at: &str| match at.split_once('.') {
        Some((major, minor)) => profile.since(part(major), part(minor), 0),
        None => profile.since(part(at), 0, 0),
    };
    list.split_whitespace().filter_map(move |word| {
        let (word, at) = word.split_once('@').unwrap_or((word, "0"));
        since(at).then(|| spelling(word))
    })
}

fn part(number: &str) -> u16 {
    number.parse().unwrap_or(u16::MAX)
}

fn spelling(word: &'static str) -> Spelling {
    let (written, key) = match word.split_once('=') {
        Some((written, key)) => (written, Some(key)),
        None => (word, None),
    };
    let names = written.trim_end_matches(':');
    let (long, short) = names.split_once(',').unwrap_or((names, ""));
    Spelling {
        long: Some(long).filter(|long| !long.is_empty()),
        short: short.bytes().next(),
        takes: written.ends_with(':'),
        key: key.unwrap_or(long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_reads_and_stands_once() {
        for version in ["5.2", "8.2.2", "10.0.2", "10.1", "11.1.3"] {
            let profile = Profile::parse(version).unwrap();
            for verb in VERBS.iter().chain([&CONFIG]) {
                for native in [false, true] {
                    let all = verb.spellings(&profile, native);
                    let mut names: Vec<String> = all
                        .iter()
                        .flat_map(|s| [s.long.map(str::to_owned), s.short.map(|c| char::from(c).to_string())])
                        .flatten()
                        .collect();
                    let count = names.len();
                    names.sort();
                    names.dedup();
                    assert_eq!(names.len(), count, "{} {version}", verb.name);
                    assert!(all.iter().all(|s| !s.key.is_empty() && s.key.len() > 1), "{}", verb.name);
                }
            }
        }
    }

    #[test]
    fn versions_decide_which_options_there_are() {
        let has = |verb_name: &str, key, version: &str| {
            let profile = Profile::parse(version).unwrap();
            let verb = verb(verb_name.as_bytes(), false).unwrap();
            verb.spellings(&profile, false).iter().any(|s| s.key == key)
        };
        assert!(!has("info", "limits", "10.1.0") && has("info", "limits", "10.2"));
        assert!(!has("convert", "backing-format", "5.2") && has("convert", "backing-format", "6.2"));
        assert!(!has("rebase", "compress", "7.2") && has("rebase", "compress", "8.2.2"));
        assert!(!has("bitmap", "remove-all", "11.0.3") && has("bitmap", "remove-all", "11.1.3"));
        assert!(verb(b"config", false).is_none() && verb(b"config", true).is_some());
    }
}
