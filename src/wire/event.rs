//! The payload of `telephone-event` (RFC 4733): digits and other signals as what they are.

/// An event with a place in table 3 that is a digit: 0-9, *, #, A-D.
pub const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

/// What a packet tells of one event (RFC 4733 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Event code.
    pub event: u8,
    /// It has ended.
    pub ended: bool,
    /// Power of a tone below 0 dBm0, dB: 0 to 63.
    pub volume: u8,
    /// Its begin behind the packet's RTP timestamp, in units of the RTP clock.
    pub behind: u32,
    /// How long it has lasted, in units of the RTP clock.
    pub duration: u16,
}

impl Told {
    /// Its digit; `None`: it is another signal.
    pub fn digit(&self) -> Option<char> {
        DIGITS.get(usize::from(self.event)).map(|digit| char::from(*digit))
    }
}

/// All that a payload tells, in order. Several short events may share a packet: each begins where the one
/// before it ends (RFC 4733 §2.5.1.5). Octets too few for another are left.
pub fn all(payload: &[u8]) -> impl Iterator<Item = Told> {
    let mut behind = 0_u32;
    payload.chunks_exact(4).map(move |word| {
        let duration = u16::from_be_bytes([word[2], word[3]]);
        let told = Told {
            event: word[0],
            ended: word[1] & 0x80 != 0,
            volume: word[1] & 0x3f,
            behind,
            duration,
        };
        behind = behind.wrapping_add(u32::from(duration));
        told
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_and_several_that_follow_each_other() {
        let one: Vec<_> = all(&[11, 0x8a, 0x03, 0x20]).collect();
        let hash = Told { event: 11, ended: true, volume: 10, behind: 0, duration: 800 };
        assert_eq!(one, [hash]);
        assert_eq!(hash.digit(), Some('#'));
        // 1 for 400, 2 for 320, 16 (flash) that goes on; and a rest that is none.
        let payload = [1, 0x80, 1, 0x90, 2, 0x8a, 1, 0x40, 16, 0x0a, 0, 80, 9, 9];
        let told: Vec<_> =
            all(&payload).map(|told| (told.digit(), told.behind, told.ended)).collect();
        assert_eq!(told, [(Some('1'), 0, true), (Some('2'), 400, true), (None, 720, false)]);
        assert_eq!(all(&[1, 0x80, 0]).count(), 0);
    }
}
