"""rtpengine as a recorder for benches/path.sh, by its ng protocol.

    rtpengine.py calls HOST:PORT STREAMS      sets up STREAMS/2 calls that are recorded, both sides SRTP
                                              under the key of benches/path; prints a port a stream
    rtpengine.py end HOST:PORT STREAMS        ends them
    rtpengine.py count FOLDER                 decrypted packets of its pcaps
"""

import base64
import os
import re
import socket
import struct
import sys

KEY = base64.b64encode(bytes(range(30))).decode()
FILL = bytes([0xD5]) * 160


def encode(value):
    if isinstance(value, dict):
        return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    value = value.encode()
    return b"%d:%s" % (len(value), value)


def decode(text, at=0):
    """The value at `at`, and where it ends."""
    kind = text[at : at + 1]
    if kind == b"i":
        end = text.index(b"e", at)
        return int(text[at + 1 : end]), end + 1
    if kind in b"ld":
        values, at = [], at + 1
        while text[at : at + 1] != b"e":
            value, at = decode(text, at)
            values.append(value)
        if kind == b"d":
            values = dict(zip(values[::2], values[1::2]))
        return values, at + 1
    colon = text.index(b":", at)
    end = colon + 1 + int(text[at:colon])
    return text[colon + 1 : end].decode(), end


class Engine:
    def __init__(self, where):
        host, port = where.split(":")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.connect((host, int(port)))
        self.number = 0

    def ask(self, **words):
        self.number += 1
        cookie = b"%d_%d" % (os.getpid(), self.number)
        words = {name.replace("_", "-"): value for name, value in words.items()}
        self.socket.send(cookie + b" " + encode(words))
        answer = b""
        while not answer.startswith(cookie + b" "):
            answer = self.socket.recv(65536)
        answer = decode(answer, len(cookie) + 1)[0]
        if answer["result"] not in ("ok", "pong"):
            sys.exit(f"{words['command']}: {answer}")
        return answer


def sdp(port, tag):
    return (
        "v=0\r\no=- 1 1 IN IP4 198.18.77.1\r\ns=-\r\nc=IN IP4 198.18.77.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
        f"a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"
    )


def port_of(text):
    return re.search(r"m=audio (\d+)", text)[1]


def calls(engine, streams):
    for call in range(streams // 2):
        words = dict(call_id=f"call-{call}", from_tag="a", flags=["block media"], ICE="remove")
        # Ports of the other side: nothing listens there, and nothing is sent there.
        offer = engine.ask(command="offer", sdp=sdp(6000, 1), record_call="on", DTLS="off", **words)["sdp"]
        tag = re.search(r"a=crypto:(\d+) AES_CM_128_HMAC_SHA1_80 ", offer)[1]
        answer = engine.ask(command="answer", sdp=sdp(6002, tag), to_tag="b", **words)["sdp"]
        # `a` sends to what the answer names, `b` to what the offer names.
        print(port_of(answer))
        print(port_of(offer))
    print(f"{streams} streams", file=sys.stderr)


def count(folder):
    found = 0
    for name in os.listdir(folder):
        data = open(os.path.join(folder, name), "rb").read()
        at = 24
        while at + 16 <= len(data):
            (length,) = struct.unpack_from("<8xI", data, at)
            packet = data[at + 16 : at + 16 + length]
            found += packet.endswith(FILL) and len(packet) < 240
            at += 16 + length
    return found


if sys.argv[1] == "count":
    print(count(sys.argv[2]))
else:
    engine, streams = Engine(sys.argv[2]), int(sys.argv[3])
    engine.ask(command="ping")
    if sys.argv[1] == "calls":
        calls(engine, streams)
    else:
        for call in range(streams // 2):
            engine.ask(command="delete", call_id=f"call-{call}", from_tag="a", delete_delay="0")
