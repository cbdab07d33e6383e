//! The control role: signalling, sessions, journal, catalogue, in one tokio runtime.

use std::io;

use crate::plane::handoff::frame::Frame;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::link::Start;

/// Runs the role until keeper stops it or is gone.
pub fn run(start: Start) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Start { keeper, lock, .. } = start;
        // Held to the end, see `Start`.
        let _lock = lock;
        let keeper = keeper.into_async()?;
        keeper.send(0, Frame::Ready, &[]).await?;
        loop {
            match keeper.recv().await {
                Ok(received) => match received.frame {
                    Frame::Drain => keeper.send(0, Frame::Drained, &[]).await?,
                    Frame::Stop => return Ok(Exit::Yes),
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Exit::Yes),
                Err(error) => return Err(error.into()),
            }
        }
    })
}
