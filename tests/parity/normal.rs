//! What recorded outputs had replaced in them because it depends on the machine, not on the program.

use regex_lite::Regex;
use std::sync::OnceLock;

/// A pattern and what stands in its place.
type Rule = (Regex, &'static str);

fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        [
            (r"(#block\d+)\d\d", "${1}NN"),
            (r"(disk size: )[0-9.e+]+ [KMGTPE]?i?B", "${1}<SIZE>"),
            (r#"("actual-size": )\d+"#, "${1}<SIZE>"),
            (r"(Run completed in )[0-9.]+( seconds)", "${1}<SECONDS>${2}"),
        ]
        .map(|(pattern, put)| (Regex::new(pattern).expect("a pattern"), put))
        .into()
    })
}

/// The output of a case that ran in `folder`, as the recorder stored it.
pub fn normal(output: &[u8], folder: &str, case: &str) -> Vec<u8> {
    // One character per byte, so that any bytes are text.
    let mut text: String = output.iter().map(|byte| char::from(*byte)).collect();
    if case.starts_with("commit.") || case.starts_with("more-commit.") {
        let progress = Regex::new(r"(    \([0-9.]+/100%\)\r)+").expect("a pattern");
        text = progress.replace_all(&text, "<PROGRESS>").into_owned();
    }
    for (pattern, put) in rules() {
        text = pattern.replace_all(&text, *put).into_owned();
    }
    let dates = Regex::new(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d").expect("a pattern");
    let date = |found: &regex_lite::Captures<'_>| {
        // The images' own fixed dates stay.
        let date = &found[0];
        if date.starts_with("2023-11") { date.to_owned() } else { "YYYY-MM-DD hh:mm:ss".to_owned() }
    };
    text = dates.replace_all(&text, date).into_owned();
    text.replace(folder, "<CWD>").chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// What differs on every machine in the one case whose image has keys of its own; both sides are blanked.
pub fn keyless(output: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(output);
    let keys = Regex::new(r"(uuid: |iters: )[0-9a-f-]+").expect("a pattern");
    keys.replace_all(&text, "${1}<KEY>").into_owned().into_bytes()
}
