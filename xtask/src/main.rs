//! The project's own tasks: `cargo xtask <task>`.

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod fuzz;
mod rust;
mod shell;
mod tables;
mod testing;
mod tidy;
mod tree;

use std::process::ExitCode;

/// How a task ends: well, or with the sentence that says why not.
type Done = Result<(), String>;

struct Task {
    name: &'static str,
    what: &'static str,
    run: fn(&[String]) -> Done,
}

const TASKS: &[Task] = &[
    Task { name: "tidy", what: "keep the rules of the house [--update-ratchet]", run: tidy::run },
    Task {
        name: "ci",
        what: "everything a change must pass, installing what is missing [--keep-going] [step...]",
        run: ci::run,
    },
    Task { name: "test", what: "the tests alone [arguments of cargo test]", run: testing::run },
    Task { name: "tables", what: "rewrite the tables that are generated", run: tables::run },
    Task { name: "bench", what: "side by side with qemu-img [verb...] [--rounds N]", run: bench::run },
    Task { name: "fuzz", what: "run the fuzz targets [--seconds N] [target...]", run: fuzz::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = arguments.first().and_then(|name| TASKS.iter().find(|task| task.name == name.as_str()));
    let Some(task) = named else {
        eprintln!("usage: cargo xtask <task>\n");
        for task in TASKS {
            eprintln!("  {:<8}{}", task.name, task.what);
        }
        return ExitCode::from(2);
    };
    match (task.run)(arguments.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}: {why}", task.name);
            ExitCode::FAILURE
        }
    }
}
