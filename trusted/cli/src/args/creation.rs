//! What can be asked of an image that is to be made: the options of every format, as data, and how they are read.
use super::keyval;
use super::number;
use super::stop::{Complaint, Note, say};
use crate::profile::Profile;
use crate::settings::Face;
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

/// An option.
struct Row {
    name: &'static str,
    kind: Kind,
    /// What it is for.
    about: &'static str,
    /// The first version that has it.
    since: (u16, u16),
    /// What is told of it when nobody asks for anything.
    default: Option<&'static str>,
}

impl Row {
    const fn since(self, major: u16, minor: u16) -> Row {
        Row { since: (major, minor), ..self }
    }

    const fn usually(self, default: &'static str) -> Row {
        Row { default: Some(default), ..self }
    }
}

const fn row(name: &'static str, kind: Kind, about: &'static str) -> Row {
    Row { name, kind, about, since: (0, 0), default: None }
}

const fn text(name: &'static str, about: &'static str) -> Row {
    row(name, Kind::Text, about)
}

const fn size(name: &'static str, about: &'static str) -> Row {
    row(name, Kind::Size, about)
}

const fn switch(name: &'static str, about: &'static str) -> Row {
    row(name, Kind::Switch, about)
}

/// A format that images can be made of, and its own options.
struct Format {
    name: &'static str,
    rows: &'static [Row],
}

const SIZE: Row = size("size", "Virtual disk size");
const BACKING_FILE: Row = text("backing_file", "File name of a base image");
const BACKING_FMT: Row = text("backing_fmt", "Image format of the base image");
const ENCRYPTION: Row =
    switch("encryption", "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)");

/// What can be asked of the file that an image is put into.
const FILE: &[Row] = &[
    SIZE,
    switch("nocow", "Turn off copy-on-write (valid only on btrfs)"),
    text("preallocation", "Preallocation mode (allowed values: off, falloc, full)"),
    size("extent_size_hint", "Extent size hint for the image file, 0 to disable").since(5, 1),
];

/// What can be asked of the device that an image is put onto.
const DEVICE: &[Row] = &[SIZE, text("preallocation", "Preallocation mode (allowed values: off)")];

/// Images below another, where only we can make such.
const BELOW: &[Row] = &[BACKING_FILE, BACKING_FMT];
/// Grains that are not those of all others.
const GRAIN: &[Row] = &[size("grain_size", "Size of a grain, from 4k to 16M").usually("65536")];

/// Every format that can be made, and what can be asked of it, in the order in which it is told what was asked for.
const FORMATS: &[Format] = &[
    Format { name: "raw", rows: &[SIZE] },
    Format { name: "file", rows: FILE },
    Format { name: "host_device", rows: DEVICE },
    Format { name: "host_cdrom", rows: DEVICE },
    Format { name: "nbd", rows: &[SIZE] },
    Format { name: "qcow2", rows: QCOW2 },
    Format { name: "luks", rows: LUKS },
    Format { name: "vmdk", rows: VMDK },
    Format { name: "vhdx", rows: VHDX },
    Format { name: "vdi", rows: &[SIZE, switch("static", "VDI static (pre-allocated) image").usually("off")] },
    Format { name: "vpc", rows: VPC },
    Format {
        name: "qed",
        rows: &[
            SIZE,
            BACKING_FILE,
            BACKING_FMT,
            size("cluster_size", "Cluster size (in bytes)").usually("65536"),
            size("table_size", "L1/L2 table size (in clusters)"),
        ],
    },
    Format {
        name: "parallels",
        rows: &[SIZE, size("cluster_size", "Parallels image cluster size").usually("1048576")],
    },
    Format {
        name: "qcow",
        rows: &[
            SIZE,
            BACKING_FILE,
            text("backing_fmt", "Format of the backing image"),
            ENCRYPTION,
            text("encrypt.format", "Encrypt the image, format choices: 'aes'"),
            text("encrypt.key-secret", "ID of the secret that provides the AES encryption key"),
        ],
    },
];

