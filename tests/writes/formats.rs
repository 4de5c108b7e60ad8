//! The formats that are written, and what can be asked of each.

use instar_testkit::random::Dice;

/// A format that images can be made of.
pub struct Format {
    pub name: &'static str,
    /// What makes it one that can be compressed, if anything does.
    pub packed: Option<&'static str>,
    /// qemu-img can check its images.
    pub checks: bool,
    /// Two images of the same are the same bytes.
    pub is_plain: bool,
    /// It can stand on another image.
    pub backs: bool,
    /// Options, each with values worth asking for.
    pub options: &'static [(&'static str, &'static [&'static str])],
}

/// The passphrase of all that is encrypted.
pub const SECRET: &str = "secret,id=sec0,data=123456";
/// What an encrypted container is not made without.
pub const SEALED: &str = "key-secret=sec0,iter-time=10";

const SWITCH: &[&str] = &["on", "off"];
const SPACE: (&str, &[&str]) = ("preallocation", &["off", "falloc", "full"]);
const HINT: (&str, &[&str]) = ("extent_size_hint", &["0", "1M"]);

/// All of them.
pub const FORMATS: &[Format] = &[
    Format { name: "raw", packed: None, checks: false, is_plain: true, backs: false, options: &[SPACE, HINT] },
    Format {
        name: "qcow2",
        packed: Some(""),
        checks: true,
        is_plain: true,
        backs: true,
        options: &[
            ("cluster_size", &["512", "1k", "4k", "16k", "64k", "256k", "2M"]),
            ("refcount_bits", &["1", "2", "4", "8", "16", "32", "64"]),
            ("compat", &["0.10", "1.1", "v2", "v3"]),
            ("extended_l2", SWITCH),
            ("lazy_refcounts", SWITCH),
            ("compression_type", &["zlib", "zstd"]),
            ("preallocation", &["off", "metadata", "falloc", "full"]),
            ("data_file", &["made.data"]),
            ("data_file_raw", SWITCH),
            HINT,
            ("nocow", &["off"]),
        ],
    },
    Format { name: "qcow", packed: Some(""), checks: false, is_plain: true, backs: true, options: &[] },
    Format {
        name: "qed",
        packed: None,
        checks: true,
        is_plain: true,
        backs: true,
        options: &[("cluster_size", &["4k", "64k", "1M", "64M"]), ("table_size", &["1", "2", "4", "16"])],
    },
    Format {
        name: "vmdk",
        packed: Some("subformat=streamOptimized"),
        checks: true,
        is_plain: false,
        backs: true,
        options: &[
            (
                "subformat",
                &[
                    "monolithicSparse",
                    "monolithicFlat",
                    "twoGbMaxExtentSparse",
                    "twoGbMaxExtentFlat",
                    "streamOptimized",
                ],
            ),
            ("adapter_type", &["ide", "lsilogic", "buslogic", "legacyESX"]),
            ("hwversion", &["4", "10", "2147483647"]),
            ("toolsversion", &["2147483647", "1"]),
            ("zeroed_grain", SWITCH),
            ("compat6", SWITCH),
        ],
    },
    Format {
        name: "vdi",
        packed: None,
        checks: true,
        is_plain: false,
        backs: false,
        options: &[("static", SWITCH), ("preallocation", &["off", "metadata"])],
    },
    Format {
        name: "vpc",
        packed: None,
        checks: false,
        is_plain: false,
        backs: false,
        options: &[("subformat", &["dynamic", "fixed"]), ("force_size", SWITCH)],
    },
    Format {
        name: "vhdx",
        packed: None,
        checks: true,
        is_plain: false,
        backs: false,
        options: &[
            ("subformat", &["dynamic", "fixed"]),
            ("block_size", &["0", "1M", "2M", "16M"]),
            ("log_size", &["1M", "2M"]),
            ("block_state_zero", SWITCH),
        ],
    },
    Format {
        name: "parallels",
        packed: None,
        checks: true,
        is_plain: true,
        backs: false,
        options: &[("cluster_size", &["512", "4k", "64k", "1M", "2M"])],
    },
    Format {
        name: "luks",
        packed: None,
        checks: false,
        is_plain: false,
        backs: false,
        options: &[
            ("cipher-alg", &["aes-128", "aes-256", "serpent-256", "twofish-256", "cast5-128"]),
            ("cipher-mode", &["xts", "cbc", "ctr"]),
            ("hash-alg", &["sha1", "sha256", "sha512", "ripemd160"]),
            ("ivgen-alg", &["plain", "plain64", "essiv"]),
            ("ivgen-hash-alg", &["sha256"]),
            ("preallocation", &["off", "falloc"]),
        ],
    },
];

/// What encrypts a qcow2 image.
pub const LUKS_IN_QCOW2: &[&str] = &["", "cipher-alg=serpent-256", "cipher-mode=cbc", "hash-alg=sha1"];

/// The format of this name.
pub fn format(name: &str) -> &'static Format {
    FORMATS.iter().find(|format| format.name == name).expect("a format")
}

impl Format {
    /// The words that name an image of it to be read.
    pub fn words(&self, name: &str) -> Vec<String> {
        match self.name {
            "luks" => {
                let options = format!("driver=luks,key-secret=sec0,file.filename={name}");
                vec!["--object".into(), SECRET.into(), "--image-opts".into(), options]
            }
            format => vec!["-f".into(), format.into(), name.into()],
        }
    }

    /// `-o` with these options and those that it needs anyway.
    pub fn asked(&self, options: &[String]) -> Vec<String> {
        let needed = (self.name == "luks").then(|| SEALED.to_owned());
        let all: Vec<String> = needed.into_iter().chain(options.iter().cloned()).collect();
        let mut words = Vec::new();
        if self.name == "luks" {
            words.extend(["--object".into(), SECRET.into()]);
        }
        if !all.is_empty() {
            words.extend(["-o".into(), all.join(",")]);
        }
        words
    }

    /// One or two options by chance.
    pub fn some(&self, dice: &mut Dice, most: u64) -> Vec<String> {
        let mut chosen: Vec<(&str, &str)> = Vec::new();
        for _ in 0..dice.below(most + 1).min(self.options.len() as u64) {
            let (key, values) = self.options[dice.below(self.options.len() as u64) as usize];
            if chosen.iter().all(|(other, _)| *other != key) {
                chosen.push((key, dice.one(values)));
            }
        }
        chosen.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}
