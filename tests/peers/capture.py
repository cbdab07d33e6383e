"""Reads what tcpdump saw on the loopback interface: UDP over IPv4, whole datagrams."""

import struct
from collections import namedtuple

Udp = namedtuple("Udp", "source source_port target target_port payload")


def read(path):
    """All UDP datagrams of a capture file, fragments left out."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 24:
        return
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link = struct.unpack(order + "I", data[20:24])[0]
    head = {1: 14, 113: 16, 276: 20}[link]
    at = 24
    while at + 16 <= len(data):
        captured = struct.unpack(order + "I", data[at + 8 : at + 12])[0]
        frame = data[at + 16 + head : at + 16 + captured]
        at += 16 + captured
        if len(frame) < 28 or frame[0] >> 4 != 4 or frame[9] != 17:
            continue
        if struct.unpack(">H", frame[6:8])[0] & 0x3FFF:
            continue
        udp = frame[4 * (frame[0] & 15) :]
        source_port, target_port, length = struct.unpack(">HHH", udp[:6])
        dotted = lambda four: ".".join(str(octet) for octet in four)
        yield Udp(dotted(frame[12:16]), source_port, dotted(frame[16:20]), target_port, udp[8:length])
