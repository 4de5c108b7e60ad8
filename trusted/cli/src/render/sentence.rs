//! The sentence for an error that came out of a cell, in the words of the emulated version.

use super::dump::plain;
use super::escape::Text;
use crate::profile::Profile;
use instar_wire::error::Error;

/// What a sentence needs beyond the error itself.
pub struct Manner<'a> {
    /// The version emulated.
    pub profile: &'a Profile,
    /// Names and arguments as they are, or made safe.
    pub text: Text,
    /// The name that stands for a file's number.
    pub display: &'a dyn Fn(u32) -> Vec<u8>,
    /// The broker's note with this number.
    pub cause: &'a dyn Fn(u32) -> Option<Vec<u8>>,
}

/// `Could not open 'NAME': WORDS`, without a line end.
pub fn could_not_open(name: &[u8], error: &Error, manner: &Manner<'_>) -> Vec<u8> {
    [b"Could not open '", &manner.text.show(name)[..], b"': ", &words(error, manner)].concat()
}

/// Of an error that qemu-img tells in a line of its own, what it says then of the image that it could not open.
pub fn apart(error: &Error) -> Option<Error> {
    let is_apart = error.what.0.starts_with(b"VHDX BAT entry") || error.what.0.starts_with(b"VHDX region");
    let then = || Error { cause: None, args: Vec::new(), what: WORDLESS.into(), ..error.clone() };
    is_apart.then(then)
}

/// `warning: WORDS` and a line end. A hint after a line break in the phrase ends without one, as qemu-img leaves it.
pub fn warning(error: &Error, manner: &Manner<'_>) -> Vec<u8> {
    let mut out = [b"warning: ", &words(error, manner)[..]].concat();
    if !error.what.0.contains(&b'\n') {
        out.push(b'\n');
    }
    out
}

/// The error's phrase as the version words it, with its arguments and the broker's reason.
pub fn words(error: &Error, manner: &Manner<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = 0;
    let mut rest = worded(&error.what.0, manner.profile);
    while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
        let (before, from) = rest.split_at(at);
        literal(&mut out, before, manner.text);
        let len = from.iter().position(|byte| *byte == b'}').map_or(from.len(), |end| end + 1);
        let (holder, after) = from.split_at(len);
        match fill(holder, error, &mut next, manner) {
            Some(value) => out.extend(value),
            None => literal(&mut out, holder, manner.text),
        }
        rest = after;
    }
    literal(&mut out, rest, manner.text);
    if let Some(cause) = error.cause.and_then(manner.cause) {
        out.extend_from_slice(b": ");
        out.extend_from_slice(&manner.text.show(&cause));
    }
    out
}

/// A piece of the phrase. It came out of a cell, so it is escaped as well; a line break in it is meant.
fn literal(out: &mut Vec<u8>, piece: &[u8], text: Text) {
    for (i, line) in piece.split(|byte| *byte == b'\n').enumerate() {
        if i > 0 {
            out.push(b'\n');
        }
        out.extend_from_slice(&text.show(line));
    }
}

/// What stands for `{}` (the next argument), `{2}` (the third) or `{file}`; anything else stands for itself.
fn fill(holder: &[u8], error: &Error, next: &mut usize, manner: &Manner<'_>) -> Option<Vec<u8>> {
    let inner = holder.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let index = match inner {
        b"file" => return error.file.map(|id| manner.text.show(&(manner.display)(id.0)).into_owned()),
        b"" => {
            *next += 1;
            *next - 1
        }
        number => std::str::from_utf8(number).ok()?.parse().ok()?,
    };
    error.args.get(index).map(|arg| plain(arg, manner.text))
}

/// A phrase as the version words it.
pub fn worded<'a>(phrase: &'a [u8], profile: &Profile) -> &'a [u8] {
    // Rows of one phrase stand oldest first, so the first that still holds is the right one.
    let row = OLDER.iter().find(|row| row.phrase.as_bytes() == phrase && !(row.newer)(profile));
    row.map_or(phrase, |row| row.words.as_bytes())
}

/// How a phrase was worded once.
struct Older {
    /// The words of today.
    phrase: &'static str,
    /// Whether the version has the newer words.
    newer: fn(&Profile) -> bool,
    /// The words of then; `{0}` is the first of the arguments, whatever their order today.
    words: &'static str,
}

const fn older(phrase: &'static str, newer: fn(&Profile) -> bool, words: &'static str) -> Older {
    Older { phrase, newer, words }
}

