"""A SIPREC recording client in a page: INVITE with SDP and metadata, ACK, re-INVITE, BYE.

Written from RFC 3261, 7865 and 7866 with the standard library alone. It keeps one dialog, repeats
requests over UDP (timer A), and understands just enough of the answers to check them.
"""

import base64
import re
import select
import socket
import time
import uuid


def uid():
    """A random UUID in base64, as RFC 7865 §6.10 wants ids."""
    return base64.b64encode(uuid.uuid4().bytes).decode()


def metadata(lines, parties):
    """A complete RFC 7865 document: line n is sent by party n and heard by the others."""
    session, group, now = uid(), uid(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    people = [uid() for _ in parties]
    streams = [uid() for _ in lines]
    out = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<recording xmlns="urn:ietf:params:xml:ns:recording:1">',
        " <datamode>complete</datamode>",
        f' <group group_id="{group}"><associate-time>{now}</associate-time></group>',
        f' <session session_id="{session}"><sipSessionID>{uuid.uuid4().hex};remote={uuid.uuid4().hex}'
        f"</sipSessionID><group-ref>{group}</group-ref><start-time>{now}</start-time></session>",
    ]
    for person, (aor, name) in zip(people, parties):
        out.append(
            f' <participant participant_id="{person}"><nameID aor="{aor}">'
            f'<name xml:lang="en">{name}</name></nameID></participant>'
        )
    for stream, line in zip(streams, lines):
        out.append(
            f' <stream stream_id="{stream}" session_id="{session}">'
            f"<label>{line.label}</label></stream>"
        )
    out.append(
        f' <sessionrecordingassoc session_id="{session}"><associate-time>{now}</associate-time>'
        "</sessionrecordingassoc>"
    )
    for person in people:
        out.append(
            f' <participantsessionassoc participant_id="{person}" session_id="{session}">'
            f"<associate-time>{now}</associate-time></participantsessionassoc>"
        )
    for index, person in enumerate(people):
        ends = "".join(
            f"<{'send' if index == at else 'recv'}>{stream}</{'send' if index == at else 'recv'}>"
            for at, stream in enumerate(streams)
        )
        out.append(
            f' <participantstreamassoc participant_id="{person}">{ends}</participantstreamassoc>'
        )
    out.append("</recording>")
    return "\r\n".join(out) + "\r\n"


class Line:
    """One offered m-line."""

    def __init__(self, label, port, suite=None, key=None, mki=None, parameters=""):
        self.label, self.port, self.suite, self.key = label, port, suite, key
        self.parameters = parameters  # such as "UNENCRYPTED_SRTP"
        self.mki = f"|{int.from_bytes(mki, 'big')}:{len(mki)}" if mki else ""

    def sdp(self, direction):
        profile = "RTP/SAVP" if self.suite else "RTP/AVP"
        out = [f"m=audio {self.port} {profile} 0", "a=rtpmap:0 PCMU/8000", "a=ptime:20"]
        if self.suite:
            out.append(f"a=crypto:1 {self.suite} inline:{self.key}{self.mki} {self.parameters}".strip())
        return out + [f"a=label:{self.label}", f"a={direction}"]


