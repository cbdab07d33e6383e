"""Foreign peers against a real `floortape serve`: SIPp, ffmpeg, GStreamer and openssl send, the verbs of
Floortape and code that shares nothing with it (this folder) judge. See ../peers.sh."""

import base64
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True

import audio
import capture
import kinds
import srtcp
from kamailio import Kamailio
from siprec import Answer, Line, Src

HERE = pathlib.Path(__file__).resolve().parent
SERVER = "127.0.0.1"
MEDIA = (24000, 24199)
SECONDS = 12  # long enough for a receiver report, which comes after 7.5 s at the latest
PARTIES = [("sip:anna@desk.example", "Anna"), ("sip:ben@desk.example", "Ben")]

results = []
results_lock = threading.Lock()


def check(scenario, claim, ok, detail=""):
    """Notes one claim; prints it at once."""
    with results_lock:
        results.append((scenario, claim, bool(ok), str(detail)))
        print(f"{'ok  ' if ok else 'FAIL'}  {scenario:<16} {claim}" + ("" if ok else f": {detail}"),
              flush=True)
    return bool(ok)


class Bench:
    """The server under test, its folders and the capture."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, pathlib.Path(folder)
        self.store = self.folder / "store"
        self.sip, self.tls = free_port(), free_port()
        self.lines = []  # every accepted line: (scenario, src ip, Line, answered media)
        self.pcap = self.folder / "loopback.pcap"
        self.refused = False

    def certificate(self, name, signer=None):
        """A key, and a certificate for `name` that openssl makes; signed by itself or `signer`."""
        key, cert = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-days", "30", "-subj", f"/CN={name}", "-keyout", str(key),
                 "-out", str(cert), "-addext", f"subjectAltName=DNS:{name}"]
        if signer:
            words += ["-CA", str(self.folder / f"{signer}.pem"),
                      "-CAkey", str(self.folder / f"{signer}.key"),
                      "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        key.chmod(0o600)
        return str(cert), str(key)

    def start(self):
        self.ca, _ = self.certificate("ca.example")
        cert, key = self.certificate("srs.example", "ca.example")
        self.dump = subprocess.Popen(
            ["tcpdump", "-i", "lo", "-U", "-s", "0", "-B", "8192", "-w", str(self.pcap),
             f"udp and portrange {MEDIA[0]}-{MEDIA[1]}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        listen = f'["{SERVER}:{self.sip}"]'
        self.log = open(self.folder / "serve.log", "wb")
        self.serve = subprocess.Popen(
            [self.binary, "serve",
             "--set", f"sip.udp={listen}", "--set", f"sip.tcp={listen}",
             "--set", f'sip.tls=["{SERVER}:{self.tls}"]', "--set", f'sip.cert="{cert}"',
             "--set", f'sip.key="{key}"', "--set", f'sip.client_ca="{self.ca}"',
             "--set", "sip.require_client_cert=true",
             "--set", f'media.address="{SERVER}"', "--set", "media.unencrypted=true",
             "--set", f'media.ports="{MEDIA[0]}-{MEDIA[1]}"',
             "--set", f'store.dir="{self.store}"'],
            stdout=subprocess.DEVNULL, stderr=self.log)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            text = (self.folder / "serve.log").read_text(errors="replace")
            if any(line.startswith("ready") for line in text.splitlines()):
                return True
            if self.serve.poll() is not None:
                break
            time.sleep(0.05)
        print((self.folder / "serve.log").read_text(errors="replace"))
        return False

    def stop(self):
        for process in (self.serve, self.dump):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        try:
            self.serve.wait(10)
        except subprocess.TimeoutExpired:
            self.serve.send_signal(signal.SIGTERM)
            self.serve.wait(10)
        self.dump.wait(5)

    def verb(self, *words):
        done = subprocess.run([self.binary, *words, "--store", str(self.store)],
                              capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def recordings(self):
        code, out, err = self.verb("ls", "--json")
        if code not in (0, 1):
            raise RuntimeError(f"ls exited {code}: {err.strip()}")
        return [json.loads(line) for line in out.splitlines() if line.strip()]

    def recording(self, call_id, timeout=20):
        """The ended and durable recording whose Call-ID is or begins with that."""
        end, last = time.monotonic() + timeout, None
        while time.monotonic() < end:
            for recording in self.recordings():
                if recording["call_id"].startswith(call_id):
                    last = recording
                    durable = recording["durable_through"] or ""
                    if recording["state"] == "ended" and durable >= (recording["end"] or "~"):
                        return recording
            time.sleep(0.2)
        return last


def free_port():
    """A port free for UDP and TCP on the server's address."""
    for _ in range(50):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((SERVER, 0))
            try:
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]
            except OSError:
                continue
    raise RuntimeError("no free port")


