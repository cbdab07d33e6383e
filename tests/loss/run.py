"""The cases of tests/loss.sh, each in the namespace of the client.

    run.py FLOORTAPE FOLDER DISK SPACE ADDRESS OWN CASE…

SPACE is the recorder's namespace, ADDRESS its address, OWN the client's; DISK can be frozen.
"""

import json
import pathlib
import random
import subprocess
import sys
import time

import src
from bench import SIP_PORT, Claims, Net, Recorder, account
from forged import forged

SEED = 7
# A burst packet is charged 4,352 bytes of a queue: with 172 as in G.711 a burst would take five times as many.
LARGE = 1700
# Beyond the queue of a stream (8 MiB as the kernel counts, 1,927 of these).
BURST = 2600
# To each of two, beyond the queue of the seven of 100 port pairs that share one (13,490).
SHARED_BURST = 8000
# Sockets of more than 64 streams; neighbours have different ones.
SOCKETS = 16
# A stopped process is taken to hang after a second.
STOPPED_S = 0.8


def tell(claims, name, stream, sent, truth, exact):
    """Claims what is lost of a stream by cause: TRUTH, or a range that holds it."""
    source, said = account(stream)
    lost = sum(source["lost"].values())
    found = {"lost": source["lost"], "range": source.get("lost_range") or {}, "unexplained": source["unexplained"]}
    truth = {cause: count for cause, count in truth.items() if count}
    if exact:
        holds = {cause: [count, count] for cause, count in truth.items()} == said
    else:
        holds = all(said.get(cause, [0, 0])[0] <= truth.get(cause, 0) <= said.get(cause, [0, 0])[1]
                    for cause in {*truth, *said}) and bool(source.get("lost_range"))
    claims.claim(f"{name}: {'exactly' if exact else 'a range that holds'} {truth or 'nothing'}",
                 holds and source["unexplained"] == 0, json.dumps(found))
    claims.claim(f"{name}: packets and lost are what was sent",
                 source["packets"] + lost == sent and source["unexplained"] == 0,
                 f"{source['packets']} + {lost} = {sent}")
    return source


def burst(recorder, streams, count=BURST):
    """More than their queues hold, at a recorder that is stopped for a moment; seconds that it was."""
    begin = time.monotonic()
    recorder.stop_media()
    try:
        for at in range(count):
            for stream in streams:
                stream.send(size=LARGE)
            if at % 50 == 49:
                # The backlog of the receiving core is not what is to be full.
                time.sleep(0.0005)
    finally:
        recorder.go_on()
    return time.monotonic() - begin


