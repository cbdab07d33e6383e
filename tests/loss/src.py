"""A recording client (SRC) of one call with plain RTP: it numbers what it sends, says true counts in its
sender reports, and leaves losing to others, or loses by itself what it is told to.

From RFC 3261, 4566, 3550 and 7866 with the standard library alone.
"""

import re
import select
import socket
import struct
import time

RATE, PERIOD = 8000, 0.02


class Stream:
    """One m-line: a port pair of ours, one SSRC. Numbers count from 0, sequence numbers from `first`."""

    def __init__(self, host, port, name, ssrc, first):
        self.host, self.port, self.name, self.ssrc, self.first = host, port, name, ssrc, first
        self.rtp, self.rtcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        for at, one in enumerate((self.rtp, self.rtcp)):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            one.bind((host, port + at))
        self.number = self.octets = 0
        # On hold: its share of the steady rhythm is not sent.
        self.held = False
        # Numbers that `play` leaves out or sends twice.
        self.skip, self.twice = frozenset(), frozenset()

    def to(self, host, port):
        self.rtp.connect((host, port))
        self.rtcp.connect((host, port + 1))
        self.target = port

    def packet(self, number, size=160):
        head = struct.pack(">BBHII", 0x80, 0, self.first + number & 0xFFFF, number * 160 & 0xFFFFFFFF, self.ssrc)
        return head + struct.pack(">Q", number) + bytes([0xD5]) * (size - 8)

    def next(self, size=160):
        """The next packet; the sender reports count it."""
        packet = self.packet(self.number, size)
        self.number += 1
        self.octets += size
        return packet

    def send(self, count=1, size=160):
        for _ in range(count):
            self.rtp.send(self.next(size))

    def report(self):
        """SR and SDES (RFC 3550 section 6.4.1, 6.5), with the count of what was sent by now."""
        seconds = int(time.time()) + 2208988800
        report = struct.pack(
            ">BBHIIIIII", 0x80, 200, 6, self.ssrc, seconds & 0xFFFFFFFF, 0, self.number * 160 & 0xFFFFFFFF,
            self.number, self.octets & 0xFFFFFFFF)
        name = self.name.encode()
        item = struct.pack(">IBB", self.ssrc, 1, len(name)) + name + b"\0"
        item += bytes(-len(item) % 4)
        self.rtcp.send(report + struct.pack(">BBH", 0x81, 202, len(item) // 4) + item)


class Call:
    """A dialog over TCP."""

    def __init__(self, server, host, streams, name):
        self.server, self.host, self.streams, self.name = server, host, streams, name
        self.connection = socket.create_connection(server, timeout=10)
        self.own = "%s:%d" % self.connection.getsockname()
        self.reader = self.connection.makefile("rb")
        self.to, self.target = f"<sip:srs@{server[0]}>", "sip:srs@%s:%d;transport=tcp" % server
        lines = "".join(
            f"m=audio {stream.port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=label:{stream.name}\r\na=sendonly\r\n"
            for stream in streams)
        body = f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n{lines}"
        head, answer = self.request("INVITE", 1, body)
        self.to = re.search(r"(?im)^(?:to|t): *(.*?)\r", head)[1]
        self.target = re.search(r"(?im)^(?:contact|m):[^<]*<([^>]*)>", head)[1]
        self.send("ACK", 1)
        ports = [int(port) for port in re.findall(r"(?m)^m=audio (\d+)", answer)]
        if len(ports) != len(streams) or 0 in ports:
            raise SystemExit(f"{len(streams)} streams were offered, the answer has the ports {ports}")
        for stream, port in zip(streams, ports):
            stream.to(server[0], port)

    def send(self, method, sequence, body=""):
        lines = [
            f"{method} {self.target} SIP/2.0",
            f"Via: SIP/2.0/TCP {self.own};branch=z9hG4bK-{self.name}-{method}",
            f"From: <sip:src@{self.own}>;tag={self.name}",
            f"To: {self.to}",
            f"Call-ID: loss-{self.name}",
            f"CSeq: {sequence} {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:src@{self.own};transport=tcp>;+sip.src",
        ]
        if body:
            lines += ["Require: siprec", "Content-Type: application/sdp"]
        lines.append(f"Content-Length: {len(body)}")
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def request(self, method, sequence, body=""):
        """Head and body of the final answer; requests of the other side are passed over."""
        self.send(method, sequence, body)
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.reader.readline()
                if not line:
                    raise SystemExit(f"{self.name}: the recorder closed the connection")
                head += line
            head = head.decode().lstrip()
            body = self.reader.read(int(re.search(r"(?im)^(?:content-length|l): *(\d+)", head)[1])).decode()
            if head.startswith("SIP/2.0 200"):
                return head, body
            if head.startswith("SIP/2.0") and not head.startswith("SIP/2.0 1"):
                raise SystemExit(f"{self.name}: {method}: {head.splitlines()[0]}")

    def end(self):
        self.request("BYE", 2)
        self.connection.close()


def play(streams, seconds, until=lambda: False):
    """All streams that are not on hold at 50 packets/s, a report of each a second."""
    begin, ticks = time.monotonic(), 0
    while ticks < seconds / PERIOD and not until():
        for stream in streams:
            if not stream.held:
                number, packet = stream.number, stream.next()
                for _ in range((number not in stream.skip) + (number in stream.twice)):
                    stream.rtp.send(packet)
        ticks += 1
        if ticks % 50 == 0:
            report(streams)
        time.sleep(max(0.0, begin + ticks * PERIOD - time.monotonic()))
    drain(streams)


def report(streams):
    for stream in streams:
        if not stream.held:
            stream.report()


def drain(streams):
    """The recorder's receiver reports: read, so that nothing of ours is full."""
    for stream in streams:
        while select.select([stream.rtcp], [], [], 0)[0]:
            try:
                stream.rtcp.recv(2048)
            except OSError:
                break
