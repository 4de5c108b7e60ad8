//! The scanner on small texts.

use super::lex::lex;
use super::{Kind, Source};

fn code(text: &str) -> Vec<&str> {
    lex(text).0.iter().map(|token| token.text).collect()
}

#[test]
fn strings_and_comments_are_no_code() {
    let text = "a /* b /* c */ d */ \"e // f\" r#\"g \" h\"# b\"\\\" i\" // j\nk";
    assert_eq!(code(text), ["a", "\"e // f\"", "r#\"g \" h\"#", "b\"\\\" i\"", "k"]);
    assert_eq!(lex(text).1.len(), 2);
}

#[test]
fn a_lifetime_is_no_character() {
    let kinds: Vec<Kind> = lex("'a 'b' '\\'' '\\u{1f}' b'x' 'é'").0.iter().map(|token| token.kind).collect();
    assert_eq!(kinds, [Kind::Lifetime, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text]);
}

#[test]
fn a_range_is_no_fraction() {
    assert_eq!(code("0..5 1.5 2.max(3)"), ["0", ".", ".", "5", "1.5", "2", ".", "max", "(", "3", ")"]);
}

#[test]
fn lines_are_counted_through_strings_and_comments() {
    let (tokens, comments) = lex("\"a\nb\"\n/* c\n */ d\n// e\nf");
    assert_eq!(tokens.iter().map(|t| t.line).collect::<Vec<_>>(), [1, 4, 6]);
    assert_eq!(comments.iter().map(|c| (c.line, c.end)).collect::<Vec<_>>(), [(3, 4), (5, 5)]);
}

#[test]
fn raw_names_and_raw_strings_are_told_apart() {
    assert_eq!(code("r#fn r\"x\" br#\"y\"#"), ["r#fn", "r\"x\"", "br#\"y\"#"]);
}

#[test]
fn functions_are_found_with_their_lengths() {
    let text =
        "fn a() {\n    b(|| {});\n}\ntrait T {\n    fn c();\n    fn d(x: [u8; 2]) -> fn() {\n        x\n    }\n}\n";
    let source = Source::new("x.rs", text);
    let found: Vec<_> = source.functions().iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("a", 1, 3), ("d", 6, 3)]);
}

#[test]
fn what_is_compiled_for_tests_alone_is_a_test() {
    let text = "fn a() {}\n#[cfg(test)]\nuse b::{c, d};\n#[cfg(not(test))]\nfn e() {}\n#[cfg(test)]\nmod f { fn g() {} }\nfn h() {}\n#[test]\nfn i() {}\n";
    let source = Source::new("x.rs", text);
    let tests: Vec<&str> =
        ["a", "c", "e", "g", "h", "i"].into_iter().filter(|w| source.all(w).any(|at| source.is_test(at))).collect();
    assert_eq!(tests, ["c", "g", "i"]);
    assert!(Source::new("a/tests.rs", "fn a() {}").is_test(0));
    assert!(Source::new("a/b.rs", "#![cfg(test)]\nfn a() {}").is_test(9));
}