const QCOW2: &[Row] = &[
    ENCRYPTION,
    text("encrypt.format", "Encrypt the image, format choices: 'aes', 'luks'"),
    text("encrypt.key-secret", "ID of secret providing qcow AES key or LUKS passphrase"),
    text("encrypt.cipher-alg", "Name of encryption cipher algorithm"),
    text("encrypt.cipher-mode", "Name of encryption cipher mode"),
    text("encrypt.ivgen-alg", "Name of IV generator algorithm"),
    text("encrypt.ivgen-hash-alg", "Name of IV generator hash algorithm"),
    text("encrypt.hash-alg", "Name of encryption hash algorithm"),
    row("encrypt.iter-time", Kind::Number, "Time to spend in PBKDF in milliseconds"),
    size("cluster_size", "qcow2 cluster size").usually("65536"),
    switch("extended_l2", "Extended L2 tables").since(5, 2).usually("off"),
    text("preallocation", "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    text("compression_type", "Compression method used for image cluster compression").since(5, 1).usually("zlib"),
    switch("keep_data_file", "Assume the external data file already exists and do not overwrite it").since(11, 0),
    SIZE,
    text("compat", "Compatibility level (v2 [0.10] or v3 [1.1])"),
    BACKING_FILE,
    BACKING_FMT,
    text("data_file", "File name of an external data file"),
    switch("data_file_raw", "The external data file must stay valid as a raw image"),
    switch("lazy_refcounts", "Postpone refcount updates").usually("off"),
    row("refcount_bits", Kind::Number, "Width of a reference count entry in bits").usually("16"),
];

const LUKS: &[Row] = &[
    SIZE,
    text("key-secret", "ID of the secret that provides the keyslot passphrase"),
    text("cipher-alg", "Name of encryption cipher algorithm"),
    text("cipher-mode", "Name of encryption cipher mode"),
    text("ivgen-alg", "Name of IV generator algorithm"),
    text("ivgen-hash-alg", "Name of IV generator hash algorithm"),
    text("hash-alg", "Name of encryption hash algorithm"),
    row("iter-time", Kind::Number, "Time to spend in PBKDF in milliseconds"),
    switch("detached-header", "Create a detached LUKS header").since(9, 0),
];

const VMDK: &[Row] = &[
    SIZE,
    text("adapter_type", "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"),
    BACKING_FILE,
    text("backing_fmt", "Must be 'vmdk' if present"),
    switch("compat6", "VMDK version 6 image").usually("off"),
    text("hwversion", "VMDK hardware version").usually("undefined"),
    text("toolsversion", "VMware guest tools version").since(6, 0),
    text(
        "subformat",
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | \
         twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
    ),
    switch("zeroed_grain", "Enable efficient zero writes using the zeroed-grain GTE feature"),
];

const VHDX: &[Row] = &[
    size("size", "Virtual disk size; max of 64TB."),
    size("log_size", "Log size; min 1MB.").usually("1048576"),
    size("block_size", "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.").usually("0"),
    text("subformat", "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'."),
    switch(
        "block_state_zero",
        "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using \
         'qemu-img convert' with subformat=dynamic.",
    ),
];

const VPC: &[Row] = &[
    SIZE,
    text("subformat", "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "),
    switch(
        "force_size",
        "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based \
         calculation",
    ),
];

const STATE: &str = "Select new state of affected keyslots (active/inactive)";
const KEYSLOT: &str = "Select a single keyslot to modify explicitly";
const OLD_SECRET: &str = "Select all keyslots that match this password";
const NEW_SECRET: &str = "New secret to set in the matching keyslots. Empty string to erase";
const ITER_TIME: &str = "Time to spend in PBKDF in milliseconds";

/// The formats whose images can be given other options, and these.
const AMENDED: &[Format] = &[
    Format {
        name: "qcow2",
        rows: &[
            text("encrypt.state", STATE),
            row("encrypt.keyslot", Kind::Number, KEYSLOT),
            text("encrypt.old-secret", OLD_SECRET),
            text("encrypt.new-secret", NEW_SECRET),
            row("encrypt.iter-time", Kind::Number, ITER_TIME),
            SIZE,
            text("compat", "Compatibility level (v2 [0.10] or v3 [1.1])"),
            BACKING_FILE,
            BACKING_FMT,
            text("data_file", "File name of an external data file"),
            switch("data_file_raw", "The external data file must stay valid as a raw image"),
            switch("lazy_refcounts", "Postpone refcount updates"),
            row("refcount_bits", Kind::Number, "Width of a reference count entry in bits"),
        ],
    },
    Format {
        name: "luks",
        rows: &[
            text("state", STATE),
            row("keyslot", Kind::Number, KEYSLOT),
            text("old-secret", OLD_SECRET),
            text("new-secret", NEW_SECRET),
            row("iter-time", Kind::Number, ITER_TIME),
        ],
    },
];

/// How packed clusters are packed: only we pack them anew.
const PACKED_ANEW: &[Row] = &[text("compression_type", "Compression method used for image cluster compression: zlib")];

/// Where an image is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// Nobody has said.
    Nowhere,
    /// Into a file.
    File,
    /// Onto a device.
    Device,
}

