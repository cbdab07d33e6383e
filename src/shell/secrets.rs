//! Passwords of peers, from the files that the configuration names (RFC 8760). They never stand in
//! the configuration, in arguments or in a log.

use std::path::Path;

use zeroize::Zeroizing;

use crate::config::Breach;
use crate::config::model::{Config, PeerMatch};
use crate::host::keyfile::read_secret;
use crate::proto::sip::{DigestPeer, DigestRules, Secret};

/// A line of user and password.
const SECRET_BYTES: usize = 512;

/// Reads `user:password` from a file. The error is in words, without the content.
pub fn read(path: &Path) -> Result<Secret, String> {
    let bytes = read_secret(path, SECRET_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => error.to_string(),
        _ => format!("{}: {error}", path.display()),
    })?;
    let text = std::str::from_utf8(&bytes).ok().filter(|_| bytes.len() <= SECRET_BYTES);
    let secret = text.and_then(Secret::parse);
    secret.ok_or_else(|| format!("{}: expected one line user:password", path.display()))
}

/// Reads the token that a monitoring system must show: one line. The error is in words, without it.
pub fn token(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = read_secret(path, SECRET_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => error.to_string(),
        _ => format!("{}: {error}", path.display()),
    })?;
    let token = bytes.trim_ascii();
    let is_word = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    if !is_word || bytes.len() > SECRET_BYTES {
        return Err(format!("{}: expected one line of printable characters", path.display()));
    }
    Ok(Zeroizing::new(token.to_vec()))
}

/// The rules that `config` means, and what is wrong with its files.
pub fn rules(config: &Config) -> (DigestRules, Vec<String>) {
    let mut rules = DigestRules {
        realm: config.sip.realm.clone(),
        peers: Vec::new(),
        everybody: config.sip.require_digest,
    };
    let mut wrong = Vec::new();
    for peer in &config.peers {
        let Some(path) = &peer.digest else { continue };
        let (address, named) = match &peer.matches {
            PeerMatch::Address(address) => (Some(*address), None),
            PeerMatch::User(user) => (None, Some(user)),
            PeerMatch::Name(_) => continue,
        };
        let secret = read(path).and_then(|secret| match named {
            Some(user) if *user != secret.user => {
                let path = path.display();
                Err(format!("{path}: expected the password of {user}, found {}'s", secret.user))
            }
            _ => Ok(secret),
        });
        let (secret, why) = match secret {
            Ok(secret) => (Some(secret), None),
            Err(why) => (None, Some(why)),
        };
        wrong.extend(why);
        let user = secret.as_ref().map(|secret| secret.user.clone());
        let user = user.or_else(|| named.cloned()).unwrap_or_default();
        rules.peers.push(DigestPeer { address, user, secret, md5: peer.digest_md5 });
    }
    (rules, wrong)
}

/// What is wrong with the files, for the configuration's faults.
pub fn faults(config: &Config) -> Vec<Breach> {
    let (_, wrong) = rules(config);
    let breach = |path, fix: &str| {
        let fix = fix.to_owned();
        move |why| Breach { path, why, fix: Some(fix.clone()) }
    };
    let peers = breach("peers", "write one line user:password into it, mode 0600");
    let http = breach("http.token", "write one line into it, mode 0600");
    let token = config.http.token.as_deref().and_then(|path| token(path).err());
    wrong.into_iter().map(peers).chain(token.map(http)).collect()
}
