//! The block drivers and the options that each of them knows, as data.
use crate::profile::Profile;

/// What a driver is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A format of images.
    Format,
    /// Something between a format and a file that changes nothing of the content.
    Filter,
    /// Something between that counts as a protocol in sentences.
    Shim,
    /// A file or device.
    File,
    /// An image that is all zeroes.
    Null,
}

/// What the value of an option must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Text,
    /// `on` or `off`.
    Switch,
    /// A number of bytes.
    Size,
    /// A number.
    Number,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A block driver.
#[derive(Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// The children that options may describe; the first must be there.
    pub children: &'static [&'static str],
    /// Its options; a name that ends in a dot stands for all that begin with it.
    pub options: &'static [(&'static str, Kind)],
    /// The options that belong to the name of an image.
    pub strong: &'static [&'static str],
    /// The first version that has it.
    since: (u16, u16),
}

const FORMAT: Driver =
    Driver { name: "", role: Role::Format, children: &["file"], options: &[], strong: &[], since: (0, 0) };
const FILTER: Driver = Driver { role: Role::Filter, ..FORMAT };
const FILE: Driver = Driver {
    role: Role::File,
    children: &[],
    options: &[
        ("filename", Kind::Text),
        ("aio", Kind::OneOf(&["threads", "native", "io_uring"])),
        ("aio-max-batch", Kind::Number),
        ("locking", Kind::OneOf(&["auto", "on", "off"])),
        ("pr-manager", Kind::Text),
        ("drop-cache", Kind::Switch),
        ("x-check-cache-dropped", Kind::Switch),
    ],
    strong: &["filename"],
    ..FORMAT
};
const NULL: Driver = Driver {
    role: Role::Null,
    children: &[],
    options: &[("size", Kind::Size), ("latency-ns", Kind::Number), ("read-zeroes", Kind::Switch)],
    strong: &["size", "read-zeroes"],
    ..FORMAT
};

const QCOW2_OPTIONS: &[(&str, Kind)] = &[
    ("lazy-refcounts", Kind::Switch),
    ("pass-discard-request", Kind::Switch),
    ("pass-discard-snapshot", Kind::Switch),
    ("pass-discard-other", Kind::Switch),
    ("discard-no-unref", Kind::Switch),
    ("overlap-check", Kind::Text),
    ("overlap-check.template", Kind::Text),
    ("overlap-check.main-header", Kind::Switch),
    ("overlap-check.active-l1", Kind::Switch),
    ("overlap-check.active-l2", Kind::Switch),
    ("overlap-check.refcount-table", Kind::Switch),
    ("overlap-check.refcount-block", Kind::Switch),
    ("overlap-check.snapshot-table", Kind::Switch),
    ("overlap-check.inactive-l1", Kind::Switch),
    ("overlap-check.inactive-l2", Kind::Switch),
    ("overlap-check.bitmap-directory", Kind::Switch),
    ("cache-size", Kind::Size),
    ("l2-cache-size", Kind::Size),
    ("l2-cache-entry-size", Kind::Size),
    ("refcount-cache-size", Kind::Size),
    ("cache-clean-interval", Kind::Number),
    ("encrypt.", Kind::Text),
];

const BLKDEBUG_OPTIONS: &[(&str, Kind)] = &[
    ("config", Kind::Text),
    ("align", Kind::Size),
    ("max-transfer", Kind::Size),
    ("opt-write-zero", Kind::Size),
    ("max-write-zero", Kind::Size),
    ("opt-discard", Kind::Size),
    ("max-discard", Kind::Size),
    ("inject-error.", Kind::Text),
    ("set-state.", Kind::Text),
    ("take-child-perms.", Kind::Text),
    ("unshare-child-perms.", Kind::Text),
];

