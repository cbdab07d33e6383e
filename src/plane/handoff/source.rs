//! One SSRC of a stream in shared state. The worker alone writes it, in the order that makes every
//! step repeatable after a kill (kill protocol §1, step 4): replay bits first, then the account as a
//! whole copy, then the word that selects the copy.
//!
//! ```text
//!   0  control: SSRC (low 32 bits), ordinal (16), LIVE, written last
//!   8  announced: position of its `source` event        16  address 24
//!  40  zero     48  selector: bit 0 says which copy of the account is in force
//!  64  account, copy 0 (96)       160  account, copy 1 (96)
//! 256  replay window: 17 words as `wire::seq` keeps them, the last is the highest index plus 1
//! 392  last SR: NTP stamp         400  RTP stamp and packet count    408  octet count
//! 416  when it arrived, monotonic 424  SRs   432  SRTCP highest plus 1, and the key area that it is of in
//!      the highest bit       440  SRTCP window of 64
//! 448  not used 16
//! 464  packets recorded when the last SR came
//! ```

use std::net::SocketAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::Geometry;
use super::slot::{address, set_address};
use crate::base::ids::{Index, Ssrc};
use crate::base::ports::Region;
use crate::base::time::Mono;
use crate::wire::seq::{self, WINDOW_WORDS, Words};

/// Flag of the control word: the place is in use.
pub const LIVE: u64 = 1 << 48;
/// Word: SRTCP highest index plus 1 (0: none yet); its window follows.
pub const SRTCP_HIGHEST: usize = 432;
/// In such a word: the window is of the key in area 1, else in area 0.
pub const SRTCP_AREA: u64 = 1 << 63;
const RECORDED_AT_SR: usize = 464;
const ANNOUNCED: usize = 8;
const ADDRESS: usize = 16;
const SELECTOR: usize = 48;
const ACCOUNT: usize = 64;
const ACCOUNT_BYTES: usize = 96;
const WINDOW: usize = 256;
const SR: usize = 392;

/// What a source has received so far: always one consistent whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Account {
    /// Index of the first packet (not the lowest).
    pub first: u64,
    /// Lowest index.
    pub lowest: u64,
    /// Packets recorded; 0: none yet, the fields above say nothing.
    pub packets: u64,
    /// RTP bytes recorded, headers included.
    pub bytes: u64,
    /// Arrival of the first packet.
    pub first_arrival: u64,
    /// Arrival of the last.
    pub last_arrival: u64,
    /// Interarrival jitter × 16 in RTP units (RFC 3550 §6.4.1, A.8).
    pub jitter: u64,
    /// RTP stamp of the last packet.
    pub last_timestamp: u64,
    /// Kernel stamp of the last packet, wall ns: with `last_buffer` it names that datagram.
    pub last_stamp: u64,
    /// Receive buffer of the last packet.
    pub last_buffer: u64,
    /// Payload type of the last packet plus 1; 0: not known.
    pub payload_type: u64,
    /// Not used.
    pub spare: u64,
}

/// What the last sender report said (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastSr {
    /// NTP stamp, 32.32.
    pub ntp: u64,
    /// RTP stamp.
    pub timestamp: u32,
    /// The sender's packet count.
    pub packets: u32,
    /// The sender's octet count.
    pub octets: u32,
    /// When it arrived.
    pub arrival: Mono,
    /// How many have arrived; 0: none, the rest says nothing.
    pub count: u64,
}

/// One source of a state region.
pub struct SourceView<'a, R> {
    state: &'a R,
    at: usize,
}

impl<R> Clone for SourceView<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for SourceView<'_, R> {}

impl<'a, R: Region> SourceView<'a, R> {
    /// Source `place` (0..SOURCES_PER_STREAM) of slot number `slot`.
    #[inline]
    pub fn new(state: &'a R, geometry: &Geometry, slot: u32, place: usize) -> Self {
        assert!(slot < geometry.slot_count, "slot {slot} of {}", geometry.slot_count);
        SourceView { state, at: geometry.source_at(slot, place) }
    }

