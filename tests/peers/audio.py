"""G.711 µ-law, WAV files, RTP in pcap: sources whose every sample is known beforehand.

The sources hold only values that µ-law can represent, so any right encoder gives them back exactly
and a recording can be compared sample for sample.
"""

import math
import struct
import wave

RATE = 8000
FRAME = 160  # 20 ms


def decode(octet):
    """The 16-bit sample of a µ-law octet (ITU-T G.711)."""
    bits = ~octet & 0xFF
    magnitude = ((((bits & 15) << 3) + 132) << ((bits >> 4) & 7)) - 132
    return -magnitude if bits & 0x80 else magnitude


# 0x7f is minus zero: encoders give plus zero for it, so it is kept out of the sources.
TABLE = sorted((decode(octet), octet) for octet in range(256) if octet != 0x7F)


def encode(sample):
    """The nearest octet, by search: slow, and plainly right."""
    low, high = 0, len(TABLE) - 1
    while low < high:
        middle = (low + high) // 2
        if TABLE[middle][0] < sample:
            low = middle + 1
        else:
            high = middle
    if low > 0 and sample - TABLE[low - 1][0] < TABLE[low][0] - sample:
        low -= 1
    return TABLE[low][1]


def source(pitch, seconds):
    """Octets of a slow siren around `pitch` Hz: no two frames alike."""
    octets = bytearray()
    phase = 0.0
    for n in range(RATE * seconds):
        phase += 2 * math.pi * (pitch + 60 * math.sin(2 * math.pi * n / RATE / 3)) / RATE
        octets.append(encode(9000 * math.sin(phase) * (0.6 + 0.4 * math.sin(n / 5000))))
    return bytes(octets)


def samples(octets):
    """Decoded samples."""
    return [decode(octet) for octet in octets]


def write_wav(path, octets):
    """PCM16, mono, 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(struct.pack(f"<{len(octets)}h", *samples(octets)))


def read_wav(path):
    """(rate, channels, samples) of a PCM16 file."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: expected 16-bit PCM")
        count = file.getnframes() * file.getnchannels()
        data = file.readframes(file.getnframes())
        return file.getframerate(), file.getnchannels(), list(struct.unpack(f"<{count}h", data))


def rtp_packets(octets, ssrc, seq, timestamp):
    """20 ms PCMU packets."""
    for number, start in enumerate(range(0, len(octets), FRAME)):
        yield struct.pack(
            ">BBHII",
            0x80,
            0x80 if number == 0 else 0,
            (seq + number) & 0xFFFF,
            (timestamp + start) & 0xFFFFFFFF,
            ssrc,
        ) + octets[start : start + FRAME]


def write_pcap(path, octets, ssrc=0x51505020, seq=1000, timestamp=160000):
    """An Ethernet capture of the stream, one packet each 20 ms, as SIPp's play_pcap_audio wants."""
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, rtp in enumerate(rtp_packets(octets, ssrc, seq, timestamp)):
            udp = struct.pack(">HHHH", 40000, 40000, 8 + len(rtp), 0) + rtp
            head = struct.pack(
                ">BBHHHBBH4s4s",
                0x45, 0, 20 + len(udp), number, 0, 64, 17, 0,
                bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]),
            )
            words = sum(struct.unpack(">10H", head))
            while words >> 16:
                words = (words & 0xFFFF) + (words >> 16)
            head = head[:10] + struct.pack(">H", ~words & 0xFFFF) + head[12:]
            frame = bytes(12) + b"\x08\x00" + head + udp
            at = number * 20000
            file.write(struct.pack("<IIII", at // 1000000, at % 1000000, len(frame), len(frame)))
            file.write(frame)
