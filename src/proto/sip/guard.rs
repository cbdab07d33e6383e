//! Who must authenticate by digest, whether they do, and what guessing costs (F56).
//!
//! Nonces are stateless: instant and source under a MAC of a key that outlives the process, so that a
//! restarted control takes those of its predecessor. What is kept is bounded and made only for those
//! who have proven a password (nonce counts) or have answered a challenge wrongly (back-off): a
//! stranger who sends without end makes nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::digest::{Algorithm, Challenge, Credentials, Secret};
use crate::base::limits::{SIP_BACKOFFS_MAX, SIP_NONCES_MAX};
use crate::base::time::Mono;
use crate::wire::sip::Message;

/// A nonce is good for so long: short against replays, long against a challenge for each request.
const NONCE_LIFE_MS: u64 = 300_000;
/// Wrong answers of a source before it has to wait.
const FREE_FAILURES: u32 = 3;
/// The longest wait, s: 3 guesses and then one a minute.
const WAIT_S_MAX: u64 = 60;
/// A source that has been quiet for so long begins anew.
const FORGET_MS: u64 = 600_000;
/// A nonce is an instant (8 bytes) and a MAC of so many.
const MAC_BYTES: usize = 16;

/// Whose password a peer must prove.
pub struct DigestPeer {
    /// The address that it sends from; `None`: the user name in From says that it is this peer.
    pub address: Option<IpAddr>,
    /// Its user name.
    pub user: String,
    /// User and password; `None` where they could not be read: then nothing proves it.
    pub secret: Option<Secret>,
    /// Whether MD5 is taken from it.
    pub md5: bool,
}

/// What digest authentication is told by the configuration.
#[derive(Default)]
pub struct DigestRules {
    /// Realm of the challenges.
    pub realm: String,
    /// Peers with a password.
    pub peers: Vec<DigestPeer>,
    /// Whether everybody must authenticate who has no certificate.
    pub everybody: bool,
}

/// What is to become of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Taken; the user that it has proven to be.
    Pass(Option<String>),
    /// 401 with these challenges.
    Challenge(Vec<String>),
    /// 503: the source has guessed too often. Seconds to wait.
    Wait(u64),
}

/// Uses of a nonce.
#[derive(Clone, Copy, Debug)]
struct Uses {
    /// The highest count, and which of the 64 below have come.
    highest: u32,
    seen: u64,
}

impl Uses {
    /// Whether this count is new. Requests over UDP may overtake each other.
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let step = count - self.highest;
            self.seen = if step >= 64 { 0 } else { self.seen << step };
            self.seen |= 1;
            self.highest = count;
            return true;
        }
        let back = self.highest - count;
        let bit = 1_u64.checked_shl(back).unwrap_or(0);
        let fresh = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

/// Wrong answers of a source.
#[derive(Clone, Copy, Debug)]
struct Guesses {
    failures: u32,
    last: Mono,
    until: Mono,
}

/// A source that has to wait from now on, because it guesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guessing {
    /// The source.
    pub source: IpAddr,
    /// As which user it answered last, in its own words.
    pub user: String,
    /// Wrong answers so far.
    pub failures: u32,
}

/// Sources that are noted until somebody asks; those beyond are counted only.
const GUESSING_MAX: usize = 64;
/// Characters that are kept of a user's name.
const USER_CHARS: usize = 64;

/// See the module. Makes no challenge before it has rules.
pub(super) struct Guard {
    key: hmac::Key,
    rules: DigestRules,
    uses: HashMap<String, Uses>,
    /// Nonces by instant, to forget the oldest; and up to where that has happened before their time.
    by_age: BTreeSet<(u64, String)>,
    forgotten_ms: u64,
    guesses: HashMap<IpAddr, Guesses>,
    /// Who has to wait since somebody asked.
    pub(super) guessing: Vec<Guessing>,
    /// Wrong answers in all.
    pub(super) failures: u64,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guard with {} peers", self.rules.peers.len())
    }
}

