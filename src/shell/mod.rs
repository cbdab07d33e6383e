//! The outermost layer: processes, sockets of the control plane, command line, exit codes.

pub mod client;
pub mod cmd;
pub mod exit;
pub mod log;
pub mod serve;

use std::process::ExitCode;

/// Plays the role that `argv[0]` names (keeper's children), else runs the command line.
pub fn main() -> ExitCode {
    cmd::line::main()
}
