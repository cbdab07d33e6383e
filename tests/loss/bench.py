"""What the cases of tests/loss.sh share: the recorder under test, who drops, and how claims are told."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import checker  # noqa: E402

SIP_PORT, FIRST_PORT, LAST_PORT = 5060, 28400, 28799


class Claims:
    def __init__(self):
        self.passed = self.failed = 0

    def claim(self, what, holds, found=""):
        print(f"{'ok' if holds else 'FAILED'} {what}{f': {found}' if found != '' else ''}", flush=True)
        self.passed += bool(holds)
        self.failed += not holds
        return holds


class Recorder:
    """`floortape serve` in the namespace SPACE, its store in FOLDER."""

    def __init__(self, floortape, space, address, folder, **settings):
        self.floortape, self.space, self.address, self.folder = floortape, space, address, folder
        self.log = folder.parent / f"{folder.name}.log"
        values = {
            "sip.udp": [f"{address}:{SIP_PORT}"], "sip.tcp": [f"{address}:{SIP_PORT}"],
            "media.address": address, "media.ports": f"{FIRST_PORT}-{LAST_PORT}", "store.dir": str(folder / "s"),
            "store.reserve_minutes": 0, **{key.replace("__", "."): value for key, value in settings.items()}}
        words = [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        with open(self.log, "w", encoding="utf-8") as log:
            self.keeper = subprocess.Popen(self.inside(floortape, "serve", *words), stderr=log)
        until("the ready line", 10, lambda: "\nready" in "\n" + self.log.read_text())
        self.media, self.control = self.child("media"), self.child("control")

    def inside(self, *words):
        return ["ip", "netns", "exec", self.space, *words]

    def run(self, *words, text=None):
        done = subprocess.run(self.inside(*words), input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def child(self, role):
        out = subprocess.run(
            ["pgrep", "-P", str(self.keeper.pid), "-f", f"^floortape-{role}"], capture_output=True, check=True)
        return int(out.stdout)

    def stop_media(self):
        os.kill(self.media, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.media, signal.SIGCONT)

    def is_whole(self):
        """Neither media nor control has died since the start."""
        return (self.media, self.control) == (self.child("media"), self.child("control"))

    def queue_drops(self):
        """Datagrams that full queues have dropped: by port, as the kernel counts."""
        drops = {}
        for line in self.run("cat", "/proc/net/udp").splitlines()[1:]:
            words = line.split()
            port = int(words[1].split(":")[1], 16)
            drops[port] = drops.get(port, 0) + int(words[-1])
        return drops

    def listed(self):
        out = subprocess.run(
            [self.floortape, "ls", "--json", "--store", self.folder / "s"], capture_output=True, check=True)
        return [json.loads(line) for line in out.stdout.splitlines()]

    def settled(self):
        """What `ls` says when every stream has ended and its last seconds are judged: stream by label."""
        until("the end of all streams", 20, lambda: all(
            stream["state"] == "closed" for one in self.listed() for stream in one["streams"]))
        # What is missing is charged to the network once the host's counters, read each second, stood still.
        time.sleep(2.5)
        self.streams = [stream for one in self.listed() for stream in one["streams"]]
        return {stream["label"]: stream for stream in self.streams}

    def described(self):
        """RTP ports of the streams that have been opened, by the store."""
        store = checker.Store(str(self.folder / "s"), False)
        store.read(False)
        return [description["port"] for description in store.open.values()]

    def on_disk(self):
        """After the end: numbers that were recorded, by SSRC, by a reader that shares no code with the writer."""
        store = checker.Store(str(self.folder / "s"), True)
        store.read(False)
        if store.damaged:
            raise SystemExit(f"damaged: {store.damaged}")
        numbers = {}
        for packets in store.streams.values():
            for _index, _arrival, packet in packets:
                ssrc, number = int.from_bytes(packet[8:12], "big"), int.from_bytes(packet[12:20], "big")
                numbers.setdefault(ssrc, set()).add(number)
        return numbers

    def end(self):
        """In order; at once where it was ended before."""
        for _ in range(2):
            self.keeper.terminate()
            try:
                return self.keeper.wait(10)
            except subprocess.TimeoutExpired:
                # A second one ends it at once.
                continue
        raise SystemExit("the recorder does not end")


class Net:
    """nftables in front of the recorder: drops datagrams to a port, and counts them."""

    def __init__(self, recorder):
        self.recorder = recorder
        # The recorder before had one as well.
        self.nft("add table ip loss; delete table ip loss; add table ip loss\n"
                 "add chain ip loss front { type filter hook prerouting priority raw; }")

    def nft(self, text):
        return self.recorder.run("nft", "-f", "-", text=text)

    def drop(self, port, each=1):
        """From now on every EACH-th datagram to the port."""
        self.nft(f"add counter ip loss p{port}\n"
                 f"add rule ip loss front udp dport {port} numgen inc mod {each} 0 counter name p{port} drop")

    def stop(self):
        self.nft("flush chain ip loss front")

    def dropped(self, port):
        text = self.recorder.run("nft", "list", "counters", "table", "ip", "loss")
        found = re.search(rf"counter p{port} {{\s*packets (\d+)", text)
        return int(found[1]) if found else 0


def until(what, seconds, holds):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.05)


def account(stream):
    """The one source of a stream, and per cause [least, most] of what the recorder says was lost."""
    [source] = stream["sources"]
    said = {cause: [count, count] for cause, count in source["lost"].items()}
    said.update(source.get("lost_range") or {})
    return source, said
