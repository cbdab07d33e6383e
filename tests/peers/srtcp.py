"""Opens SRTCP with a key of an SDP answer: RFC 3711 §3.4 and §4.3, RFC 7714 §9 and §11."""

import base64
import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SIZES = {  # key, salt
    "AES_CM_128_HMAC_SHA1_80": (16, 14),
    "AES_CM_128_HMAC_SHA1_32": (16, 14),
    "AES_256_CM_HMAC_SHA1_80": (32, 14),
    "AES_256_CM_HMAC_SHA1_32": (32, 14),
    "AES_CM_256_HMAC_SHA1_80": (32, 14),  # as a draft spelled it
    "AEAD_AES_128_GCM": (16, 12),
    "AEAD_AES_256_GCM": (32, 12),
}


def keystream(key, counter, count):
    """AES in counter mode over zeros."""
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(count))


class Srtcp:
    """The receiving side of one m-line."""

    def __init__(self, suite, inline, clear=False):
        """`clear`: UNENCRYPTED_SRTCP was agreed, and so E must be 0."""
        self.suite, self.clear = suite, clear
        key_bytes, salt_bytes = SIZES[suite]
        raw = base64.b64decode(inline + "=" * (-len(inline) % 4))
        if len(raw) != key_bytes + salt_bytes:
            raise ValueError(f"{suite}: expected {key_bytes + salt_bytes} octets, found {len(raw)}")
        key, salt = raw[:key_bytes], raw[key_bytes:]
        # A salt of 96 bits is taken times 2^16 (RFC 7714 §11).
        salt = salt.ljust(14, b"\0")

        def derive(label, count):
            mixed = bytes(a ^ b for a, b in zip(salt, bytes(7) + bytes([label]) + bytes(6)))
            return keystream(key, mixed + b"\0\0", count)

        self.key, self.auth, self.salt = derive(3, key_bytes), derive(4, 20), derive(5, salt_bytes)

    def open(self, packet):
        """The compound packet inside, or None where the tag is wrong or E is not what was agreed."""
        if self.suite.startswith("AEAD"):
            return self.open_gcm(packet)
        body, tag = packet[:-10], packet[-10:]
        if len(body) < 12 or hmac.new(self.auth, body, hashlib.sha1).digest()[:10] != tag:
            return None
        word = struct.unpack(">I", body[-4:])[0]
        if bool(word >> 31) == self.clear:
            return None
        if self.clear:
            return body[:-4]
        index = word & 0x7FFFFFFF
        counter = int.from_bytes(self.salt + b"\0\0", "big")
        counter ^= int.from_bytes(packet[4:8], "big") << 64 ^ index << 16
        stream = keystream(self.key, counter.to_bytes(16, "big"), len(body) - 12)
        return body[:8] + bytes(a ^ b for a, b in zip(body[8:-4], stream))

    def open_gcm(self, packet):
        if len(packet) < 8 + 16 + 4 or not packet[-4] & 0x80:
            return None
        index = struct.pack(">I", struct.unpack(">I", packet[-4:])[0] & 0x7FFFFFFF)
        nonce = b"\0\0" + packet[4:8] + b"\0\0" + index
        nonce = bytes(a ^ b for a, b in zip(nonce, self.salt))
        try:
            plain = AESGCM(self.key).decrypt(nonce, packet[8:-4], packet[:8] + packet[-4:])
        except InvalidTag:
            return None
        return packet[:8] + plain


def parts(compound):
    """[(packet type, bytes)] of a compound packet."""
    found = []
    while len(compound) >= 4:
        length = 4 * (struct.unpack(">H", compound[2:4])[0] + 1)
        found.append((compound[1], compound[:length]))
        compound = compound[length:]
    return found


def report_blocks(compound):
    """SSRCs that the reports of a compound packet are about."""
    about = []
    for kind, packet in parts(compound):
        first = {200: 28, 201: 8}.get(kind)
        if first:
            for block in range(packet[0] & 31):
                at = first + 24 * block
                about.append(struct.unpack(">I", packet[at : at + 4])[0])
    return about


def cname(compound):
    """CNAME of the first SDES chunk, if there is one."""
    for kind, packet in parts(compound):
        if kind == 202 and len(packet) > 10 and packet[8] == 1:
            return packet[10 : 10 + packet[9]].decode("utf-8", "replace")
    return None
