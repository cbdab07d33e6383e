"""Calls a recorder for benches/path.sh: STREAMS in calls of two SDES lines each, all under the key of
benches/path. Prints a port a stream, then waits for the end of its input, and ends the calls.

    call.py HOST PORT STREAMS
"""

import base64
import re
import socket
import sys

KEY = base64.b64encode(bytes(range(30))).decode()
host, port, streams = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection = socket.create_connection((host, port))
connection.settimeout(10)
own = "%s:%d" % connection.getsockname()
reader = connection.makefile("rb")


def send(method, call, sequence, to="", target=None, body=""):
    target = target or f"sip:srs@{host}:{port};transport=tcp"
    lines = [
        f"{method} {target} SIP/2.0",
        f"Via: SIP/2.0/TCP {own};branch=z9hG4bK-{call}-{method}",
        f"From: <sip:src@{own}>;tag={call}",
        to or f"To: <sip:srs@{host}>",
        f"Call-ID: path-{call}",
        f"CSeq: {sequence} {method}",
        "Max-Forwards: 70",
        f"Contact: <sip:src@{own};transport=tcp>;+sip.src",
        f"Content-Length: {len(body)}",
    ]
    if body:
        lines[-1:-1] = ["Require: siprec", "Content-Type: application/sdp"]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())


def answer():
    """Headers and body of the next final response; requests of the other side are passed over."""
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            if not line:
                sys.exit("the recorder closed the connection")
            head += line
        head = head.decode().lstrip()
        body = reader.read(int(re.search(r"(?im)^(?:content-length|l): *(\d+)", head)[1])).decode()
        if head.startswith("SIP/2.0 1") or not head.startswith("SIP/2.0"):
            continue
        if not head.startswith("SIP/2.0 200"):
            sys.exit(head.splitlines()[0])
        return head, body


dialogs = []
for call in range(streams // 2):
    line = f"m=audio {{}} RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\na=label:{{}}\r\na=sendonly\r\n"
    address = own.split(":")[0]
    sdp = f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
    send("INVITE", call, 1, body=sdp + line.format(6000, 1) + line.format(6002, 2))
    head, body = answer()
    to = re.search(r"(?im)^(?:to|t):.*?(?=\r)", head)[0]
    target = re.search(r"(?im)^(?:contact|m):[^<]*<([^>]*)>", head)[1]
    send("ACK", call, 1, to, target)
    dialogs.append((call, to, target))
    print("\n".join(re.findall(r"(?m)^m=audio (\d+)", body)), flush=True)
sys.stdin.read()
for call, to, target in dialogs:
    send("BYE", call, 2, to, target)
    answer()
