//! JSON as users write it, with the words and places of mistakes.
use super::*;

fn read(text: &str, version: &str) -> Result<Value, String> {
    let profile = Profile::parse(version).unwrap();
    parse(text.as_bytes(), &profile).map_err(|c| String::from_utf8(c.sentence).unwrap())
}

#[test]
fn mistakes_in_older_and_newer_words() {
    const P: &str = "JSON parse error, ";
    for (text, older, at, newer) in [
        ("{", "premature EOI", "1:2", "premature end of input"),
        ("}", "expecting value", "1:1", "expecting value"),
        ("nope", "invalid keyword 'nope'", "1:1", "invalid keyword 'nope'"),
        ("{a:1}", "invalid keyword 'a'", "1:2", "expecting key"),
        (r#"{"a":1,}"#, "expecting value", "1:8", "expecting key"),
        (r#"{"a":1"#, "premature EOI", "1:8", "premature end of input"),
        (r#"{"a"}"#, "missing : in object pair", "1:5", "expecting ':'"),
        (r#"{"a":}"#, "expecting value", "1:6", "expecting value"),
        ("{1:2}", "key is not a string in object", "1:2", "expecting key"),
        (r#"{"a":"x"#, "stray '\"x'", "1:6", "stray '\"x'"),
        (r#"{"a":"\q"}"#, "invalid escape sequence in string", "1:6", "invalid escape sequence in string"),
        (
            r#"{"a":"\u00"}"#,
            "\\u00\" is not a valid Unicode character",
            "1:6",
            "\\u00\" is not a valid Unicode character",
        ),
        (
            r#"{"a":"\ud800\u0041"}"#,
            "\\ud800 is not a valid Unicode character",
            "1:6",
            "\\ud800 is not a valid Unicode character",
        ),
        (r#"{"a":01}"#, "stray '01'", "1:6", "stray '01'"),
        (r#"{"a":-}"#, "stray '-}'", "1:6", "stray '-}'"),
        (r#"{"a":1.}"#, "stray '1.}'", "1:6", "stray '1.}'"),
        (r#"{"a":1.5e}"#, "stray '1.5e}'", "1:6", "stray '1.5e}'"),
        (r#"{"a":1,"a":2}"#, "duplicate key", "1:12", "duplicate key"),
        (r#"{"a":1,"a":{}}"#, "duplicate key", "1:13", "duplicate key"),
        (r#"{"a":[1 2]}"#, "expected separator in list", "1:9", "expected ',' or ']'"),
        (r#"{"a":1 "b"}"#, "expected separator in dict", "1:8", "expected ',' or '}'"),
        (r#"{"a":[,]}"#, "expecting value", "1:7", "expecting value"),
        ("[1", "premature EOI", "1:4", "premature end of input"),
        ("[true ", "premature EOI", "1:7", "premature end of input"),
        (r#"{"a":1]"#, "expected separator in dict", "1:8", "expected ',' or '}'"),
        (r#"{"a":1x}"#, "expected separator in dict", "1:8", "expected ',' or '}'"),
        (r#"{"a":1,"a":{"b":1}}"#, "duplicate key", "1:19", "duplicate key"),
        ("[}", "expecting value", "1:2", "expecting value"),
        (r#"{"a":%d}"#, "stray '%'", "1:6", "stray '%'"),
        ("{driver:raw,file.filename:x}", "stray '.'", "1:2", "expecting key"),
        ("{\n \"a\" 1}", "missing : in object pair", "2:6", "expecting ':'"),
    ] {
        assert_eq!(read(text, "11.0.3"), Err(format!("{P}{older}")), "{text}");
        assert_eq!(read(text, "11.1.3"), Err(format!("{at}: {P}{newer}")), "{text}");
    }
}

#[test]
fn mistakes_without_a_place() {
    for version in ["5.2", "11.1.3"] {
        assert_eq!(read("", version), Err("Expecting a JSON value".into()));
        for text in [r#"{"a":1} x"#, r#"{"a":1}}"#, "1 2", "{} #"] {
            assert_eq!(read(text, version), Err("Expecting at most one JSON value".into()), "{text}");
        }
        let deep = |n| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(1024), version).is_ok());
        assert_eq!(read(&deep(1025), version), Err("JSON nesting depth limit exceeded".into()));
    }
}

#[test]
fn values_are_read_and_printed_again() {
    for (text, printed) in [
        (r#" {"filename":"x","driver":'a"b'} "#, r#"{"driver": "a\"b", "filename": "x"}"#),
        ("[1, -2,18446744073709551615,1.5,true,null]", "[1, -2, 18446744073709551615, 1.5, true, null]"),
        (r#""\u00e9\ud83d\ude00\/\n\'""#, r#""\u00E9\uD83D\uDE00/\n'""#),
        ("{}", "{}"),
    ] {
        let value = read(text, "10.2").unwrap();
        assert_eq!(String::from_utf8(print(&value)).unwrap(), printed);
    }
    assert_eq!(print(&Value::Text(b"\xff\x7f\xc3".to_vec())), br#""\uFFFD\u007F\uFFFD""#);
}
