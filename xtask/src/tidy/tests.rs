//! Every rule on a text that breaks it and on one that does not.

use super::settings::Settings;
use super::{Finding, comments, edges, panics, ratchet, sets, sizes, walls, words, zones};
use crate::rust::Source;
use crate::tree::Tree;

/// No line at all.
const NONE: [usize; 0] = [];

fn lines(found: &[Finding]) -> Vec<usize> {
    found.iter().map(|finding| finding.line).collect()
}

fn files(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|finding| finding.file.as_str()).collect()
}

mod rule_edges {
    use super::*;
    use edges::{Need, Package};

    fn package(folder: &str, own: &[&str], foreign: &[&str]) -> Package {
        let own = own.iter().map(|name| Need::Own((*name).to_owned()));
        let needs = own.chain(foreign.iter().map(|name| Need::Foreign((*name).to_owned()))).collect();
        Package { folder: folder.to_owned(), needs }
    }

    #[test]
    fn trusted_on_untrusted_is_found_however_long_the_way() {
        let packages = [
            package("trusted/cli", &["testkit"], &[]),
            package("testkit", &["untrusted/image"], &[]),
            package("untrusted/image", &["boundary/wire"], &["zerocopy"]),
            package("boundary/wire", &[], &["zerocopy"]),
        ];
        let found = edges::check(&packages);
        assert_eq!(files(&found), ["trusted/cli/Cargo.toml"]);
        assert!(found[0].what.contains("trusted/cli → testkit → untrusted/image"), "{}", found[0].what);
    }

