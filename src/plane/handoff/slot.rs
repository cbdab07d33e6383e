//! One slot in shared state: which stream uses the port pair, its keys, direction and addresses, and
//! its share of the datagram account. Written by the worker alone, but for the two words of our own
//! SRTCP, which the reporter writes. A successor goes on from it.
//!
//! ```text
//!   0  control: generation (low 32 bits), flags (above), written last
//!   8  stream             16  applied, monotonic        24  applied, wall
//!  32  RS id (16)         48  opened, monotonic         56  direction since, monotonic
//!  64  signalled address 24        88  latched address 24      112  RTCP destination 24
//! 136  next ordinal       144  evidence written up to, monotonic
//! 152  drops of the RTP socket seen    160  of the RTCP socket    168  since open    176  evidenced
//! 184  last authenticated arrival      192  key changed, monotonic
//! 200  our SSRC           208  our SRTCP index, next to use is above it
//! 216  SRTCP: SSRC of the window below 224  highest plus 1, with its key area 232  window of 64
//! 240  RTP clock rate of the first format, Hz
//! 248  reports of SSRCs that were never heard: the packets that the last one counts, above them how many
//! 256  datagrams by counter, 16 words  384  of them evidenced, 16 words
//! 512  CNAME: length 8, bytes 128
//! 648  use of the slot that the next holds for   656  where proven reports come from 24
//! 680  payload types offered, a bit each, 2 words
//! 696  arrival of the first packet that waited in vain and is not in the evidence yet; 0: none, as in the
//!      memory of a version before it
//! 704  two key areas of 448
//!      0  suite, derivation rate, keys of the SRC, octets of a key, octets of an MKI: 8 bits each from
//!         the lowest on; written last, 0: plain RTP
//!      8  our key 48    64  the SRC's keys, four times: key 48, lowest octets of its MKI 32, zero 16
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use zeroize::Zeroizing;

use super::layout::{Geometry, SLOT_BYTES};
use crate::base::counter::Counter;
use crate::base::ids::{Generation, RsId, StreamId};
use crate::base::keyring::{KEYRING_MAX, Keyring};
use crate::base::mki::{MKI_VALUE_BYTES, Mki};
use crate::base::ports::Region;
use crate::base::secret::{MASTER_BYTES_MAX, MasterKey};
use crate::base::suite::Agreed;
use crate::base::time::{ClockMap, Mono, Wall};

/// Flag: a stream uses the slot.
pub const OPEN: u64 = 1 << 32;
/// Flag: what arrives is recorded; else paused.
pub const ACTIVE: u64 = 1 << 33;
/// Flag: plain RTP only from the signalled address.
pub const STRICT: u64 = 1 << 34;
/// Flag: RTCP shares the RTP port.
pub const MUX: u64 = 1 << 35;
/// Flag: the keys in force are in area 1, else in area 0.
pub const AREA: u64 = 1 << 36;
/// Flag: the other area holds the keys before (re-key).
pub const PREVIOUS: u64 = 1 << 37;
/// Flag: plain RTP from the first sender alone, wherever it is (its SRC is behind address translation).
pub const NAT: u64 = 1 << 38;

