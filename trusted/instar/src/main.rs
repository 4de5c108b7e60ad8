//! The program; all it does is elsewhere.

fn main() -> std::process::ExitCode {
    instar_cli::run(std::env::args_os())
}