    #[test]
    fn the_wire_depends_on_zerocopy_alone() {
        let found = edges::check(&[package("boundary/wire", &["testkit"], &["zerocopy", "serde"])]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn untrusted_on_trusted_is_found() {
        let found =
            edges::check(&[package("untrusted/ops", &["trusted/broker"], &[]), package("trusted/broker", &[], &[])]);
        assert_eq!(files(&found), ["untrusted/ops/Cargo.toml"]);
    }

    #[test]
    fn a_source_taken_in_by_its_path_is_found() {
        let bad = "#[path = \"../../../untrusted/image/src/num.rs\"]\nmod num;\ninclude!(\"../untrusted/x.rs\");\n";
        let good = "const FOLDER: &str = \"untrusted/worker\";\n";
        let tree = Tree::of(&[("trusted/a/src/lib.rs", bad), ("trusted/b/src/lib.rs", good)]);
        assert_eq!(lines(&edges::check_paths(&tree)), [1, 3]);
    }
}

mod rule_zones {
    use super::*;

    #[test]
    fn a_crate_root_says_what_it_does_without() {
        let tree = Tree::of(&[
            ("trusted/cli/src/lib.rs", "//! x\n"),
            ("trusted/broker/src/lib.rs", "#![deny(unsafe_code)]"),
            ("trusted/sandbox/src/lib.rs", ""),
            ("untrusted/image/src/lib.rs", "#![no_std]\n#![forbid(unsafe_code)]"),
            ("untrusted/ops/src/lib.rs", "#![forbid(unsafe_code)]"),
            ("untrusted/worker/src/lib.rs", "#![no_std]\n#![cfg_attr(not(freestanding), forbid(unsafe_code))]"),
        ]);
        assert_eq!(files(&zones::check(&tree)), ["untrusted/ops/src/lib.rs", "trusted/cli/src/lib.rs"]);
    }

    #[test]
    fn unsafe_code_has_few_places() {
        let code = "fn f() { unsafe { g() } }";
        let tree = Tree::of(&[
            ("trusted/broker/src/sys.rs", code),
            ("trusted/broker/src/lock.rs", code),
            ("trusted/broker/src/plane.rs", "#![allow(unsafe_code)]"),
            ("trusted/sandbox/src/window.rs", code),
            ("untrusted/worker/src/rt/mod.rs", code),
            ("untrusted/worker/src/port.rs", "// unsafe\nconst A: &str = \"unsafe\";"),
            ("untrusted/image/src/file.rs", code),
        ]);
        let found = zones::check(&tree);
        assert_eq!(
            files(&found),
            ["untrusted/image/src/file.rs", "trusted/broker/src/lock.rs", "trusted/broker/src/plane.rs"]
        );
    }
}

mod rule_sets {
    use super::*;

    #[test]
    fn a_verb_has_its_places_and_no_other_verb_has_any() {
        let tree = Tree::of(&[
            ("boundary/wire/src/op/mod.rs", "pub mod info;\nmod inner;\n"),
            ("boundary/wire/src/op/info.rs", ""),
            ("trusted/cli/src/info.rs", ""),
            ("trusted/cli/src/profile.rs", ""),
            ("trusted/cli/src/map.rs", ""),
            ("untrusted/ops/src/info.rs", ""),
            ("tests/cmd/info.toml", ""),
        ]);
        let found = sets::check(&tree, &mut Settings::default());
        assert_eq!(files(&found), ["docs/commands/info.md", "trusted/cli/src/map.rs"]);
    }

    #[test]
    fn a_format_folder_has_known_nouns_and_excused_ones() {
        let tree = Tree::of(&[
            ("untrusted/formats/src/qed/mod.rs", ""),
            ("untrusted/formats/src/qed/open.rs", ""),
            ("untrusted/formats/src/qed/helper.rs", ""),
            ("untrusted/formats/src/dmg/plist.rs", ""),
            (
                "xtask/tidy.toml",
                "[[allow]]\nrule = \"noun\"\nfile = \"untrusted/formats/src/qed/helper.rs\"\nreason = \"a thing of its own\"\n",
            ),
        ]);
        let mut settings = Settings::read(&tree).expect("settings");
        let found = sets::check(&tree, &mut settings);
        assert_eq!(files(&found), ["untrusted/formats/src/dmg/", "untrusted/formats/src/dmg/plist.rs"]);
        assert_eq!(settings.unused(), []);
    }
}

mod rule_settings {
    use super::*;

    #[test]
    fn an_exception_has_a_reason_and_is_needed() {
        let entry = "[[allow]]\nrule = \"as\"\nfile = \"a.rs\"\n";
        assert!(Settings::read(&Tree::of(&[("xtask/tidy.toml", entry)])).is_err());
        let with_reason = format!("{entry}reason = \"because of its table\"\n");
        let settings = Settings::read(&Tree::of(&[("xtask/tidy.toml", &with_reason)])).expect("settings");
        assert_eq!(settings.unused().len(), 1);
    }

    #[test]
    fn an_exception_of_one_function_is_not_one_of_another() {
        let text = "[[allow]]\nrule = \"as\"\nfile = \"a.rs\"\nfunction = \"f\"\nreason = \"because of its table\"\n";
        let mut settings = Settings::read(&Tree::of(&[("xtask/tidy.toml", text)])).expect("settings");
        let source = Source::new("a.rs", "fn f(x: u64) -> u32 { x as u32 }\nfn g(x: u64) -> u32 { x as u32 }\n");
        assert_eq!(lines(&panics::file(&source, &mut settings)), [2]);
    }
}

mod rule_words {
    use super::*;

    fn judge(text: &str) -> Vec<usize> {
        lines(&words::file(&Source::new("a.rs", &format!("//! A.\n{text}"))))
    }

    #[test]
    fn a_module_says_what_it_is() {
        assert_eq!(lines(&words::file(&Source::new("a.rs", "use b;\n"))), [1]);
        assert_eq!(judge("use b;"), NONE);
    }

    #[test]
    fn an_unsafe_block_is_argued_for() {
        assert_eq!(judge("fn f() {\n    unsafe { g() }\n}"), [3]);
        assert_eq!(judge("fn f() {\n    // SAFETY: g is fine.\n    unsafe { g() }\n}"), NONE);
        assert_eq!(judge("fn f() {\n    // SAFETY: g is fine.\n    let x =\n        unsafe { g() };\n}"), NONE);
        assert_eq!(
            judge("fn f() {\n    let x = unsafe {\n        // SAFETY: g is fine.\n        g()\n    };\n}"),
            NONE
        );
        assert_eq!(judge("fn f() {\n    // SAFETY: g is fine.\n    let x = 1;\n    unsafe { g() }\n}"), [5]);
        assert_eq!(judge("fn f() {\n    // unsafe { } is only talked about\n}"), NONE);
    }

    #[test]
    fn an_unsafe_function_says_what_it_asks() {
        assert_eq!(judge("/// F.\npub unsafe fn f() {}"), [3]);
        assert_eq!(judge("/// F.\n///\n/// # Safety\n/// Be nice.\n#[inline]\npub unsafe fn f() {}"), NONE);
        assert_eq!(judge("pub unsafe extern \"C\" fn f() {}"), [2]);
        assert_eq!(judge("type F = unsafe extern \"C\" fn(u8);"), NONE);
        assert_eq!(judge("// SAFETY: fine.\nunsafe impl A for B {\n    unsafe fn f() {}\n}"), NONE);
    }

    #[test]
    fn an_unsafe_implementation_is_argued_for() {
        assert_eq!(judge("unsafe impl Send for A {}"), [2]);
    }
}

mod rule_sizes {
    use super::*;
    use ratchet::Ratchet;

    fn tree(body: usize) -> Tree {
        let text = format!("//! A.\nfn long() {{\n{}}}\n", "    x();\n".repeat(body));
        Tree::of(&[("a.rs", &text)])
    }

    fn held(entries: &[(&str, usize)]) -> Ratchet {
        Ratchet { entries: entries.iter().map(|(key, lines)| ((*key).to_owned(), *lines)).collect() }
    }

    #[test]
    fn limits_hold_to_the_line() {
        assert!(sizes::long(&tree(68)).is_empty());
        assert_eq!(sizes::long(&tree(69)).len(), 1);
        let both: Vec<String> = sizes::long(&tree(600)).into_iter().map(|long| long.key).collect();
        assert_eq!(both, ["a.rs", "a.rs::long"]);
    }

    #[test]
    fn the_ratchet_holds_and_tells_when_it_can_shrink() {
        let long = sizes::long(&tree(98));
        let judge = |entries: &[(&str, usize)]| sizes::judge(&long, &held(entries));
        assert_eq!(judge(&[("a.rs::long", 100)]), []);
        assert!(judge(&[("a.rs::long", 99)])[0].what.contains("grew to 100"));
        assert!(judge(&[("a.rs::long", 120)])[0].what.contains("from 120 to 100"));
        assert!(judge(&[("a.rs::long", 100), ("b.rs", 700)])[0].what.contains("remove its entry"));
    }

    #[test]
    fn the_ratchet_is_lowered_and_never_raised() {
        let mut ratchet = held(&[("a.rs::long", 120), ("b.rs", 700)]);
        ratchet.lower(&sizes::long(&tree(98)));
        assert_eq!(ratchet.entries, held(&[("a.rs::long", 100)]).entries);
        ratchet.lower(&sizes::long(&tree(108)));
        assert_eq!(ratchet.entries, held(&[("a.rs::long", 100)]).entries);
    }
}

mod rule_panics {
    use super::*;

    fn judge(code: &str) -> usize {
        panics::file(&Source::new("untrusted/image/src/a.rs", code), &mut Settings::default()).len()
    }

    #[test]
    fn what_may_panic_is_found() {
        let calls = [
            "x.unwrap()",
            "x.expect(\"y\")",
            "Option::unwrap(x)",
            "panic!()",
            "unreachable!(\"x\")",
            "todo!()",
            "assert!(x > 1)",
        ];
        for call in calls {
            assert_eq!(judge(&format!("fn f() {{ {call}; }}")), 1, "{call}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not() {
        for code in [
            "fn f() { x.unwrap_or(0).unwrap_or_else(g); }",
            "#[expect(dead_code)] fn f() {}",
            "const _: () = assert!(size_of::<A>() == 8);",
            "fn f() { const { assert!(N > 1) } }",
            "// x.unwrap()\nconst A: &str = \"panic!()\";",
            "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }",
        ] {
            assert_eq!(judge(code), 0, "{code}");
        }
    }

    #[test]
    fn indexing_is_found_and_other_brackets_are_not() {
        for code in ["x[0]", "x[a..b]", "f()[1]", "x[0][1]", "self.0[1]", "g()?[2]"] {
            assert!(judge(&format!("fn f() {{ {code}; }}")) > 0, "{code}");
        }
        for code in [
            "fn f(x: &[u8], y: [u8; 4]) -> &'static [u8] { &x[..] }",
            "fn f() { let [a, b] = c; vec![0; 4]; for x in [1, 2] {} return [1]; }",
            "#[derive(Debug)]\nstruct A(#[b] [u8; 2]);",
            "impl A for [u8] {}",
            "fn f(x: &mut [u8]) { if let Some([a]) = g::<[u8; 1]>() {} }",
            "const A: u8 = TABLE[3];",
        ] {
            assert_eq!(judge(code), 0, "{code}");
        }
    }

    #[test]
    fn casts_that_may_cut_are_found_and_sizes_and_constants_are_not() {
        for code in ["x as u32", "(a + b) as usize", "x.0 as u64", "x.len() as u32", "f(y) as u64", "b'x' as u32"] {
            assert_eq!(judge(&format!("fn f() {{ {code}; }}")), 1, "{code}");
        }
        for code in [
            "x.len() as u64",
            "size_of::<Header>() as u64",
            "core::mem::size_of::<[u8; 4]>() as u64",
            "PIECE_MAX as usize",
            "i64::MAX as u64",
            "x as &dyn A",
        ] {
            assert_eq!(judge(&format!("fn f() {{ {code}; }}")), 0, "{code}");
        }
        assert_eq!(judge("use a as b;\nconst A: u64 = B as u64 * 2;"), 0);
    }
}

mod rule_comments {
    use super::*;

    fn judge(text: &str) -> Vec<usize> {
        lines(&comments::file(&Source::new("a.rs", text)))
    }

    #[test]
    fn tests_are_run_and_say_what_happens() {
        assert_eq!(judge("#[ignore]\nfn a() {}\n#[should_panic]\nfn b() {}"), [1, 3]);
        assert_eq!(judge("fn ignore() { x[ignore]; }"), NONE);
    }

    #[test]
    fn history_is_found_and_names_are_not() {
        let bad = [
            "// as of phase 3",
            "/// see PR #12",
            "// issue 2 wants it",
            "// left by the previous session",
            "// written 2026-11-02",
            "/* a\n * 2026-11 */",
        ];
        for text in bad {
            assert_eq!(judge(text).len(), 1, "{text}");
        }
        let good =
            "// a session, in phases; issue a warning; a PR\nconst A: &str = \"2026-01-01\"; // 12026-113, 2026-x\n";
        assert_eq!(judge(good), NONE);
    }

    #[test]
    fn a_mark_says_what_is_to_be_done() {
        assert_eq!(judge("// TODO\n// FIXME:\n"), [1, 2]);
        assert_eq!(judge("// FIXME: qemu-img differs here\n"), NONE);
    }

    #[test]
    fn hosts_of_registries_are_found_anywhere() {
        let line = concat!("see https://pypi", ".org/x\n");
        let lock = concat!("source = \"registry+https://static.crates", ".io/x\"\n");
        let tree = Tree::of(&[("a.md", line), ("b.md", "crates are fine\n"), ("Cargo.lock", lock)]);
        assert_eq!(files(&comments::check(&tree)), ["a.md"]);
    }
}

mod rule_walls {
    use super::*;

    const POLICY: &str = "trusted/sandbox/src/process/policy.toml";

    #[test]
    fn every_call_has_a_reason_and_a_test() {
        let policy = "[futex]\nnumber = 202\nreason = \"a lane sleeps on its bell\"\n\n[exit]\nnumber = 60\n";
        let tree = Tree::of(&[(POLICY, policy), ("tests/walls/calls.rs", "const NEEDED: &[&str] = &[\"futex\"];")]);
        assert_eq!(lines(&walls::check(&tree)), [5, 5]);
    }

    #[test]
    fn the_wall_is_the_same_in_every_build() {
        let code = "fn f() {\n    if cfg!(debug_assertions) {}\n    debug_assert!(true);\n}";
        let tree =
            Tree::of(&[(POLICY, ""), ("trusted/sandbox/src/process/filter.rs", code), ("trusted/cli/src/a.rs", code)]);
        assert_eq!(lines(&walls::check(&tree)), [2, 3]);
    }
}