def run(words, timeout, **more):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, **more)


# -- judging ----------------------------------------------------------------------------------


def judge(bench, name, recording, label, octets, security, suite=None, stream_count=1):
    """What must be true of every recorded call: listing, proof, samples."""
    if not check(name, "listed", recording is not None, "not in ls --json"):
        return None
    show = lambda value: json.dumps(value)[:300]
    check(name, "state is ended", recording["state"] == "ended", recording["state"])
    check(name, "security is right", recording["security"] == security, recording["security"])
    names = {(n["aor"], n["name"]) for p in recording["participants"] for n in p["names"]}
    check(name, "both parties by AoR and name", names == set(PARTIES), names)
    check(name, "as many streams as lines", len(recording["streams"]) == stream_count,
          [s["label"] for s in recording["streams"]])
    stream = next((s for s in recording["streams"] if s["label"] == label), None)
    if not check(name, "label found", stream, [s["label"] for s in recording["streams"]]):
        return None
    check(name, "codec, rate and suite",
          (stream["codec"].split("/")[0], stream["clock_rate"], stream["suite"])
          == ("PCMU", 8000, suite), show([stream["codec"], stream["clock_rate"], stream["suite"]]))
    sender = next((p["participant_id"] for p in recording["participants"]
                   if p["names"][0]["aor"] == PARTIES[0][0]), None)
    check(name, "attributed to its speaker", stream["participants"]["send"] == [sender],
          stream["participants"])
    sources = stream["sources"]
    if check(name, "one source", len(sources) == 1, show(sources)):
        source = sources[0]
        check(name, "nothing lost, nothing unexplained",
              not any(source["lost"].values()) and source["unexplained"] == 0, show(source))
    check(name, "verdict", stream["verdict"] in ("complete", "continuous"), stream["verdict"])
    code, out, err = bench.verb("verify", recording["id"])
    check(name, "verify", code == 0, f"exit {code}: {out[-200:]}{err[-200:]}")
    target = bench.folder / f"export-{name}"
    code, out, err = bench.verb("export", recording["id"], "-o", str(target))
    if check(name, "export", code == 0, f"exit {code}: {err[-300:]}"):
        compare(name, target / f"{label}.wav", octets)
        done = run([bench.binary, "verify", str(target)], 60)
        check(name, "export verifies offline", done.returncode == 0, done.stdout[-300:])
    return stream


def compare(name, path, octets):
    """The exported WAV against the source, sample for sample."""
    if not path.exists():
        check(name, "WAV equals the source", False, f"{path.name} is missing")
        return
    rate, channels, found = audio.read_wav(path)
    expected = audio.samples(octets)
    first = next((at for at, (a, b) in enumerate(zip(found, expected)) if a != b), None)
    check(name, "WAV equals the source", (rate, channels, found) == (8000, 1, expected),
          f"{rate} Hz, {channels} ch, {len(found)} of {len(expected)} samples, "
          f"first difference at {first}")


def judge_answer(name, offered, answered):
    """Our answer to an SDES line: RFC 4568 §5.1.2, design: label echoed, recvonly."""
    check(name, "answer is recvonly with the label",
          (answered["direction"], answered["label"]) == ("recvonly", offered.label), answered["direction"])
    if offered.suite:
        check(name, "answer takes tag and suite of the offer",
              (answered["tag"], answered["suite"]) == ("1", offered.suite), answered["suite"])
        check(name, "answer has the parameters of the offer",
              answered["parameters"] == offered.parameters, answered["parameters"])
        check(name, "answer carries a key of its own",
              answered["key"] and answered["key"].rstrip("=") != offered.key.rstrip("="), "same key")


