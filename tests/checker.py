#!/usr/bin/env python3
"""Reads a store's segments and logs by their format pages (appliance/docs/format-*.md) and prints,
per stream and SSRC: packets, first and last index, missing, duplicates, SHA-256 over the payloads in
order of index. Shares no code with the writer; needs only Python's standard library, and with --kek
the package `cryptography` (Debian: python3-cryptography).

  checker.py STORE [--json] [--numbered] [--proofs] [--events] [--sent=FILE] [--kek FILE]

--kek FILE  opens what stands encrypted with this key-encryption key. Without it such extents and
            groups are checked by their sums and counted as not opened
--sent=FILE what `floortape src call --numbered --json` printed: compares by SSRC, says in one line
            what is missing, twice, unequal or foreign, and fails if anything is
--numbered  also read the first 8 payload bytes behind the RTP header as a big-endian packet number
--proofs    also check leaf-independent proofs: footer hash, Merkle root, chain head, chain order
--events    also print every event, a JSON line each
What retention has made unreadable by destroying its key is said and is no damage.
Exit code: 0 all sums right (and all as sent), 1 something is not, 2 usage, or no `cryptography`,
3 all sums right, but there is more, which was not opened.
"""
import hashlib
import hmac
import json
import os
import re
import struct
import sys

HEADER, BLOCK, HOST = 36, 4096, 1 << 47


def crc_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


TABLE = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    table = TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def sha(data):
    return hashlib.sha256(data).digest()


def derived(key, purpose):
    return hmac.new(key, purpose, hashlib.sha256).digest()


def summed(data, at):
    """Whether a CRC-32C over everything before it stands at `at`."""
    return len(data) >= at + 4 and crc32c(data[:at]) == struct.unpack_from("<I", data, at)[0]


class Unusable(Exception):
    """A KEK that opens nothing, or nothing to open it with."""


class Keys:
    """format-keys.md: the store keys that a KEK opens, and what stands wrapped under those."""

    def __init__(self, store, kek):
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise Unusable("--kek needs Python's package cryptography "
                           "(Debian: python3-cryptography)") from None
        self.gcm, self.invalid = AESGCM, InvalidTag
        self.ctr = lambda key: Cipher(algorithms.AES(key), modes.CTR(bytes(16))).decryptor()
        with open(kek, "rb") as file:
            secret = file.read()
        if len(secret) != 32:
            try:
                secret = bytes.fromhex(secret.decode("ascii").strip())
            except ValueError:
                secret = b""
        if len(secret) != 32:
            raise Unusable("%s: expected 32 bytes or 64 hex digits" % kek)
        self.keys, self.derived, self.volume = {}, {}, None
        newest, there = None, False
        for name in ("store-a.keys", "store-b.keys"):
            try:
                with open(os.path.join(store, "keys", name), "rb") as file:
                    block = file.read(BLOCK)
            except FileNotFoundError:
                continue
            there = there or any(block)
            if block[:12] == b"FTSTKEY1\1\0\0\0" and summed(block, 4092):
                sequence, = struct.unpack_from("<Q", block, 16)
                if newest is None or sequence > newest[0]:
                    newest = sequence, block
        if newest is None:
            if there:
                raise Unusable("no whole file of store keys")
            return
        block = newest[1]
        self.volume = block[24:40]
        own = derived(secret, b"floortape key fingerprint")[:16]
        for at in range(40, 40 + 96 * struct.unpack_from("<I", block, 12)[0], 96):
            number, = struct.unpack_from("<I", block, at)
            if block[at + 8:at + 24] != own:
                raise Unusable("store key %d is under another KEK" % number)
            bound = "floortape store key %s %d" % (self.volume.hex(), number)
            self.keys[number] = self.unwrap(secret, block[at + 32:at + 92], bound)
            if self.keys[number] is None:
                raise Unusable("store key %d does not open" % number)

    def unwrap(self, key, wrapped, bound):
        """The 32 bytes in `wrapped`, or None where it does not open."""
        try:
            return self.gcm(key).decrypt(wrapped[:12], wrapped[12:], bound.encode())
        except self.invalid:
            return None

    def secret(self, number, purpose, wrapped, bound):
        """What stands wrapped under a store key's derived one; None where it does not open."""
        if number not in self.keys:
            return None
        if (number, purpose) not in self.derived:
            self.derived[number, purpose] = derived(self.keys[number], purpose)
        return self.unwrap(self.derived[number, purpose], wrapped, bound)

    def chunks(self, secret, worker, segment, head, body):
        """format-segment.md, encrypted extents: the run of chunks in the clear."""
        info = b"floortape extent 1\0" + struct.pack("<HQ", worker, segment)
        key = derived(derived(head[24:40], secret), info + b"\1")  # RFC 5869: one block of output
        gcm, at, number, opened = self.gcm(key), 0, 0, []
        bound = (head[:80] + bytes(8) + head[88:116] + bytes(4) + head[120:124] + bytes(4))
        while at < len(body):
            end = at + 8 + struct.unpack_from("<I", body, at)[0] + 16
            last = b"\1" if end >= len(body) else b"\0"
            front = body[at:at + 8]
            text = gcm.decrypt(bytes(4) + struct.pack(">Q", number), body[at + 8:end],
                               bound + front + last)
            opened.append(front + text)
            at, number = end, number + 1
        return b"".join(opened)

    def unveiled(self, data):
        """A file of the journal, the history or the audit trail in the clear; None where it does
        not open. One that was never encrypted is given back as it is."""
        if data[:8] != b"FTVEIL01":
            return data
        number, = struct.unpack_from("<I", data, 12)
        if not summed(data, 124):
            return None
        if not any(data[32:92]):
            return b""
        key = self.secret(number, b"floortape files", data[32:92], "file")
        return None if key is None else self.ctr(key).update(data[128:])


