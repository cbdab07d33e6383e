//! One file per verb.

use std::process::ExitCode;

/// Parses the command line and runs the verb.
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
