"""One million forged packets at running SRTP streams (failure catalogue F42): as SRTP they look right, but
SSRC, sequence number, payload and tag are by chance."""

import ctypes
import json
import pathlib
import random
import socket
import struct
import subprocess
import time

from bench import SIP_PORT, Recorder, until

COUNT, STREAMS, RATE, BATCH, SIZE = 1_000_000, 20, 40_000, 50, 182
GROWTH_KIB = 1024


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    """`struct msghdr` (recvmsg(2))."""

    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)),
                ("iov_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Message(ctypes.Structure):
    """`struct mmsghdr` (sendmmsg(2))."""

    _fields_ = [("header", Header), ("length", ctypes.c_uint)]


class Batch:
    """As many datagrams with each call as the kernel takes."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.memory = ctypes.create_string_buffer(BATCH * SIZE)
        at = ctypes.addressof(self.memory)
        self.vectors = (Iovec * BATCH)(*((at + SIZE * number, SIZE) for number in range(BATCH)))
        self.messages = (Message * BATCH)(*(
            Message(Header(None, 0, ctypes.pointer(vector), 1, None, 0, 0), 0) for vector in self.vectors))

    def send(self, to, data):
        ctypes.memmove(self.memory, data, BATCH * SIZE)
        sent = 0
        while sent < BATCH:
            done = self.libc.sendmmsg(to.fileno(), ctypes.byref(self.messages, sent * ctypes.sizeof(Message)),
                                      BATCH - sent, 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            sent += done


def in_ram_kib(pid):
    """Memory of a process in RAM, KiB: its own and its files', and that of the ring, which never grows but is
    touched by what is recorded."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        figures = {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith("Rss")}
    return figures["RssAnon"] + figures["RssFile"], figures["RssShmem"]


def forged(claims, place):
    recorder = Recorder(place.floortape, place.space, place.address, place.folder / "forged",
                        media__streams_max=STREAMS)
    try:
        sent = place.folder / "sent.json"
        with open(sent, "w", encoding="utf-8") as out, open(place.folder / "call.log", "w", encoding="utf-8") as log:
            caller = subprocess.Popen(
                [place.floortape, "src", "call", "--to", f"sip:srs@{place.address}:{SIP_PORT};transport=tcp",
                 "--srtp", "sdes", "--streams", str(STREAMS), "--numbered", "--json", "--duration",
                 str(COUNT // RATE + 7)], stdout=out, stderr=log)
        try:
            until("the call", 10, lambda: "\nsending" in "\n" + (place.folder / "call.log").read_text())
            # Whatever a stream needs it has by now.
            time.sleep(2)
            ports = sorted(recorder.described())
            prng, batch, targets = random.Random(1), Batch(), []
            for port in ports:
                targets.append(socket.socket(type=socket.SOCK_DGRAM))
                targets[-1].connect((place.address, port))
            before = {role: in_ram_kib(pid) for role, pid in (("media", recorder.media), ("control", recorder.control))}
            begin = time.monotonic()
            for number in range(COUNT // BATCH):
                data = bytearray(prng.randbytes(BATCH * SIZE))
                for at in range(0, BATCH * SIZE, SIZE):
                    struct.pack_into(">BB", data, at, 0x80, 0)
                batch.send(targets[number % len(targets)], bytes(data))
                time.sleep(max(0.0, begin + number * BATCH / RATE - time.monotonic()))
            took = time.monotonic() - begin
            time.sleep(1)
            after = {role: in_ram_kib(pid) for role, pid in (("media", recorder.media), ("control", recorder.control))}
            still_calling = caller.poll() is None
            caller.wait(60)
        finally:
            if caller.poll() is None:
                caller.kill()
        told, is_whole, drops = recorder.settled(), recorder.is_whole(), recorder.queue_drops()
        recorder.end()
        wanted = {stream["ssrc"]: stream for stream in json.loads(sent.read_text().splitlines()[-1])["streams"]}
        counted = {}
        for stream in recorder.streams:
            for label, count in stream["drops"].items():
                counted[label] = counted.get(label, 0) + count
        sources = [source for stream in recorder.streams for source in stream["sources"]]
        claims.claim(f"forged: {COUNT} packets at {len(ports)} streams while they are sent to",
                     still_calling and len(ports) == STREAMS, f"{took:.0f} s, {COUNT / took:.0f} a second")
        for role, (own, ring) in before.items():
            grown = after[role][0] - own
            claims.claim(f"forged: {role} grows by {GROWTH_KIB} KiB at most", grown <= GROWTH_KIB,
                         f"{own} KiB and {grown:+}; of the ring {ring} KiB touched and {after[role][1] - ring:+}")
        queues = sum(drops.values())
        claims.claim("forged: each is accounted for by the streams, and none of them was recorded",
                     sum(counted.values()) + queues == COUNT, f"{counted}, {queues} in queues")
        checked = subprocess.run(
            ["python3", pathlib.Path(__file__).parent.parent / "checker.py", recorder.folder / "s", "--numbered",
             f"--sent={sent}"], capture_output=True, text=True, check=False)
        claims.claim("forged: the streams lost nothing, and hold nothing else", checked.returncode == 0,
                     checked.stdout.strip() + checked.stderr.strip())
        claims.claim("forged: nothing is lost or unexplained by the ledger",
                     {source["ssrc"]: source["packets"] for source in sources}
                     == {ssrc: stream["sent"] for ssrc, stream in wanted.items()}
                     and not any(source["lost"] or source["unexplained"] for source in sources),
                     f"{sum(source['packets'] for source in sources)} packets")
        claims.claim("forged: the recorder is the same processes", is_whole and bool(told))
    finally:
        recorder.end()
