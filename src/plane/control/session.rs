//! One RS as control holds it, and the frames that tell media about it.

use super::hold::Holding;
use super::pictures::Pictures;
use super::renewal::Renewal;
use super::silence::Speaking;
use crate::base::ids::{RsId, StreamId};
use crate::base::keyring::Keyring;
use crate::base::secret::MasterKey;
use crate::base::time::{Mono, Wall};
use crate::plane::handoff::frame::{Crypto, OpenStream, WireKey, WireKeyring};
use crate::proto::session::{Negotiated, People, Snapshot, Timer};
use crate::proto::sip::{ClientTxnId, DialogId};
use crate::store::journal::entry::{SealedCrypto, StreamOpened};
use crate::store::journal::keybox::{KeyBox, local_key_context, remote_key_context};

/// Where an RS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its INVITE is not answered yet.
    Starting,
    /// Recording, or paused.
    Live,
    /// Over; its streams take late packets until the given instant, then close.
    Ending(Mono),
    /// Its streams are being closed.
    Closing,
}

/// A Recording Session.
pub(super) struct Session {
    pub(super) rs: RsId,
    /// When it was accepted.
    pub(super) since: Wall,
    pub(super) phase: Phase,
    /// Plain RTP is taken from the signalled address only.
    pub(super) strict: bool,
    /// Plain RTP is taken from the first that sends it alone, wherever it is.
    pub(super) nat: bool,
    pub(super) dialog: Option<DialogId>,
    /// Salt of its leaf hashes.
    pub(super) salt: [u8; 32],
    /// Streams that are not closed, in m-line order.
    pub(super) streams: Vec<StreamOpened>,
    /// Bodies journaled so far.
    pub(super) bodies: u32,
    /// `o=` session id and version of our last answer (RFC 4566 §5.2).
    pub(super) origin: (u64, u64),
    /// Our last answer's SDP, with keys.
    pub(super) answer_sdp: String,
    /// The last offer, decided; unknown after a restart.
    pub(super) negotiated: Option<Negotiated>,
    /// What its metadata says by now, for the recording policy.
    pub(super) people: People,
    /// Makes the aliases of ids that may name somebody; known to nobody, and another one after a
    /// restart.
    pub(super) alias_key: [u8; 32],
    /// Whether its metadata is in doubt (RFC 7866 §9.2).
    pub(super) snapshot: Snapshot,
    /// On which lines somebody speaks, by its metadata.
    pub(super) speaking: Speaking,
    /// Our request for a snapshot that is under way.
    pub(super) requesting: Option<ClientTxnId>,
    /// Its session timer (RFC 4028).
    pub(super) timer: Option<Timer>,
    /// When that or the snapshot is due, as the list of deadlines has it.
    pub(super) armed: Option<Mono>,
    /// Our refresh that is under way.
    pub(super) refreshing: Option<ClientTxnId>,
    /// What an operator has decided of it.
    pub(super) holding: Holding,
    /// Whether its SRC is to be asked for fresh keys.
    pub(super) renewal: Renewal,
    /// Whether its SRC is to be asked for intra pictures.
    pub(super) pictures: Pictures,
}

impl Session {
    /// Our CNAME in it: random, the same for all its streams (RFC 7022 §4.2).
    pub(super) fn cname(&self) -> String {
        format!("{}@floortape.invalid", &self.rs.to_string()[16..])
    }

    /// The frame that has media record `stream`. `None` where its keys cannot be unsealed, which is
    /// a journal of another machine.
    pub(super) fn open_frame(&self, keys: &KeyBox, stream: &StreamOpened) -> Option<OpenStream> {
        Some(OpenStream {
            slot: stream.description.slot,
            generation: stream.generation,
            description: stream.description.clone(),
            salt: self.salt,
            active: stream.active,
            rtcp_to: stream.rtcp_to,
            rtcp_mux: stream.rtcp_mux,
            crypto: match &stream.crypto {
                Some(crypto) => Some(unseal(keys, self.rs, stream.description.stream, crypto)?),
                None => None,
            },
            strict: self.strict,
            cname: self.cname(),
            nat: self.nat,
        })
    }
}

fn unseal(keys: &KeyBox, rs: RsId, stream: StreamId, crypto: &SealedCrypto) -> Option<Crypto> {
    let remote = keys.open(&crypto.remote, &remote_key_context(rs, stream)).ok()?;
    let local = keys.open(&crypto.local, &local_key_context(rs, stream)).ok()?;
    Some(Crypto {
        suite: crypto.suite,
        remote: WireKeyring::new(&Keyring::from_parts(
            &remote,
            &crypto.mkis,
            crypto.derivation_rate,
        )?),
        local: WireKey::new(&MasterKey::new(&local)?),
    })
}