def judge_capture(bench):
    """Each datagram that the server sent to an SRC left from the announced RTCP port, and opens
    under the key of our answer."""
    packets = list(capture.read(bench.pcap))
    sources = {}
    for name, address, offered, answered in bench.lines:
        sources[(address, offered.port + 1)] = (name, offered, answered)
    seen = {}
    stray = []
    for packet in packets:
        if packet.source != SERVER or packet.target == SERVER:
            continue
        known = sources.get((packet.target, packet.target_port))
        if known is None or packet.source_port != known[2]["rtcp"]:
            stray.append((packet.source_port, packet.target, packet.target_port))
            continue
        seen.setdefault(known[0], []).append((packet, known))
    check("capture", "every RTCP packet leaves from the announced port", not stray, stray[:5])
    for name, address, offered, answered in bench.lines:
        found = seen.get(name, [])
        if not offered.suite or not check(name, "our SRTCP is in the capture", found, "none seen"):
            continue
        clear = "UNENCRYPTED_SRTCP" in offered.parameters
        opener = srtcp.Srtcp(offered.suite, answered["key"], clear)
        opened = [opener.open(packet.payload) for packet, _ in found]
        check(name, "our SRTCP verifies under the answer's key", all(opened),
              f"{sum(1 for packet in opened if not packet)} of {len(opened)} do not")
        whole = [packet for packet in opened if packet]
        check(name, "it is a report with CNAME",
              whole and all(packet[1] in (200, 201) and srtcp.cname(packet) for packet in whole),
              [packet[:12].hex() for packet in whole][:3])
        ssrcs = {ssrc for packet in whole for ssrc in srtcp.report_blocks(packet)}
        sent = {int.from_bytes(p.payload[8:12], "big") for p in packets
                if p.source == address and p.target_port == answered["port"]}
        check(name, "it reports on the SSRC that was sent", ssrcs and ssrcs <= sent, (ssrcs, sent))


# -- scenarios --------------------------------------------------------------------------------


def sipp(bench, name, transport, address, port):
    octets = audio.source(330, SECONDS)
    pcap = bench.folder / f"{name}.pcap"
    audio.write_pcap(pcap, octets)
    scenario = bench.folder / f"{name}.xml"
    text = (HERE / "siprec.xml").read_text()
    text = text.replace("@PCAP@", str(pcap)).replace("@MS@", str(SECONDS * 1000 + 700))
    scenario.write_text(text)
    done = run(["sipp", f"{SERVER}:{bench.sip}", "-sf", str(scenario), "-i", address, "-mi", address,
                "-mp", str(port), "-t",
                {"udp": "u1", "tcp": "t1"}[transport], "-m", "1", "-nostdin", "-timeout", "40s",
                "-timeout_error", "-cid_str", f"{name}-%u@peers", "-trace_err", "-error_file",
                str(bench.folder / f"{name}.err"), "-trace_msg", "-message_file",
                str(bench.folder / f"{name}.msg")], 60, cwd=bench.folder)
    answer = sipp_answer(bench.folder / f"{name}.msg")
    for place, media in enumerate(answer.media() if answer else []):
        bench.lines.append((name, address, Line(media["label"], port + 2 * place), media))
    errors = bench.folder / f"{name}.err"
    detail = errors.read_text(errors="replace")[-600:] if errors.exists() else done.stdout[-600:]
    if not check(name, "INVITE and BYE answered 200", done.returncode == 0, detail):
        return
    judge(bench, name, bench.recording(name), "desk-1", octets,
          {"signalling": transport, "media": "rtp"}, stream_count=2)