/// A key and a text, as they stand in a list.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What a format can be asked for, and what the file can that it is put into.
pub struct Schema {
    name: Vec<u8>,
    rows: Vec<&'static Row>,
}

impl Schema {
    /// Of this format, in a file; nothing if it cannot be made.
    pub fn of(format: &[u8], profile: &Profile) -> Option<Schema> {
        Schema::on(format, Ground::File, profile)
    }

    /// Of this format, where it is put.
    pub fn on(format: &[u8], ground: Ground, profile: &Profile) -> Option<Schema> {
        let own = FORMATS.iter().find(|known| known.name.as_bytes() == format)?;
        let around = match ground {
            Ground::Nowhere => &[][..],
            Ground::File => FILE,
            Ground::Device => DEVICE,
        };
        let around = around.iter().filter(|row| own.rows.iter().all(|own| own.name != row.name));
        let there = |row: &&Row| profile.since(row.since.0, row.since.1, 0);
        Some(Schema { name: format.to_vec(), rows: own.rows.iter().chain(around).filter(there).collect() })
    }

    /// The formats whose images can be given other options.
    pub fn amended() -> impl Iterator<Item = &'static [u8]> {
        AMENDED.iter().map(|format| format.name.as_bytes())
    }

    /// Of what an image of this format that is there can be asked for.
    pub fn amending(format: &[u8]) -> Option<Schema> {
        let own = AMENDED.iter().find(|known| known.name.as_bytes() == format)?;
        Some(Schema { name: format.to_vec(), rows: own.rows.iter().collect() })
    }

    /// Together with what only we can change.
    pub fn with_our_changes(mut self) -> Schema {
        if self.name == b"qcow2" {
            self.rows.extend(PACKED_ANEW);
        }
        self
    }

    /// Together with all that an image can be asked for when it is made.
    pub fn with_creation(mut self, profile: &Profile) -> Schema {
        let made = Schema::on(&self.name, Ground::Nowhere, profile);
        self.rows.extend(made.into_iter().flat_map(|made| made.rows));
        self
    }

    /// As a face has it: the native one also makes what qemu-img only reads.
    pub fn of_face(mut self, face: Face) -> Schema {
        match &self.name[..] {
            _ if face == Face::Qemu => {}
            b"vpc" | b"vhdx" => self.rows.extend(BELOW),
            b"vmdk" => self.rows.extend(GRAIN),
            _ => {}
        }
        self
    }

    /// Whether this can be asked for.
    pub fn has(&self, key: &str) -> bool {
        self.rows.iter().any(|row| row.name == key)
    }

    /// The entries of lists that go on one another.
    pub fn entries<'l>(lists: impl Iterator<Item = &'l [u8]>) -> Vec<Entry> {
        lists.flat_map(|list| keyval::options(list, None, false).entries).collect()
    }

    /// Reads what was asked for, in lists that go on one another; an option that is given twice is what it is last.
    /// Some values earn a warning.
    pub fn read<'l>(
        &self,
        lists: impl Iterator<Item = &'l [u8]>,
        profile: &Profile,
    ) -> (Result<Fact, Complaint>, Vec<Note>) {
        let about = say(&[b"Invalid options for file format '", &self.name, b"'"]);
        let (fact, warnings) = self.facts(&Schema::entries(lists), profile);
        (fact.map_err(|complaint| complaint.then(Note::Said(about))), warnings)
    }

    /// The same of entries, with the complaint alone.
    pub fn facts(&self, entries: &[Entry], profile: &Profile) -> (Result<Fact, Complaint>, Vec<Note>) {
        let mut warnings = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for (key, text) in entries {
            let value = match self.value(key, text, profile, &mut warnings) {
                Ok(value) => value,
                Err(complaint) => return (Err(complaint), warnings),
            };
            fields.retain(|field| field.name.0 != *key);
            fields.push(Field { name: key[..].into(), value });
        }
        (Ok(Fact::Fields(fields)), warnings)
    }

    fn value(&self, key: &[u8], text: &[u8], profile: &Profile, warnings: &mut Vec<Note>) -> Result<Fact, Complaint> {
        let row = self.rows.iter().find(|row| row.name.as_bytes() == key);
        match row.ok_or_else(|| Complaint::new(&[b"Invalid parameter '", key, b"'"]))?.kind {
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

    /// What was asked for, and what is usual where nothing was, as qemu-img tells it: numbers as numbers, all else as
    /// it was written, with commas doubled.
    pub fn shown(&self, entries: &[Entry], profile: &Profile) -> Vec<u8> {
        let shown = |row: &&Row| {
            let asked = entries.iter().rev().find(|(key, _)| key == row.name.as_bytes()).map(|(_, text)| text);
            let value = match (asked, row.kind) {
                (None, _) => row.default?.as_bytes().to_vec(),
                (Some(text), Kind::Text) => {
                    text.iter().flat_map(|byte| std::iter::repeat_n(*byte, 1 + usize::from(*byte == b','))).collect()
                }
                (Some(text), Kind::Switch) => text.clone(),
                (Some(text), _) => match self.value(row.name.as_bytes(), text, profile, &mut Vec::new()).ok()? {
                    Fact::Count(number) => number.cast_signed().to_string().into_bytes(),
                    _ => return None,
                },
            };
            Some([row.name.as_bytes(), b"=", &value].concat())
        };
        self.rows.iter().filter_map(shown).collect::<Vec<_>>().join(&b" "[..])
    }

    /// Whether a list asks what can be asked for.
    pub fn asks_for_help(lists: &[&[u8]]) -> bool {
        let words = |list: &&[u8]| keyval::options(list, None, false).entries;
        lists.iter().flat_map(words).any(|(key, _)| matches!(&key[..], b"help" | b"?"))
    }

    /// The list of what can be asked for, by name.
    pub fn help(&self) -> Vec<u8> {
        [b"Supported options:\n", &self.lines()[..]].concat()
    }

    /// Its lines.
    pub fn lines(&self) -> Vec<u8> {
        let mut lines: Vec<(&str, String)> = self
            .rows
            .iter()
            .map(|row| {
                let written = format!("{}={}", row.name, row.kind.shown());
                (row.name, format!("  {written:<22} - {}\n", row.about))
            })
            .collect();
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect::<String>().into_bytes()
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
    fn what_was_asked_for_is_told_in_the_order_of_the_format() {
        let shown = |format: &str, lists: &[&str], version: &str| {
            let profile = Profile::parse(version).unwrap();
            let entries = Schema::entries(lists.iter().map(|list| list.as_bytes()));
            let schema = Schema::of(format.as_bytes(), &profile).unwrap();
            String::from_utf8(schema.shown(&entries, &profile)).unwrap()
        };
        assert_eq!(
            shown("qcow2", &["size=1M,refcount_bits=0x8,lazy_refcounts=y", "nocow=yes,backing_file=a,,b"], "10.0.2"),
            "cluster_size=65536 extended_l2=off compression_type=zlib size=1048576 backing_file=a,,b lazy_refcounts=y \
             refcount_bits=8 nocow=yes"
        );
        assert_eq!(
            shown("raw", &["extent_size_hint=1,preallocation=off,size=-0"], "5.2"),
            "size=0 preallocation=off extent_size_hint=1"
        );
        assert_eq!(shown("vmdk", &["nocompat6"], "5.2"), "compat6=off hwversion=undefined");
        assert_eq!(shown("host_device", &["refcount_bits=3"], "5.2"), "");
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
