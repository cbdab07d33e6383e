//! The one binary. Which role it plays is decided in `shell`.

use std::process::ExitCode;

fn main() -> ExitCode {
    floortape::shell::main()
}
