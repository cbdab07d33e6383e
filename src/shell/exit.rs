//! How a verb ends: the exit codes of the interface contract, and the error that carries one.

use std::fmt;
use std::process::ExitCode;

/// Exit codes. Their numbers are part of the contract (BSD `sysexits.h` where one fits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Yes.
    Yes = 0,
    /// The answer is no: bad proof, unexplained loss, mismatch, target missed.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Refused by policy.
    Refused = 4,
    /// The server cannot be reached.
    Unreachable = 69,
    /// A file or socket failed.
    Io = 74,
    /// Not now; trying again may help.
    TryAgain = 75,
    /// The configuration is wrong.
    Config = 78,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl Exit {
    /// All of them.
    pub const ALL: [Exit; 10] = [
        Exit::Yes,
        Exit::No,
        Exit::Usage,
        Exit::NotFound,
        Exit::Refused,
        Exit::Unreachable,
        Exit::Io,
        Exit::TryAgain,
        Exit::Config,
        Exit::Interrupted,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb ended early, and with which code. Any error turns into one by `?`, as [`Exit::Io`].
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What to tell the user.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with a code of its own.
    pub fn new(
        exit: Exit,
        message: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Failure { exit, error: anyhow::Error::msg(message) }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure { exit: Exit::Io, error: error.into() }
    }
}
