#!/usr/bin/env python3
"""Judges a store after power cuts: what stood below the durable mark before each cut, as the rig
copied it out of the rings, against what segments and logs hold now. Shares no code with the
product: the store is read by tests/checker.py, the rings are walked here.

  judge.py STORE TRUTH JOURNAL [--final] [--kek FILE]

TRUTH holds, per life of a server and worker, NAME.ring (ring bytes from position `first` on) and
NAME.json: first, durable, tail, ring_bytes, cut_ns (monotonic, null where nothing was cut), and
calls.json: Call-IDs whose INVITE got a 200. --final: the server has ended in order, so nothing may
be in the log only, and what recovery could not vouch for is not damage any more. --kek: the store is
encrypted; no stretch of what the rings held may stand in its files, and over all judgements of a life,
which TRUTH/secrets carries on, no key may have met a nonce twice. Without it the same stretches must be
found, or the search is worth nothing.
Prints one JSON object; exit code 0 all is well, 1 something is not.
"""
import hashlib
import json
import mmap
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import checker  # noqa: E402

HEADER = checker.HEADER
RTP, EVENT, PAD = 1, 3, 255
# Events that recovery itself writes into what it seals.
RECOVERY = ("in_doubt", "power")


def key(kind, source, index, arrival, payload):
    return kind, source, index, arrival, hashlib.sha1(payload).digest()


class Found(checker.Store):
    """All records of a store, each with how often it is there."""

    def __init__(self, path, secrets, kek):
        super().__init__(path, False, kek)
        self.found, self.unsealed, self.secrets = {}, 0, secrets

    def used(self, wrapped, nonce, check, where):
        self.secrets.used(wrapped, nonce, check, where)

    def log(self, folder, sealed):
        before = sum(count for count, _ in self.found.values())
        super().log(folder, sealed)
        self.unsealed += sum(count for count, _ in self.found.values()) - before

    def record(self, kind, source, index, arrival, payload):
        one = key(kind, source, index, arrival, payload)
        before = self.found.get(one)
        event = json.loads(payload).get("event") if kind == EVENT else None
        self.found[one] = (before[0] + 1 if before else 1, event)
        if kind == RTP:
            stream = self.streams.setdefault((source >> 16, source & 0xFFFF), [])
            stream.append((index, arrival, payload))


class Secrets:
    """What the images of a life showed under keys: where each wrapped key stood, which nonces it met
    with which cipher text, and how far each veiled file went."""

    def __init__(self, path):
        self.path, self.twice = path, []
        self.places, self.nonces, self.veiled = {}, {}, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.places, self.nonces, self.veiled = json.load(file)

    def same(self, known, what, found):
        if known.setdefault(what, found) != found:
            self.twice.append("%s: %s and %s" % (what, known[what], found))

    def used(self, wrapped, nonce, check, where):
        """A place (a segment, a use of a log file) and an encryption in it."""
        self.key(wrapped, where)
        self.same(self.nonces, wrapped.hex() + " " + nonce.hex(), check.hex())
        if len(nonce) == 16:
            # Of an extent: drawn, so its own among all of them.
            self.same(self.nonces, nonce.hex(), where + " " + check.hex())

    def key(self, wrapped, where):
        self.same(self.places, wrapped.hex(), where)
        # The nonce of the wrapping itself.
        self.same(self.places, wrapped[:12].hex(), wrapped.hex())

    def file(self, path, data):
        """A veiled file only grows: what stood in it stands there as it was."""
        wrapped = data[32:92]
        if not any(wrapped):
            return
        # It may be written under one name and get another.
        self.key(wrapped, "file " + os.path.basename(path).split(".")[0])
        length, before = self.veiled.get(wrapped.hex(), (0, None))
        if before and (len(data) < length or hashlib.sha256(data[:length]).hexdigest() != before):
            self.twice.append("%s was written again" % path)
        self.veiled[wrapped.hex()] = len(data), hashlib.sha256(data).hexdigest()

    def attempts(self, store):
        """Extents of segments that a cut left unfinished, under the keys that stand beside them."""
        for name, path in store.files("segments"):
            sidecar = path[:-len(".seg.tmp")] + ".keys"
            if not name.endswith(".seg.tmp") or not os.path.exists(sidecar):
                continue
            with open(path, "rb") as file:
                data = file.read()
            worker, number = int(name[1:name.index("-")]), int(name[name.index("-") + 1:][:10])
            before = len(store.damaged)
            _, entries = store.sidecar(path[:-len(".tmp")], worker, number)
            # A cut may have torn it: no segment has its name yet.
            del store.damaged[before:]
            at = 128
            while data[at:at + 8] == b"FTEXTNT1" and checker.summed(data[at:at + 128], 124):
                source, = struct.unpack_from("<Q", data, at + 8)
                wrapped = entries.get(source >> 16, (0, b""))[1]
                if wrapped:
                    self.used(wrapped, data[at + 24:at + 40], data[at + 116:at + 120],
                              "segment %d %d" % (worker, number))
                at += 128 + struct.unpack_from("<Q", data, at + 80)[0]

    def save(self):
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump([self.places, self.nonces, self.veiled], file)


