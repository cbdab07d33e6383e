//! The session keys of one master key, derived once or each 2^n packets (RFC 3711 §4.3.1).

use super::cm::Cm;
use super::derive::Prf;
use super::fail::KeyError;
use super::gcm::Gcm;
use crate::base::mki::Mki;
use crate::base::secret::MasterKey;
use crate::base::suite::Suite;

/// Session keys for SRTP, or for SRTCP. Boxed: they are made once and moved about.
pub(super) enum Cipher {
    Cm(Box<Cm>),
    Gcm(Box<Gcm>),
}

/// Which of the two.
#[derive(Clone, Copy)]
enum Protocol {
    Rtp,
    Rtcp,
}

impl Cipher {
    /// `r`: packet index divided by the derivation rate.
    fn derive(suite: Suite, master: &MasterKey, protocol: Protocol, r: u64) -> Self {
        let (key, salt) = master.expose().split_at(suite.key_bytes());
        let prf = Prf::new(key, salt).at(r);
        match (suite.is_aead(), protocol) {
            (false, Protocol::Rtp) => Cipher::Cm(Box::new(Cm::rtp(&prf))),
            (false, Protocol::Rtcp) => Cipher::Cm(Box::new(Cm::rtcp(&prf))),
            (true, Protocol::Rtp) => Cipher::Gcm(Box::new(Gcm::rtp(&prf, key.len()))),
            (true, Protocol::Rtcp) => Cipher::Gcm(Box::new(Gcm::rtcp(&prf, key.len()))),
        }
    }
}

/// One master key.
pub(super) struct Key {
    /// What packets under it carry, if anything.
    pub(super) mki: Option<Mki>,
    rtp: Cipher,
    rtcp: Cipher,
    /// Where session keys change; they are then of `r` = 0 above.
    changing: Option<Box<Changing>>,
}

/// What session keys that change are derived from, for each packet anew: hardly anybody asks for it, and
/// so a context holds nothing that changes.
struct Changing {
    suite: Suite,
    master: MasterKey,
    rate: u8,
}

impl Key {
    /// `rate`: session keys change each 2^n packets; 0: never. Fails where `master` is not key ‖ salt of
    /// exactly the suite's length.
    pub(super) fn new(
        suite: Suite,
        master: &MasterKey,
        mki: Option<Mki>,
        rate: u8,
    ) -> Result<Self, KeyError> {
        let (wanted, found) = (suite.master_bytes(), master.expose().len());
        if wanted != found {
            return Err(KeyError { suite, wanted, found });
        }
        let derive = |protocol| Cipher::derive(suite, master, protocol, 0);
        let changing =
            (rate > 0).then(|| Box::new(Changing { suite, master: master.duplicate(), rate }));
        Ok(Key { mki, rtp: derive(Protocol::Rtp), rtcp: derive(Protocol::Rtcp), changing })
    }

    /// The session keys of the SRTP packet of that index.
    #[inline]
    pub(super) fn with_rtp<T>(&self, index: u64, with: impl FnOnce(&Cipher) -> T) -> T {
        match &self.changing {
            None => with(&self.rtp),
            Some(changing) => with(&changing.at(Protocol::Rtp, index)),
        }
    }

    /// The session keys of the SRTCP packet of that index.
    #[inline]
    pub(super) fn with_rtcp<T>(&self, index: u32, with: impl FnOnce(&Cipher) -> T) -> T {
        match &self.changing {
            None => with(&self.rtcp),
            Some(changing) => with(&changing.at(Protocol::Rtcp, index.into())),
        }
    }
}

impl Changing {
    #[cold]
    fn at(&self, protocol: Protocol, index: u64) -> Cipher {
        Cipher::derive(self.suite, &self.master, protocol, index >> self.rate)
    }
}