/// Word: see the layout above.
pub const CONTROL: usize = 0;
/// Word: the stream.
pub const STREAM: usize = 8;
/// Word: when the stream opened.
pub const OPENED: usize = 48;
/// Word: since when the direction is what it is.
pub const SINCE: usize = 56;
/// Word: ordinal of the next new source.
pub const NEXT_ORDINAL: usize = 136;
/// Word: evidence about drops is written up to this instant.
pub const EVIDENCE_AT: usize = 144;
/// Word: drop counter of the RTP socket, as last seen; the RTCP socket's follows.
pub const SOCKET_DROPS_SEEN: usize = 152;
/// Word: drops of both sockets since the stream opened.
pub const SOCKET_DROPS: usize = 168;
/// Word: how many of them are written as evidence.
pub const SOCKET_DROPS_EVIDENCED: usize = 176;
/// Word: arrival of the last packet that was recorded.
pub const LAST_ARRIVAL: usize = 184;
/// Word: when the SRC's key changed.
pub const KEY_CHANGED: usize = 192;
/// Word: SSRC of our reports. Written by the reporter.
pub const LOCAL_SSRC: usize = 200;
/// Word: index of our last SRTCP packet, reserved ahead. Written by the reporter.
pub const LOCAL_INDEX: usize = 208;
/// Word: SSRC whose SRTCP window follows (highest, then 64 bits).
pub const SRTCP_SSRC: usize = 216;
/// Word: that SSRC's highest SRTCP index plus 1; its window follows.
pub const SRTCP_HIGHEST: usize = 224;
/// Word: RTP clock rate of the first format, Hz; for jitter.
pub const CLOCK_RATE: usize = 240;
/// Word: see the layout above.
pub const STRANGE_REPORT: usize = 248;
/// Word: see the layout above.
pub const WAITED_SINCE: usize = 696;
const APPLIED: usize = 16;
const RS: usize = 32;
const SIGNALLED: usize = 64;
const LATCHED: usize = 88;
const RTCP_TO: usize = 112;
const DROPS: usize = 256;
const EVIDENCED: usize = 384;
const CNAME: usize = 512;
const CNAME_BYTES_MAX: usize = 128;
const HEARD_USE: usize = 648;
const HEARD: usize = 656;
const PAYLOAD_TYPES: usize = 680;
const KEYS: usize = 704;
const KEYS_BYTES: usize = 448;
/// In a key area: our key, and the first of the SRC's.
const LOCAL_KEY: usize = 8;
const REMOTE_KEYS: usize = 64;
const REMOTE_KEY_BYTES: usize = 96;
/// In one of the SRC's keys: its MKI.
const MKI: usize = 48;
const _: () = assert!(REMOTE_KEYS + KEYRING_MAX * REMOTE_KEY_BYTES <= KEYS_BYTES);
const _: () = assert!(KEYS + 2 * KEYS_BYTES <= SLOT_BYTES);
const _: () = assert!(MASTER_BYTES_MAX <= MKI && MKI + MKI_VALUE_BYTES <= REMOTE_KEY_BYTES);

/// Suite and keys of one area.
pub struct Keys {
    /// The suite.
    pub suite: Agreed,
    /// What the SRC encrypts with.
    pub remote: Keyring,
    /// What our SRTCP is protected with.
    pub local: MasterKey,
}

/// One slot of a state region.
pub struct SlotView<'a, R> {
    state: &'a R,
    at: usize,
}

impl<R> Clone for SlotView<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for SlotView<'_, R> {}