def check_secrets():
    """What the memory of keys must notice, and what it must let pass."""
    one, other, place = b"a" * 60, b"b" * 60, "segment 0 1"
    good = [(one, b"n" * 8, b"sum1", place), (one, b"n" * 8, b"sum1", place),
            (one, b"m" * 8, b"sum2", place), (other, b"n" * 8, b"sum2", "log 0 1")]
    for bad in ([(one, b"n" * 8, b"sum2", place)],  # a nonce twice
                [(one, b"o" * 8, b"sum1", "segment 0 2")],  # a key twice
                [(b"a" * 12 + b"c" * 48, b"n" * 8, b"sum1", place)],  # wrapped with a nonce twice
                [(one, b"x" * 16, b"sum1", place), (other, b"x" * 16, b"sum3", "log 0 1")]):
        secrets = Secrets("")
        for use in good:
            secrets.used(*use)
        assert not secrets.twice, secrets.twice
        for use in bad:
            secrets.used(*use)
        assert secrets.twice, bad
    secrets = Secrets("")
    head = bytes(32) + one
    secrets.file("1.journal", head + b"first")
    secrets.file("1.journal", head + b"first and more")
    assert not secrets.twice, secrets.twice
    secrets.file("1.journal", head + b"other and more")
    assert secrets.twice


