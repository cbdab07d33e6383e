//! The session keys of one master key, derived once or each 2^n packets (RFC 3711 §4.3.1).

use super::derive::Prf;
use super::etm::Etm;
use super::fail::KeyError;
use super::gcm::Gcm;
use crate::base::mki::Mki;
use crate::base::secret::MasterKey;
use crate::base::suite::Agreed;

/// Session keys for SRTP, or for SRTCP. Boxed: they are made once and moved about.
pub(super) enum Cipher {
    Etm(Box<Etm>),
    Gcm(Box<Gcm>),
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// SRTP.
    Rtp,
    /// SRTCP.
    Rtcp,
}

impl Cipher {
    /// `r`: packet index divided by the derivation rate.
    fn derive(agreed: Agreed, master: &MasterKey, protocol: Protocol, r: u64) -> Self {
        let (key, salt) = master.expose().split_at(agreed.suite().key_bytes());
        let prf = Prf::new(key, salt).at(r);
        match (agreed.suite().is_aead(), protocol) {
            (false, _) => Cipher::Etm(Box::new(Etm::derive(&prf, agreed, protocol))),
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
    agreed: Agreed,
    master: MasterKey,
    rate: u8,
}

impl Key {
    /// `rate`: session keys change each 2^n packets; 0: never. Fails where `master` is not key ‖ salt of
    /// exactly the suite's length.
    pub(super) fn new(
        agreed: Agreed,
        master: &MasterKey,
        mki: Option<Mki>,
        rate: u8,
    ) -> Result<Self, KeyError> {
        let suite = agreed.suite();
        let (wanted, found) = (suite.master_bytes(), master.expose().len());
        if wanted != found {
            return Err(KeyError { suite, wanted, found });
        }
        let derive = |protocol| Cipher::derive(agreed, master, protocol, 0);
        let changing =
            (rate > 0).then(|| Box::new(Changing { agreed, master: master.duplicate(), rate }));
        Ok(Key { mki, rtp: derive(Protocol::Rtp), rtcp: derive(Protocol::Rtcp), changing })
    }

    /// See [`super::Context::touch`].
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        match &self.rtp {
            Cipher::Etm(rtp) => rtp.touch(),
            Cipher::Gcm(rtp) => rtp.touch(),
        }
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
        Cipher::derive(self.agreed, &self.master, protocol, index >> self.rate)
    }
}