class Store:
    def __init__(self, path, numbered, kek=None):
        self.path, self.numbered = path, numbered
        self.streams, self.events, self.rtcp = {}, [], {}
        self.damaged, self.open = [], {}
        # What stands encrypted: places that were not opened, and those whose key is destroyed.
        self.closed, self.gone, self.logs, self.met = [], [], {}, {}
        self.keys = Keys(path, kek) if kek else None

    def used(self, wrapped, nonce, check, where):
        """Told of each nonce that a wrapped secret has met, and a sum of what it encrypts."""
        if self.met.setdefault((wrapped, nonce), check) != check:
            self.bad(where, 0, "a key met a nonce twice")

    def record(self, kind, source, index, arrival, payload):
        stream, ordinal = source >> 16, source & 0xFFFF
        if kind == 3:
            event = json.loads(payload)
            self.events.append((stream, event))
            if event.get("event") in ("open", "changed"):
                self.open[stream] = event["description"]
        elif kind == 2:
            self.rtcp[stream] = self.rtcp.get(stream, 0) + 1
        elif kind == 1:
            key = (stream, ordinal)
            self.streams.setdefault(key, []).append((index, arrival, payload))

    def bad(self, path, offset, why):
        self.damaged.append({"file": path, "offset": offset, "why": why})

    # format-record.md. Returns the record's size, or 0 where there is no valid one.
    def one(self, path, data, at, limit, offset, check=True):
        if at + HEADER > limit:
            return 0
        length, kind, _flags, _gen, source, index, arrival, crc = struct.unpack_from(
            "<IBBHQQQI", data, at)
        total = (HEADER + length + 7) // 8 * 8
        if at + total > limit or kind not in (1, 2, 3, 4, 255):
            return 0
        payload = bytes(data[at + HEADER:at + HEADER + length])
        if check and crc32c(bytes(data[at:at + 32]) + payload) != crc:
            self.bad(path, offset + at, "record checksum")
            return total
        if kind != 255:
            self.record(kind, source, index, arrival, payload)
        return total

    # format-segment.md
    def segment(self, path, proofs):
        with open(path, "rb") as file:
            data = file.read()
        tail = data[-512:]
        if len(tail) < 512 or tail[:8] != b"FTSEGEND" or \
                crc32c(tail[:508]) != struct.unpack_from("<I", tail, 508)[0]:
            self.bad(path, len(data) - 512, "trailer")
            return None
        worker, = struct.unpack_from("<H", tail, 12)
        number, first, through, created = struct.unpack_from("<QQQq", tail, 32)
        rows_at, rows, clocks_at, clocks, fences_at, fences = struct.unpack_from("<6Q", tail, 64)
        footer = data[rows_at:fences_at + fences * 40]
        if sha(footer) != tail[312:344]:
            self.bad(path, rows_at, "footer")
            return None
        sidecar, leaves = None, []
        for row in range(rows):
            at = rows_at + row * 128
            source, offset, size, records = struct.unpack_from("<4Q", data, at)
            leaves.append(data[at + 80:at + 112])
            head = data[offset:offset + 128]
            body, = struct.unpack_from("<Q", head, 80)
            if head[:8] != b"FTEXTNT1" or body + 128 != size or \
                    struct.unpack_from("<Q", head, 8)[0] != source or \
                    crc32c(head[:124]) != struct.unpack_from("<I", head, 124)[0]:
                self.bad(path, offset, "extent header")
                continue
            if crc32c(data[offset + 128:offset + size]) != struct.unpack_from("<I", head, 116)[0]:
                self.bad(path, offset, "extent records")
                continue
            body, at, count = data[offset + 128:offset + size], 0, 0
            if head[18] > 1 or head[19] > 1:
                self.bad(path, offset, "cipher or compression")
                continue
            if head[18]:
                sidecar = sidecar or self.sidecar(path, worker, number)
                body = self.opened(path, offset, sidecar, worker, number, head, body)
                if body is None:
                    continue
            try:
                body = b"".join(unpacked(body)) if head[19] or head[18] else body
            except (IndexError, ValueError, struct.error):
                self.bad(path, offset, "packing")
                continue
            while at < len(body):
                # The extent's own sum covers every byte: records need not be summed again.
                step = self.one(path, body, at, len(body), 0, check=False)
                if not step:
                    self.bad(path, offset + 128 + at, "record")
                    break
                at, count = at + step, count + 1
            if count != records:
                self.bad(path, offset, "record count")
        if proofs:
            self.proofs(path, tail, leaves, created)
        return worker, number, first, through, tail[144:176], tail[176:208]

    # format-keys.md, keys of a segment: number of the store key, and (state, wrapped) by stream.
    def sidecar(self, segment, worker, number):
        path = segment[:-len(".seg")] + ".keys"
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            self.bad(path, 0, "missing")
            return 0, {}
        if data[:12] != b"FTSEGK01\1\0\0\0" or not summed(data[:128], 124):
            self.bad(path, 0, "head")
            return 0, {}
        entries, = struct.unpack_from("<Q", data, 48)
        end = 128 + 96 * entries
        if struct.unpack_from("<H6xQ", data, 32) != (worker, number) or \
                len(data) != (end + BLOCK - 1) // BLOCK * BLOCK or any(data[end:]):
            self.bad(path, 0, "another segment's, or of another size")
            return 0, {}
        found = {}
        for at in range(128, end, 96):
            entry = data[at:at + 96]
            if summed(entry, 92):
                found[struct.unpack_from("<Q", entry, 0)[0]] = entry[8], entry[24:84]
            else:
                self.bad(path, at, "entry")
        return struct.unpack_from("<I", data, 12)[0], found

    def opened(self, path, offset, sidecar, worker, number, head, body):
        """An encrypted extent's chunks in the clear; None where they are not to be had, which is
        noted."""
        store_key, entries = sidecar
        stream = struct.unpack_from("<Q", head, 8)[0] >> 16
        state, wrapped = entries.get(stream, (0, b""))
        if state == 2:
            self.gone.append({"file": path, "offset": offset})
            return None
        if state != 1:
            self.bad(path, offset, "no key of stream %d" % stream)
            return None
        self.used(wrapped, head[24:40], head[116:120], "segment %d %d" % (worker, number))
        if self.keys is None:
            self.closed.append({"file": path, "offset": offset})
            return None
        bound = "segment %d %d stream %d" % (worker, number, stream)
        secret = self.keys.secret(store_key, b"floortape segments", wrapped, bound)
        if secret is None or struct.unpack_from("<I", head, 20)[0] != store_key:
            self.bad(path, offset, "key does not open")
            return None
        try:
            return self.keys.chunks(secret, worker, number, head, body)
        except (self.keys.invalid, struct.error):
            self.bad(path, offset, "extent does not open")
            return None

    # format-evidence.md
    def proofs(self, path, tail, leaves, created):
        def root(part):
            if not part:
                return sha(b"")
            if len(part) == 1:
                return part[0]
            half = 1
            while half * 2 < len(part):
                half *= 2
            return sha(b"\x01" + root(part[:half]) + root(part[half:]))
        if root(leaves) != tail[112:144]:
            self.bad(path, 0, "Merkle root")
        head = sha(b"floortape chain 1\0" + tail[144:176] + tail[112:144]
                   + struct.pack("<Q", len(leaves)) + tail[312:344] + tail[16:32] + tail[12:14]
                   + tail[32:40] + tail[40:48] + tail[48:56] + tail[56:64])
        if head != tail[176:208]:
            self.bad(path, 0, "chain head")

    # format-log.md. Groups of one file: (first, sequence, end, ring, path, header's offset, header)
    def groups(self, path):
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            block = file.read(BLOCK)
            if len(block) < BLOCK or block[:8] != b"FTLOGF01" or not summed(block[:68], 64):
                return
            worker, cipher = struct.unpack_from("<HH", block, 12)
            sequence, = struct.unpack_from("<Q", block, 32)
            tag = 16 if cipher else 0
            if cipher:
                self.logs[path] = self.use(path, block, worker, sequence)
            at = BLOCK
            while at + 128 <= size:
                file.seek(at)
                head = file.read(128)
                if head[:8] == b"FTGROUP1" and struct.unpack_from("<Q", head, 16)[0] == sequence \
                        and struct.unpack_from("<H", head, 14)[0] == cipher and summed(head, 124):
                    first, length = struct.unpack_from("<QQ", head, 40)
                    ring, = struct.unpack_from("<Q", head, 104)
                    if cipher:
                        self.used(block[72:132], head[24:32], head[112:116],
                                  "log %d %d" % (worker, sequence))
                    yield first, sequence, first + length, ring, path, at, head
                    at += (128 + length + tag + BLOCK - 1) // BLOCK * BLOCK
                else:
                    at += BLOCK

    def use(self, path, block, worker, sequence):
        """The secret of a use of a log file; None where it is not to be had."""
        if block[14] != 1 or crc32c(block[68:132]) != struct.unpack_from("<I", block, 132)[0]:
            self.bad(path, 68, "key of the file")
            return None
        if self.keys is None:
            return None
        bound = "log worker %d use %d" % (worker, sequence)
        number, = struct.unpack_from("<I", block, 68)
        secret = self.keys.secret(number, b"floortape logs", block[72:132], bound)
        if secret is None:
            self.bad(path, 68, "key does not open")
        return secret

    def group(self, path, at, head):
        """Payload of a commit group in the clear; None where it is not to be had, which is noted."""
        length, = struct.unpack_from("<Q", head, 48)
        with open(path, "rb") as file:
            file.seek(at + 128)
            data = file.read(length + (16 if head[14] else 0))
        if crc32c(data) != struct.unpack_from("<I", head, 112)[0]:
            self.bad(path, at + 128, "commit group")
            return None
        if not head[14]:
            return data
        secret = self.logs[path]
        if secret is None:
            self.closed.append({"file": path, "offset": at + 128})
            return None
        try:
            gcm = self.keys.gcm(secret)
            return gcm.decrypt(bytes(4) + head[24:32][::-1], data, head[:112])
        except self.keys.invalid:
            self.bad(path, at + 128, "commit group does not open")
            return None

    # format-store.md: the store's folder and its spare ones, as one.
    def files(self, *inside):
        folders = [self.path]
        try:
            with open(os.path.join(self.path, "volume.json")) as file:
                folders += json.load(file).get("spares", [])
        except FileNotFoundError:
            pass
        found = {}
        for folder in reversed(folders):
            folder = os.path.join(folder, *inside)
            for name in os.listdir(folder) if os.path.isdir(folder) else []:
                found[name] = os.path.join(folder, name)
        return sorted(found.items())

    def log(self, worker, sealed):
        groups = []
        for name, path in self.files("log", worker):
            if name.endswith(".log"):
                groups.extend(self.groups(path))
        following = sealed
        for first, _seq, end, ring, path, offset, head in sorted(groups):
            if end <= following:
                continue
            closed = len(self.closed)
            data, offset = self.group(path, offset, head), offset + 128
            if data is None:
                # A group that nobody opened here says all the same where the next one begins.
                following = end if len(self.closed) > closed else following
                continue
            if first > following:
                self.bad(path, offset, "positions %d to %d" % (following, first))
            at = first
            while at < end:
                left = ring - at % ring
                if left < HEADER:
                    at += left
                    continue
                start = at - first
                if at < following:
                    length, = struct.unpack_from("<I", data, start)
                    step = (HEADER + length + 7) // 8 * 8
                else:
                    # The group's own sum covers every byte.
                    limit = min(len(data), start + left)
                    step = self.one(path, data, start, limit, offset, check=False)
                if not step:
                    self.bad(path, offset + start, "record")
                    break
                at += step
            following = end

    def read(self, proofs):
        sealed, heads = {}, {}
        for name, path in self.files("segments"):
            match = re.fullmatch(r"w(\d+)-(\d{10})\.seg", name)
            if not match:
                continue
            found = self.segment(path, proofs)
            if not found:
                continue
            worker, number, first, through, previous, head = found
            if (worker, number) != (int(match[1]), int(match[2])):
                self.bad(path, 0, "sealed under another name")
            if proofs and previous != heads.get(worker, bytes(32)):
                self.bad(path, 0, "does not follow the chain")
            heads[worker] = head
            sealed[worker] = max(sealed.get(worker, 0), through)
        for name, _path in self.files("log"):
            if re.fullmatch(r"w\d+", name):
                self.log(name, sealed.get(int(name[1:]), 0))

    def report(self):
        for (stream, ordinal), packets in sorted(self.streams.items()):
            disorder = sum(one[0] > two[0] for one, two in zip(packets, packets[1:]))
            packets.sort(key=lambda one: one[0])
            digest, before, duplicates = hashlib.sha256(), None, 0
            numbers, total = [], 0
            for index, _arrival, packet in packets:
                if index == before:
                    duplicates += 1
                    continue
                before = index
                payload = rtp_payload(packet)
                digest.update(payload)
                total += len(packet)
                if self.numbered and len(payload) >= 8:
                    numbers.append(struct.unpack(">Q", payload[:8])[0])
            first, last, unique = packets[0][0], packets[-1][0], len(packets) - duplicates
            description = self.open.get(stream, {})
            row = {
                "stream": stream, "ordinal": ordinal, "rs": description.get("rs"),
                "label": description.get("label"),
                "ssrc": struct.unpack_from(">I", packets[0][2], 8)[0],
                "packets": unique, "bytes": total, "first_index": first, "last_index": last,
                "missing": last - first + 1 - unique, "duplicates": duplicates,
                "disorder": disorder,
                "sha256": digest.hexdigest(), "rtcp": self.rtcp.get(stream, 0),
            }
            if self.numbered and numbers:
                row["numbers"] = [min(numbers), max(numbers)]
                row["numbers_missing"] = max(numbers) - min(numbers) + 1 - len(set(numbers))
            yield row


