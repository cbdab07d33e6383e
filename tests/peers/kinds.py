"""What else than G.711 a client sends: Opus, G.722 and H.264 of ffmpeg, digits, real-time text with losses."""

import calendar
import json
import math
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time

import audio
from siprec import Line, Src

SECONDS = 8
TYPED = ["Buy ", "500 ", "", "at 1", "2\b3.2", "5\r\nS\u00fcd", "werte\u2028", "ok", "", "", ""]
READ = "Buy 500 at 13.25\nS\u00fcdwerte\nok"
DIGITS = "15#"
PACKED = "28"  # in one packet behind the last, which is pressed for 50 ms each


class Kind(Line):
    """An m-line of any kind: its media, its formats as (payload type, rtpmap), and more attributes."""

    def __init__(self, label, port, media, formats, *more):
        super().__init__(label, port)
        self.media, self.formats, self.more = media, formats, more

    def sdp(self, direction):
        types = " ".join(str(number) for number, _ in self.formats)
        return [f"m={self.media} {self.port} RTP/AVP {types}",
                *[f"a=rtpmap:{number} {name}" for number, name in self.formats],
                *self.more, f"a=label:{self.label}", f"a={direction}"]


def rtp(payload_type, seq, timestamp, ssrc, payload, marker=False):
    return struct.pack(">BBHII", 0x80, payload_type | (0x80 if marker else 0), seq & 0xFFFF,
                       timestamp & 0xFFFFFFFF, ssrc) + payload


def send_text(out):
    """RFC 4103: each block with the two before it, every 300 ms; each third packet is lost."""
    for number in range(len(TYPED)):
        blocks = [TYPED[number - back].encode() if number >= back else b"" for back in (2, 1, 0)]
        heads = b"".join(struct.pack(">I", (0x80 | 99) << 24 | 300 * back << 10 | len(block))
                         for back, block in zip((2, 1), blocks))
        if number % 3 != 1:
            out.send(rtp(98, 500 + number, 300 * number, 0x7E87, heads + bytes([99]) + b"".join(blocks)))
        time.sleep(0.3)


def send_digits(out):
    """RFC 4733: 100 ms each, the end three times, a second apart, beside silence in G.711."""
    sent, seq, begin = [], 0, time.monotonic()
    for number, digit in enumerate(DIGITS):
        start = 8000 * (number + 1)
        for frame in range(50 * number, 50 * (number + 1)):
            time.sleep(max(0, begin + frame * 0.02 - time.monotonic()))
            out.send(rtp(0, seq, 160 * frame, 0xD161, b"\xff" * 160))
            seq += 1
        sent.append(time.time())
        code = "0123456789*#ABCD".index(digit)
        for update in [1, 2, 3, 4, 5, 5, 5]:
            last = update == 5
            out.send(rtp(101, seq, start, 0xD161, struct.pack(">BBH", code, 0x8A if last else 0x0A, 160 * update),
                         marker=update == 1))
            seq += 1
    start = 8000 * (len(DIGITS) + 1)
    code = b"".join(struct.pack(">BBH", int(digit), 0x8A, 400) for digit in PACKED)
    time.sleep(0.3)
    for _ in range(3):
        out.send(rtp(101, seq, start, 0xD161, code))
        seq += 1
        time.sleep(0.02)
    # Sound behind them, or the file would end before.
    for frame in range(50 * (len(DIGITS) + 1) + 10, 50 * (len(DIGITS) + 2)):
        time.sleep(0.02)
        out.send(rtp(0, seq, 160 * frame, 0xD161, b"\xff" * 160))
        seq += 1
    return sent


def relay(address, target, skip):
    """A port at `address` whose datagrams go on to `target`, the first ones left out."""
    inlet = socket.socket(type=socket.SOCK_DGRAM)
    inlet.bind((address, 0))
    inlet.settimeout(0.2)
    outlet = socket.socket(type=socket.SOCK_DGRAM)
    outlet.bind((address, 0))
    ended = threading.Event()

    def run():
        count = 0
        while not ended.is_set():
            try:
                data = inlet.recv(65535)
            except socket.timeout:
                continue
            count += 1
            if count > skip:
                outlet.sendto(data, target)

    thread = threading.Thread(target=run)
    thread.start()
    return inlet.getsockname()[1], lambda: (ended.set(), thread.join())


