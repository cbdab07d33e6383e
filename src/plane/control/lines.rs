//! From accepted m-lines to streams: port pair, stream id, our key, the journal's form of it.

use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

use super::actor::Control;
use super::recover::STREAM_ID_BLOCK;
use crate::base::family::Family;
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::keyring::Keyring;
use crate::base::limits::STREAM_FORMATS_MAX;
use crate::base::secret::MasterKey;
use crate::base::suite::{Agreed, Suite};
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
    /// SRTP, by the crypto line that was taken; `None`: plain RTP.
    pub(super) crypto: Option<WantedCrypto>,
    /// The family that it is sent over, where that is known.
    pub(super) family: Option<Family>,
}

/// What of a crypto line is kept.
pub(super) struct WantedCrypto {
    pub(super) tag: u32,
    pub(super) suite: Agreed,
    /// What the SRC encrypts with.
    pub(super) remote: Keyring,
}

/// Which address a line's port pair should lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// Of this family, or nowhere.
    pub(super) family: Family,
    /// This one, if it can be had: signalling came in on it.
    pub(super) near: IpAddr,
}

/// Where a stream is received: port pair, its use, its RTP address.
pub(super) type Place = (Slot, Generation, SocketAddr);

/// For each m-line: where it is received and with which key of ours; `None`: port 0.
pub(super) type Locals = Vec<Option<(Place, Option<MasterKey>)>>;

impl Control {
    /// Where a line should lie whose request came in on `near`. What says nothing of its family is taken
    /// to be of that of its signalling.
    pub(super) fn fit(&self, line: &Wanted, near: IpAddr) -> Fit {
        let near = near.to_canonical();
        let family = line.family.unwrap_or_else(|| self.slots.family_near(near));
        Fit { family, near }
    }

    /// Why lines that should lie there would not be recorded; `None`: they would.
    pub(super) fn obstacle(&self, fits: &[Fit]) -> Option<String> {
        let (used, free) = (self.slots.used(), self.slots.free());
        if let Some(why) = self.admission.obstacle(used, free, fits.len()) {
            return Some(why);
        }
        Family::ALL.into_iter().find_map(|family| {
            let wanted = fits.iter().filter(|fit| fit.family == family).count();
            let free = self.slots.free_of(family);
            let short = wanted > free;
            short.then(|| format!("{free} {family} port pairs are free, {wanted} are wanted"))
        })
    }

    /// The family that we have no address of, if there is one.
    pub(super) fn lacks(&self) -> Option<Family> {
        Family::ALL.into_iter().find(|family| !self.slots.has(*family))
    }

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
        crypto: &WantedCrypto,
        local: &MasterKey,
    ) -> SealedCrypto {
        let seal = |keys: &[u8], context: &str| self.keys.seal(&*self.entropy, keys, context);
        SealedCrypto {
            suite: crypto.suite,
            tag: crypto.tag,
            remote: seal(&crypto.remote.expose(), &remote_key_context(rs, stream)),
            local: seal(local.expose(), &local_key_context(rs, stream)),
            mkis: crypto.remote.mkis(),
            derivation_rate: crypto.remote.derivation_rate(),
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
            (Some(sealed), Some(wanted)) => {
                let context = remote_key_context(rs, stream.description.stream);
                let keys = self.keys.open(&sealed.remote, &context).ok();
                let known = keys.and_then(|keys| {
                    Keyring::from_parts(&keys, &sealed.mkis, sealed.derivation_rate)
                });
                (sealed.suite, sealed.tag) == (wanted.suite, wanted.tag)
                    && known.is_some_and(|known| known.same(&wanted.remote))
            }
            _ => false,
        }
    }
}

/// Behind the formats of now those of before whose payload types mean nothing else now (RFC 3264 §8.3.2 keeps
/// them from it): what was recorded under them is still known, and so is what was on its way.
pub(super) fn keep_formats(formats: &mut Vec<Format>, before: &[Format]) {
    for format in before {
        let is_free = formats.iter().all(|known| known.payload_type != format.payload_type);
        if is_free && formats.len() < STREAM_FORMATS_MAX {
            formats.push(format.clone());
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
                suite: self.crypto.as_ref().map(|crypto| crypto.suite),
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
            address: Some(address.ip()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(payload_type: u8, codec: &str) -> Format {
        let codec = codec.to_owned();
        Format { payload_type, codec, clock_rate: 8_000, channels: 1, fmtp: None }
    }

    #[test]
    fn formats_of_before_stay_known_where_their_numbers_are_free() {
        let mut formats = vec![format(9, "G722"), format(96, "AMR")];
        let before = [format(0, "PCMU"), format(96, "opus"), format(101, "telephone-event")];
        keep_formats(&mut formats, &before);
        let kept = [(9, "G722"), (96, "AMR"), (0, "PCMU"), (101, "telephone-event")];
        assert_eq!(formats, kept.map(|(number, codec)| format(number, codec)));
        // The same offer again changes nothing.
        let mut again = vec![format(9, "G722"), format(96, "AMR")];
        keep_formats(&mut again, &formats);
        assert_eq!(again, formats);
        let many: Vec<Format> = (0..64).map(|number| format(number, "x")).collect();
        keep_formats(&mut again, &many);
        assert_eq!(again.len(), STREAM_FORMATS_MAX);
    }
}