impl<'a, R: Region> SlotView<'a, R> {
    /// Slot number `slot` of this worker.
    #[inline]
    pub fn new(state: &'a R, geometry: &Geometry, slot: u32) -> Self {
        assert!(slot < geometry.slot_count, "slot {slot} of {}", geometry.slot_count);
        SlotView { state, at: geometry.slot_at(slot) }
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

    /// Which use of the slot it is; 0 before the first.
    #[inline]
    pub fn generation(&self) -> Generation {
        Generation(self.word(CONTROL) as u32)
    }

    /// Whether a flag is set.
    #[inline]
    pub fn has(&self, flag: u64) -> bool {
        self.word(CONTROL) & flag != 0
    }

    /// The stream.
    #[inline]
    pub fn stream(&self) -> StreamId {
        StreamId(self.word(STREAM))
    }

    /// The RS.
    pub fn rs(&self) -> RsId {
        let mut id = [0; 16];
        self.state.copy_out(self.at + RS, &mut id);
        RsId(id)
    }

    /// Writes the RS.
    pub fn set_rs(&self, rs: RsId) {
        self.state.copy_in(self.at + RS, &rs.0);
    }

    /// Both clocks when the last command was applied.
    pub fn applied(&self) -> ClockMap {
        ClockMap { mono: Mono(self.word(APPLIED)), wall: Wall(self.word(APPLIED + 8) as i64) }
    }

    /// Writes when a command was applied.
    pub fn set_applied(&self, map: ClockMap) {
        self.set(APPLIED, map.mono.0);
        self.set(APPLIED + 8, map.wall.0 as u64);
    }

    /// The keys in force (`previous`: those before); `None` for plain RTP.
    pub fn keys(&self, previous: bool) -> Option<Keys> {
        let control = self.word(CONTROL);
        if previous && control & PREVIOUS == 0 {
            return None;
        }
        let area = self.at + KEYS + usize::from((control & AREA != 0) != previous) * KEYS_BYTES;
        let [suite, rate, count, key_bytes, mki_bytes, ..] = self.state.load(area).to_le_bytes();
        let key = |at: usize| {
            let mut key = Zeroizing::new([0; MASTER_BYTES_MAX]);
            self.state.copy_out(at, &mut *key);
            MasterKey::new(key.get(..usize::from(key_bytes))?)
        };
        let remote = |place: usize| {
            let (at, mut value) = (area + REMOTE_KEYS + place * REMOTE_KEY_BYTES, [0; _]);
            self.state.copy_out(at + MKI, &mut value);
            Some((key(at)?, Mki::from_value(mki_bytes.into(), value)))
        };
        let count = usize::from(count).min(KEYRING_MAX);
        Some(Keys {
            suite: Agreed::from_code(suite)?,
            remote: Keyring::new((0..count).map(remote).collect::<Option<_>>()?, rate)?,
            local: key(area + LOCAL_KEY)?,
        })
    }

    /// Writes keys into the area that is not in force and returns whether that is area 1. The caller
    /// puts them in force with the control word.
    pub fn set_other_keys(&self, keys: Option<&Keys>) -> bool {
        let other = !self.has(AREA);
        let area = self.at + KEYS + usize::from(other) * KEYS_BYTES;
        self.state.store(area, 0);
        let Some(keys) = keys else { return other };
        self.state.copy_in(area + LOCAL_KEY, keys.local.expose());
        let mut mki_bytes = 0;
        for (place, (key, mki)) in keys.remote.keys().iter().enumerate() {
            let at = area + REMOTE_KEYS + place * REMOTE_KEY_BYTES;
            self.state.copy_in(at, key.expose());
            if let Some(mki) = mki {
                self.state.copy_in(at + MKI, mki.value());
                mki_bytes = mki.length() as u8;
            }
        }
        let (count, key_bytes) = (keys.remote.keys().len() as u8, keys.remote.key_bytes() as u8);
        let rate = keys.remote.derivation_rate();
        let head = [keys.suite.code(), rate, count, key_bytes, mki_bytes, 0, 0, 0];
        self.state.store(area, u64::from_le_bytes(head));
        other
    }

    /// Wipes both key areas.
    pub fn wipe_keys(&self) {
        self.state.copy_in(self.at + KEYS, &[0; 2 * KEYS_BYTES]);
    }

    /// Where the SRC said it sends from.
    #[inline]
    pub fn signalled(&self) -> Option<SocketAddr> {
        address(self.state, self.at + SIGNALLED)
    }

    /// Writes it.
    pub fn set_signalled(&self, to: Option<SocketAddr>) {
        set_address(self.state, self.at + SIGNALLED, to);
    }

    /// The first sender of a plain stream without a signalled address, or with [`NAT`].
    #[inline]
    pub fn latched(&self) -> Option<SocketAddr> {
        address(self.state, self.at + LATCHED)
    }

    /// Writes it.
    pub fn set_latched(&self, to: Option<SocketAddr>) {
        // Never half of one and half of another: a kill in between leaves none.
        set_address(self.state, self.at + LATCHED, None);
        set_address(self.state, self.at + LATCHED, to);
    }

    /// Where the SRC sends and takes reports by what came from it, authenticated, in this use of the slot
    /// (RFC 4961). `None`: nothing came yet, or the worker is writing just now.
    #[inline]
    pub fn heard(&self) -> Option<SocketAddr> {
        if self.word(HEARD_USE) != u64::from(self.generation().0) {
            return None;
        }
        let heard = address(self.state, self.at + HEARD);
        (address(self.state, self.at + HEARD) == heard).then_some(heard).flatten()
    }

    /// Writes it.
    pub fn set_heard(&self, from: Option<SocketAddr>) {
        set_address(self.state, self.at + HEARD, None);
        self.set(HEARD_USE, self.generation().0.into());
        set_address(self.state, self.at + HEARD, from);
    }

    /// Whether the SRC offered that payload type.
    #[inline]
    pub fn offers(&self, payload_type: u8) -> bool {
        let (word, bit) = (usize::from(payload_type / 64 % 2), payload_type % 64);
        self.word(PAYLOAD_TYPES + word * 8) & 1 << bit != 0
    }

    /// Whether it is known which it offered.
    #[inline]
    pub fn knows_types(&self) -> bool {
        self.word(PAYLOAD_TYPES) | self.word(PAYLOAD_TYPES + 8) != 0
    }

    /// Writes which it offered.
    pub fn set_offered(&self, payload_types: impl Iterator<Item = u8>) {
        let all = payload_types.fold(0_u128, |all, one| all | 1 << (one % 128));
        self.set(PAYLOAD_TYPES, all as u64);
        self.set(PAYLOAD_TYPES + 8, (all >> 64) as u64);
    }

    /// Where our RTCP goes.
    pub fn rtcp_to(&self) -> Option<SocketAddr> {
        address(self.state, self.at + RTCP_TO)
    }

    /// Writes it.
    pub fn set_rtcp_to(&self, to: Option<SocketAddr>) {
        set_address(self.state, self.at + RTCP_TO, to);
    }

    /// Datagrams of this stream that ended in `counter`.
    pub fn drops(&self, counter: Counter) -> u64 {
        self.word(DROPS + counter as usize * 8)
    }

    /// Counts one.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.set(DROPS + counter as usize * 8, self.drops(counter) + 1);
    }