def stretches(found, count=6):
    """A few bytes out of the middle of as many packets, and words that stand in all events and in
    all entries of a journal."""
    payloads = [checker.rtp_payload(packet) for packets in found.values() for *_, packet in packets]
    payloads = [payload[40:80] for payload in payloads if len(payload) >= 80]
    step = max(1, len(payloads) // count)
    return payloads[step // 2::step][:count] + [b'{"event":"', b'{"entry":"', b"application/sdp"]


def holding(folders, needles):
    """Which needles stand in which files."""
    found = {}
    for folder in folders:
        for where, _, names in os.walk(folder):
            for path in (os.path.join(where, name) for name in names):
                if not os.path.isfile(path) or not os.path.getsize(path):
                    continue
                with open(path, "rb") as file, \
                        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    for needle in needles:
                        if data.find(needle) >= 0:
                            found.setdefault(needle, path)
    return found


def walk(data, first, through, ring):
    """Records of a copy of the ring, as (position, key)."""
    at = first
    while at < through:
        left = ring - at % ring
        if left < HEADER:
            at += left
            continue
        start = at - first
        length, kind, _flags, _gen, source, index, arrival, crc = struct.unpack_from(
            "<IBBHQQQI", data, start)
        payload = data[start + HEADER:start + HEADER + length]
        if kind != PAD:
            yield at, key(kind, source, index, arrival, payload)
        at += (HEADER + length + 7) // 8 * 8


def numbers(packets):
    """Packet numbers of a stream that carries them (src call --numbered)."""
    found = []
    for _index, _arrival, packet in packets:
        payload = checker.rtp_payload(packet)
        if len(payload) < 8:
            return []
        found.append(struct.unpack(">Q", payload[:8])[0])
    return found


def journal(store, folder):
    """All files of the journal in the clear, one behind the other."""
    clear = b""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            data = file.read()
        if store.keys is not None and data[:8] == b"FTVEIL01":
            store.secrets.file(path, data)
            data = store.keys.unveiled(data)
            if data is None:
                store.bad(path, 0, "does not open")
                continue
        clear += data
    return clear


def main():
    words = sys.argv[1:]
    kek = checker.option(words, "--kek")
    words = [word for word in words if not word.startswith("--")]
    if len(words) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    path, truth, journals = words
    final = "--final" in sys.argv
    check_secrets()
    secrets = Secrets(os.path.join(truth, "secrets"))
    store = Found(path, secrets, kek)
    store.read(True)
    result = {"records": len(store.found), "durable": 0, "lost_below": 0, "above": 0,
              "lost_above": 0, "lost_ms": 0.0, "invented": 0, "twice": 0, "holes": 0,
              "recovery_events": 0, "calls": 0, "calls_unknown": 0, "torn": 0, "unsealed": store.unsealed, "damaged": [],
              "encrypted": kek is not None, "in_clear": 0, "keys": 0, "nonces": 0, "nonce_twice": 0}
    known, examples = set(), []
    newest = max((name[:2] for name in os.listdir(truth) if name.endswith(".ring")), default="")
    for name in sorted(os.listdir(truth)):
        if not name.endswith(".json") or name == "calls.json":
            continue
        with open(os.path.join(truth, name), encoding="utf-8") as file:
            meta = json.load(file)
        with open(os.path.join(truth, name[:-5] + ".ring"), "rb") as file:
            data = file.read()
        for at, one in walk(data, meta["first"], meta["tail"], meta["ring_bytes"]):
            known.add(one)
            there = one in store.found
            now = name.startswith(newest)
            if at < meta["durable"]:
                result["durable"] += now
                if not there:
                    result["lost_below"] += 1
                    examples.append("%s at %d (%d to %d): %s" % (
                        name, at, meta["first"], meta["durable"], one[:4]))
            else:
                # Of earlier cuts this was judged before.
                result["above"] += now
                if not there and now:
                    result["lost_above"] += 1
                    if one[0] != EVENT and meta["cut_ns"]:
                        age = (meta["cut_ns"] - one[3]) / 1e6
                        result["lost_ms"] = max(result["lost_ms"], age)
    for one, (count, event) in store.found.items():
        if count > 1:
            result["twice"] += 1
            examples.append("twice: %s" % (one[:4],))
        if one not in known:
            if event in RECOVERY:
                result["recovery_events"] += 1
            else:
                result["invented"] += 1
                examples.append("of no ring: %s %s" % (one[:4], event))
    for stream, packets in store.streams.items():
        # A cut takes the end of a stream, never its middle.
        found = sorted(set(numbers(packets)))
        if found and found[-1] - found[0] + 1 != len(found):
            result["holes"] += 1
            examples.append("stream %s: %d packets of %d to %d" % (
                stream, len(found), found[0], found[-1]))
    entries = journal(store, journals)
    needles = stretches(store.streams)
    there = holding({path, journals}, needles)
    if kek is None:
        # What no file of the journal holds yet is nothing to search for.
        wanted = [needle for needle in needles if needle in entries or needle in needles[:-3]]
        result["damaged"] += ["searched and not found: %s" % needle.hex()
                              for needle in wanted if needle not in there]
    else:
        result["in_clear"] = len(there)
        examples += ["in the clear in %s: %s" % (file, needle) for needle, file in there.items()]
        secrets.attempts(store)
        for folder in ("history", "audit"):
            if os.path.isdir(os.path.join(path, folder)):
                journal(store, os.path.join(path, folder))
        result["keys"] = sum(len(key) == 120 for key in secrets.places)
        result["nonces"] = sum(" " in nonce for nonce in secrets.nonces)
        result["nonce_twice"] = len(secrets.twice)
        examples += secrets.twice
        secrets.save()
    for one in store.damaged:
        # The last groups before a cut may be torn: that is what no sync had covered. Where such
        # a group held something durable, it is missing above.
        if not final and one["why"] in ("commit group",) or one["why"].startswith("positions"):
            result["torn"] += 1
        else:
            result["damaged"].append("%(file)s at %(offset)d: %(why)s" % one)
    with open(os.path.join(truth, "calls.json"), encoding="utf-8") as file:
        calls = json.load(file)
    result["calls"] = len(calls)
    for call in calls:
        if call.encode() not in entries:
            result["calls_unknown"] += 1
            examples.append("answered with 200, not in the journal: " + call)
    if final and store.unsealed:
        result["damaged"].append("%d records are in the log only" % store.unsealed)
    bad = any(result[what] for what in (
        "lost_below", "invented", "twice", "holes", "calls_unknown", "damaged", "in_clear",
        "nonce_twice"))
    result["examples"] = examples[:8]
    print(json.dumps(result))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