def likeness(found, step, expected):
    """The best correlation of a second out of the middle with what was sent, at any shift up to 0.25 s."""
    begin, length = 3 * audio.RATE, audio.RATE // 2
    sent = expected[begin:begin + length]
    best = 0.0
    for late in range(-400, 2000, 1):
        heard = found[(begin + late) * step:(begin + late + length) * step:step]
        if len(heard) < length:
            continue
        # Coarse first: most shifts are far off.
        if late % 4 and best < 0.5:
            continue
        cross = sum(a * b for a, b in zip(sent[::5], heard[::5]))
        power = sum(a * a for a in sent[::5]) * sum(b * b for b in heard[::5])
        if power:
            best = max(best, cross / power ** 0.5)
    return best


def scenario(bench, check, name, address, port, parties, server):
    lines = [
        Kind("opus", port, "audio", [(96, "opus/48000/2")]),
        Kind("g722", port + 2, "audio", [(9, "G722/8000")]),
        Kind("video", port + 4, "video", [(97, "H264/90000")], "a=fmtp:97 packetization-mode=1"),
        Kind("text", port + 6, "text", [(98, "red/1000"), (99, "t140/1000")], "a=fmtp:98 99/99/99"),
        Kind("digits", port + 8, "audio", [(0, "PCMU/8000"), (101, "telephone-event/8000")],
             "a=fmtp:101 0-15"),
        Kind("amr", port + 10, "audio", [(102, "AMR/8000")], "a=fmtp:102 octet-align=1"),
    ]
    src = Src((server, bench.sip), address)
    answer = src.invite(lines, parties)
    media = answer.media()
    accepted = answer.status == 200 and len(media) == len(lines) and all(one["port"] for one in media)
    if not check(name, "INVITE of six kinds accepted", accepted, answer.reason + " " + answer.body):
        return
    bench.lines += [(name, address, line, one) for line, one in zip(lines, media)]
    octets = audio.source(440, SECONDS)
    wav = bench.folder / f"{name}.wav"
    audio.write_wav(wav, octets)
    quiet = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-re"]

    def target(place, to=None):
        to = to or (server, media[place]["port"])
        local = f"localaddr={address}&localrtpport={lines[place].port}&localrtcpport={lines[place].port + 1}"
        return f"rtp://{to[0]}:{to[1]}?rtcpport={to[1] + 1}&{local}"

    inlet, ended = relay(address, (server, media[2]["port"]), 20)
    senders = [
        subprocess.Popen([*quiet, "-i", str(wav), "-c:a", "libopus", "-application", "voip", "-b:a", "32k",
                          "-payload_type", "96", "-f", "rtp", target(0)], stdout=subprocess.DEVNULL),
        subprocess.Popen([*quiet, "-i", str(wav), "-ar", "16000", "-c:a", "g722", "-f", "rtp", target(1)],
                         stdout=subprocess.DEVNULL),
        # Joined in the middle of a group of pictures: what can be decoded begins a second later.
        subprocess.Popen([*quiet, "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25", "-t", str(SECONDS),
                          "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p",
                          "-bsf:v", "dump_extra=freq=keyframe", "-payload_type", "97", "-f", "rtp",
                          f"rtp://{address}:{inlet}?pkt_size=1200"], stdout=subprocess.DEVNULL),
        subprocess.Popen(["gst-launch-1.0", "-q", "filesrc", f"location={wav}", "!", "wavparse", "!", "audioconvert", "!",
                          "audioresample", "!", "amrnbenc", "!", "rtpamrpay", "pt=102", "!", "udpsink", f"host={server}",
                          f"port={media[5]['port']}", f"bind-address={address}", f"bind-port={lines[5].port}"],
                         stdout=subprocess.DEVNULL),
    ]
    outs = []
    for place in (3, 4):
        out = socket.socket(type=socket.SOCK_DGRAM)
        out.bind((address, lines[place].port))
        out.connect((server, media[place]["port"]))
        outs.append(out)
    typist = threading.Thread(target=send_text, args=(outs[0],))
    typist.start()
    dialled = send_digits(outs[1])
    typist.join()
    for process in senders:
        process.wait(60)
    check(name, "ffmpeg and GStreamer sent all", all(process.returncode == 0 for process in senders),
          [process.returncode for process in senders])
    time.sleep(0.5)
    ended()
    check(name, "BYE answered 200", src.bye().status == 200)
    recording = bench.recording(src.call_id)
    if not check(name, "listed", recording is not None):
        return
    out = bench.folder / f"export-{name}"
    code, _, err = bench.verb("export", recording["id"], "-o", str(out))
    if not check(name, "export", code == 0, err[-300:]):
        return
    judge(check, name, recording, out, audio.samples(octets), dialled)
    tones(bench, check, name, recording)
    converted(check, name, out, audio.samples(octets))
    done = subprocess.run([bench.binary, "verify", str(out)], capture_output=True, text=True)
    check(name, "export verifies offline", done.returncode == 0, done.stdout[-300:])
    tshark(bench, check, name, recording)