    /// How many of them are written as evidence.
    pub fn evidenced(&self, counter: Counter) -> u64 {
        self.word(EVIDENCED + counter as usize * 8)
    }

    /// Writes that.
    pub fn set_evidenced(&self, counter: Counter, count: u64) {
        self.set(EVIDENCED + counter as usize * 8, count);
    }

    /// Sets the account back to 0.
    pub fn clear_drops(&self) {
        self.state.copy_in(self.at + DROPS, &[0; CNAME - DROPS]);
        self.set(SOCKET_DROPS, 0);
        self.set(SOCKET_DROPS_EVIDENCED, 0);
    }

    /// Our CNAME.
    pub fn cname(&self) -> String {
        let mut bytes = vec![0; (self.word(CNAME) as usize).min(CNAME_BYTES_MAX)];
        self.state.copy_out(self.at + CNAME + 8, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes our CNAME, cut to 128 octets (RFC 7022 ones are far shorter).
    pub fn set_cname(&self, cname: &str) {
        let mut length = cname.len().min(CNAME_BYTES_MAX);
        while !cname.is_char_boundary(length) {
            length -= 1;
        }
        self.state.copy_in(self.at + CNAME + 8, &cname.as_bytes()[..length]);
        self.set(CNAME, length as u64);
    }
}

/// An address in 24 bytes: IPv6 (mapped for IPv4) 16, port 8; port 0: none.
#[inline]
pub(super) fn address(state: &impl Region, at: usize) -> Option<SocketAddr> {
    let port = state.load(at + 16) as u16;
    if port == 0 {
        return None;
    }
    let mut ip = [0; 16];
    state.copy_out(at, &mut ip);
    Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), port))
}

pub(super) fn set_address(state: &impl Region, at: usize, to: Option<SocketAddr>) {
    let Some(to) = to else { return state.store(at + 16, 0) };
    let ip = match to.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    state.copy_in(at, &ip.octets());
    state.store(at + 16, u64::from(to.port()));
}