def sipp_answer(path):
    """The 200 to INVITE in SIPp's message log."""
    text = path.read_text(errors="replace").replace("\r\n", "\n") if path.exists() else ""
    for message in text.split("SIP/2.0 200")[1:]:
        head, _, body = message.partition("\n\n")
        if "m=audio" in body.split("-----")[0]:
            return Answer("SIP/2.0 200" + head.replace("\n", "\r\n") + "\r\n\r\n" + body.split("-----")[0])
    return None


def call(bench, name, address, port, suite, key, mki=None, parameters=""):
    """INVITE of one line with this key; (Src, Line, answered line) or None."""
    src = Src((SERVER, bench.sip), address)
    line = Line("1", port, suite, base64.b64encode(key).decode() if key else None, mki, parameters)
    answer = src.invite([line], PARTIES)
    media = answer.media()
    accepted = answer.status == 200 and len(media) == 1 and media[0]["port"] != 0
    if not check(name, "INVITE accepted", accepted, answer.reason + " " + answer.get("Warning")):
        return None
    check(name, "+sip.srs in Contact", "+sip.srs" in answer.get("Contact"), answer.get("Contact"))
    judge_answer(name, line, media[0])
    bench.lines.append((name, address, line, media[0]))
    return src, line, media[0]


def end(bench, name, src, octets, suite, quirk=True, media="sdes"):
    time.sleep(0.3)
    answer = src.bye()
    check(name, "BYE answered 200", answer.status == 200, answer.reason)
    recording = bench.recording(src.call_id)
    stream = judge(bench, name, recording, "1", octets, {"signalling": "udp", "media": media}, suite)
    if recording and quirk:
        check(name, "keys over clear signalling are noted", recording["quirks"], "no quirk")
    return stream


FFMPEG = {"AES_CM_128_HMAC_SHA1_80": "AES_CM_128_HMAC_SHA1_80",
          "AES_CM_128_HMAC_SHA1_32": "SRTP_AES128_CM_HMAC_SHA1_32"}


def ffmpeg_words(wav, suite, line, target, target_port, rtcp_port, address):
    return ["ffmpeg", "-hide_banner", "-loglevel", "error", "-re", "-i", str(wav), "-c:a", "pcm_mulaw",
            "-f", "rtp", "-srtp_out_suite", FFMPEG[suite], "-srtp_out_params", line.key,
            f"srtp://{target}:{target_port}?rtcpport={rtcp_port}&localaddr={address}"
            f"&localrtpport={line.port}&localrtcpport={line.port + 1}&pkt_size=186"]


def ffmpeg(bench, name, suite, address, port):
    octets = audio.source(440, SECONDS)
    wav = bench.folder / f"{name}.wav"
    audio.write_wav(wav, octets)
    up = call(bench, name, address, port, suite, os.urandom(30))
    if not up:
        return
    src, line, media = up
    done = run(ffmpeg_words(wav, suite, line, SERVER, media["port"], media["rtcp"], address), 60)
    check(name, "ffmpeg sent it", done.returncode == 0, done.stdout[-300:])
    end(bench, name, src, octets, suite)


def gstreamer(bench, name, suite, cipher, address, port, mki=None, parameters=""):
    """Sends by libsrtp; each packet with `mki`, if given; in the clear where `parameters` say so."""
    octets = audio.source(550, SECONDS)
    wav = bench.folder / f"{name}.wav"
    audio.write_wav(wav, octets)
    key = os.urandom(sum(srtcp.SIZES[suite]))
    up = call(bench, name, address, port, suite, key, mki, parameters)
    if not up:
        return
    src, line, media = up
    auth = rtcp_auth = "null" if cipher.endswith("gcm") else "hmac-sha1-80"
    if suite.endswith("_32"):
        auth = "hmac-sha1-32"
    rtp = "null" if "UNENCRYPTED_SRTP" in parameters.split() else cipher
    rtcp = "null" if "UNENCRYPTED_SRTCP" in parameters.split() else cipher
    # Takes our reports, as an SRC would; the capture judges them.
    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind((address, port + 1))
        done = run(["gst-launch-1.0", "-q", "filesrc", f"location={wav}", "!", "wavparse", "!",
                    "audioconvert", "!", "mulawenc", "!", "rtppcmupay", "min-ptime=20000000",
                    "max-ptime=20000000", "!", "srtpenc", f"key={key.hex()}", f"rtp-cipher={rtp}",
                    f"rtp-auth={auth}", f"rtcp-cipher={rtcp}", f"rtcp-auth={rtcp_auth}",
                    *([f"mki={mki.hex()}"] if mki else []), "!", "udpsink",
                    f"host={SERVER}", f"port={media['port']}", f"bind-address={address}",
                    f"bind-port={port}"], 60)
    check(name, "GStreamer sent it", done.returncode == 0, done.stdout[-300:])
    media = "rtp" if "UNENCRYPTED_SRTP" in parameters.split() else "sdes"
    end(bench, name, src, octets, f"{suite} {parameters}".strip(), media=media)