def signed_64(value):
    return (value + 2 ** 63) % 2 ** 64 - 2 ** 63


def unpacked(chunks):
    """format-segment.md, packed records: the records, chunk by chunk. The sums of their headers are
    computed only where one says what it must be; the others stay 0."""
    at = 0
    while at < len(chunks):
        stored, total = struct.unpack_from("<II", chunks, at)
        at, end = at + 8, at + 8 + stored
        if end > len(chunks) or stored > total:
            raise ValueError("chunk")
        if stored == total:
            yield chunks[at:end]
            at = end
            continue
        kind, flags, generation, source, index, arrival, length = 1, 0, 0, 0, 0, 0, 0
        step, count, rtp, rtp_index, ticks, done = 0, 0, None, 0, 0, 0

        def number():
            nonlocal at
            value, shift = 0, 0
            while True:
                octet = chunks[at]
                at += 1
                value |= (octet & 127) << shift
                shift += 7
                if octet < 128:
                    return value

        def signed():
            value = number()
            return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

        while at < end:
            what = chunks[at]
            at += 1
            if what == 0x80:
                length_raw, = struct.unpack_from("<I", chunks, at)
                size = (HEADER + length_raw + 7) // 8 * 8
                yield chunks[at:at + size]
                at, done = at + size, done + size
                continue
            if what & 0x01:
                kind, flags, generation, source = struct.unpack_from("<BBHQ", chunks, at)
                at += 12
            index = (index + 1 + (signed() if what & 0x02 else 0)) % 2 ** 64
            if what & 0x04:
                length = number()
            before, arrival = arrival, (arrival + step + signed()) % 2 ** 64
            distance = signed_64(arrival - before)
            count += 1
            if count == 2:
                step = distance
            elif count > 2:
                off = signed_64(distance - step) >> 3
                step = signed_64(step + max(-2 ** 20, min(2 ** 20, off)))
            front = b""
            if what & 0x08:
                second = rtp[1] ^ (chunks[at] if what & 0x10 else 0)
                at += 1 if what & 0x10 else 0
                timestamp, = struct.unpack_from(">I", rtp, 4)
                timestamp += ticks * (index - rtp_index) + (signed() if what & 0x20 else 0)
                front = struct.pack(">BBHI", rtp[0], second, index % 65536,
                                    timestamp % 2 ** 32) + rtp[8:12]
            check = chunks[at:at + 4] if what & 0x40 else None
            at += 4 if what & 0x40 else 0
            payload = front + chunks[at:at + length - len(front)]
            at += length - len(front)
            if kind == 1 and length >= 12:
                if rtp is not None and index == (rtp_index + 1) % 2 ** 64:
                    ticks = (struct.unpack_from(">I", payload, 4)[0]
                             - struct.unpack_from(">I", rtp, 4)[0])
                rtp, rtp_index = payload[:12], index
            head = struct.pack("<IBBHQQQ", length, kind, flags, generation, source, index, arrival)
            total_size = (HEADER + length + 7) // 8 * 8
            crc = b"\0\0\0\0"
            if check is not None:
                crc = struct.pack("<I", crc32c(head + payload))
                if crc != check:
                    raise ValueError("sum")
            yield (head + crc + payload).ljust(total_size, b"\0")
            done += total_size
        if at != end or done != total:
            raise ValueError("chunk")