impl Guard {
    /// A guard whose nonces are under `key`.
    pub(super) fn new(key: &[u8]) -> Self {
        Guard {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            rules: DigestRules::default(),
            uses: HashMap::new(),
            by_age: BTreeSet::new(),
            forgotten_ms: 0,
            guesses: HashMap::new(),
            guessing: Vec::new(),
            failures: 0,
        }
    }

    pub(super) fn set_rules(&mut self, key: &[u8], rules: DigestRules) {
        self.key = hmac::Key::new(hmac::HMAC_SHA256, key);
        self.rules = rules;
    }

    /// Judges a request from `source`. `certified`: a certificate says already who it is. `owner`:
    /// the user who made its dialog, if digest said so.
    pub(super) fn judge(
        &mut self,
        now: Mono,
        source: IpAddr,
        certified: bool,
        owner: Option<&str>,
        message: &Message,
    ) -> Judgement {
        let from = message.from().and_then(|from| from.parts()).and_then(|uri| uri.user);
        let asked = |peer: &&DigestPeer| match peer.address {
            Some(address) => address == source.to_canonical(),
            None => from.as_deref() == Some(&peer.user),
        };
        let expected = self.rules.peers.iter().find(asked);
        let everybody = self.rules.everybody && !certified;
        if expected.is_none() && !everybody && owner.is_none() {
            return Judgement::Pass(None);
        }
        let expected = expected.map(|peer| (peer.user.clone(), peer.md5));
        let (name, md5) = match &expected {
            Some((user, md5)) => (Some(user.clone()), *md5),
            None => (owner.map(str::to_owned), false),
        };
        let credentials = message.headers.all("Authorization").find_map(Credentials::parse);
        let Some(credentials) = credentials.filter(|own| own.realm == self.rules.realm) else {
            return Judgement::Challenge(self.challenges(now, source, md5, false));
        };
        if let Some(guesses) = self.guesses.get(&source)
            && guesses.until > now
        {
            return Judgement::Wait(guesses.until.since(now).div_ceil(1_000_000_000));
        }
        let Some(issued_ms) = self.issued(&credentials.nonce, source) else {
            // Not ours, or another source's: it was never challenged, so it has not guessed yet.
            return Judgement::Challenge(self.challenges(now, source, md5, false));
        };
        if !self.is_right(&credentials, name.as_deref(), message) {
            self.failed(now, source, &credentials.user);
            return Judgement::Challenge(self.challenges(now, source, md5, false));
        }
        let now_ms = now.0 / 1_000_000;
        let old = now_ms.saturating_sub(issued_ms) > NONCE_LIFE_MS || issued_ms > now_ms;
        if old || !self.count(now_ms, issued_ms, &credentials) {
            return Judgement::Challenge(self.challenges(now, source, md5, true));
        }
        self.guesses.remove(&source);
        Judgement::Pass(Some(credentials.user))
    }

    /// Whether the response proves the password of its user, who must be `name` where one is named.
    fn is_right(&self, own: &Credentials, name: Option<&str>, message: &Message) -> bool {
        let named = |peer: &&DigestPeer| {
            peer.user == own.user
                && name.is_none_or(|name| name == own.user)
                // RFC 8760: MD5 for a named peer only.
                && (own.algorithm != Algorithm::Md5 || peer.md5)
        };
        let method = message.method().unwrap_or("");
        let same_uri = message.uri() == Some(&*own.uri);
        let Some(peer) = self.rules.peers.iter().find(named) else { return false };
        // Without `qop` nothing counts its uses; RFC 7616 §3.4 demands it.
        let proves = |secret: &Secret| own.prove(secret, method);
        same_uri && own.qop.is_some() && peer.secret.as_ref().is_some_and(proves)
    }

