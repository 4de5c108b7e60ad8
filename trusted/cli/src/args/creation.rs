//! What can be asked of an image that is to be made: the options of every format, as data, and how they are read.
use super::keyval;
use super::number;
use super::stop::{Complaint, Note, say};
use crate::profile::Profile;
use instar_wire::fact::{Fact, Field};

/// What the value of an option must look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Size,
    Number,
    Switch,
}

impl Kind {
    /// As the list of options shows it.
    fn shown(self) -> &'static str {
        match self {
            Kind::Text => "<str>",
            Kind::Size => "<size>",
            Kind::Number => "<num>",
            Kind::Switch => "<bool (on/off)>",
        }
    }
}

/// An option: its name, what its value is, what it is for, and the first version that has it.
type Row = (&'static str, Kind, &'static str, (u16, u16));

/// A format that images can be made of, and its own options.
struct Format {
    name: &'static str,
    rows: &'static [Row],
}

/// The first of all versions.
const EVER: (u16, u16) = (0, 0);
const SIZE: Row = ("size", Kind::Size, "Virtual disk size", EVER);
const BACKING_FILE: Row = ("backing_file", Kind::Text, "File name of a base image", EVER);
const BACKING_FMT: Row = ("backing_fmt", Kind::Text, "Image format of the base image", EVER);
const ENCRYPTION: Row = (
    "encryption",
    Kind::Switch,
    "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    EVER,
);

/// What can be asked of the file that an image is put into.
const FILE: &[Row] = &[
    ("extent_size_hint", Kind::Size, "Extent size hint for the image file, 0 to disable", (5, 1)),
    ("nocow", Kind::Switch, "Turn off copy-on-write (valid only on btrfs)", EVER),
    ("preallocation", Kind::Text, "Preallocation mode (allowed values: off, falloc, full)", EVER),
    SIZE,
];

/// Every format that can be made, and what can be asked of it, in the order of its list.
const FORMATS: &[Format] = &[
    Format { name: "raw", rows: &[SIZE] },
    Format { name: "file", rows: FILE },
    Format { name: "host_device", rows: FILE },
    Format { name: "host_cdrom", rows: FILE },
    Format { name: "nbd", rows: &[SIZE] },
    Format { name: "qcow2", rows: QCOW2 },
    Format { name: "luks", rows: LUKS },
    Format { name: "vmdk", rows: VMDK },
    Format { name: "vhdx", rows: VHDX },
    Format { name: "vdi", rows: &[SIZE, ("static", Kind::Switch, "VDI static (pre-allocated) image", EVER)] },
    Format { name: "vpc", rows: VPC },
    Format {
        name: "qed",
        rows: &[
            BACKING_FILE,
            BACKING_FMT,
            ("cluster_size", Kind::Size, "Cluster size (in bytes)", EVER),
            SIZE,
            ("table_size", Kind::Size, "L1/L2 table size (in clusters)", EVER),
        ],
    },
    Format { name: "parallels", rows: &[("cluster_size", Kind::Size, "Parallels image cluster size", EVER), SIZE] },
    Format {
        name: "qcow",
        rows: &[
            BACKING_FILE,
            ("backing_fmt", Kind::Text, "Format of the backing image", EVER),
            ("encrypt.format", Kind::Text, "Encrypt the image, format choices: 'aes'", EVER),
            ("encrypt.key-secret", Kind::Text, "ID of the secret that provides the AES encryption key", EVER),
            ENCRYPTION,
            SIZE,
        ],
    },
];

const QCOW2: &[Row] = &[
    BACKING_FILE,
    BACKING_FMT,
    ("cluster_size", Kind::Size, "qcow2 cluster size", EVER),
    ("compat", Kind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])", EVER),
    ("compression_type", Kind::Text, "Compression method used for image cluster compression", (5, 1)),
    ("data_file", Kind::Text, "File name of an external data file", EVER),
    ("data_file_raw", Kind::Switch, "The external data file must stay valid as a raw image", EVER),
    ("encrypt.cipher-alg", Kind::Text, "Name of encryption cipher algorithm", EVER),
    ("encrypt.cipher-mode", Kind::Text, "Name of encryption cipher mode", EVER),
    ("encrypt.format", Kind::Text, "Encrypt the image, format choices: 'aes', 'luks'", EVER),
    ("encrypt.hash-alg", Kind::Text, "Name of encryption hash algorithm", EVER),
    ("encrypt.iter-time", Kind::Number, "Time to spend in PBKDF in milliseconds", EVER),
    ("encrypt.ivgen-alg", Kind::Text, "Name of IV generator algorithm", EVER),
    ("encrypt.ivgen-hash-alg", Kind::Text, "Name of IV generator hash algorithm", EVER),
    ("encrypt.key-secret", Kind::Text, "ID of secret providing qcow AES key or LUKS passphrase", EVER),
    ENCRYPTION,
    ("extended_l2", Kind::Switch, "Extended L2 tables", (5, 2)),
    ("keep_data_file", Kind::Switch, "Assume the external data file already exists and do not overwrite it", (11, 0)),
    ("lazy_refcounts", Kind::Switch, "Postpone refcount updates", EVER),
    ("preallocation", Kind::Text, "Preallocation mode (allowed values: off, metadata, falloc, full)", EVER),
    ("refcount_bits", Kind::Number, "Width of a reference count entry in bits", EVER),
    SIZE,
];

