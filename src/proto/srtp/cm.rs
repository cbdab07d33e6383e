//! AES in counter mode (RFC 3711 §4.1.1, RFC 6188 §2): the key stream of one direction of one protocol.

use aes::cipher::consts::U16;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{
    BlockCipher, BlockEncrypt, BlockSizeUser, InnerIvInit, KeyInit, KeySizeUser, StreamCipher,
};
use ctr::{Ctr128BE, CtrCore, flavors::Ctr128BE as Flavor};
use zeroize::Zeroize;

use super::derive::{Label, Prf};
use crate::base::ids::Ssrc;

/// Session key and salt; `C` is AES with a key of one of its sizes.
pub(super) struct Cm<C> {
    /// Wipes itself.
    cipher: C,
    salt: [u8; 14],
}

impl<C> Cm<C>
where
    C: BlockCipher + BlockEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    /// Derives them; `N` is the size of the cipher's key.
    pub(super) fn derive<const N: usize>(prf: &Prf<'_>, key: Label, salt: Label) -> Self {
        assert_eq!(N, <C as KeySizeUser>::key_size());
        let key = prf.derive::<N>(key);
        Cm { cipher: C::new(GenericArray::from_slice(&key[..])), salt: *prf.derive(salt) }
    }

    /// See [`super::Context::touch`]. A block of zeros, encrypted for nobody, is how one asks for the round
    /// keys of a cipher that shows them to nobody.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        let mut block = GenericArray::default();
        self.cipher.encrypt_block(&mut block);
        u64::from(block[0] ^ self.salt[0])
    }

    /// Encrypts or decrypts `input` to `out`, which has its length. `index` is the 48-bit packet
    /// index, or the SRTCP index.
    #[inline]
    pub(super) fn crypt(&self, ssrc: Ssrc, index: u64, input: &[u8], out: &mut [u8]) {
        // RFC 3711 §4.1.1: IV = (salt · 2^16) ⊕ (SSRC · 2^64) ⊕ (index · 2^16). The low 16 bits
        // count blocks; a datagram has fewer than 2^12.
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (byte, ssrc) in iv[4..8].iter_mut().zip(ssrc.0.to_be_bytes()) {
            *byte ^= ssrc;
        }
        for (byte, index) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= index;
        }
        let core = CtrCore::<&C, Flavor>::inner_iv_init(&self.cipher, &iv.into());
        Ctr128BE::from_core(core)
            .apply_keystream_b2b(input, out)
            .expect("both slices have one length and a datagram is no key stream's end");
    }
}

impl<C> Drop for Cm<C> {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}
