//! One recorded call as the SRC describes it: parties, streams, and the ids that tie SDP and
//! metadata together.

use super::g711::Law;
use crate::base::ports::Entropy;
use crate::base::secret::MasterKey;
use crate::base::suite::Agreed;

/// Sixteen octets that name one thing in the metadata (RFC 7865 §6.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uid(pub [u8; 16]);

impl Uid {
    /// A random UUID (RFC 4122 §4.4).
    pub fn new(entropy: &impl Entropy) -> Self {
        let mut octets = [0; 16];
        entropy.fill(&mut octets);
        octets[6] = (octets[6] & 0x0f) | 0x40;
        octets[8] = (octets[8] & 0x3f) | 0x80;
        Uid(octets)
    }

    /// Base64, as metadata writes ids.
    pub fn base64(&self) -> String {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }

    /// 32 hex digits, as a Session-ID writes them (RFC 7989 §5).
    pub fn hex(&self) -> String {
        self.0.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// Somebody in the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Participant id.
    pub id: Uid,
    /// Address of record.
    pub aor: String,
    /// Display name.
    pub name: String,
    /// Its half of the Communication Session's SIP session id.
    pub sip_session: Uid,
}

/// How a line is protected.
pub enum Protection {
    /// Plain RTP.
    Plain,
    /// Keys in the offer (RFC 4568).
    Sdes {
        /// The suite offered, and what is not encrypted under it.
        suite: Agreed,
        /// What we encrypt with.
        key: MasterKey,
    },
}

impl Protection {
    fn fresh(suite: Agreed, entropy: &impl Entropy) -> Self {
        let mut bytes = zeroize::Zeroizing::new(vec![0; suite.suite().master_bytes()]);
        entropy.fill(&mut bytes);
        let key = MasterKey::new(&bytes).expect("a suite's own length");
        Protection::Sdes { suite, key }
    }
}

/// One m-line to be.
pub struct StreamPlan {
    /// Stream id.
    pub id: Uid,
    /// `a=label`.
    pub label: String,
    /// RTP port; RTCP is the next one.
    pub port: u16,
    /// Codec.
    pub law: Law,
    /// Protection.
    pub protection: Protection,
}

/// A call: with one stream it is mixed, else stream n is what party n says.
pub struct Call {
    /// CS group.
    pub group: Uid,
    /// Communication Session.
    pub session: Uid,
    /// Who is in it.
    pub parties: Vec<Party>,
    /// What is sent.
    pub streams: Vec<StreamPlan>,
    /// Version of the offer, 1 first (RFC 3264 §8).
    pub version: u64,
}

/// Enough names for a call; after the last one they repeat with a number.
const NAMES: [&str; 8] = ["Anna", "Ben", "Chloe", "David", "Elena", "Farid", "Grace", "Hugo"];

impl Call {
    /// Call number `number` of a load, without streams yet. `parties` ≥ 1.
    pub fn new(number: usize, parties: usize, entropy: &impl Entropy) -> Self {
        let party = |place: usize| {
            let name = NAMES[place % NAMES.len()];
            let round = place / NAMES.len();
            let tail = if round == 0 { String::new() } else { format!("{}", round + 1) };
            Party {
                id: Uid::new(entropy),
                aor: format!("sip:{}{tail}.{}@desk.example", name.to_lowercase(), number + 1),
                name: format!("{name}{tail} (desk {})", number + 1),
                sip_session: Uid::new(entropy),
            }
        };
        Call {
            group: Uid::new(entropy),
            session: Uid::new(entropy),
            // A call has two ends also where one mixed stream carries both.
            parties: (0..parties.max(2)).map(party).collect(),
            streams: Vec::new(),
            version: 1,
        }
    }

    /// Adds the next stream; its label names its place in the call.
    pub fn add_stream(
        &mut self,
        port: u16,
        law: Law,
        suite: Option<Agreed>,
        entropy: &impl Entropy,
    ) {
        let protection = match suite {
            None => Protection::Plain,
            Some(suite) => Protection::fresh(suite, entropy),
        };
        self.streams.push(StreamPlan {
            id: Uid::new(entropy),
            label: format!("{}", self.streams.len() + 1),
            port,
            law,
            protection,
        });
    }

    /// New keys for every protected stream, for the next offer.
    pub fn rekey(&mut self, entropy: &impl Entropy) {
        self.version += 1;
        for stream in &mut self.streams {
            if let Protection::Sdes { suite, .. } = stream.protection {
                stream.protection = Protection::fresh(suite, entropy);
            }
        }
    }

    /// Whether one stream carries everybody (RFC 8068 §3.3).
    pub fn is_mixed(&self) -> bool {
        self.streams.len() == 1
    }

    /// Whether party `party` is heard in stream `stream`.
    pub fn sends(&self, party: usize, stream: usize) -> bool {
        self.is_mixed() || party == stream
    }

    /// Whether stream `stream` reaches party `party`.
    pub fn hears(&self, party: usize, stream: usize) -> bool {
        self.is_mixed() || party != stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Seeded;
    use crate::base::suite::Suite;
    #[test]
    fn each_party_sends_its_own_stream_and_hears_the_other() {
        let entropy = Seeded::new(1);
        let mut call = Call::new(0, 2, &entropy);
        call.add_stream(4_000, Law::Mu, None, &entropy);
        assert!(call.is_mixed() && call.sends(1, 0) && call.hears(1, 0));
        call.add_stream(4_002, Law::A, Some(Suite::AeadAes256Gcm.into()), &entropy);
        assert!(call.sends(1, 1) && !call.sends(1, 0) && call.hears(1, 0) && !call.hears(1, 1));
        assert_ne!(call.parties[0].aor, call.parties[1].aor);
        assert_eq!(call.streams[1].label, "2");
        assert!(
            matches!(&call.streams[1].protection, Protection::Sdes { key, .. } if key.expose().len() == 44)
        );
    }

    #[test]
    fn ids_are_random_uuids() {
        let entropy = Seeded::new(2);
        let id = Uid::new(&entropy);
        assert_eq!((id.0[6] >> 4, id.0[8] >> 6), (4, 2));
        assert_eq!((id.base64().len(), id.hex().len()), (24, 32));
        assert_ne!(id, Uid::new(&entropy));
    }
}