def tones(bench, check, name, recording):
    """Digits are heard where they were dialled, as long as they were, and nothing else is."""
    out = bench.folder / f"tones-{name}"
    code, _, err = bench.verb("export", recording["id"], "-o", str(out), "--stream", "digits", "--tones")
    if not check(name, "export with tones", code == 0, err[-300:]):
        return
    rate, _, found = audio.read_wav(out / "digits.wav")
    expected = [(rate * (number + 1), rate // 10, digit) for number, digit in enumerate(DIGITS)]
    begin = rate * (len(DIGITS) + 1)
    expected += [(begin + rate * number // 20, rate // 20, digit) for number, digit in enumerate(PACKED)]
    wrong, rest = [], list(found)
    for at, length, digit in expected:
        part = found[at:at + length]
        loud = sorted(FREQUENCIES, key=lambda hz: -power(part, hz, rate))[:2]
        if sorted(loud) != sorted(PAIR[digit]) or not part:
            wrong.append((digit, at, loud))
        rest[at:at + length] = [0] * len(part)
    check(name, "tones are those of the digits", not wrong, wrong)
    check(name, "there is no tone elsewhere", max(map(abs, rest)) < 10, max(map(abs, rest)))


def converted(check, name, out, expected):
    """Audio without a decoder here is heard by the commands that the note beside it names."""
    note = out / "amr.pcapng.txt"
    if not check(name, "a note beside AMR", note.exists() and not (out / "amr.wav").exists(),
                 sorted(one.name for one in out.iterdir())):
        return
    beside = out.parent / f"converted-{name}"
    beside.mkdir()
    (beside / "amr.pcapng").write_bytes((out / "amr.pcapng").read_bytes())
    commands = re.findall(r"^  (?:editcap|gst-launch-1.0) (?:.*\\\n)*.*$", note.read_text(), re.MULTILINE)
    done = subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=beside, capture_output=True, text=True)
    if not check(name, "its commands run", done.returncode == 0 and len(commands) == 2, (commands, done.stderr[-300:])):
        return
    rate, channels, found = audio.read_wav(beside / "amr.wav")
    alike = likeness(found, rate // audio.RATE, expected)
    check(name, "AMR sounds as it was sent", (rate, channels) == (8000, 1) and alike > 0.9, (rate, channels, alike))


# ITU-T Q.23.
ROWS = {697: "123A", 770: "456B", 852: "789C", 941: "*0#D"}
COLUMNS = (1209, 1336, 1477, 1633)
FREQUENCIES = [*ROWS, *COLUMNS]
PAIR = {digit: (low, COLUMNS[place]) for low, row in ROWS.items() for place, digit in enumerate(row)}


def power(samples, hz, rate):
    turns = [2 * math.pi * hz * number / rate for number in range(len(samples))]
    return math.hypot(sum(one * math.cos(turn) for one, turn in zip(samples, turns)),
                      sum(one * math.sin(turn) for one, turn in zip(samples, turns)))


def tshark(bench, check, name, recording):
    """What Wireshark counts in our pcapng is what our ledger says: streams, packets, losses, jitter."""
    out = bench.folder / f"packets-{name}"
    code, _, err = bench.verb("export", recording["id"], "-o", str(out), "--format", "pcapng")
    if not check(name, "export as pcapng", code == 0, err[-300:]):
        return
    for stream in recording["streams"]:
        # Nobody tells it which ports have RTP, nor what the payload types are: the file does.
        done = subprocess.run(["tshark", "-r", str(out / f"{stream['label']}.pcapng"), "-q", "-z", "rtp,streams"],
                              capture_output=True, text=True)
        found, uneven = {}, {}
        for row in done.stdout.splitlines():
            match = re.search(r"0x([0-9A-Fa-f]{8})\s.*?\s(\d+)\s+(-?\d+) \(.*?\)((?:\s+-?[\d.]+){6})", row)
            if match:
                found[int(match[1], 16)] = (int(match[2]), int(match[3]))
                # Lowest, mean and highest time between packets, then the same of jitter, in ms.
                uneven[int(match[1], 16)] = [float(one) for one in match[4].split()][4:]
        ours = {one["ssrc"]: (one["packets"], sum(one["lost"].values()) + one["unexplained"])
                for one in stream["sources"]}
        check(name, f"tshark counts as we do: {stream['label']}", found == ours and found, (found, ours))
        # Telephone events, of which each has the time of its begin, are no jitter to us. tshark finds none of Opus, and
        # passes over packets of a picture that have its time in common.
        if not stream["dtmf"] and stream["codec"].lower() not in ("opus", "h264"):
            ours = {one["ssrc"]: [one["jitter"][key] / 1000 for key in ("mean_us", "max_us")]
                    for one in stream["sources"] if one["jitter"]}
            apart = [abs(mine - theirs) for ssrc in ours for mine, theirs in zip(ours[ssrc], uneven.get(ssrc, [9e9] * 2))]
            check(name, f"tshark finds the same jitter: {stream['label']}", apart and max(apart) < 0.05, (uneven, ours))


def judge(check, name, recording, out, expected, dialled):
    for label, rate in (("opus", 48000), ("g722", 16000)):
        path = out / f"{label}.wav"
        if not check(name, f"{label} is a WAV", path.exists(), sorted(one.name for one in out.iterdir())):
            continue
        found_rate, channels, found = audio.read_wav(path)
        check(name, f"{label} at its own rate, mono", (found_rate, channels) == (rate, 1), (found_rate, channels))
        alike = likeness(found, rate // audio.RATE, expected)
        check(name, f"{label} sounds as it was sent", alike > 0.95, alike)
        seconds = len(found) / found_rate
        check(name, f"{label} is as long as it was", abs(seconds - SECONDS) < 0.1, seconds)
    streams = {one["label"]: one for one in recording["streams"]}
    text = streams["text"]["text"]
    check(name, "text is whole though a third is lost", text == READ, repr(text))
    path = out / "text.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    check(name, "text.txt has its lines with times", [one.split(" ", 1)[1] for one in lines] == READ.split("\n"), lines)
    dtmf = streams["digits"]["dtmf"]
    check(name, "digits are right", "".join(one["digit"] for one in dtmf) == DIGITS + PACKED, json.dumps(dtmf))
    seconds = [wall(one["at"]) for one in dtmf]
    apart = [abs(one - other) for one, other in zip(seconds, dialled)]
    check(name, "digits have their times", len(apart) == len(DIGITS) and max(apart) < 0.1, apart)
    seconds = seconds[len(DIGITS):]
    check(name, "digits in one packet follow each other", [round(one - seconds[0], 3) for one in seconds] == [0, 0.05],
          seconds)
    check(name, "digits are as long as told", [one["ms"] for one in dtmf] == [100] * len(DIGITS) + [50] * len(PACKED),
          json.dumps(dtmf))
    video = out / "video.h264"
    if check(name, "video is H.264", video.exists(), sorted(one.name for one in out.iterdir())):
        done = subprocess.run(["ffmpeg", "-hide_banner", "-loglevel", "warning", "-i", str(video), "-f", "null", "-"],
                              capture_output=True, text=True)
        said = [one for one in done.stderr.splitlines() if "imestamps" not in one and "pts" not in one]
        check(name, "ffmpeg decodes it from its first picture on", done.returncode == 0 and not said, said[:4])
        done = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries",
                               "stream=nb_read_frames", "-of", "csv=p=0", str(video)], capture_output=True, text=True)
        count = int(done.stdout.strip().split(",")[0] or 0)
        # The first group of pictures was joined in its middle.
        check(name, "all pictures from the first key frame on", 25 * (SECONDS - 1) <= count <= 25 * SECONDS, count)
        times = pathlib.Path(f"{video}.times.txt")
        check(name, "a time for each picture",
              times.exists() and sum(not one.startswith("#") for one in times.read_text().splitlines()) == count)


def wall(text):
    """Seconds since 1970 of an RFC 3339 time in UTC."""
    whole, _, part = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (part or "0"))