def tamper(bench, name, address, port):
    """ffmpeg through a relay that adds a copy with a flipped bit before each 25th packet, and sends
    each 40th packet twice."""
    suite = "AES_CM_128_HMAC_SHA1_80"
    octets = audio.source(260, SECONDS)
    wav = bench.folder / f"{name}.wav"
    audio.write_wav(wav, octets)
    up = call(bench, name, address, port, suite, os.urandom(30))
    if not up:
        return
    src, line, media = up
    count = dict(sent=0, flipped=0, replayed=0)
    stop = threading.Event()
    inlet = socket.socket(type=socket.SOCK_DGRAM)
    inlet.bind((SERVER, 0))
    outlet = socket.socket(type=socket.SOCK_DGRAM)
    outlet.bind((address, port))
    to = (SERVER, media["port"])

    def relay():
        while not stop.is_set():
            if not select.select([inlet], [], [], 0.1)[0]:
                continue
            packet = inlet.recv(2048)
            if 64 <= packet[1] & 0x7F < 96:  # RTCP stays away: the relay has no RTCP port
                continue
            count["sent"] += 1
            if count["sent"] % 25 == 0:
                broken = bytearray(packet)
                broken[12 + count["flipped"] % (len(packet) - 12)] ^= 1 << count["flipped"] % 8
                outlet.sendto(broken, to)
                count["flipped"] += 1
            outlet.sendto(packet, to)
            if count["sent"] % 40 == 0:
                outlet.sendto(packet, to)
                count["replayed"] += 1

    thread = threading.Thread(target=relay)
    thread.start()
    inward = Line(line.label, 0, suite, line.key)
    words = ffmpeg_words(wav, suite, inward, SERVER, inlet.getsockname()[1], 9, SERVER)
    words[-1] = words[-1].split("?")[0] + "?pkt_size=186"
    done = run(words, 60)
    time.sleep(0.5)
    stop.set()
    thread.join()
    check(name, "ffmpeg sent it", done.returncode == 0 and count["flipped"] > 10, done.stdout[-300:])
    stream = end(bench, name, src, octets, suite)
    if stream:
        # The counters of a stream are written when it closes, which is after the end of the RS.
        until = time.monotonic() + 5
        while not stream.get("drops") and time.monotonic() < until:
            time.sleep(0.1)
            stream = bench.recording(src.call_id)["streams"][0]
        drops = stream.get("drops", {})
        check(name, "flipped packets dropped and counted",
              drops.get("auth_failed") == count["flipped"], f"{drops} against {count}")
        check(name, "replayed packets dropped and counted",
              drops.get("replayed") == count["replayed"]
              and stream["sources"][0]["duplicates"] == count["replayed"], f"{drops} against {count}")
        check(name, "the rest is on disk", stream["sources"][0]["packets"] == count["sent"], count)


