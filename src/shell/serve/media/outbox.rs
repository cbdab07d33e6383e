//! Frames on their way to control. Bounded: a control that does not read loses notices first, and
//! asks again for answers, which are idempotent.

use std::collections::VecDeque;
use std::io;

use crate::plane::handoff::frame::Frame;
use crate::shell::serve::link::Link;

/// Twice what may be waiting for one worker.
const FRAMES_MAX: usize = 2 * crate::base::limits::WORKER_QUEUE;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    frames: VecDeque<(u64, Frame)>,
}

impl Outbox {
    /// Puts a frame behind the others; the oldest leaves where there are too many.
    pub(super) fn push(&mut self, id: u64, frame: Frame) {
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back((id, frame));
    }

    /// Forgets everything: it was meant for a control that is gone.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }

    /// Whether something waits for room in the link.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends what the link takes. An error means that control is gone.
    pub(super) fn flush(&mut self, link: &Link) -> io::Result<()> {
        while let Some((id, frame)) = self.frames.pop_front() {
            match link.try_send_or_return(id, frame) {
                Ok(()) => {}
                Err((frame, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.frames.push_front((id, frame));
                    return Ok(());
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(())
    }
}