/// A word that is none of those that may stand there.
const INVALID: &str = "Invalid parameter '{}'";

const WORDLESS: &str = "Could not open '{file}': Invalid argument";

/// Every phrase that was worded differently in some version.
const OLDER: &[Older] = &[
    // Files.
    older(
        "'file' driver requires '{}' to be a regular file",
        Profile::quoted_names,
        "A regular file was expected by the 'file' driver, but something else was given",
    ),
    older(
        "'host_device' driver requires '{}' to be either a character or block device",
        Profile::quoted_names,
        "'host_device' driver expects either a character or block device",
    ),
    older(
        "The sum of offset ({}) and size ({}) has to be smaller or equal to the  actual size of the containing file ({})",
        Profile::raw_offset_told,
        "The sum of offset (0) and size (0) has to be smaller or equal to the  actual size of the containing file ({2})",
    ),
    older(
        "Cannot find device='{}' nor node-name='{}'",
        Profile::quoted_names,
        "Cannot find device={} nor node_name={}",
    ),
    older(
        "Offset ({}) cannot be greater than size of the containing file ({})",
        Profile::raw_offset_told,
        "Offset (0) cannot be greater than size of the containing file ({1})",
    ),
    older(
        "Could not parse the JSON options: {}:{}: JSON parse error, premature end of input",
        Profile::json_error_position,
        "Could not parse the JSON options: JSON parse error, premature EOI",
    ),
    // luks.
    older(
        "Algorithm '{}' with key size {} bytes not supported",
        Profile::luks_quotes,
        "Algorithm {} with key size {} bytes not supported",
    ),
    older("Cipher mode '{}' not supported", Profile::luks_quotes, "Cipher mode {} not supported"),
    older("Unexpected cipher mode string format '{}'", Profile::luks_quotes, "Unexpected cipher mode string format {}"),
    older("IV generator '{}' not supported", Profile::luks_quotes, "IV generator {} not supported"),
    older("Hash algorithm '{}' not supported", Profile::luks_quotes, "Hash algorithm {} not supported"),
    older(
        "Keyslot {} is corrupted (stripes {} != 4000)",
        Profile::luks_quotes,
        "Keyslot {} is corrupted (stripes == {})",
    ),
    older(
        "Keyslot {} is corrupted (stripes {} != {})",
        Profile::luks_quotes,
        "Keyslot {} is corrupted (stripes == {})",
    ),
    older(
        "LUKS payload is overlapping with the header",
        Profile::luks_quotes,
        "Keyslot 0 is overlapping with the encrypted payload",
    ),
    // qed.
    older("QED table offset is invalid", Profile::qed_words, WORDLESS),
    older("QED table size is invalid", Profile::qed_words, WORDLESS),
    older("QED backing filename offset is invalid", Profile::qed_words, WORDLESS),
    older("QED cluster size is invalid", Profile::qed_words, WORDLESS),
    older("QED image size is invalid", Profile::qed_words, WORDLESS),
    // vhdx.
    older("No valid VHDX header found", Profile::vhdx_header_plain, "No valid VHDX header found: Unknown error -4096"),
    // amend.
    older(
        "Cannot downgrade an image with zstd compression type and existing compressed clusters",
        Profile::amend_zstd_message,
        "Cannot downgrade an image with incompatible features 0x8 set",
    ),
    // bitmap.
    older(
        "Bitmaps are of different sizes (destination size is {}, source size is {}) and can't be merged",
        Profile::bitmap_sizes_told,
        "Bitmaps are incompatible and can't be merged",
    ),
    // snapshot.
    older(
        "Could not create snapshot '{}': Operation not supported",
        Profile::snapshot_error_plain,
        "Could not create snapshot '{}': -95 (Operation not supported)",
    ),
    older(
        "Could not create snapshot '{}': Invalid argument",
        Profile::snapshot_error_plain,
        "Could not create snapshot '{}': -22 (Invalid argument)",
    ),
    older(
        "Could not create snapshot '{}': File too large",
        Profile::snapshot_error_plain,
        "Could not create snapshot '{}': -27 (File too large)",
    ),
    // Options and objects.
    older("Parameter '{}' does not accept value '{}'", Profile::enum_words, "Invalid parameter '{1}'"),
    older("Parameter 'preallocation' does not accept value '{}'", Profile::enum_words, INVALID),
    older("Parameter 'subformat' does not accept value '{}'", Profile::enum_words, INVALID),
    older("Parameter 'compression_type' does not accept value '{}'", Profile::enum_words, INVALID),
    older("Parameter 'format' does not accept value '{}'", Profile::enum_words, INVALID),
    older("Parameter 'qom-type' does not accept value '{}'", Profile::schema_objects, "invalid object type: {}"),
    older(
        "attempt to add duplicate property '{}' to object (type 'container')",
        Profile::schema_objects,
        "Duplicate ID '{}' for object",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use instar_wire::error::Kind;
    use instar_wire::io::FileId;

    fn said(version: &str, text: Text, error: &Error) -> String {
        let profile = &Profile::parse(version).unwrap();
        let display = |id: u32| format!("file\x1b{id}").into_bytes();
        let cause = |number: u32| (number == 7).then(|| b"No such file or directory".to_vec());
        let manner = Manner { profile, text, display: &display, cause: &cause };
        String::from_utf8(could_not_open(b"x\n.img", error, &manner)).unwrap()
    }

    #[test]
    fn arguments_are_filled_in_once_and_escaped() {
        let error =
            Kind::Corrupt.what("'{}' and {} in {file}: {} {no}\x1b[m").arg("{}\x07{file}").arg(-3i64).file(FileId(4));
        let safe = r"Could not open 'x\n.img': '{}\x07{file}' and -3 in file\x1b4: {} {no}\x1b[m";
        assert_eq!(said("10.2", Text::Safe, &error), safe);
        assert!(
            said("10.2", Text::Raw, &error).starts_with("Could not open 'x\n.img': '{}\x07{file}' and -3 in file\x1b4")
        );
    }

    #[test]
    fn the_brokers_reason_comes_last() {
        let mut error = Kind::Io.what("Could not open '{}'").arg("y.data");
        error.cause = Some(7);
        let words = r"Could not open 'x\n.img': Could not open 'y.data': No such file or directory";
        assert_eq!(said("10.2", Text::Safe, &error), words);
        error.cause = Some(8);
        assert_eq!(said("10.2", Text::Safe, &error), r"Could not open 'x\n.img': Could not open 'y.data'");
    }

    #[test]
    fn old_versions_use_old_words() {
        let cipher =
            Kind::Unsupported.what("Algorithm '{}' with key size {} bytes not supported").arg("nosuch").arg(32u64);
        let stripes = Kind::Corrupt.what("Keyslot {} is corrupted (stripes {} != {})").arg(6u64).arg(0u64).arg(4000u64);
        let offset = Kind::Unsupported
            .what("Offset ({}) cannot be greater than size of the containing file ({})")
            .arg(99_999_999u64)
            .arg(4_194_304u64);
        let qed = Kind::Corrupt.what("QED table offset is invalid").file(FileId(0));
        let vhdx = Kind::Corrupt.what("No valid VHDX header found");
        for (version, error, words) in [
            ("6.2", &cipher, "Algorithm nosuch with key size 32 bytes not supported"),
            ("7.2.22", &cipher, "Algorithm 'nosuch' with key size 32 bytes not supported"),
            ("5.2", &stripes, "Keyslot 6 is corrupted (stripes == 0)"),
            ("8.2.2", &stripes, "Keyslot 6 is corrupted (stripes 0 != 4000)"),
            ("6.2", &offset, "Offset (0) cannot be greater than size of the containing file (4194304)"),
            ("7.2.22", &offset, "Offset (99999999) cannot be greater than size of the containing file (4194304)"),
            ("8.2.2", &offset, "Offset (0) cannot be greater than size of the containing file (4194304)"),
            ("5.2", &qed, r"Could not open 'file\x1b0': Invalid argument"),
            ("11.1.3", &qed, "QED table offset is invalid"),
            ("6.2", &vhdx, "No valid VHDX header found: Unknown error -4096"),
            ("7.2", &vhdx, "No valid VHDX header found"),
        ] {
            assert_eq!(said(version, Text::Safe, error), format!("Could not open 'x\\n.img': {words}"), "{version}");
        }
    }

    #[test]
    fn a_hint_follows_its_warning_without_a_line_end() {
        let profile = &Profile::default();
        let manner = Manner { profile, text: Text::Safe, display: &|_| Vec::new(), cause: &|_| None };
        assert_eq!(warning(&Kind::Corrupt.what("a"), &manner), b"warning: a\n");
        assert_eq!(warning(&Kind::Corrupt.what("a\nRun b."), &manner), b"warning: a\nRun b.");
    }
}