def causes(claims, place):
    """One call, ten seconds: four ways to lose a packet."""
    # Without steering: each stream has a socket, and a counter, of its own.
    recorder = Recorder(place.floortape, place.space, place.address, place.disk,
                        media__steering="off", store__ring_seconds=1)
    try:
        net, prng = Net(recorder), random.Random(SEED)
        names = ["quiet", "net", "socket", "ring", "tail", "apart", "both", "all"]
        streams = {name: src.Stream(place.own, 6000 + 2 * at, name, prng.getrandbits(32), prng.getrandbits(16))
                   for at, name in enumerate(names)}
        every = list(streams.values())
        call = src.Call((place.address, SIP_PORT), place.own, every, "causes")
        port = {name: stream.target for name, stream in streams.items()}
        began = time.monotonic()
        src.play(every, 0.6)
        # Every fifth on the network, for a second.
        for name in ("net", "apart", "all"):
            net.drop(port[name], each=5)
        src.play(every, 1.2)
        net.stop()
        src.play(every, 1.4)
        # Full queues; of `both` the network takes some at the same time.
        net.drop(port["both"], each=20)
        stopped = burst(recorder, [streams[name] for name in ("socket", "apart", "both", "all")])
        net.stop()
        src.play(every, 1.6)
        # The disk stands still until the ring is full. Whoever is on hold loses nothing by it.
        for stream in every:
            stream.held = stream.name not in ("ring", "all")
        before_ring = {name: stream.number for name, stream in streams.items()}
        subprocess.run(["fsfreeze", "-f", place.disk], check=True)
        try:
            frozen = time.monotonic()
            for at in range(6800):
                streams["ring"].send(size=LARGE)
                streams["all"].send(size=LARGE)
                time.sleep(max(0.0, frozen + at / 3400 - time.monotonic()))
        finally:
            subprocess.run(["fsfreeze", "-u", place.disk], check=True)
        time.sleep(0.4)
        after_ring = {name: stream.number for name, stream in streams.items()}
        for stream in every:
            stream.held = False
        src.play(every, 1.2)
        # The last 50 packets of two streams never arrive; their reports count them.
        for name in ("tail", "all"):
            net.drop(port[name])
        tail = {name: net.dropped(port[name]) for name in ("tail", "all")}
        src.play(every, 1.0)
        src.report(every)
        tail = {name: net.dropped(port[name]) - before for name, before in tail.items()}
        lasted = time.monotonic() - began
        time.sleep(0.2)
        queue = recorder.queue_drops()
        call.end()
        told, is_whole = recorder.settled(), recorder.is_whole()
        recorder.end()
        on_disk = recorder.on_disk()
        claims.claim("the recorder was stopped for less than a second and lives", stopped < 1 and is_whole,
                     f"{stopped:.2f} s; the call took {lasted:.1f} s")
        for name, stream in streams.items():
            numbers = on_disk[stream.ssrc]
            ring = sum(number not in numbers for number in range(before_ring[name], after_ring[name]))
            truth = {"net": net.dropped(port[name]) - tail.get(name, 0), "socket": queue.get(port[name], 0),
                     "ring": ring}
            # Of what the network and a full queue took at the same time nobody can say which was which.
            source = tell(claims, name, told[name], stream.number - tail.get(name, 0), truth, name != "both")
            verdict = told[name]["verdict"]
            missing = sum(truth.values()) + tail.get(name, 0)
            claims.claim(f"{name}: the reports count what was sent", source["rtcp_sent"] == stream.number,
                         f"{source['rtcp_sent']} sent, {source['packets']} recorded")
            wanted = ("complete",) if missing == 0 else ("gaps",) if name != "tail" else ("continuous",)
            unproven = told[name]["unproven_s"]
            claims.claim(f"{name}: the verdict is {wanted[0]}", verdict in wanted, f"{unproven} s unproven")
        claims.claim("each way lost something", all((
            net.dropped(port["net"]) > 5, queue.get(port["socket"], 0) > 50, tail["tail"] == 50,
            any(n not in on_disk[streams["ring"].ssrc]
                for n in range(before_ring["ring"], after_ring["ring"])))))
    finally:
        recorder.end()


def network(claims, place):
    """Loss, duplicates and reordering of a network, made by the sender by seed."""
    recorder = Recorder(place.floortape, place.space, place.address, place.folder / "network", media__steering="off")
    try:
        by_chance(claims, place, recorder)
    finally:
        recorder.end()


def by_chance(claims, place, recorder):
    prng, count = random.Random(SEED + 1), 2400
    streams = [src.Stream(place.own, 6100 + 2 * at, f"chance-{at}", prng.getrandbits(32), prng.getrandbits(16))
               for at in range(3)]
    call = src.Call((place.address, SIP_PORT), place.own, streams, "network")
    plans = []
    for stream in streams:
        # Neither the first nor the last: of what is lost there only the reports can tell.
        lost = {number for number in range(1, count - 1) if prng.random() < 0.01}
        order = [number for number in range(count) if number not in lost]
        twice = [number for number in order if prng.random() < 0.01]
        late = {number for number in order[1:-8] if prng.random() < 0.02}
        order = sorted(order + twice, key=lambda number: number + (prng.randint(2, 6) if number in late else 0))
        plans.append((stream, order, len(lost), len(twice)))
    begin, longest = time.monotonic(), max(len(order) for _, order, *_ in plans)
    for at in range(longest):
        for stream, order, *_ in plans:
            if at < len(order):
                stream.rtp.send(stream.packet(order[at]))
                # What was lost is counted as sent all the same.
                stream.number = max(stream.number, order[at] + 1)
        if at % 400 == 399:
            src.report(streams)
        time.sleep(max(0.0, begin + at * 0.0025 - time.monotonic()))
    time.sleep(0.1)
    src.report(streams)
    time.sleep(0.1)
    call.end()
    told = recorder.settled()
    recorder.end()
    on_disk = recorder.on_disk()
    for stream, order, lost, twice in plans:
        source = tell(claims, stream.name, told[stream.name], stream.number, {"net": lost}, True)
        claims.claim(f"{stream.name}: the reports agree, {twice} came twice, the rest is on disk",
                     (source["rtcp_sent"], source["duplicates"]) == (count, twice)
                     and on_disk[stream.ssrc] == set(order),
                     f"{source['rtcp_sent']} sent, {source['duplicates']} duplicates, {len(set(order))} numbers")


