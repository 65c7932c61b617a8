//! The `worker` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    reelay::cli::main(std::env::args_os())
}
