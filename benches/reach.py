#!/usr/bin/env python3
"""What it costs to hear a part of what is stored, and to see it drawn.

Own bytes: a store of many streams and ten minutes (benches/archive.rs), the cache dropped, and one stream of
it exported and played whole. What the process has read from the disk (ru_inblock of getrusage, which is
read_bytes of /proc/PID/io; metadata of the file system included, its program not, which is read before) is held
against what of the segments is that stream's: its extents as they are stored, and the records in them. Beside
it stands of which files the pages are that came into the cache.

First audio: a store of twenty lines that are open for a day, in segments of five minutes as a server with so
few lines makes them, and forty random seconds of one line; to save room the nineteen others send one packet of
--one-of. From the start of the process to the first tenth of
a second of audio on its output; warm, and with the cache dropped before each.

Pictures: of that same line, what `floortape peaks` takes for the whole of it in 1,000 points, and for a random
minute in buckets of 10 ms, from its start to its end; warm, and with the cache dropped before each. How fast lines
are drawn: twenty lines without a silence, half an hour of G.711 and five minutes of Opus, in segments as a server of 2,000 lines makes them (15 s);
seconds of the processor of `floortape rebuild` with its pictures, less those of one without them.

    benches/reach.py [own|first|drawn|all] [--streams 2000] [--lines 20] [--hours 24] [--one-of 10] [--plain] [--seconds 40]

FLOORTAPE: the binary, ARCHIVE: that of benches/archive.rs (both are built, unless they are named). FOLDER: where
the stores are made and kept; those that are there are measured as they are. 2,000 streams take 10 GB, a day of
twenty lines 2 GB (15 GB with --one-of 1). Dropping the cache needs root; elsewhere the files are dropped by posix_fadvise, and what the
kernel keeps of the file system is not read again.
"""

import argparse
import ctypes
import datetime
import json
import mmap
import os
import random
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = 4096
TRAILER, ROW = 512, 128
MINUTES = 10
WAV_HEADER = 44
# A tenth of a second of mono at 8 kHz.
AUDIO = 1600


def build():
    def made(kind, name):
        line = ["cargo", "build", "--release", "--locked", kind, name, "--message-format=json"]
        told = subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.splitlines()
        files = (json.loads(one).get("executable") for one in told)
        return [one for one in files if one][-1]

    floortape = os.environ.get("FLOORTAPE") or made("--bin", "floortape")
    archive = os.environ.get("ARCHIVE") or made("--bench", "archive")
    return floortape, archive


def files_below(folder):
    for at, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(at, name)


def drop(store, programs):
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as out:
            out.write("3")
    except OSError:
        for path in files_below(store):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for path in programs:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass


def programs(floortape):
    libraries = subprocess.run(["ldd", floortape], stdout=subprocess.PIPE, text=True).stdout.split()
    return [floortape] + [word for word in libraries if word.startswith("/")]


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]


def cached(path):
    """Bytes of a file that are in the page cache."""
    size = os.path.getsize(path)
    if size == 0:
        return 0
    with open(path, "rb") as file:
        at = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        pages = (ctypes.c_ubyte * ((size + PAGE - 1) // PAGE))()
        LIBC.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), pages)
        LIBC.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    return sum(one & 1 for one in bytes(pages)) * PAGE


def stored(store, stream):
    """Bytes of the extents of a stream, how many there are, and bytes of the records that are in segments."""
    own, extents, rows_of_all = 0, 0, 0
    segments = os.path.join(store, "segments")
    for name in sorted(os.listdir(segments)):
        with open(os.path.join(segments, name), "rb") as file:
            file.seek(-TRAILER, os.SEEK_END)
            rows_at, rows = struct.unpack_from("<QQ", file.read(TRAILER), 64)
            file.seek(rows_at)
            footer = file.read(rows * ROW)
        for place in range(rows):
            source, _, length = struct.unpack_from("<QQQ", footer, place * ROW)
            if source >> 16 == stream:
                own, extents = own + length, extents + 1
        rows_of_all += rows
    return own, extents, rows_of_all