def shared(claims, place):
    """Ports of more than 64 streams, steered to 16 sockets: a counter for seven."""
    recorder = Recorder(place.floortape, place.space, place.address, place.folder / "shared",
                        media__steering="on", media__streams_max=80)
    try:
        net, prng = Net(recorder), random.Random(SEED + 2)
        streams = [src.Stream(place.own, 6200 + 2 * at, f"one-{at}", prng.getrandbits(32), prng.getrandbits(16))
                   for at in range(80)]
        calls = [src.Call((place.address, SIP_PORT), place.own, streams[at:at + 8], f"shared-{at}")
                 for at in range(0, 80, 8)]
        by_port = {stream.target: stream for stream in streams}
        first = next(stream for stream in streams if stream.target + 2 * SOCKETS in by_port)
        pair = [first, by_port[first.target + 2 * SOCKETS]]
        alone = next(stream for stream in streams if (stream.target - first.target) // 2 % SOCKETS != 0)
        src.play(streams, 1.2)
        # The network takes some of one of the pair in the same second, and of one who does not share with them.
        net.drop(pair[0].target, each=4)
        net.drop(alone.target, each=4)
        src.play(streams, 0.4)
        net.stop()
        stopped = burst(recorder, pair, SHARED_BURST)
        # Until the queue is empty it would drop others' packets as well.
        time.sleep(0.3)
        src.play(streams, 1.2)
        src.report(streams)
        time.sleep(0.2)
        drops = sum(recorder.queue_drops().values())
        for call in calls:
            call.end()
        told, is_whole = recorder.settled(), recorder.is_whole()
        recorder.end()
        on_disk = recorder.on_disk()
        claims.claim("steered: the recorder was stopped for less than a second and lives",
                     stopped < 1 and is_whole, f"{stopped:.2f} s")
        missing = 0
        for name, stream in zip(("first of two", "second of two"), pair):
            lost = stream.number - len(on_disk[stream.ssrc])
            net_lost = net.dropped(stream.target)
            missing += lost - net_lost
            tell(claims, f"steered, {name}", told[stream.name], stream.number,
                 {"net": net_lost, "socket": lost - net_lost}, False)
        claims.claim("steered: what the two lack is what the kernel's counter says", missing == drops > 0, drops)
        tell(claims, "steered, on another socket", told[alone.name], alone.number,
             {"net": net.dropped(alone.target)}, True)
        rest = [told[stream.name] for stream in streams if stream not in (*pair, alone)]
        sources = [source for stream in rest for source in stream["sources"]]
        claims.claim(f"steered: the other {len(rest)} lack nothing",
                     all(source["packets"] == source["rtcp_sent"] and not source["gaps"] for source in sources))
    finally:
        recorder.end()


class Place:
    def __init__(self, words):
        self.floortape, folder, disk, self.space, self.address, self.own = words
        self.folder, self.disk = pathlib.Path(folder), pathlib.Path(disk)


def main():
    place, claims = Place(sys.argv[1:7]), Claims()
    for name in sys.argv[7:]:
        print(f"::: {name}", flush=True)
        begin = time.monotonic()
        {"causes": causes, "network": network, "shared": shared, "forged": forged}[name](claims, place)
        print(f"::: {name}: {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{claims.passed} passed, {claims.failed} failed")
    return 1 if claims.failed or not claims.passed else 0


if __name__ == "__main__":
    sys.exit(main())
