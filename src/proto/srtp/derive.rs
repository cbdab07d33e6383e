//! Key derivation (RFC 3711 §4.3, RFC 7714 §11).

use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use zeroize::{Zeroize, Zeroizing};

/// What a derived key is for: the label octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Label {
    /// SRTP encryption key.
    RtpKey = 0,
    /// SRTP authentication key.
    RtpAuth = 1,
    /// SRTP salt.
    RtpSalt = 2,
    /// SRTCP encryption key.
    RtcpKey = 3,
    /// SRTCP authentication key.
    RtcpAuth = 4,
    /// SRTCP salt.
    RtcpSalt = 5,
}

/// The pseudo-random function: AES in counter mode under the master key, of the master key's size
/// (RFC 6188 §3).
pub(super) struct Prf<'a> {
    master_key: &'a [u8],
    master_salt: &'a [u8],
    /// Packet index divided by the key derivation rate, 48 bits; 0 where there is no rate.
    r: u64,
}

impl<'a> Prf<'a> {
    /// `master_key`: 16, 24 or 32 octets. `master_salt`: 12 or 14 octets.
    pub(super) fn new(master_key: &'a [u8], master_salt: &'a [u8]) -> Self {
        assert!(matches!(master_key.len(), 16 | 24 | 32) && matches!(master_salt.len(), 12 | 14));
        Prf { master_key, master_salt, r: 0 }
    }

    /// The same for the packets of another `r`.
    pub(super) fn at(self, r: u64) -> Self {
        Prf { r, ..self }
    }

    /// The first `N` octets of the key stream of `label`.
    pub(super) fn derive<const N: usize>(&self, label: Label) -> Zeroizing<[u8; N]> {
        // RFC 3711 §4.3.1: x = (label ‖ r) ⊕ salt, input block x · 2^16. r has six octets, so the label
        // meets octet 7; an SRTCP index is widened (erratum 3712). A 96-bit salt is padded with 16 zero bits on the right (erratum 4938
        // of RFC 7714): its octets keep their places.
        let mut block = [0_u8; 16];
        block[..self.master_salt.len()].copy_from_slice(self.master_salt);
        block[7] ^= label as u8;
        for (octet, r) in block[8..14].iter_mut().zip(&self.r.to_be_bytes()[2..]) {
            *octet ^= r;
        }
        let mut key = Zeroizing::new([0; N]);
        for (counter, chunk) in (0_u16..).zip(key.chunks_mut(16)) {
            block[14..].copy_from_slice(&counter.to_be_bytes());
            let mut stream = self.encrypt(block);
            chunk.copy_from_slice(&stream[..chunk.len()]);
            stream.zeroize();
        }
        key
    }

    fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = GenericArray::from(block);
        match self.master_key.len() {
            16 => Aes128::new(GenericArray::from_slice(self.master_key)).encrypt_block(&mut block),
            24 => Aes192::new(GenericArray::from_slice(self.master_key)).encrypt_block(&mut block),
            _ => Aes256::new(GenericArray::from_slice(self.master_key)).encrypt_block(&mut block),
        }
        block.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn agree<const N: usize>(prf: &Prf<'_>, label: Label, hex: &str) {
        assert_eq!(prf.derive::<N>(label)[..], unhex(hex), "{label:?}");
    }

    #[test]
    fn rfc_3711_appendix_b3() {
        let key = unhex("e1f97a0d3e018be0d64fa32c06de4139");
        let salt = unhex("0ec675ad498afeebb6960b3aabe6");
        let prf = Prf::new(&key, &salt);
        agree::<16>(&prf, Label::RtpKey, "c61e7a93744f39ee10734afe3ff7a087");
        agree::<20>(&prf, Label::RtpAuth, "cebe321f6ff7716b6fd4ab49af256a156d38baa4");
        agree::<14>(&prf, Label::RtpSalt, "30cbbc08863d8c85d49db34a9ae1");
        agree::<16>(&prf, Label::RtcpKey, "4c1aa45a81f73d61c800bbb00fbb1eaa");
        agree::<20>(&prf, Label::RtcpAuth, "8d54534feb49ae8e7993a6bd0b844fc323a93dfd");
        agree::<14>(&prf, Label::RtcpSalt, "9581c7ad87b3e530bf3e4454a8b3");
    }

    #[test]
    fn rfc_6188_section_7_2() {
        let key = unhex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
        let salt = unhex("3b04803de51ee7c96423ab5b78d2");
        let prf = Prf::new(&key, &salt);
        let rtp_key = "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4";
        agree::<32>(&prf, Label::RtpKey, rtp_key);
        agree::<20>(&prf, Label::RtpAuth, "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05");
        agree::<14>(&prf, Label::RtpSalt, "fa31791685ca444a9e07c6c64e93");
        let rtcp_key = "8ee75f2de53606ebfb9aabce0b530213ce0966976277ff918700903dcc406073";
        agree::<32>(&prf, Label::RtcpKey, rtcp_key);
        agree::<20>(&prf, Label::RtcpAuth, "0235c1262ca7178cf9d8180fa6574a1d997fdc7a");
        agree::<14>(&prf, Label::RtcpSalt, "b174376e041b45cd4031056e44ba");
    }

    #[test]
    fn rfc_6188_section_7_4() {
        let key = unhex("73edc66c4fa15776fb57f9505c17136550ffda71f3e8e5f1");
        let salt = unhex("c8522f3acd4ce86d5add78edbb11");
        let prf = Prf::new(&key, &salt);
        let rtp_key = "31874736a8f1143870c26e4857d8a5b2c4a354407faadabb";
        agree::<24>(&prf, Label::RtpKey, rtp_key);
        agree::<20>(&prf, Label::RtpAuth, "355b10973cd95b9eacf4061c7e1a7151e7cfbfcb");
        agree::<14>(&prf, Label::RtpSalt, "2372b82d639b6d8503a47adc0a6c");
        let rtcp_key = "0c3b5d24e0005fb7b821f22466607ea095818448aff1a464";
        agree::<24>(&prf, Label::RtcpKey, rtcp_key);
        agree::<20>(&prf, Label::RtcpAuth, "1435bd4b2d52ecdd00b401c5fbf38d087f529199");
        agree::<14>(&prf, Label::RtcpSalt, "25a16ab36c966196475415cbc6f0");
    }

    #[test]
    fn a_96_bit_salt_is_padded_on_the_right() {
        let key: Vec<u8> = (0..32).collect();
        let salt: Vec<u8> = (0xa0..0xac).collect();
        let short = Prf::new(&key[..16], &salt);
        agree::<16>(&short, Label::RtpKey, "077c6143cb221bc355ff23d5f984a16e");
        agree::<12>(&short, Label::RtpSalt, "9af3e95364ebac9c99c5a7c4");
        agree::<16>(&short, Label::RtcpKey, "615dcd9042600666f6fd4d9e4fe4519f");
        agree::<12>(&short, Label::RtcpSalt, "fcca937b9112a500dac72269");
        let long = Prf::new(&key, &salt);
        let rtp_key = "b7a435ce454463b760dc82c838468a115c699625af4b93a0f8220a2a6119c5d0";
        agree::<32>(&long, Label::RtpKey, rtp_key);
        agree::<12>(&long, Label::RtpSalt, "944bd21c268a962cd09c674a");
        let rtcp_key = "3c90f52a0a13ff8a853397cadc245b9eac76b36edb4a6062bf624aa1174eebf2";
        agree::<32>(&long, Label::RtcpKey, rtcp_key);
        agree::<12>(&long, Label::RtcpSalt, "258c540cf38ddd40848ceaed");
    }
}
