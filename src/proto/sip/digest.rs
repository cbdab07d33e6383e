//! Digest authentication (RFC 3261 §22, RFC 7616, RFC 8760): challenges, credentials, responses.
//!
//! Values alone: which peer must authenticate, and what failures do, is the guard's.

use aws_lc_rs::digest::{SHA256, SHA512_256, digest};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

use crate::wire::sip::{Params, split_list};

/// A hash, strongest first (RFC 8760 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-512/256.
    Sha512_256,
    /// SHA-256.
    Sha256,
    /// MD5: broken, for peers that know nothing else.
    Md5,
}

impl Algorithm {
    /// All, in the order in which they are offered.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5];

    /// Its token.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha512_256 => "SHA-512-256",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Md5 => "MD5",
        }
    }

    /// The algorithm of that token; MD5 where there is none (RFC 3261 §22.4).
    pub fn from_name(name: &str) -> Option<Algorithm> {
        if name.is_empty() {
            return Some(Algorithm::Md5);
        }
        Algorithm::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }

    fn hex(self, text: &[u8]) -> Zeroizing<String> {
        let hash = match self {
            Algorithm::Sha512_256 => digest(&SHA512_256, text).as_ref().to_vec(),
            Algorithm::Sha256 => digest(&SHA256, text).as_ref().to_vec(),
            Algorithm::Md5 => Md5::digest(text).to_vec(),
        };
        Zeroizing::new(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A user name and its password. No `Debug`, no `Clone`; wiped on drop.
pub struct Secret {
    /// The user.
    pub user: String,
    password: Zeroizing<String>,
}

impl Secret {
    /// Reads `user:password`, one line. `None` where there is no colon, or either is empty.
    pub fn parse(line: &str) -> Option<Secret> {
        let (user, password) = line.trim_end_matches(['\r', '\n']).split_once(':')?;
        let whole = !user.is_empty() && !password.is_empty() && !line.trim_end().contains('\n');
        whole.then(|| Secret {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        })
    }
}

/// What a challenge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Realm.
    pub realm: String,
    /// Nonce.
    pub nonce: String,
    /// Hash.
    pub algorithm: Algorithm,
    /// To be handed back.
    pub opaque: Option<String>,
    /// Whether `qop=auth` is offered.
    pub qop: bool,
    /// The credentials were right, their nonce is too old.
    pub stale: bool,
}

impl Challenge {
    /// Reads the value of a WWW-Authenticate or Proxy-Authenticate field. `None` for other schemes
    /// and unknown algorithms.
    pub fn parse(value: &str) -> Option<Challenge> {
        let params = fields(value)?;
        let text = |name| params.get(name).map(str::to_owned);
        Some(Challenge {
            realm: text("realm")?,
            nonce: text("nonce")?,
            algorithm: Algorithm::from_name(params.get("algorithm").unwrap_or(""))?,
            opaque: text("opaque"),
            qop: params
                .get("qop")
                .is_some_and(|qop| qop.split(',').any(|one| one.trim() == "auth")),
            stale: params.get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The value of a WWW-Authenticate field.
    pub fn print(&self) -> String {
        let Challenge { realm, nonce, algorithm, stale, .. } = self;
        let stale = if *stale { ", stale=true" } else { "" };
        let algorithm = algorithm.name();
        format!(
            "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={algorithm}, \
             qop=\"auth\"{stale}"
        )
    }

    /// The value of an Authorization field for a request. `count`: how often this nonce has been
    /// used, this time included.
    pub fn answer(
        &self,
        secret: &Secret,
        (method, uri): (&str, &str),
        (count, cnonce): (u32, &str),
    ) -> String {
        let mut credentials = Credentials {
            user: secret.user.clone(),
            realm: self.realm.clone(),
            nonce: self.nonce.clone(),
            uri: uri.to_owned(),
            algorithm: self.algorithm,
            response: String::new(),
            qop: self.qop.then(|| (count, cnonce.to_owned())),
        };
        credentials.response = credentials.expected(secret, method).to_string();
        let Credentials { user, realm, nonce, uri, algorithm, response, qop } = &credentials;
        let mut text = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm={}, response=\"{response}\"",
            algorithm.name()
        );
        if let Some((count, cnonce)) = qop {
            text += &format!(", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = &self.opaque {
            text += &format!(", opaque=\"{opaque}\"");
        }
        text
    }
}

/// What an Authorization field says. No `Debug`: it never reaches a log.
pub struct Credentials {
    /// User.
    pub user: String,
    /// Realm.
    pub realm: String,
    /// Nonce.
    pub nonce: String,
    /// Request-URI as the client knew it.
    pub uri: String,
    /// Hash.
    pub algorithm: Algorithm,
    /// The response.
    pub response: String,
    /// Nonce count and client nonce of `qop=auth`.
    pub qop: Option<(u32, String)>,
}

impl Credentials {
    /// Reads the value of an Authorization field. `None` for other schemes, unknown algorithms,
    /// another `qop` than `auth`, and where something is missing.
    pub fn parse(value: &str) -> Option<Credentials> {
        let params = fields(value)?;
        let text = |name| params.get(name).map(str::to_owned);
        let qop = match params.get("qop") {
            None => None,
            Some("auth") => {
                let count = params.get("nc").filter(|count| count.len() == 8)?;
                Some((u32::from_str_radix(count, 16).ok()?, text("cnonce")?))
            }
            Some(_) => return None,
        };
        Some(Credentials {
            user: text("username")?,
            realm: text("realm")?,
            nonce: text("nonce")?,
            uri: text("uri")?,
            algorithm: Algorithm::from_name(params.get("algorithm").unwrap_or(""))?,
            response: text("response")?,
            qop,
        })
    }

    /// The response that `secret` gives (RFC 7616 §3.4.1, RFC 2617 §3.2.2.1 without `qop`).
    fn expected(&self, secret: &Secret, method: &str) -> Zeroizing<String> {
        let hex = |text: &str| self.algorithm.hex(text.as_bytes());
        let Credentials { user, realm, nonce, uri, qop, .. } = self;
        let password = &*secret.password;
        let ha1 = hex(&Zeroizing::new(format!("{user}:{realm}:{password}")));
        let ha2 = hex(&format!("{method}:{uri}"));
        let (ha1, ha2) = (ha1.as_str(), ha2.as_str());
        let between = match qop {
            Some((count, cnonce)) => format!("{nonce}:{count:08x}:{cnonce}:auth"),
            None => nonce.clone(),
        };
        hex(&Zeroizing::new(format!("{ha1}:{between}:{ha2}")))
    }

    /// Whether they prove `secret` for a request of that method. Takes the same time for every wrong
    /// response.
    pub fn prove(&self, secret: &Secret, method: &str) -> bool {
        let expected = self.expected(secret, method);
        let given = self.response.to_ascii_lowercase();
        let same = given.len() == expected.len()
            && given.bytes().zip(expected.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0;
        same && self.user == secret.user
    }
}

/// The fields behind `Digest`.
fn fields(value: &str) -> Option<Params> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Digest") {
        return None;
    }
    let one = |part: &str| Params::parse(part).0.into_iter().next();
    Some(Params(split_list(rest).filter_map(one).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 §3.9.1.
    const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    fn challenge(algorithm: Algorithm) -> Challenge {
        Challenge {
            realm: "http-auth@example.org".to_owned(),
            nonce: NONCE.to_owned(),
            algorithm,
            opaque: Some("FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS".to_owned()),
            qop: true,
            stale: false,
        }
    }

    #[test]
    fn rfc7616_3_9_1_its_examples_come_out() {
        let secret = Secret::parse("Mufasa:Circle of Life\n").expect("both");
        let cases = [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ];
        for (algorithm, response) in cases {
            let challenge = challenge(algorithm);
            let text = challenge.answer(&secret, ("GET", "/dir/index.html"), (1, CNONCE));
            let credentials = Credentials::parse(&text).expect("ours");
            assert_eq!(credentials.response, response);
            assert!(credentials.prove(&secret, "GET") && !credentials.prove(&secret, "PUT"));
            let other = Secret::parse("Mufasa:Circle of life").expect("both");
            assert!(!credentials.prove(&other, "GET"));
        }
    }

    #[test]
    fn challenges_are_read_as_they_are_printed() {
        for algorithm in Algorithm::ALL {
            let mut challenge = Challenge { opaque: None, ..challenge(algorithm) };
            challenge.stale = algorithm == Algorithm::Sha256;
            assert_eq!(Challenge::parse(&challenge.print()), Some(challenge));
        }
        let old = Challenge::parse("digest realm=\"a, b\",nonce=x").expect("RFC 2617");
        assert_eq!((&*old.realm, old.algorithm, old.qop), ("a, b", Algorithm::Md5, false));
        assert_eq!(Challenge::parse("Digest realm=\"a\", nonce=x, algorithm=SHA-1"), None);
        assert_eq!(Challenge::parse("Basic realm=\"a\""), None);
    }

    #[test]
    fn broken_credentials_are_none() {
        let whole = "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"sip:x\", \
                     algorithm=SHA-256, response=\"0\", qop=auth, nc=00000001, cnonce=\"c\"";
        assert!(Credentials::parse(whole).is_some());
        for (from, to) in [
            ("nc=00000001", "nc=1"),
            ("nc=00000001", "nc=0000000g"),
            ("qop=auth", "qop=auth-int"),
            ("username", "user"),
            ("SHA-256", "SHA-256-sess"),
            (", cnonce=\"c\"", ""),
        ] {
            assert!(Credentials::parse(&whole.replace(from, to)).is_none(), "{from} {to}");
        }
        for line in ["", "user", ":p", "u:", "u:p\nv:q"] {
            assert!(Secret::parse(line).is_none(), "{line:?}");
        }
    }
}