const LUKS: &[Row] = &[
    ("cipher-alg", Kind::Text, "Name of encryption cipher algorithm", EVER),
    ("cipher-mode", Kind::Text, "Name of encryption cipher mode", EVER),
    ("detached-header", Kind::Switch, "Create a detached LUKS header", (9, 0)),
    ("hash-alg", Kind::Text, "Name of encryption hash algorithm", EVER),
    ("iter-time", Kind::Number, "Time to spend in PBKDF in milliseconds", EVER),
    ("ivgen-alg", Kind::Text, "Name of IV generator algorithm", EVER),
    ("ivgen-hash-alg", Kind::Text, "Name of IV generator hash algorithm", EVER),
    ("key-secret", Kind::Text, "ID of the secret that provides the keyslot passphrase", EVER),
    SIZE,
];

const VMDK: &[Row] = &[
    (
        "adapter_type",
        Kind::Text,
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
        EVER,
    ),
    BACKING_FILE,
    ("backing_fmt", Kind::Text, "Must be 'vmdk' if present", EVER),
    ("compat6", Kind::Switch, "VMDK version 6 image", EVER),
    ("hwversion", Kind::Text, "VMDK hardware version", EVER),
    SIZE,
    (
        "subformat",
        Kind::Text,
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | \
         twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
        EVER,
    ),
    ("toolsversion", Kind::Text, "VMware guest tools version", (6, 0)),
    ("zeroed_grain", Kind::Switch, "Enable efficient zero writes using the zeroed-grain GTE feature", EVER),
];

const VHDX: &[Row] = &[
    ("block_size", Kind::Size, "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.", EVER),
    (
        "block_state_zero",
        Kind::Switch,
        "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using \
         'qemu-img convert' with subformat=dynamic.",
        EVER,
    ),
    ("log_size", Kind::Size, "Log size; min 1MB.", EVER),
    ("size", Kind::Size, "Virtual disk size; max of 64TB.", EVER),
    ("subformat", Kind::Text, "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.", EVER),
];

const VPC: &[Row] = &[
    (
        "force_size",
        Kind::Switch,
        "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based \
         calculation",
        EVER,
    ),
    SIZE,
    (
        "subformat",
        Kind::Text,
        "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
        EVER,
    ),
];

/// What a format can be asked for, and what the file can that it is put into.
pub struct Schema {
    name: Vec<u8>,
    rows: Vec<&'static Row>,
}

impl Schema {
    /// Of this format; nothing if it cannot be made.
    pub fn of(format: &[u8], profile: &Profile) -> Option<Schema> {
        let own = FORMATS.iter().find(|known| known.name.as_bytes() == format)?;
        let file = FILE.iter().filter(|row| own.rows.iter().all(|own| own.0 != row.0));
        let there = |row: &&Row| profile.since(row.3.0, row.3.1, 0);
        Some(Schema { name: format.to_vec(), rows: own.rows.iter().chain(file).filter(there).collect() })
    }

