//! The program; all it does is elsewhere.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    instar_cli::run(std::env::args_os())
}
