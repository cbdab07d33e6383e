//! Messages out of a byte stream (RFC 3261 §18.3), with keep-alives (RFC 5626 §4.4.1).

use super::error::{SipError, SipFault};
use super::lexer::{Head, head_end, read_head};
use super::message::{Message, finish};
use crate::base::limits::SIP_MESSAGE_BYTES_MAX;

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Message),
    /// Two line ends between messages: answer with one.
    KeepAlive,
    /// A message that cannot be taken; the next one can still be found.
    Broken(SipError),
    /// The border of messages is lost: answer if there is a head, then close. Nothing follows.
    Lost(SipError),
}

/// Cuts a stream into messages.
#[derive(Debug)]
pub struct StreamFramer {
    bytes: Vec<u8>,
    /// Bytes before this are done with. They leave with the next push, all at once: a stream of
    /// line ends must not move the rest of its read for each of them.
    start: usize,
    /// Behind `start`, bytes that hold no blank line.
    scanned: usize,
    max: usize,
    lost: bool,
}

impl StreamFramer {
    /// `max`: bytes of the largest message taken, head and body together.
    pub fn new(max: usize) -> Self {
        StreamFramer { bytes: Vec::new(), start: 0, scanned: 0, max, lost: false }
    }

    /// Takes bytes as they came. Pull until `None` after each push: that is what bounds the buffer
    /// to one message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.lost {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Bytes that wait for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether a message has begun and its rest is missing; line ends between messages are none.
    pub fn begun(&self) -> bool {
        self.bytes[self.start..].iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// The next frame, `None` where more bytes are needed.
    pub fn pull(&mut self) -> Option<Frame> {
        if self.lost {
            return None;
        }
        if let Some(frame) = self.skip_line_ends()? {
            return Some(frame);
        }
        let bytes = &self.bytes[self.start..];
        // A head is as long as a datagram at most.
        let head_max = self.max.min(SIP_MESSAGE_BYTES_MAX);
        let Some(end) = head_end(bytes, self.scanned).filter(|end| *end <= head_max) else {
            let found = bytes.len();
            self.scanned = found.saturating_sub(3);
            if found <= head_max {
                return None;
            }
            let head = read_head(&bytes[..head_max]);
            return Some(self.lose(head, SipFault::TooLong { max: head_max, found }));
        };
        // The blank line and the line end before it.
        self.scanned = end.saturating_sub(4);
        let head = read_head(&bytes[..end]);
        let length = match head.content_length() {
            Ok(Some(length)) => length,
            // RFC 3261 §20.14: over a stream the length must be there.
            Ok(None) | Err(_) => {
                let fault = head.fault.unwrap_or(SipFault::ContentLength);
                return Some(self.lose(head, fault));
            }
        };
        let total = end.saturating_add(length);
        if total > self.max {
            return Some(self.lose(head, SipFault::TooLong { max: self.max, found: total }));
        }
        if bytes.len() < total {
            return None;
        }
        // A status line that cannot be read is still one: its borders are known.
        let speaks_sip = bytes.get(..4).is_some_and(|first| first.eq_ignore_ascii_case(b"SIP/"));
        let frame = match finish(head, &bytes[end..total]) {
            Ok(message) => Frame::Message(message),
            // Without a start line this is no SIP peer at all.
            Err(error) if error.head.is_none() && !speaks_sip => {
                self.lost = true;
                Frame::Lost(error)
            }
            Err(error) => Frame::Broken(error),
        };
        self.skip(total);
        Some(frame)
    }

    fn skip(&mut self, length: usize) {
        self.start += length;
        self.scanned = 0;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Takes line ends between messages away. `None`: wait; `Some(None)`: a message begins.
    fn skip_line_ends(&mut self) -> Option<Option<Frame>> {
        loop {
            match &self.bytes[self.start..] {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    self.skip(4);
                    return Some(Some(Frame::KeepAlive));
                }
                // May become a keep-alive with the next bytes.
                [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return None,
                [b'\r' | b'\n', ..] => self.skip(1),
                _ => return Some(None),
            }
        }
    }

    fn lose(&mut self, head: Head, fault: SipFault) -> Frame {
        self.lost = true;
        (self.bytes, self.start) = (Vec::new(), 0);
        let head = Head { fault: Some(fault), ..head };
        match finish(head, &[]) {
            Err(error) => Frame::Lost(error),
            Ok(_) => Frame::Lost(SipError { fault, head: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const TWO: &[u8] = b"BYE sip:a@b SIP/2.0\r\nl: 3\r\n\r\nabc\r\n\r\n\
        SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";

    fn frames(framer: &mut StreamFramer) -> Vec<Frame> {
        std::iter::from_fn(|| framer.pull()).collect()
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames() {
        let mut whole = StreamFramer::new(1_000);
        whole.push(TWO);
        let wanted = frames(&mut whole);
        assert!(matches!(&wanted[..],
            [Frame::Message(bye), Frame::KeepAlive, Frame::Message(_)] if bye.body == b"abc"));
        for cut in 0..TWO.len() {
            let mut framer = StreamFramer::new(1_000);
            framer.push(&TWO[..cut]);
            let mut found = frames(&mut framer);
            framer.push(&TWO[cut..]);
            found.extend(frames(&mut framer));
            assert_eq!(found, wanted, "cut at {cut}");
        }
        let mut framer = StreamFramer::new(1_000);
        let mut found = Vec::new();
        for byte in TWO {
            framer.push(&[*byte]);
            found.extend(frames(&mut framer));
        }
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_long_body_is_lost_with_its_head() {
        let mut framer = StreamFramer::new(100);
        framer.push(b"INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\nContent-Length: 5000\r\n\r\n");
        let Some(Frame::Lost(error)) = framer.pull() else { panic!("expected a lost frame") };
        assert!(matches!(error.fault, SipFault::TooLong { max: 100, .. }));
        assert_eq!(error.head.expect("head").call_id(), Some("x"));
        framer.push(TWO);
        assert_eq!(framer.pull(), None);
    }

    #[test]
    fn a_bad_header_does_not_lose_the_stream() {
        let mut framer = StreamFramer::new(1_000);
        framer.push(b"BYE sip:a@b SIP/2.0\r\nbad line\r\nl: 1\r\n\r\nx");
        framer.push(TWO);
        assert!(matches!(framer.pull(), Some(Frame::Broken(_))));
        assert!(matches!(framer.pull(), Some(Frame::Message(_))));
    }

    #[test]
    fn a_status_line_that_cannot_be_read_does_not_lose_the_stream() {
        let mut framer = StreamFramer::new(1_000);
        framer.push(b"SIP/2.0 4294967301 better not break\r\nl: 0\r\n\r\n");
        framer.push(TWO);
        assert!(matches!(framer.pull(), Some(Frame::Broken(error)) if error.head.is_none()));
        assert!(matches!(framer.pull(), Some(Frame::Message(_))));
    }

    #[test]
    fn a_flood_of_line_ends_moves_nothing() {
        let mut framer = StreamFramer::new(1_000);
        framer.push(&vec![b'\n'; 1 << 20]);
        framer.push(&b"\r\n\r\n".repeat(1 << 18));
        let mut pongs = 0;
        while let Some(frame) = framer.pull() {
            assert_eq!(frame, Frame::KeepAlive);
            pongs += 1;
        }
        assert_eq!((pongs, framer.waiting()), (1 << 18, 0));
    }

    #[test]
    fn missing_length_endless_head_and_foreign_protocols_are_lost() {
        let endless = [b"BYE sip:a@b SIP/2.0\r\n".to_vec(), vec![b'x'; 70_000]].concat();
        let cases: [&[u8]; 4] = [
            b"BYE sip:a@b SIP/2.0\r\n\r\n",
            b"BYE sip:a@b SIP/2.0\r\nl: 99999999999999999999999\r\n\r\n",
            b"\x16\x03\x01\n\nl: 0\n\n",
            &endless,
        ];
        for bytes in cases {
            let mut framer = StreamFramer::new(1 << 20);
            framer.push(bytes);
            assert!(matches!(framer.pull(), Some(Frame::Lost(_))));
        }
    }

    #[test]
    fn mutants_never_panic_and_never_grow_the_buffer() {
        let mut prng = Prng::new(18);
        for _ in 0..5_000 {
            let mut framer = StreamFramer::new(200);
            let mut bytes = TWO.to_vec();
            for _ in 0..=prng.below(4) {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            for chunk in bytes.chunks(1 + prng.below(40) as usize) {
                framer.push(chunk);
                while framer.pull().is_some() {}
                assert!(framer.bytes.len() <= 240);
            }
        }
    }
}