def rtp_payload(packet):
    """RFC 3550 section 5.1: payload behind CSRC list and extension, without padding."""
    at = 12 + 4 * (packet[0] & 15)
    if packet[0] & 0x10 and len(packet) >= at + 4:
        at += 4 + 4 * struct.unpack_from(">H", packet, at + 2)[0]
    end = len(packet)
    if packet[0] & 0x20 and end > at:
        end -= packet[-1]
    return packet[at:max(at, end)]


def compare(rows, sent):
    """What differs between the rows and what the sender says; every stream has one source."""
    sent = {stream["ssrc"]: stream for stream in sent["streams"]}
    found = {"streams": 0, "packets": 0, "missing": 0, "twice": 0, "unequal": 0, "foreign": 0,
             "disorder": 0}
    for row in rows:
        stream = sent.pop(row["ssrc"], None)
        if stream is None:
            found["foreign"] += 1
            continue
        wanted = stream["sent"] - stream["left_out"] - stream["unsent"]
        found["streams"] += 1
        found["packets"] += row["packets"]
        found["disorder"] += row["disorder"]
        found["missing"] += max(0, wanted - row["packets"])
        found["twice"] += row["duplicates"] + max(0, row["packets"] - wanted)
        found["unequal"] += row["sha256"] != stream["sha256"]
    for stream in sent.values():
        found["missing"] += stream["sent"] - stream["left_out"] - stream["unsent"]
        found["unequal"] += 1
    return found


