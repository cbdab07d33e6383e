//! From accepted m-lines to streams: port pair, stream id, our key, the journal's form of it.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::actor::Control;
use super::recover::STREAM_ID_BLOCK;
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::secret::MasterKey;
use crate::base::suite::Suite;
use crate::store::event::{Format, StreamDescription};
use crate::store::journal::entry::{Entry, SealedCrypto, StreamOpened};
use crate::store::journal::keybox::{local_key_context, remote_key_context};

/// An m-line that is to be recorded, as negotiated.
pub(super) struct Wanted {
    /// Its place in the SDP.
    pub(super) line: u16,
    pub(super) label: Option<String>,
    pub(super) media: String,
    pub(super) transport: String,
    pub(super) formats: Vec<Format>,
    /// Whether the SRC sends (else it is paused).
    pub(super) active: bool,
    /// The recording policy has it paused.
    pub(super) barred: bool,
    pub(super) remote: Option<SocketAddr>,
    pub(super) rtcp_to: Option<SocketAddr>,
    pub(super) rtcp_mux: bool,
    /// Tag of the crypto line, suite and the SRC's key.
    pub(super) crypto: Option<(u32, Suite, MasterKey)>,
}

/// Where a stream is received: port pair, its use, its RTP address.
pub(super) type Place = (Slot, Generation, SocketAddr);

/// For each m-line: where it is received and with which key of ours; `None`: port 0.
pub(super) type Locals = Vec<Option<(Place, Option<MasterKey>)>>;

impl Control {
    /// A fresh key of ours for `suite`.
    pub(super) fn fresh_key(&self, suite: Suite) -> MasterKey {
        let mut bytes = Zeroizing::new(vec![0; suite.master_bytes()]);
        self.entropy.fill(&mut bytes);
        MasterKey::new(&bytes).expect("every suite's key fits")
    }

    /// The next stream id; reserves a block in the journal when the last one is used up.
    pub(super) fn stream_id(&mut self, entries: &mut Vec<Entry>) -> StreamId {
        let (next, reserved) = self.stream_ids;
        let mut bound = reserved;
        if next >= reserved {
            bound = StreamId(next.0 + STREAM_ID_BLOCK);
            entries.push(Entry::StreamIds { next: bound });
        }
        self.stream_ids = (StreamId(next.0 + 1), bound);
        next
    }

    /// Seals the keys of a line. `local` is ours.
    pub(super) fn seal_crypto(
        &self,
        (rs, stream): (RsId, StreamId),
        crypto: &(u32, Suite, MasterKey),
        local: &MasterKey,
    ) -> SealedCrypto {
        let (tag, suite, remote) = crypto;
        let seal =
            |key: &MasterKey, context: &str| self.keys.seal(&*self.entropy, key.expose(), context);
        SealedCrypto {
            suite: *suite,
            tag: *tag,
            remote: seal(remote, &remote_key_context(rs, stream)),
            local: seal(local, &local_key_context(rs, stream)),
        }
    }

    /// The key of ours that a stream uses.
    pub(super) fn local_key(&self, rs: RsId, stream: &StreamOpened) -> Option<MasterKey> {
        let sealed = &stream.crypto.as_ref()?.local;
        let context = local_key_context(rs, stream.description.stream);
        MasterKey::new(&self.keys.open(sealed, &context).ok()?)
    }

    /// Whether the SRC's key and suite of a stream are still those of the line.
    pub(super) fn same_crypto(&self, rs: RsId, stream: &StreamOpened, wanted: &Wanted) -> bool {
        match (&stream.crypto, &wanted.crypto) {
            (None, None) => true,
            (Some(sealed), Some((tag, suite, key))) => {
                let context = remote_key_context(rs, stream.description.stream);
                let known = self.keys.open(&sealed.remote, &context);
                sealed.suite == *suite
                    && sealed.tag == *tag
                    && known.is_ok_and(|known| known[..] == *key.expose())
            }
            _ => false,
        }
    }
}

impl Wanted {
    /// The journal's form of the stream at `place`.
    pub(super) fn stream(
        &self,
        rs: RsId,
        stream: StreamId,
        place: Place,
        crypto: Option<SealedCrypto>,
    ) -> StreamOpened {
        let (slot, generation, address) = place;
        StreamOpened {
            description: StreamDescription {
                stream,
                rs,
                line: self.line,
                label: self.label.clone(),
                media: self.media.clone(),
                formats: self.formats.clone(),
                suite: self.crypto.as_ref().map(|(_, suite, _)| *suite),
                transport: self.transport.clone(),
                slot,
                port: address.port(),
                remote: self.remote,
            },
            generation,
            active: self.active && !self.barred,
            rtcp_to: self.rtcp_to,
            rtcp_mux: self.rtcp_mux,
            crypto,
            barred: self.barred.then_some(self.active),
        }
    }
}
