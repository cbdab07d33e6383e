#!/usr/bin/env python3
"""Reads a store's segments and logs by their format pages (appliance/docs/format-*.md) and prints,
per stream and SSRC: packets, first and last index, missing, duplicates, SHA-256 over the payloads in
order of index. Shares no code with the writer; needs only Python's standard library.

  checker.py STORE [--json] [--numbered] [--proofs] [--sent=FILE]

--sent=FILE what `floortape src call --numbered --json` printed: compares by SSRC, says in one line
            what is missing, twice, unequal or foreign, and fails if anything is
--numbered  also read the first 8 payload bytes behind the RTP header as a big-endian packet number
--proofs    also check leaf-independent proofs: footer hash, Merkle root, chain head, chain order
Exit code: 0 all sums right (and all as sent), 1 something is not, 2 usage.
"""
import hashlib
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


class Store:
    def __init__(self, path, numbered):
        self.path, self.numbered = path, numbered
        self.streams, self.events, self.rtcp = {}, 0, {}
        self.damaged, self.open = [], {}

    def record(self, kind, source, index, arrival, payload):
        stream, ordinal = source >> 16, source & 0xFFFF
        if kind == 3:
            self.events += 1
            event = json.loads(payload)
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
        leaves = []
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
            if head[18] or head[19] > 1:
                self.bad(path, offset, "cipher or compression")
                continue
            try:
                body = b"".join(unpacked(body)) if head[19] else body
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

    # format-log.md. Groups of one file: (first, sequence, end, ring, payload offset)
    def groups(self, path):
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            block = file.read(BLOCK)
            if len(block) < BLOCK or block[:8] != b"FTLOGF01" or \
                    crc32c(block[:64]) != struct.unpack_from("<I", block, 64)[0]:
                return
            sequence, = struct.unpack_from("<Q", block, 32)
            at = BLOCK
            while at + 128 <= size:
                file.seek(at)
                head = file.read(128)
                if head[:8] == b"FTGROUP1" and struct.unpack_from("<Q", head, 16)[0] == sequence \
                        and crc32c(head[:124]) == struct.unpack_from("<I", head, 124)[0]:
                    first, length = struct.unpack_from("<QQ", head, 40)
                    ring, = struct.unpack_from("<Q", head, 104)
                    crc, = struct.unpack_from("<I", head, 112)
                    yield first, sequence, first + length, ring, path, at + 128, crc
                    at += (128 + length + BLOCK - 1) // BLOCK * BLOCK
                else:
                    at += BLOCK

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
        for first, _seq, end, ring, path, offset, crc in sorted(groups):
            if end <= following:
                continue
            with open(path, "rb") as file:
                file.seek(offset)
                data = file.read(end - first)
            if crc32c(data) != crc:
                self.bad(path, offset, "commit group")
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
    found = {"streams": 0, "packets": 0, "missing": 0, "twice": 0, "unequal": 0, "foreign": 0}
    for row in rows:
        stream = sent.pop(row["ssrc"], None)
        if stream is None:
            found["foreign"] += 1
            continue
        wanted = stream["sent"] - stream["left_out"] - stream["unsent"]
        found["streams"] += 1
        found["packets"] += row["packets"]
        found["missing"] += max(0, wanted - row["packets"])
        found["twice"] += row["duplicates"] + max(0, row["packets"] - wanted)
        found["unequal"] += row["sha256"] != stream["sha256"]
    for stream in sent.values():
        found["missing"] += stream["sent"] - stream["left_out"] - stream["unsent"]
        found["unequal"] += 1
    return found


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    flags = {word for word in sys.argv[1:] if word.startswith("--")}
    sent = [flag[len("--sent="):] for flag in flags if flag.startswith("--sent=")]
    flags -= {"--sent=" + file for file in sent}
    if len(words) != 1 or flags - {"--json", "--numbered", "--proofs"}:
        print(__doc__, file=sys.stderr)
        return 2
    store = Store(words[0], "--numbered" in flags)
    store.read("--proofs" in flags)
    rows = list(store.report())
    differs = False
    if sent:
        with open(sent[0], encoding="utf-8") as file:
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
    for one in store.damaged:
        print("damaged: {file} at {offset}: {why}".format(**one), file=sys.stderr)
    return 1 if store.damaged or differs else 0


if __name__ == "__main__":
    sys.exit(main())