    /// Reads what was asked for, in lists that go on one another; an option that is given twice is what it is last.
    /// Some values earn a warning.
    pub fn read<'l>(
        &self,
        lists: impl Iterator<Item = &'l [u8]>,
        profile: &Profile,
    ) -> (Result<Fact, Complaint>, Vec<Note>) {
        let mut warnings = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for (key, text) in lists.flat_map(|list| keyval::options(list, None, false).entries) {
            let value = match self.value(&key, &text, profile, &mut warnings) {
                Ok(value) => value,
                Err(complaint) => {
                    let about = say(&[b"Invalid options for file format '", &self.name, b"'"]);
                    return (Err(complaint.then(Note::Said(about))), warnings);
                }
            };
            fields.retain(|field| field.name.0 != key);
            fields.push(Field { name: key[..].into(), value });
        }
        (Ok(Fact::Fields(fields)), warnings)
    }

    fn value(&self, key: &[u8], text: &[u8], profile: &Profile, warnings: &mut Vec<Note>) -> Result<Fact, Complaint> {
        let row = self.rows.iter().find(|row| row.0.as_bytes() == key);
        match row.ok_or_else(|| Complaint::new(&[b"Invalid parameter '", key, b"'"]))?.1 {
            Kind::Text => Ok(text.into()),
            Kind::Number => number::listed_number(text, key).map(Fact::from),
            Kind::Switch => number::listed_switch(text, key).map(Fact::from),
            Kind::Size => {
                let (value, warning) = number::listed_size(text, key, profile);
                warnings.extend(warning);
                value.map(Fact::from)
            }
        }
    }

    /// Whether a list asks what can be asked for.
    pub fn asks_for_help(lists: &[&[u8]]) -> bool {
        let words = |list: &&[u8]| keyval::options(list, None, false).entries;
        lists.iter().flat_map(words).any(|(key, _)| matches!(&key[..], b"help" | b"?"))
    }

    /// The list of what can be asked for, by name.
    pub fn help(&self) -> Vec<u8> {
        let mut lines: Vec<(&str, String)> = self
            .rows
            .iter()
            .map(|(key, kind, about, _)| {
                let written = format!("{key}={}", kind.shown());
                (*key, format!("  {written:<22} - {about}\n"))
            })
            .collect();
        lines.sort();
        let lines: String = lines.into_iter().map(|(_, line)| line).collect();
        format!("Supported options:\n{lines}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, lists: &[&str], version: &str) -> Result<Fact, String> {
        let profile = Profile::parse(version).unwrap();
        let schema = Schema::of(format.as_bytes(), &profile).unwrap();
        let fact = schema.read(lists.iter().map(|list| list.as_bytes()), &profile).0;
        fact.map_err(|complaint| String::from_utf8(complaint.lines("qemu-img").join(&b"\n"[..])).unwrap())
    }

    #[test]
    fn values_become_what_they_are_meant_as() {
        let fact = read("qcow2", &["cluster_size=4k,compat=1.1", "nolazy_refcounts,refcount_bits=0x10"], "10.0.2");
        let fact = fact.unwrap();
        assert_eq!(fact.get("cluster_size"), Some(&Fact::Count(4096)));
        assert_eq!(fact.get("compat"), Some(&"1.1".into()));
        assert_eq!(fact.get("lazy_refcounts"), Some(&false.into()));
        assert_eq!(fact.get("refcount_bits"), Some(&Fact::Count(16)));
        let twice = read("qed", &["table_size=1,table_size=2"], "10.0.2").unwrap();
        assert_eq!(twice, Fact::fields([("table_size", Fact::Count(2))]));
    }

    #[test]
    fn what_a_format_does_not_know_is_refused() {
        let format = "qemu-img: Invalid options for file format";
        for (name, list, version, said) in [
            ("qcow2", "foo", "10.0.2", "qemu-img: Invalid parameter 'foo'\n"),
            ("qcow2", "keep_data_file=on", "10.0.2", "qemu-img: Invalid parameter 'keep_data_file'\n"),
            ("vdi", "static=x", "10.0.2", "qemu-img: Parameter 'static' expects 'on' or 'off'\n"),
            ("qcow2", "refcount_bits=1k", "10.0.2", "qemu-img: Parameter 'refcount_bits' expects a number\n"),
            ("raw", "size=-1", "10.0.2", "qemu-img: Value '-1' is out of range for parameter 'size'\n"),
        ] {
            assert_eq!(read(name, &[list], version).unwrap_err(), format!("{said}{format} '{name}'"), "{list}");
        }
        assert!(read("qcow2", &["keep_data_file=on"], "11.0.3").is_ok());
        assert!(Schema::of(b"dmg", &Profile::default()).is_none());
    }

    #[test]
    fn what_can_be_asked_for_is_listed_by_name() {
        let help = Schema::of(b"vdi", &Profile::default()).unwrap().help();
        let seen = "Supported options:\n  extent_size_hint=<size> - Extent size hint for the image file, 0 to disable\n  \
                    nocow=<bool (on/off)>  - Turn off copy-on-write (valid only on btrfs)\n  \
                    preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)\n  \
                    size=<size>            - Virtual disk size\n  \
                    static=<bool (on/off)> - VDI static (pre-allocated) image\n";
        assert_eq!(String::from_utf8(help).unwrap(), seen);
        assert!(Schema::asks_for_help(&[b"a=1", b"help"]) && !Schema::asks_for_help(&[b"a=help"]));
    }
}