def run(line):
    """Bytes that a command has read from the disk, and its seconds."""
    began = time.monotonic()
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(line)}: {child.returncode}")
    return used.ru_inblock * 512, time.monotonic() - began


def make(store, archive, floortape, words):
    if os.path.exists(store + ".made"):
        return
    shutil.rmtree(store, ignore_errors=True)
    said = subprocess.run([archive, store] + words, check=True, stdout=subprocess.PIPE, text=True)
    subprocess.run([floortape, "rebuild", "--peaks", "--store", store], check=True, stdout=subprocess.DEVNULL)
    with open(store + ".made", "w") as out:
        out.write(said.stdout)


def recordings(floortape, store):
    line = [floortape, "ls", "--json", "--store", store]
    told = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(one) for one in told.splitlines()]


def own_bytes(store, floortape, files):
    found = recordings(floortape, store)
    recording = found[len(found) // 2]
    wanted = recording["streams"][0]
    own, extents, rows = stored(store, wanted["stream"])
    start, label = recording["start"], wanted["label"]
    print(f"one of {2 * len(found)} streams, {extents} extents in segments with {rows} in all: {own} bytes stored")
    with tempfile.TemporaryDirectory() as out:
        # The proofs of an export hold the records as they were received.
        line = [floortape, "export", recording["id"], "--store", store, "--stream", label]
        line += ["--from", start, "--to", recording["end"]]
        run(line + ["-o", os.path.join(out, "first")])
        received = os.path.getsize(os.path.join(out, "first", "proof", "records"))
        play = [floortape, "play", recording["id"], "--store", store, "--stream", label]
        exports = iter(range(1000))
        for what, verb in [
            ("export", lambda: line + ["-o", os.path.join(out, str(next(exports)))]),
            ("play", lambda: play + ["--from", start, "--to", recording["end"]]),
        ]:
            drop(store, files)
            read, seconds = run(verb())
            parts = {}
            for path in files_below(store):
                part = os.path.relpath(path, store).split(os.sep)[0]
                parts[part] = parts.get(part, 0) + cached(path)
            rest = read - sum(parts.values())
            told = ", ".join(f"{part} {count}" for part, count in sorted(parts.items()) if count)
            print(
                f"{what:7} {read:>10} bytes read: {read / own:.3f} of what is stored, {read / received:.3f} of"
                f" {received} received; {seconds:.2f} s\n        {told}, file system {rest}"
            )


def first_audio(line):
    began = time.monotonic()
    child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    left = WAV_HEADER + AUDIO
    while left > 0:
        read = os.read(child.stdout.fileno(), left)
        if not read:
            sys.exit(f"{' '.join(line)}: no audio")
        left -= len(read)
    took = time.monotonic() - began
    child.stdout.close()
    child.kill()
    child.wait()
    return took * 1000


def first(store, floortape, files, count):
    recording = recordings(floortape, store)[0]
    wanted = recording["streams"][0]
    packets = sum(source["packets"] for source in wanted["sources"])
    chance = random.Random(1)
    seconds = [chance.randrange(packets // 50) for _ in range(count)]
    line = [floortape, "play", recording["id"], "--store", store, "--stream", wanted["label"]]
    size = sum(os.path.getsize(path) for path in files_below(store))
    print(f"{count} random seconds of a line of {packets} packets in a store of {size} bytes, first audio:")
    for what in ["warm", "cold"]:
        took = []
        for second in seconds:
            ask = line + ["--at", f"{second}s"]
            if what == "warm":
                first_audio(ask)
            else:
                drop(store, files)
            took.append(first_audio(ask))
        took.sort()
        p95 = took[max(0, -(-95 * len(took) // 100) - 1)]
        print(f"{what}: median {statistics.median(took):.1f} ms, p95 {p95:.1f} ms, most {took[-1]:.1f} ms")


def pictures(store, floortape, files, count):
    recording = recordings(floortape, store)[0]
    label = recording["streams"][0]["label"]
    start, end = (datetime.datetime.fromisoformat(recording[one]) for one in ("start", "end"))
    minutes = int((end - start).total_seconds()) // 60
    line = [floortape, "peaks", recording["id"], "--store", store, "--stream", label, "--json"]
    chance = random.Random(1)

    def whole():
        return line + ["--points", "1000"]

    def minute():
        begin = start + datetime.timedelta(minutes=chance.randrange(minutes - 1))
        end = begin + datetime.timedelta(minutes=1)
        return line + ["--points", "6000", "--from", begin.isoformat(), "--to", end.isoformat()]

    for what, ask in [(f"{minutes / 60:.0f} h in 1,000 points", whole), ("a minute in buckets of 10 ms", minute)]:
        for state in ["warm", "cold"]:
            took = []
            for _ in range(count):
                words = ask()
                if state == "warm":
                    run(words)
                else:
                    drop(store, files)
                took.append(run(words)[1] * 1000)
            took.sort()
            p95 = took[max(0, -(-95 * len(took) // 100) - 1)]
            print(f"{what}, {state}: median {statistics.median(took):.1f} ms, p95 {p95:.1f} ms, most {took[-1]:.1f} ms")


def drawing(store, floortape, hours, codec):
    def seconds(words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([floortape, "rebuild", "--store", store] + words, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    took = []
    for _ in range(3):
        without = seconds([])
        took.append(seconds(["--peaks"]) - without)
    took.sort()
    size = os.path.getsize(os.path.join(store, "peaks.sqlite"))
    print(
        f"{hours:.3g} hours of lines of {codec} drawn in {took[1]:.2f} s of the processor ({took[0]:.2f} to {took[-1]:.2f}):"
        f" {took[1] / hours / 3.6:.3f} ms a second of a line, {hours / took[1]:.2f} hours a second; {size / hours / 1000:.1f} KB an hour"
    )


def main():
    parser = argparse.ArgumentParser(description="What it costs to hear a part of what is stored, and to see it drawn.")
    parser.add_argument("what", nargs="?", default="all", choices=["own", "first", "drawn", "all"])
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--lines", type=int, default=20)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--one-of", type=int, default=10)
    parser.add_argument("--plain", action="store_true", help="segments are not packed")
    args = parser.parse_args()
    floortape, archive = build()
    files = programs(floortape)
    folder = os.environ.get("FOLDER")
    mine = folder is None
    folder = folder or tempfile.mkdtemp(prefix="floortape-reach.")
    os.makedirs(folder, exist_ok=True)
    model = next(line for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(f"{os.cpu_count()} cores, {model.split(':')[1].strip()}, Linux {os.uname().release}")
    packing = "plain" if args.plain else "packed"
    try:
        if args.what in ("own", "all"):
            store = os.path.join(folder, f"own-{args.streams}-{packing}")
            make(store, archive, floortape, [str(args.streams // 2), str(MINUTES * 60), packing])
            own_bytes(store, floortape, files)
        if args.what in ("drawn", "all"):
            store = os.path.join(folder, f"drawn-{args.lines}-1800-{packing}")
            make(store, archive, floortape, [str(args.lines // 2), "1800", packing])
            drawing(store, floortape, args.lines / 2, "G.711")
            store = os.path.join(folder, f"drawn-opus-{args.lines}-300-{packing}")
            words = [str(args.lines // 2), "300", packing, "2", str(1 << 20), "15", "1", "opus"]
            make(store, archive, floortape, words)
            drawing(store, floortape, args.lines / 12, "Opus")
        if args.what in ("first", "drawn", "all"):
            store = os.path.join(folder, f"first-{args.lines}-{args.hours}-{args.one_of}-{packing}")
            words = [str(args.lines // 2), str(args.hours * 3600), packing, "2", str(1 << 20), "300", str(args.one_of)]
            make(store, archive, floortape, words)
            if args.what != "drawn":
                first(store, floortape, files, args.seconds)
            if args.what != "first":
                pictures(store, floortape, files, args.seconds // 4)
    finally:
        if mine:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