def option(words, name):
    """Takes `name VALUE` or `name=VALUE` out of the words; None where it is not there."""
    for at, word in enumerate(words):
        if word == name and at + 1 < len(words):
            del words[at]
            return words.pop(at)
        if word.startswith(name + "="):
            return words.pop(at)[len(name) + 1:]
    return None


def main():
    words = sys.argv[1:]
    sent, kek = option(words, "--sent"), option(words, "--kek")
    flags = {word for word in words if word.startswith("--")}
    words = [word for word in words if not word.startswith("--")]
    if len(words) != 1 or flags - {"--json", "--numbered", "--proofs", "--events"}:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        store = Store(words[0], "--numbered" in flags, kek)
    except (Unusable, OSError) as error:
        print("checker.py: %s" % error, file=sys.stderr)
        return 2
    store.read("--proofs" in flags)
    rows = list(store.report())
    differs = False
    if sent:
        with open(sent, encoding="utf-8") as file:
            found = compare(rows, json.load(file))
        differs = any(found[what] for what in ("missing", "twice", "unequal", "foreign"))
        print(json.dumps(found))
        rows = []
    for row in rows:
        if "--json" in flags:
            print(json.dumps(row))
        else:
            print("stream {stream} ssrc {ssrc:08x} label {label}: {packets} packets, index "
                  "{first_index}-{last_index}, {missing} missing, {duplicates} twice, sha256 "
                  "{sha256}".format(**row))
    for stream, event in store.events if "--events" in flags else []:
        print(json.dumps({"stream": stream, "event": event}))
    for one in store.damaged:
        print("damaged: {file} at {offset}: {why}".format(**one), file=sys.stderr)
    for one in store.gone:
        print("gone: {file} at {offset}: its key is destroyed".format(**one), file=sys.stderr)
    if store.closed:
        print("%d extents and groups are encrypted and were not opened" % len(store.closed),
              file=sys.stderr)
    if store.damaged or differs:
        return 1
    return 3 if store.closed else 0


if __name__ == "__main__":
    sys.exit(main())
