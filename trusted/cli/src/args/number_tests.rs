//! Sizes and counts against what the programs of several versions were seen to accept.
use super::*;

const OLD: &str = "5.2";
const EXACT: &str = "7.2";
const LOOSE: &str = "8.2.2";

fn profile(version: &str) -> Profile {
    Profile::parse(version).unwrap()
}

fn read(text: &str, version: &str) -> Result<u64, Bad> {
    size(text.as_bytes(), &profile(version)).value
}

#[test]
fn sizes_that_all_versions_read_alike() {
    for (text, want) in [
        ("0", Ok(0)),
        ("1.5G", Ok(3 << 29)),
        ("512b", Ok(512)),
        ("512B", Ok(512)),
        ("+1M", Ok(1 << 20)),
        (" 1M", Ok(1 << 20)),
        ("1m", Ok(1 << 20)),
        ("0x1000000", Ok(1 << 24)),
        ("0X10", Ok(16)),
        ("0x1E", Ok(30)),
        ("010", Ok(10)),
        ("1.", Ok(1)),
        ("1.M", Ok(1 << 20)),
        ("1.1k", Ok(1126)),
        ("1.0000001k", Ok(1024)),
        ("1048576.0", Ok(1 << 20)),
        ("2048.5k", Ok(2_097_664)),
        ("1.333333333333333333333k", Ok(1365)),
        ("8E", Ok(1 << 63)),
        ("16E", Err(Bad::Range)),
        ("99999999999999999999", Err(Bad::Range)),
        ("", Err(Bad::Syntax)),
        ("abc", Err(Bad::Syntax)),
        ("1 M", Err(Bad::Syntax)),
        ("1kilobyte", Err(Bad::Syntax)),
        ("1.5", Err(Bad::Syntax)),
        ("1.5b", Err(Bad::Syntax)),
        (".M", Err(Bad::Syntax)),
        (".", Err(Bad::Syntax)),
        ("1EB", Err(Bad::Syntax)),
        ("1z", Err(Bad::Syntax)),
        ("0x", Err(Bad::Syntax)),
        ("++5", Err(Bad::Syntax)),
        ("inf", Err(Bad::Syntax)),
        ("nan", Err(Bad::Syntax)),
        ("0x1.8", Err(Bad::Syntax)),
        ("-abc", Err(Bad::Syntax)),
    ] {
        for version in [OLD, EXACT, LOOSE] {
            assert_eq!(read(text, version), want, "{text} in {version}");
        }
    }
}

#[test]
fn sizes_that_versions_read_differently() {
    let (syntax, range) = (Err(Bad::Syntax), Err(Bad::Range));
    for (text, old, exact, loose) in [
        ("1e3", Ok(1000), syntax, syntax),
        (".5M", Ok(1 << 19), syntax, Ok(1 << 19)),
        ("0x10k", Ok(16384), Ok(16384), syntax),
        ("0x1p3", Ok(8), syntax, syntax),
        ("-1", range, syntax, range),
        ("-0", Ok(0), syntax, range),
        ("-.5", syntax, syntax, range),
        ("-1k", range, syntax, syntax),
        ("-0x10", range, syntax, syntax),
        ("0.00000000000000001E", Ok(11), Ok(12), Ok(12)),
        ("7.99999999999999999999E", Ok(1 << 63), Ok(7 << 60), Ok(1 << 63)),
    ] {
        for (version, want) in [(OLD, old), (EXACT, exact), (LOOSE, loose)] {
            assert_eq!(read(text, version), want, "{text} in {version}");
        }
    }
}

#[test]
fn hexadecimal_suffixes_are_warned_of_for_a_while() {
    let warned = |text: &str, version| size(text.as_bytes(), &profile(version)).hex_suffix;
    assert!(warned("0x10k", EXACT) && warned("0x1p3", EXACT));
    assert!(!warned("0x10k", OLD) && !warned("0x10k", LOOSE) && !warned("0x10", EXACT));
}

#[test]
fn whole_numbers() {
    for (text, want) in [
        ("12", Ok(12)),
        ("0x10", Ok(16)),
        ("010", Ok(8)),
        ("-1", Err(Bad::Range)),
        ("1k", Err(Bad::Syntax)),
        ("", Err(Bad::Syntax)),
        ("08", Err(Bad::Syntax)),
        ("99999999999999999999999", Err(Bad::Range)),
    ] {
        assert_eq!(whole(text.as_bytes()), want, "{text}");
    }
}

#[test]
fn sentences_follow_the_family() {
    let said = |text: &str, version: &str| {
        let (got, _) = named_size(text.as_bytes(), "bs", 1..=9, &profile(version));
        let lines = got.unwrap_err().lines("q");
        String::from_utf8(lines.join(&b'\n')).unwrap()
    };
    assert_eq!(
        said("x", "8.2.2"),
        "q: Invalid bs specified. You may use k, M, G, T, P or E suffixes for\n\
         q: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
    );
    assert_eq!(said("x", "10.0.2"), "q: Invalid bs specified: 'x'.");
    assert_eq!(said("x", "10.2"), "q: Invalid bs specified: 'x'");
    assert_eq!(said("10", "10.2"), "q: Invalid bs specified. Must be between 1 and 9.");
    let count = |version| named_count(b"x", "queue depth", 1..=9, &profile(version)).unwrap_err().sentence;
    assert_eq!(count("7.2"), b"Invalid queue depth specified");
    assert_eq!(count("10.0.2"), b"Invalid queue depth specified: 'x'.");
}

#[test]
fn numbers_in_lists() {
    let p = profile("10.2");
    let size = |text: &[u8]| listed_size(text, b"size", &p).0;
    assert_eq!(size(b"18446744073709551615"), Ok(u64::MAX));
    assert_eq!(size(b"-1").unwrap_err().sentence, b"Value '-1' is out of range for parameter 'size'");
    assert_eq!(size(b"a").unwrap_err().after.len(), 2);
    assert_eq!(listed_number(b"-1", b"k"), Ok(u64::MAX));
    assert_eq!(listed_number(b"x", b"k").unwrap_err().sentence, b"Parameter 'k' expects a number");
    assert_eq!(listed_switch(b"maybe", b"k").unwrap_err().sentence, b"Parameter 'k' expects 'on' or 'off'");
}