    /// Takes note of a use; false where that count has been used, or may have been.
    fn count(&mut self, now_ms: u64, issued_ms: u64, own: &Credentials) -> bool {
        let Some((count, _)) = own.qop else { return false };
        while let Some(oldest) = self.by_age.first()
            && now_ms.saturating_sub(oldest.0) > NONCE_LIFE_MS
        {
            self.uses.remove(&oldest.1);
            self.by_age.pop_first();
        }
        if let Some(uses) = self.uses.get_mut(&own.nonce) {
            return uses.take(count);
        }
        // Its uses may be among those that were forgotten for want of room.
        if issued_ms <= self.forgotten_ms || count == 0 {
            return false;
        }
        if self.uses.len() >= SIP_NONCES_MAX
            && let Some((issued, nonce)) = self.by_age.pop_first()
        {
            self.forgotten_ms = self.forgotten_ms.max(issued);
            self.uses.remove(&nonce);
        }
        self.uses.insert(own.nonce.clone(), Uses { highest: count, seen: 1 });
        self.by_age.insert((issued_ms, own.nonce.clone()));
        true
    }

    fn failed(&mut self, now: Mono, source: IpAddr, user: &str) {
        self.failures += 1;
        if self.guesses.len() >= SIP_BACKOFFS_MAX && !self.guesses.contains_key(&source) {
            self.guesses.retain(|_, guesses| now.since(guesses.last) < FORGET_MS * 1_000_000);
            let oldest = self.guesses.iter().min_by_key(|(_, guesses)| guesses.last);
            if self.guesses.len() >= SIP_BACKOFFS_MAX
                && let Some(oldest) = oldest.map(|(source, _)| *source)
            {
                self.guesses.remove(&oldest);
            }
        }
        let fresh = Guesses { failures: 0, last: now, until: now };
        let guesses = self.guesses.entry(source).or_insert(fresh);
        if now.since(guesses.last) >= FORGET_MS * 1_000_000 {
            *guesses = fresh;
        }
        guesses.failures = guesses.failures.saturating_add(1);
        guesses.last = now;
        let over = guesses.failures.saturating_sub(FREE_FAILURES);
        if over > 0 {
            let wait_s = (1_u64 << (over - 1).min(6)).min(WAIT_S_MAX);
            guesses.until = now.plus_ms(wait_s * 1_000);
            // Once for each run of guesses.
            if over == 1 && self.guessing.len() < GUESSING_MAX {
                let user = user.chars().take(USER_CHARS).collect();
                self.guessing.push(Guessing { source, user, failures: guesses.failures });
            }
        }
    }

    /// The challenges, the strongest first (RFC 8760 §2.4).
    fn challenges(&self, now: Mono, source: IpAddr, md5: bool, stale: bool) -> Vec<String> {
        let nonce = self.nonce(now.0 / 1_000_000, source);
        let offered =
            Algorithm::ALL.into_iter().filter(|algorithm| md5 || *algorithm != Algorithm::Md5);
        let challenge = |algorithm| Challenge {
            realm: self.rules.realm.clone(),
            nonce: nonce.clone(),
            algorithm,
            opaque: None,
            qop: true,
            stale,
        };
        offered.map(|algorithm| challenge(algorithm).print()).collect()
    }

    /// Instant ‖ MAC over it and the source: who guesses must have got our 401, so that nobody can
    /// make another source wait by forging its address.
    fn nonce(&self, issued_ms: u64, source: IpAddr) -> String {
        let mut bytes = issued_ms.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.mac(issued_ms, source).as_ref()[..MAC_BYTES]);
        STANDARD.encode(bytes)
    }

    fn mac(&self, issued_ms: u64, source: IpAddr) -> hmac::Tag {
        hmac::sign(&self.key, format!("{issued_ms} {}", source.to_canonical()).as_bytes())
    }

    /// When a nonce of ours was given to `source`.
    fn issued(&self, nonce: &str, source: IpAddr) -> Option<u64> {
        let bytes = STANDARD.decode(nonce).ok().filter(|bytes| bytes.len() == 8 + MAC_BYTES)?;
        let (issued, mac) = bytes.split_at(8);
        let issued = u64::from_be_bytes(issued.try_into().ok()?);
        let own = self.mac(issued, source);
        let same = own.as_ref()[..MAC_BYTES].iter().zip(mac).fold(0, |sum, (a, b)| sum | (a ^ b));
        (same == 0).then_some(issued)
    }
}
