//! The qemu-img version being emulated, and what that version does: one table of changes.
use std::fmt;

/// A qemu release number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub micro: u16,
}

impl Version {
    /// The micro number of whatever release is a series' last.
    pub const LAST: u16 = u16::MAX;

    /// The release `major.minor.micro`.
    pub const fn new(major: u16, minor: u16, micro: u16) -> Version {
        Version { major, minor, micro }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.micro {
            Version::LAST => write!(f, "{}.{}", self.major, self.minor),
            micro => write!(f, "{}.{}.{micro}", self.major, self.minor),
        }
    }
}

/// The three dialects of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Up to 9.1, and unpatched builds up to 10.0.
    Old,
    /// Distribution builds of 9.2 and 10.0, which carry a draft of the new dialect.
    Interim,
    /// 10.1 and later.
    New,
}

/// Who built the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Build {
    /// The unpatched source.
    Upstream,
    /// A distribution's package.
    Distribution,
}

/// The columns of `snapshot -l`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotLayout {
    /// Tag 17 wide, size 7.
    V5_2,
    /// Tag 16 wide, size 8, clock without a blank before it.
    V6,
    /// Narrow id, `VM_SIZE`, four digits of hours.
    V9,
}

/// What is said about a protocol whose module is not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleText {
    /// Only that the protocol or driver is unknown.
    Silent,
    /// A line of its own beginning `qemu: module`.
    OwnLine,
    /// The reason of the failure itself.
    Reason,
    /// A line of its own beginning with the program's name.
    Named,
}

/// A qemu-img version with its build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// The release.
    pub version: Version,
    /// Who built it.
    pub build: Build,
}

/// A text that names no qemu-img version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadVersion(pub String);

impl fmt::Display for BadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a qemu-img version (try 10.2, 8.2.2 or 10.0.2-upstream)", self.0)
    }
}

impl std::error::Error for BadVersion {}

impl Default for Profile {
    fn default() -> Profile {
        Profile { version: Version::new(10, 2, Version::LAST), build: Build::Distribution }
    }
}

impl Profile {
    /// Reads `10.2`, `8.2.2`, `10.0.2-upstream`.
    pub fn parse(text: &str) -> Result<Profile, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let (numbers, build) = match text.strip_suffix("-upstream") {
            Some(rest) => (rest, Build::Upstream),
            None => (text, Build::Distribution),
        };
        let parts: Vec<&str> = numbers.split('.').collect();
        if parts.len() > 3 {
            return Err(bad());
        }
        // Whoever names a series means its last release.
        let mut read = [0, 0, Version::LAST];
        for (slot, part) in read.iter_mut().zip(&parts) {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            *slot = part.parse().ok().filter(|_| digits).ok_or_else(bad)?;
        }
        let version = Version::new(read[0], read[1], read[2]);
        if version.major < 5 {
            return Err(bad());
        }
        Ok(Profile { version, build })
    }

    /// Which dialect the command line speaks.
    pub fn family(&self) -> Family {
        let distribution = self.build == Build::Distribution;
        match () {
            () if self.since(10, 1, 0) => Family::New,
            () if self.since(9, 2, 0) && distribution => Family::Interim,
            () => Family::Old,
        }
    }

    /// Whether the version is at least `major.minor.micro`.
    pub fn since(&self, major: u16, minor: u16, micro: u16) -> bool {
        self.version >= Version::new(major, minor, micro)
    }

    /// The columns of `snapshot -l` and of the list in `info`.
    pub fn snapshot_layout(&self) -> SnapshotLayout {
        match () {
            () if self.since(9, 0, 0) => SnapshotLayout::V9,
            () if self.since(6, 0, 0) => SnapshotLayout::V6,
            () => SnapshotLayout::V5_2,
        }
    }

    /// How a missing protocol module is spoken of.
    pub fn module_text(&self) -> ModuleText {
        match () {
            () if self.build == Build::Upstream || !self.since(6, 0, 0) => ModuleText::Silent,
            () if self.since(9, 0, 0) => ModuleText::Named,
            () if self.since(8, 0, 0) => ModuleText::Reason,
            () => ModuleText::OwnLine,
        }
    }

    /// `create -f luks -o detached-header=on` works (also fixed late in 10.0).
    pub fn detached_header_works(&self) -> bool {
        let late_stable = self.since(10, 0, 13) && !self.since(10, 1, 0);
        late_stable || self.since(10, 2, 0)
    }

    /// The raw driver's offset error tells the real offset (also fixed late in 7.2).
    pub fn raw_offset_told(&self) -> bool {
        let late_stable = self.since(7, 2, 22) && !self.since(8, 0, 0);
        late_stable || self.since(9, 0, 0)
    }

    /// `snapshot -a` on a format without snapshots answers (also fixed late in 7.2).
    pub fn snapshot_apply_answers(&self) -> bool {
        let late_stable = self.since(7, 2, 22) && !self.since(8, 0, 0);
        late_stable || self.since(10, 0, 0)
    }
}