def hold(bench, name, address, port):
    """Plain RTP of our own over TCP: two seconds, hold, resume, two seconds more."""
    octets = audio.source(300, 4)
    src = Src((SERVER, bench.sip), address, "tcp")
    line = Line("../../x", port)
    answer = src.invite([line], PARTIES)
    media = answer.media()
    if not check(name, "INVITE over TCP accepted", answer.status == 200 and media, answer.reason):
        return
    bench.lines.append((name, address, line, media[0]))
    packets = list(audio.rtp_packets(octets, 0x686F6C64, 500, 0))
    with socket.socket(type=socket.SOCK_DGRAM) as rtp, socket.socket(type=socket.SOCK_DGRAM) as sink:
        rtp.bind((address, port))
        sink.bind((address, port + 1))

        def send(some):
            for packet in some:
                rtp.sendto(packet, (SERVER, media[0]["port"]))
                time.sleep(0.02)

        send(packets[:100])
        answer = src.invite([line], PARTIES, "inactive")
        check(name, "hold is answered inactive",
              answer.status == 200 and answer.media()[0]["direction"] == "inactive", answer.reason)
        time.sleep(1)
        answer = src.invite([line], PARTIES)
        check(name, "resume is answered recvonly",
              answer.status == 200 and answer.media()[0]["direction"] == "recvonly", answer.reason)
        send(packets[100:])
    time.sleep(0.3)
    answer = src.bye()
    check(name, "BYE answered 200", answer.status == 200, answer.reason)
    recording = bench.recording(src.call_id)
    if not check(name, "listed", recording, "not in ls --json"):
        return
    stream = recording["streams"][0]
    check(name, "the label is kept as it came", stream["label"] == "../../x", stream["label"])
    check(name, "one pause, by the SRC",
          [pause["cause"] for pause in stream["pauses"]] == ["src"], stream["pauses"])
    check(name, "all packets stored", [s["packets"] for s in stream["sources"]] == [200],
          stream["sources"])
    target = bench.folder / "deep" / "er" / "export-hold"
    target.parent.mkdir(parents=True)
    code, _, err = bench.verb("export", recording["id"], "-o", str(target))
    if check(name, "export", code == 0, f"exit {code}: {err[-300:]}"):
        outside = [str(path) for path in (bench.folder / "deep").rglob("*")
                   if path.is_file() and target not in path.parents]
        check(name, "the label never became a path", not outside, outside)
        check(name, "the file name keeps only safe characters",
              (target / "%2E.%2F..%2Fx.wav").exists() or any(target.glob("*x.wav")),
              sorted(path.name for path in target.iterdir()))


def kamailio(bench, name, address, port):
    """Through Kamailio: UDP to it, mutual TLS from it to the SRS, every request by the route set."""
    cert, key = bench.certificate("proxy.example", "ca.example")
    ports = free_port(), free_port()
    proxy = Kamailio(bench.folder / "kamailio", SERVER, ports, (SERVER, bench.tls), cert, key, bench.ca)
    try:
        octets = audio.source(280, 4)
        src = Src((SERVER, ports[0]), address)
        line = Line("1", port)
        answer = src.invite([line], PARTIES)
        media = answer.media()
        if not check(name, "INVITE accepted", answer.status == 200 and media, answer.reason):
            return
        check(name, "the route set names the proxy on both sides", len(src.route) == 2, src.route)
        bench.lines.append((name, address, line, media[0]))
        packets = list(audio.rtp_packets(octets, 0x6B616D61, 700, 0))
        with socket.socket(type=socket.SOCK_DGRAM) as rtp, socket.socket(type=socket.SOCK_DGRAM) as sink:
            rtp.bind((address, port))
            sink.bind((address, port + 1))
            for place, packet in enumerate(packets):
                if place == 100:
                    again = src.request("INVITE", ["Content-Type: application/sdp"],
                                        src.offer([line], "sendonly"))
                    src.ack(None)
                    check(name, "re-INVITE accepted", again.status == 200, again.reason)
                rtp.sendto(packet, (SERVER, media[0]["port"]))
                time.sleep(0.02)
        time.sleep(0.3)
        answer = src.bye()
        check(name, "BYE answered 200", answer.status == 200, answer.reason)
        recording = bench.recording(src.call_id)
        judge(bench, name, recording, "1", octets, {"signalling": "mtls", "media": "rtp"})
        if recording:
            check(name, "it is known by the proxy's certificate",
                  recording["src"]["identity"] == "proxy.example", recording["src"])

        src = Src((SERVER, ports[0]), address)
        answer = src.invite([Line("1", port + 2)], PARTIES)
        check(name, "a second call is accepted", answer.status == 200, answer.reason)
        own = [r for r in bench.recordings() if r["call_id"] == src.call_id]
        if check(name, "it is live", [r["state"] for r in own] == ["live"], own):
            code, _, err = bench.verb("rs", "stop", own[0]["id"])
            check(name, "rs stop", code == 0, err)
            check(name, "our BYE comes back by the route set", src.asked("BYE", 5), "no BYE")
    finally:
        proxy.stop()


