//! The outermost layer: processes, sockets of the control plane, command line, exit codes.

pub(crate) mod access;
pub mod client;
pub mod cmd;
pub mod exit;
mod kept;
pub mod log;
pub mod secrets;
pub mod serve;
pub mod tls;
pub(crate) mod when;

use std::process::ExitCode;

use crate::plane::keeper::Role;

/// Plays the role that `argv[0]` names (keeper's children), else runs the command line.
pub fn main() -> ExitCode {
    let name = std::env::args_os().next();
    let name = name.as_deref().and_then(|name| name.to_str());
    if name == Some(serve::reading::NAME) {
        return cmd::reader::main();
    }
    match name.and_then(Role::from_name) {
        Some(role) => serve::role::main(role),
        None => cmd::line::main(),
    }
}