class Answer:
    """What a response said."""

    def __init__(self, raw):
        head, _, self.body = raw.partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.status = int(lines[0].split()[1])
        self.reason = lines[0]
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]

    def get(self, name):
        short = {"contact": "m", "call-id": "i", "to": "t", "from": "f"}.get(name.lower())
        for key, value in self.headers:
            if key.lower() in (name.lower(), short):
                return value
        return ""

    def all(self, name):
        """The values of a list, in order."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return [one.strip() for value in found for one in value.split(",")]

    def media(self):
        """[{port, profile, label, direction, suite, key, rtcp, lines}] of its SDP, by position."""
        found, current = [], None
        for line in self.body.replace("\r\n", "\n").split("\n"):
            if line.startswith("m="):
                word = line[2:].split()
                current = dict(port=int(word[1]), profile=word[2], label=None, direction=None,
                               suite=None, key=None, tag=None, parameters="", rtcp=int(word[1]) + 1,
                               mux=False)
                found.append(current)
            elif current is None:
                continue
            elif line.startswith("a=label:"):
                current["label"] = line[8:]
            elif line in ("a=recvonly", "a=inactive", "a=sendonly", "a=sendrecv"):
                current["direction"] = line[2:]
            elif line.startswith("a=crypto:"):
                tag, suite, key, *parameters = line[9:].split()
                current.update(tag=tag, suite=suite, key=key.split("inline:")[1].split("|")[0],
                               parameters=" ".join(parameters))
            elif line.startswith("a=rtcp:"):
                current["rtcp"] = int(line[7:].split()[0])
            elif line == "a=rtcp-mux":
                current.update(mux=True, rtcp=current["port"])
        return found


class Src:
    """One dialog with an SRS."""

    def __init__(self, server, local, transport="udp", user="src"):
        self.server, self.transport = server, transport
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.bind((local, 0))
        self.socket.connect(server)
        self.host, self.port = self.socket.getsockname()
        self.call_id = uuid.uuid4().hex + "@peers.invalid"
        self.tag = uuid.uuid4().hex[:10]
        self.user, self.cseq, self.to_tag, self.version = user, 0, "", 0
        self.target = f"sip:srs@{server[0]}:{server[1]};transport={transport}"
        self.route = []  # Record-Route of the answer that made the dialog, nearest first
        self.buffer = ""

    # -- requests -----------------------------------------------------------------------------

    def offer(self, lines, direction="sendonly"):
        self.version += 1
        sdp = [
            "v=0",
            f"o=peers 3001 {self.version} IN IP4 {self.host}",
            "s=-",
            f"c=IN IP4 {self.host}",
            "t=0 0",
        ]
        for line in lines:
            sdp += line.sdp(direction)
        return "\r\n".join(sdp) + "\r\n"

    def invite(self, lines, parties, direction="sendonly", extra=()):
        """INVITE or re-INVITE with offer and complete metadata; sends the ACK; the final answer."""
        boundary = "peers-" + uuid.uuid4().hex[:12]
        body = (
            f"--{boundary}\r\nContent-Type: application/sdp\r\n\r\n{self.offer(lines, direction)}"
            f"\r\n--{boundary}\r\nContent-Type: application/rs-metadata+xml\r\n"
            f"Content-Disposition: recording-session\r\n\r\n{metadata(lines, parties)}"
            f"\r\n--{boundary}--\r\n"
        )
        headers = [
            "Require: siprec",
            "Supported: timer",
            "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE",
            "Accept: application/sdp, application/rs-metadata+xml, application/rs-metadata",
            f"Content-Type: multipart/mixed;boundary={boundary}",
            *extra,
        ]
        answer = self.request("INVITE", headers, body)
        branch = self.branch if answer.status >= 300 else None
        self.ack(branch)
        return answer

    def ack(self, branch):
        """ACK: a request of its own after a 2xx, within the transaction after a refusal."""
        target = self.target
        self.send(self.message("ACK", [], "", self.cseq, branch or self.new_branch(), target))

    def bye(self):
        return self.request("BYE", [], "")

    def options(self):
        return self.request("OPTIONS", ["Accept: application/sdp"], "")

    def request(self, method, headers, body):
        self.cseq += 1
        self.branch = self.new_branch()
        raw = self.message(method, headers, body, self.cseq, self.branch, self.target)
        self.send(raw)
        wait, end = 0.5, time.monotonic() + 32
        resend = time.monotonic() + wait
        while time.monotonic() < end:
            answer = self.receive(min(resend, end) - time.monotonic())
            if answer is None:
                if self.transport == "udp" and time.monotonic() >= resend:
                    self.send(raw)
                    wait = min(2 * wait, 4)
                    resend = time.monotonic() + wait
                continue
            if answer.get("CSeq").split() != [str(self.cseq), method]:
                continue
            if answer.status < 200:
                resend = end
                continue
            tag = re.search(r";\s*tag=([^;\s]+)", answer.get("To"))
            if tag and answer.status < 300:
                if not self.to_tag:
                    self.route = answer.all("Record-Route")[::-1]
                self.to_tag = tag.group(1)
                contact = re.search(r"<([^>]*)>", answer.get("Contact"))
                if contact:
                    self.target = contact.group(1)
            elif tag and method == "INVITE" and not self.to_tag:
                self.to_tag = tag.group(1)
            return answer
        raise TimeoutError(f"no final answer to {method}")

    # -- wire ---------------------------------------------------------------------------------

    def new_branch(self):
        return "z9hG4bK" + uuid.uuid4().hex[:16]

    def message(self, method, headers, body, cseq, branch, target):
        to = f"<sip:srs@{self.server[0]}>" + (f";tag={self.to_tag}" if self.to_tag else "")
        lines = [
            f"{method} {target} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.host}:{self.port};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: <sip:{self.user}@{self.host}>;tag={self.tag}",
            f"To: {to}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:{self.user}@{self.host}:{self.port};transport={self.transport}>;+sip.src",
            "User-Agent: peers/1",
            *[f"Route: {hop}" for hop in self.route],
            *headers,
            f"Content-Length: {len(body.encode())}",
        ]
        return "\r\n".join(lines) + "\r\n\r\n" + body

    def send(self, text):
        self.socket.sendall(text.encode())

    def receive(self, timeout):
        """The next response, or None after `timeout`; requests of the SRS are passed over."""
        whole = self.next_whole()
        if whole is None:
            ready, _, _ = select.select([self.socket], [], [], max(timeout, 0))
            if not ready:
                return None
            data = self.socket.recv(65535)
            if self.transport == "tcp" and not data:
                raise ConnectionError("the SRS closed the connection")
            self.buffer += data.decode("utf-8", "replace")
            whole = self.next_whole()
        if whole is None:
            return None
        if not whole.startswith("SIP/2.0"):
            return None
        return Answer(whole)

    def asked(self, method, timeout):
        """Waits for a request of the SRS and answers it 200; whether it came."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            whole = self.next_whole()
            if whole is None:
                if select.select([self.socket], [], [], 0.1)[0]:
                    self.buffer += self.socket.recv(65535).decode("utf-8", "replace")
                continue
            if whole.startswith("SIP/2.0"):
                continue
            echoed = ("via", "v", "from", "f", "to", "t", "call-id", "i", "cseq", "record-route")
            lines = whole.partition("\r\n\r\n")[0].split("\r\n")[1:]
            lines = [line for line in lines if line.split(":")[0].strip().lower() in echoed]
            self.send("\r\n".join(["SIP/2.0 200 OK", *lines, "Content-Length: 0"]) + "\r\n\r\n")
            if whole.startswith(method + " "):
                return True
        return False

    def next_whole(self):
        """A whole message from the front of the buffer (answers here are ASCII)."""
        self.buffer = self.buffer.lstrip("\r\n")
        head, split, rest = self.buffer.partition("\r\n\r\n")
        if not split:
            return None
        length = re.search(r"(?im)^(?:content-length|l)\s*:\s*(\d+)", head)
        count = int(length.group(1)) if length else 0
        if len(rest) < count:
            return None
        self.buffer = rest[count:]
        return head + split + rest[:count]