    /// Reads a word.
    #[inline]
    pub fn word(&self, offset: usize) -> u64 {
        self.state.load(self.at + offset)
    }

    /// Writes a word.
    #[inline]
    pub fn set(&self, offset: usize, value: u64) {
        self.state.store(self.at + offset, value);
    }

    /// The SSRC and its ordinal, where the place is in use.
    #[inline]
    pub fn identity(&self) -> Option<(Ssrc, u16)> {
        let control = self.word(0);
        (control & LIVE != 0).then_some((Ssrc(control as u32), (control >> 32) as u16))
    }

    /// Where it sends from.
    #[inline]
    pub fn address(&self) -> Option<SocketAddr> {
        address(self.state, self.at + ADDRESS)
    }

    /// Writes where it sends from.
    pub fn set_address(&self, from: SocketAddr) {
        set_address(self.state, self.at + ADDRESS, Some(from));
    }

    /// Position of its `source` event.
    #[inline]
    pub fn announced(&self) -> u64 {
        self.word(ANNOUNCED)
    }

    /// Writes that.
    pub fn set_announced(&self, position: u64) {
        self.set(ANNOUNCED, position);
    }

    /// Starts a new source in this place; the control word comes last.
    pub fn begin(&self, ssrc: Ssrc, ordinal: u16, from: SocketAddr, announced: u64) {
        self.set(0, 0);
        self.state.copy_in(self.at + SELECTOR, &[0; super::layout::SOURCE_BYTES - SELECTOR]);
        self.set_address(from);
        self.set_announced(announced);
        self.set(0, u64::from(ssrc.0) | u64::from(ordinal) << 32 | LIVE);
    }

    /// Frees the place.
    pub fn end(&self) {
        self.set(0, 0);
    }

    /// The account in force.
    #[inline]
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        let copy = (self.word(SELECTOR) & 1) as usize;
        self.state.copy_out(self.at + ACCOUNT + copy * ACCOUNT_BYTES, account.as_mut_bytes());
        account
    }

    /// Puts a new account in force, whole or not at all.
    #[inline]
    pub fn set_account(&self, account: &Account) {
        let selector = self.word(SELECTOR).wrapping_add(1);
        let copy = (selector & 1) as usize;
        self.state.copy_in(self.at + ACCOUNT + copy * ACCOUNT_BYTES, account.as_bytes());
        self.set(SELECTOR, selector);
    }

    /// Highest index, where there is one.
    #[inline]
    pub fn highest(&self) -> Option<Index> {
        seq::highest(self)
    }

    /// What the last sender report said.
    pub fn last_sr(&self) -> LastSr {
        let stamps = self.word(SR + 8);
        LastSr {
            ntp: self.word(SR),
            timestamp: stamps as u32,
            packets: (stamps >> 32) as u32,
            octets: self.word(SR + 16) as u32,
            arrival: Mono(self.word(SR + 24)),
            count: self.word(SR + 32),
        }
    }

    /// Packets that were recorded when the last sender report came.
    pub fn recorded_at_sr(&self) -> u64 {
        self.word(RECORDED_AT_SR)
    }

    /// Writes that.
    pub fn set_last_sr(&self, sr: &LastSr) {
        self.set(RECORDED_AT_SR, self.account().packets);
        self.set(SR, sr.ntp);
        self.set(SR + 8, u64::from(sr.timestamp) | u64::from(sr.packets) << 32);
        self.set(SR + 16, u64::from(sr.octets));
        self.set(SR + 24, sr.arrival.0);
        self.set(SR + 32, sr.count);
    }
}

impl<R: Region> Words for SourceView<'_, R> {
    #[inline]
    fn load(&self, word: usize) -> u64 {
        self.word(WINDOW + word * 8)
    }

    #[inline]
    fn store(&mut self, word: usize, value: u64) {
        self.set(WINDOW + word * 8, value);
    }
}

const _: () = assert!(size_of::<Account>() == ACCOUNT_BYTES);
const _: () = assert!(ACCOUNT + 2 * ACCOUNT_BYTES == WINDOW && WINDOW + WINDOW_WORDS * 8 == SR);