def refusals(bench, name, address):
    """What is no SIPREC, or has nothing to record, is told so."""
    src = Src((SERVER, bench.sip), address)
    answer = src.options()
    check(name, "OPTIONS is answered 200 with both metadata types",
          answer.status == 200 and "rs-metadata+xml" in answer.get("Accept"), answer.reason)

    src = Src((SERVER, bench.sip), address)
    body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" \
           "m=audio 4000 RTP/AVP 0\r\n"
    answer = src.request("INVITE", ["Content-Type: application/sdp"], body)
    src.ack(src.branch)
    check(name, "a plain call gets 421 with Require: siprec",
          answer.status == 421 and "siprec" in answer.get("Require"), answer.reason)

    src = Src((SERVER, bench.sip), address)
    body = body.replace("m=audio 4000 RTP/AVP 0", "m=image 4000 udptl t38\r\na=label:1")
    answer = src.request("INVITE", ["Require: siprec", "Content-Type: application/sdp"], body)
    src.ack(src.branch)
    check(name, "nothing to record gets 488 with Warning",
          answer.status == 488 and answer.get("Warning"), answer.reason)

    src = Src((SERVER, bench.sip), address)
    answer = src.request("INVITE", ["Require: siprec, no-such-thing", "Content-Type: application/sdp"],
                         body)
    src.ack(src.branch)
    check(name, "an unknown option tag gets 420 with Unsupported",
          answer.status == 420 and "no-such-thing" in answer.get("Unsupported"), answer.reason)