/// Every driver.
pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "raw",
        options: &[("offset", Kind::Size), ("size", Kind::Size)],
        strong: &["offset", "size"],
        ..FORMAT
    },
    Driver {
        name: "qcow2",
        options: QCOW2_OPTIONS,
        children: &["file", "data-file"],
        strong: &["encrypt.key-secret"],
        ..FORMAT
    },
    Driver { name: "qcow", options: &[("encrypt.", Kind::Text)], strong: &["encrypt.key-secret"], ..FORMAT },
    Driver { name: "qed", ..FORMAT },
    Driver { name: "vmdk", ..FORMAT },
    Driver { name: "vpc", options: &[("force_size_calc", Kind::Text)], strong: &["force_size_calc"], ..FORMAT },
    Driver { name: "vhdx", ..FORMAT },
    Driver { name: "vdi", ..FORMAT },
    Driver {
        name: "parallels",
        options: &[("prealloc-size", Kind::Size), ("prealloc-mode", Kind::OneOf(&["falloc", "truncate"]))],
        ..FORMAT
    },
    Driver { name: "bochs", ..FORMAT },
    Driver { name: "cloop", ..FORMAT },
    Driver { name: "dmg", ..FORMAT },
    Driver {
        name: "luks",
        options: &[("key-secret", Kind::Text)],
        children: &["file", "header"],
        strong: &["key-secret"],
        ..FORMAT
    },
    Driver { name: "throttle", options: &[("throttle-group", Kind::Text)], strong: &["throttle-group"], ..FILTER },
    Driver { name: "copy-on-read", options: &[("bottom", Kind::Text)], strong: &["bottom"], ..FILTER },
    Driver {
        name: "preallocate",
        options: &[("prealloc-align", Kind::Size), ("prealloc-size", Kind::Size)],
        since: (6, 0),
        ..FILTER
    },
    Driver { name: "snapshot-access", since: (7, 0), ..FORMAT },
    Driver {
        name: "blkdebug",
        role: Role::Shim,
        children: &["image"],
        options: BLKDEBUG_OPTIONS,
        strong: &[
            "config",
            "inject-error.",
            "set-state.",
            "align",
            "max-transfer",
            "opt-write-zero",
            "max-write-zero",
            "opt-discard",
            "max-discard",
        ],
        ..FORMAT
    },
    Driver { name: "file", ..FILE },
    Driver { name: "host_device", ..FILE },
    Driver { name: "host_cdrom", ..FILE },
    Driver { name: "null-co", ..NULL },
    Driver { name: "null-aio", ..NULL },
];

/// Options that every node knows.
pub const COMMON: &[&str] = &[
    "driver",
    "node-name",
    "discard",
    "detect-zeroes",
    "read-only",
    "auto-read-only",
    "cache.direct",
    "cache.no-flush",
    "force-share",
];

/// Drivers that live in modules of their own: name, module.
pub const MODULES: &[(&str, &str)] = &[
    ("http", "curl"),
    ("https", "curl"),
    ("ftp", "curl"),
    ("ftps", "curl"),
    ("ssh", "ssh"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("iser", "iscsi"),
    ("rbd", "rbd"),
    ("gluster", "gluster"),
    ("gluster+tcp", "gluster"),
    ("gluster+unix", "gluster"),
    ("gluster+rdma", "gluster"),
];

/// The driver called `name` in the version of `profile`.
pub fn driver(name: &[u8], profile: &Profile) -> Option<&'static Driver> {
    let there = |driver: &&Driver| profile.since(driver.since.0, driver.since.1, 0);
    DRIVERS.iter().find(|driver| driver.name.as_bytes() == name).filter(there)
}

impl Driver {
    /// Whether it is a protocol in sentences and names.
    pub fn is_protocol(&self) -> bool {
        matches!(self.role, Role::Shim | Role::File | Role::Null)
    }

    /// What the value of the option must look like; `None` if there is no such option.
    pub fn option(&self, key: &[u8], profile: &Profile) -> Option<Kind> {
        let newer = match key {
            b"discard-no-unref" => profile.since(8, 1, 0),
            b"aio-max-batch" => profile.since(6, 0, 0),
            b"prealloc-mode" | b"prealloc-size" if self.name == "parallels" => profile.since(8, 0, 0),
            _ => true,
        };
        let found = self.options.iter().find(|(name, _)| matches(name, key));
        found.filter(|_| newer).map(|(_, kind)| *kind)
    }
}

/// Whether a name from the tables stands for `key`.
pub fn matches(name: &str, key: &[u8]) -> bool {
    name.as_bytes() == key || name.ends_with('.') && key.starts_with(name.as_bytes())
}
