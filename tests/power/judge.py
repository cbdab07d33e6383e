#!/usr/bin/env python3
"""Judges a store after power cuts: what stood below the durable mark before each cut, as the rig
copied it out of the rings, against what segments and logs hold now. Shares no code with the
product: the store is read by tests/checker.py, the rings are walked here.

  judge.py STORE TRUTH JOURNAL [--final]

TRUTH holds, per life of a server and worker, NAME.ring (ring bytes from position `first` on) and
NAME.json: first, durable, tail, ring_bytes, cut_ns (monotonic, null where nothing was cut), and
calls.json: Call-IDs whose INVITE got a 200. --final: the server has ended in order, so nothing may
be in the log only, and what recovery could not vouch for is not damage any more.
Prints one JSON object; exit code 0 all is well, 1 something is not.
"""
import hashlib
import json
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

    def __init__(self, path):
        super().__init__(path, False)
        self.found, self.unsealed = {}, 0

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
    data = b""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            data += file.read()
    return data


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if len(words) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    path, truth, journals = words
    final = "--final" in sys.argv
    store = Found(path)
    store.read(True)
    result = {"records": len(store.found), "durable": 0, "lost_below": 0, "above": 0,
              "lost_above": 0, "lost_ms": 0.0, "invented": 0, "twice": 0, "holes": 0,
              "recovery_events": 0, "calls": 0, "calls_unknown": 0, "torn": 0, "unsealed": store.unsealed, "damaged": []}
    known, examples = set(), []
    newest = max((name[:2] for name in os.listdir(truth) if name != "calls.json"), default="")
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
    for one in store.damaged:
        # The last groups before a cut may be torn: that is what no sync had covered. Where such
        # a group held something durable, it is missing above.
        if not final and one["why"] in ("commit group",) or one["why"].startswith("positions"):
            result["torn"] += 1
        else:
            result["damaged"].append("%(file)s at %(offset)d: %(why)s" % one)
    with open(os.path.join(truth, "calls.json"), encoding="utf-8") as file:
        calls = json.load(file)
    entries = journal(path, journals)
    result["calls"] = len(calls)
    for call in calls:
        if call.encode() not in entries:
            result["calls_unknown"] += 1
            examples.append("answered with 200, not in the journal: " + call)
    if final and store.unsealed:
        result["damaged"].append("%d records are in the log only" % store.unsealed)
    bad = any(result[what] for what in (
        "lost_below", "invented", "twice", "holes", "calls_unknown", "damaged"))
    result["examples"] = examples[:8]
    print(json.dumps(result))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