/// Declares predicates: a name, the first version that has the feature, and what it decides.
macro_rules! features {
    ($($(#[doc = $doc:literal])+ $name:ident: $major:literal . $minor:literal;)+) => {
        impl Profile {
            $($(#[doc = $doc])+
            pub fn $name(&self) -> bool {
                self.since($major, $minor, 0)
            })+
        }
        #[cfg(test)]
        const FEATURES: &[(&str, u16, u16, fn(&Profile) -> bool)] =
            &[$((stringify!($name), $major, $minor, Profile::$name)),+];
    };
}

features! {
    /// A copy looks for broken bitmaps before it begins, and may pass over them.
    skips_broken_bitmaps: 6 . 1;
    /// What to do about a broken bitmap is told in a line that has an end.
    ends_bitmap_hint: 6 . 1;
    /// Objects are checked against the schema while options are read; JSON objects; `--object help`.
    schema_objects: 6 . 0;
    /// A wrong enum value is told as `Parameter 'x' does not accept value 'y'`.
    enum_words: 6 . 0;
    /// What does not make images is said to need an existing one.
    device_words: 8 . 0;
    /// Errors quote device and node names, and say what was wrong with a file type or node name.
    quoted_names: 6 . 0;
    /// Sizes are whole numbers with an exact fraction, not floating point.
    exact_sizes: 6 . 0;
    /// A bare flag in an option list earns a warning.
    flag_warning: 6 . 0;
    /// A dirty qcow2 is told in `info`.
    dirty_flag: 6 . 0;
    /// qed says in words why it does not open.
    qed_words: 6 . 0;
    /// The data file of a qcow2 image is named as a file and in no other way, and not opened for `info`.
    data_file_is_plain: 6 . 0;
    /// The format of a backing file must be given; `amend` refuses backing options.
    backing_format_required: 6 . 1;
    /// `map` tells `present`.
    map_present: 6 . 1;
    /// The secret object has no `loaded` property any more.
    secret_without_loaded: 7 . 0;
    /// luks header checks and single quotes in luks errors.
    luks_quotes: 7 . 0;
    /// Bitmaps of disks of different sizes are told with the sizes.
    bitmap_sizes_told: 7 . 1;
    /// "No valid VHDX header found" has no tail.
    vhdx_header_plain: 7 . 0;
    /// amend of a zstd image to compat=0.10 has its own message.
    amend_zstd_message: 7 . 0;
    /// Child nodes in `info`.
    child_nodes: 8 . 0;
    /// `bitmap` hears of what goes wrong when the image is closed.
    closing_is_checked: 8 . 0;
    /// A suffix on a hexadecimal size is refused.
    hex_suffix_refused: 8 . 0;
    /// A line end after "Detected format of".
    detected_line_end: 8 . 0;
    /// "Could not create snapshot" has no errno number.
    snapshot_error_plain: 8 . 0;
    /// `.5M` is a size, and a negative size is out of range.
    loose_sizes: 8 . 1;
    /// parallels checks more.
    parallels_check: 8 . 1;
    /// `map` tells `compressed`.
    map_compressed: 8 . 2;
    /// `rebase` asks for the length of clusters, and some formats do not tell.
    rebase_asks_for_clusters: 8 . 2;
    /// luks tells `detached header`.
    detached_header: 9 . 0;
    /// `bench` of an empty image answers.
    bench_empty_answers: 10 . 0;
    /// A qcow2 with a crypt method and no crypto header is refused in words.
    crypto_header_checked: 10 . 0;
    /// `info --limits` and `info -t`.
    info_limits: 10 . 2;
    /// The qcow2 option `keep_data_file`.
    keep_data_file: 11 . 0;
    /// `bitmap --remove-all`.
    bitmap_remove_all: 11 . 1;
    /// The requests of `bench` after the first do not reach beyond the end of the disk.
    bench_stays_inside: 11 . 1;
    /// JSON errors tell line and column, in newer words.
    json_error_position: 11 . 1;
    /// gluster is gone from distribution builds.
    gluster_gone: 11 . 1;
    /// parallels checks truncated images anew.
    parallels_truncated: 11 . 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, version, family) in [
            ("10.2", Version::new(10, 2, Version::LAST), Family::New),
            ("8.2.2", Version::new(8, 2, 2), Family::Old),
            ("9.2.1", Version::new(9, 2, 1), Family::Interim),
            ("10.0.2", Version::new(10, 0, 2), Family::Interim),
            ("10.0.2-upstream", Version::new(10, 0, 2), Family::Old),
            ("10.0", Version::new(10, 0, Version::LAST), Family::Interim),
            ("9.1", Version::new(9, 1, Version::LAST), Family::Old),
            ("11", Version::new(11, 0, Version::LAST), Family::New),
        ] {
            let profile = Profile::parse(text).unwrap();
            assert_eq!((profile.version, profile.family()), (version, family), "{text}");
        }
        for text in ["", "x", "10.", "1.2.3.4", "-upstream", "4.2", "10.2-up", "+9.0", "99999.1"] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
        assert_eq!(Profile::default(), Profile::parse("10.2").unwrap());
    }

    #[test]
    fn features_begin_where_the_table_says() {
        for (name, major, minor, has) in FEATURES {
            let at = Profile { version: Version::new(*major, *minor, 0), build: Build::Upstream };
            let before = match minor {
                0 => Version::new(major - 1, 99, 0),
                _ => Version::new(*major, minor - 1, 99),
            };
            assert!(has(&at) && !has(&Profile { version: before, ..at }), "{name}");
        }
    }
}