def openssl(bench, name):
    """`openssl s_client` as a TLS peer of another make: OPTIONS in both versions, and refusals."""
    desk = bench.certificate("desk.example", "ca.example")
    stranger = bench.certificate("stranger.example")
    options = (f"OPTIONS sip:srs@{SERVER} SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.20;branch=z9hG4bKo\r\n"
               f"From: <sip:desk@desk.example>;tag=1\r\nTo: <sip:srs@{SERVER}>\r\n"
               "Call-ID: openssl\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
               "Content-Length: 0\r\n\r\n").encode()

    def shake(version, own):
        words = ["openssl", "s_client", version, "-connect", f"{SERVER}:{bench.tls}", "-CAfile",
                 bench.ca, "-verify_return_error", "-verify_hostname", "srs.example", "-quiet"]
        words += ["-cert", own[0], "-key", own[1]] if own else []
        peer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
        peer.stdin.write(options)
        peer.stdin.flush()
        time.sleep(1.5)
        peer.kill()
        return peer.communicate()[0].decode(errors="replace")

    for version in ("-tls1_2", "-tls1_3"):
        said = shake(version, desk)
        check(name, f"{version[1:]}: 200 over TLS",
              "SIP/2.0 200" in said and "transport=tls" in said, said[-300:])
    for own, claim in ((None, "no certificate"), (stranger, "another CA's")):
        said = shake("-tls1_3", own)
        check(name, f"refused: {claim}", "SIP/2.0" not in said and "alert" in said, said[-300:])
    said = shake("-tls1_1", desk)
    check(name, "refused: TLS 1.1", "SIP/2.0" not in said, said[-300:])


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    only = sys.argv[2:]
    folder = tempfile.mkdtemp(prefix="floortape-peers-")
    bench = Bench(binary, folder)
    scenarios = {
        "sipp-udp": lambda n: sipp(bench, n, "udp", "127.0.0.11", 41000),
        "sipp-tcp": lambda n: sipp(bench, n, "tcp", "127.0.0.12", 41100),
        "ffmpeg-80": lambda n: ffmpeg(bench, n, "AES_CM_128_HMAC_SHA1_80", "127.0.0.13", 41200),
        "ffmpeg-32": lambda n: ffmpeg(bench, n, "AES_CM_128_HMAC_SHA1_32", "127.0.0.14", 41300),
        "gst-gcm-128": lambda n: gstreamer(bench, n, "AEAD_AES_128_GCM", "aes-128-gcm", "127.0.0.15", 41400),
        "gst-gcm-256": lambda n: gstreamer(bench, n, "AEAD_AES_256_GCM", "aes-256-gcm", "127.0.0.16", 41500),
        "gst-256-80": lambda n: gstreamer(bench, n, "AES_256_CM_HMAC_SHA1_80", "aes-256-icm", "127.0.0.23", 42100),
        "gst-256-32": lambda n: gstreamer(bench, n, "AES_256_CM_HMAC_SHA1_32", "aes-256-icm", "127.0.0.24", 42200),
        "gst-draft-80": lambda n: gstreamer(bench, n, "AES_CM_256_HMAC_SHA1_80", "aes-256-icm", "127.0.0.25", 42300),
        "gst-clear": lambda n: gstreamer(bench, n, "AES_CM_128_HMAC_SHA1_80", "aes-128-icm", "127.0.0.26", 42400,
                                         parameters="UNENCRYPTED_SRTP"),
        "gst-clear-rtcp": lambda n: gstreamer(bench, n, "AES_CM_128_HMAC_SHA1_80", "aes-128-icm", "127.0.0.27",
                                              42500, parameters="UNENCRYPTED_SRTCP"),
        "gst-mki-80": lambda n: gstreamer(bench, n, "AES_CM_128_HMAC_SHA1_80", "aes-128-icm", "127.0.0.20",
                                          41800, bytes([0, 0, 3, 1])),
        "gst-mki-gcm": lambda n: gstreamer(bench, n, "AEAD_AES_256_GCM", "aes-256-gcm", "127.0.0.21",
                                           41900, bytes([200])),
        "tamper": lambda n: tamper(bench, n, "127.0.0.17", 41600),
        "hold": lambda n: hold(bench, n, "127.0.0.18", 41700),
        "openssl": lambda n: openssl(bench, n),
        "kamailio": lambda n: kamailio(bench, n, "127.0.0.22", 42000),
        "kinds": lambda n: kinds.scenario(bench, check, n, "127.0.0.28", 42600, PARTIES, SERVER),
        "refusals": lambda n: refusals(bench, n, "127.0.0.19"),
    }

    def guarded(name):
        try:
            scenarios[name](name)
        except Exception as error:  # a scenario that breaks is a failed check, not the end
            where = traceback.extract_tb(error.__traceback__)[-1]
            check(name, "runs to its end", False, f"{error!r} at {where.filename}:{where.lineno}")

    try:
        if not check("serve", "ready within 15 s", bench.start(), "see above"):
            return summary(bench)
        threads = [threading.Thread(target=guarded, args=(name,))
                   for name in scenarios if not only or name in only]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.5)
        bench.stop()
        try:
            judge_capture(bench)
        except Exception as error:
            check("capture", "readable", False, repr(error))
        code, out, err = bench.verb("verify", "--all")
        check("store", "verify --all", code == 0, f"exit {code}: {out[-300:]}{err[-300:]}")
    finally:
        if getattr(bench, "serve", None) and bench.serve.poll() is None:
            bench.stop()
    return summary(bench)


def summary(bench):
    print()
    print(f"{'scenario':<16} {'passed':>6} {'failed':>6}")
    for name in dict.fromkeys(result[0] for result in results):
        mine = [result[2] for result in results if result[0] == name]
        print(f"{name:<16} {sum(mine):>6} {len(mine) - sum(mine):>6}")
    failed = [result for result in results if not result[2]]
    for scenario, claim, _, detail in failed:
        print(f"FAIL {scenario}: {claim}: {detail}")
    if failed:
        print(f"kept for a look: {bench.folder}")
    else:
        shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
