//! Definitions of objects against what the programs were seen to say.
use super::*;

fn define(objects: &mut Objects, text: &str, version: &str) -> Result<Defined, String> {
    let profile = Profile::parse(version).unwrap();
    let mut read = |name: &[u8]| match name {
        b"there" => Ok(b"from a file\n".to_vec()),
        _ => Err(io::Error::from_raw_os_error(2)),
    };
    let said = |complaint: Complaint| String::from_utf8(complaint.sentence).unwrap();
    objects.define(text.as_bytes(), &profile, &mut read).map_err(said)
}

const KEY: &str = "secret,id=k,data=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,format=base64";

#[test]
fn refusals_by_version() {
    for (text, old, new) in [
        ("nosuch,id=x", "invalid object type: nosuch", "Parameter 'qom-type' does not accept value 'nosuch'"),
        ("secret,data=x", "Parameter 'id' is missing", "Parameter 'id' is missing"),
        ("", "Parameter 'qom-type' is missing", "Parameter 'qom-type' is missing"),
        ("id=x", "Parameter 'qom-type' is missing", "Parameter 'qom-type' is missing"),
        (",id=x", "invalid object type: ", "Invalid parameter ''"),
        ("secret,id=a", "Either 'file' or 'data' must be provided", "Either 'file' or 'data' must be provided"),
        ("secret,id=a,data=x,nosuch=1", "Property 'secret.nosuch' not found", "Parameter 'nosuch' is unexpected"),
        ("secret,id=a,data.x=y", "Property 'secret.data.x' not found", "Parameters 'data.*' are unexpected"),
        ("secret,id=a,data=x,format=z", "Invalid parameter 'z'", "Parameter 'format' does not accept value 'z'"),
        ("iothread,id=a", "invalid object type: iothread", "invalid object type: iothread"),
        (
            "throttle-group,id=t,x-bps-total=abc",
            "Parameter 'x-bps-total' expects an int64 value",
            "Parameter 'x-bps-total' expects integer",
        ),
        (
            "throttle-group,id=t,limits.nosuch=5",
            "Property 'throttle-group.limits.nosuch' not found",
            "Parameter 'limits.nosuch' is unexpected",
        ),
    ] {
        for (version, want) in [("5.2", old), ("10.2", new)] {
            assert_eq!(define(&mut Objects::default(), text, version), Err(want.into()), "{text} {version}");
        }
    }
}

#[test]
fn refusals_in_all_versions() {
    for (text, want) in [
        ("secret,id=1,data=x", "Parameter 'id' expects an identifier"),
        ("secret,id=a,data=x,file=y", "'file' and 'data' are mutually exclusive"),
        ("secret,id=a,data=x!,format=base64", "Base64 data contains invalid characters"),
        ("secret,id=a,data=x,keyid=nope", "No secret with id 'nope'"),
        ("secret,id=a,data=eHg=,keyid=k", "IV is required to decrypt secret"),
        ("secret,id=a,data=eHg=,keyid=k,iv=eHg=", "IV should be 16 bytes in length not 2"),
        ("secret,id=a,data=eHg=,keyid=k,iv=MDEyMzQ1Njc4OWFiY2RlZg==", "Length 4 must be a multiple of block size 16"),
        (
            "secret,id=a,file=nope",
            "Unable to read nope: Failed to open file \u{201c}nope\u{201d}: No such file or directory",
        ),
        ("secret,id=k,data=x", "attempt to add duplicate property 'k' to object (type 'container')"),
        (
            "throttle-group,id=t,x-bps-total=1,x-bps-read=5",
            "bps/iops/max total values and read/write values cannot be used at the same time",
        ),
        (r#"{"qom-type":"secret","id":"a","data":1}"#, "Invalid parameter type for 'data', expected: string"),
        (r#"{"id":"a"}"#, "Parameter 'qom-type' is missing"),
        ("{}x", "Expecting at most one JSON value"),
        ("{", "JSON parse error, premature EOI"),
    ] {
        let mut objects = Objects::default();
        define(&mut objects, KEY, "10.2").unwrap();
        assert_eq!(define(&mut objects, text, "10.2"), Err(want.into()), "{text}");
    }
}

#[test]
fn objects_are_kept_and_hidden() {
    let mut objects = Objects::default();
    for text in [
        KEY,
        "secret,id=a,data=pass,,word",
        "secret,id=f,file=there",
        "secret,id=zero,format=base64,data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "secret,id=s,data=wjXeJNI54DzI43fGBPymew==,format=base64,keyid=zero,iv=AAAAAAAAAAAAAAAAAAAAAA==",
        r#"{"qom-type":"secret","id":"j","data":"x"}"#,
        "throttle-group,id=t,limits.bps-total=5",
    ] {
        assert_eq!(define(&mut objects, text, "10.2"), Ok(Defined::Made), "{text}");
    }
    let bytes = |id: &str| objects.secret(id.as_bytes()).unwrap().bytes.expose().to_vec();
    assert_eq!(bytes("a"), b"pass,word");
    assert_eq!(bytes("f"), b"from a file\n");
    assert_eq!(bytes("s"), b"hello", "deciphered");
    assert_eq!(objects.group(b"t").unwrap().limits, [(b"bps-total".to_vec(), 5)]);
    assert!(!format!("{:?}", objects.secrets).contains("112"), "the bytes of a passphrase show");
}

#[test]
fn help_is_an_answer() {
    let help = |text| match define(&mut Objects::default(), text, "10.2") {
        Ok(Defined::Help(text)) => String::from_utf8(text).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(help("help").starts_with("List of user creatable objects:\n  secret\n"));
    assert!(help("secret,help").starts_with("secret options:\n  data=<string>\n"));
}

#[test]
fn the_oldest_refuses_names_early() {
    let mut objects = Objects::default();
    assert!(objects.announce(b"secret,id=a,data=x").is_ok());
    let twice = objects.announce(b"secret,id=a,data=x").unwrap_err();
    assert_eq!(twice.sentence, b"Duplicate ID 'a' for object");
    assert!(objects.announce(b"secret,data=x").is_ok());
}
