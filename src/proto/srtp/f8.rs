//! AES in f8 mode (RFC 3711 §4.1.2): the key stream of one direction of one protocol.

use aes::Aes128;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::derive::{Label, Prf};

type Block = [u8; 16];

/// Session keys, which wipe themselves.
pub(super) struct F8 {
    cipher: Aes128,
    /// Under the key ⊕ m, for IVs alone.
    masked: Aes128,
}

impl F8 {
    /// Derives them.
    pub(super) fn derive(prf: &Prf<'_>, key: Label, salt: Label) -> Self {
        Self::new(&prf.derive(key), &prf.derive::<14>(salt)[..])
    }

    fn new(key: &Block, salt: &[u8]) -> Self {
        // m: the salt, filled up with 0x55.
        let mut masked = Zeroizing::new([0x55; 16]);
        masked[..salt.len()].copy_from_slice(salt);
        masked.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        let aes = |key: &Block| Aes128::new(GenericArray::from_slice(key));
        F8 { cipher: aes(key), masked: aes(&masked) }
    }

    /// Encrypts or decrypts what follows the RTP header `head` to `out`, which has the length of
    /// `input`. `head`: its first 12 octets.
    pub(super) fn crypt_rtp(&self, head: &[u8], roc: u32, input: &[u8], out: &mut [u8]) {
        // §4.1.2.2: 0x00 ‖ M ‖ PT ‖ SEQ ‖ TS ‖ SSRC ‖ ROC.
        let mut iv = [0; 16];
        iv[1..12].copy_from_slice(&head[1..12]);
        iv[12..].copy_from_slice(&roc.to_be_bytes());
        self.crypt(iv, input, out);
    }

    /// The same for what follows the first 8 octets of an RTCP packet.
    pub(super) fn crypt_rtcp(&self, head: &[u8], index: u32, input: &[u8], out: &mut [u8]) {
        // §4.1.2.3: 0..0 ‖ E ‖ SRTCP index ‖ V ‖ P ‖ RC ‖ PT ‖ length ‖ SSRC. What is encrypted has E = 1.
        let mut iv = [0; 16];
        iv[4..8].copy_from_slice(&(index | 1 << 31).to_be_bytes());
        iv[8..].copy_from_slice(&head[..8]);
        self.crypt(iv, input, out);
    }

    fn crypt(&self, iv: Block, input: &[u8], out: &mut [u8]) {
        let encrypt = |cipher: &Aes128, block: Block| -> Block {
            let mut block = GenericArray::from(block);
            cipher.encrypt_block(&mut block);
            block.into()
        };
        let iv = u128::from_be_bytes(encrypt(&self.masked, iv));
        // S(j) = E(IV' ⊕ j ⊕ S(j-1)), from S(-1) = 0 on.
        let mut stream = 0_u128;
        for (j, (input, out)) in (0_u128..).zip(input.chunks(16).zip(out.chunks_mut(16))) {
            let block = encrypt(&self.cipher, (iv ^ j ^ stream).to_be_bytes());
            stream = u128::from_be_bytes(block);
            for ((out, input), stream) in out.iter_mut().zip(input).zip(block) {
                *out = input ^ stream;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn rfc_3711_appendix_b1() {
        let key = unhex("234829008467be186c3de14aae72d62c");
        let f8 = F8::new(&key.try_into().expect("16 octets"), &unhex("32f2870d"));
        let head = unhex("806e5cba50681de55c621599");
        let plain = b"pseudorandomness is the next best thing";
        let mut out = [0; 39];
        f8.crypt_rtp(&head, 0xd462_564a, plain, &mut out);
        let wanted =
            "019ce7a26e7854014a6366aa95d4eefd1ad4172a14f9faf455b7f1d4b62bd08f562c0eef7c4802";
        assert_eq!(out[..], unhex(wanted));
        let mut back = [0; 39];
        f8.crypt_rtp(&head, 0xd462_564a, &out, &mut back);
        assert_eq!(&back, plain);
    }
}
