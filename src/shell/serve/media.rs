//! The media role.

use std::io;

use crate::plane::handoff::frame::Frame;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::link::Start;

/// Runs the role until keeper stops it or is gone.
pub fn run(start: Start) -> Result<Exit, Failure> {
    let Start { mut keeper, lock, .. } = start;
    // Held to the end, see `Start`.
    let _lock = lock;
    keeper.send(0, Frame::Ready, &[])?;
    loop {
        match keeper.recv() {
            Ok(received) => {
                if matches!(received.frame, Frame::Stop) {
                    return Ok(Exit::Yes);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Exit::Yes),
            Err(error) => return Err(error.into()),
        }
    }
}
