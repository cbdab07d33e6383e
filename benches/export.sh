#!/bin/bash
# Export of a day of many lines: how fast, how much memory, and whether an export that was broken off again and
# again has the same bytes as one that was not.
#
#   benches/export.sh [LINES [SECONDS [BREAKS]]]   16 lines, 86,400 s (69 M packets), broken off 4 times
#   FLOORTAPE=…  the binary
#   FOLDER=…     where store and exports are made: 45 GB. Without it, and as root: a btrfs in a file in
#                ${TMPDIR:-/tmp} that compresses (needs btrfs-progs); payload repeats, so 10 GB do
#
# Makes the store (benches/archive.rs), exports it once at a stretch and once in parts: in turn Ctrl-C (SIGINT) and
# SIGKILL end one when its share of all octets is written, and `--resume` begins the next. All files but
# manifest.json, which says when it was made, are compared, and both exports are verified. Prints seconds, the most
# memory (VmHWM: with mapped files; RssAnon: without), and bytes. Exit 1 where anything differs.
set -euo pipefail
cd "$(dirname "$0")/.."
lines=${1:-16} seconds=${2:-86400} breaks=${3:-4}
if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --locked --bin floortape
    FLOORTAPE=$PWD/target/release/floortape
fi
archive=${ARCHIVE:-$(cargo build --release --locked --bench archive --message-format=json |
    sed -n 's/.*"executable":"\([^"]*archive-[^"]*\)".*/\1/p' | tail -1)}
if [ -z "${FOLDER:-}" ]; then
    image=$(mktemp "${TMPDIR:-/tmp}/floortape-export.XXXXXX")
    FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/floortape-export.XXXXXX")
    truncate -s 100G "$image"
    mkfs.btrfs -q "$image" > /dev/null 2>&1
    mount -o loop,compress-force=zstd:1,noatime "$image" "$FOLDER"
    trap 'umount "$FOLDER"; rmdir "$FOLDER"; rm -f "$image"' EXIT
fi
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /machine: /'
echo "load: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores, Linux $(uname -r)"
[ -d "$FOLDER/store" ] || "$archive" "$FOLDER/store" 1 "$seconds" packed "$lines" 8192
python3 - "$FLOORTAPE" "$FOLDER" "$breaks" <<'PY'
import hashlib, json, os, pathlib, shutil, signal, subprocess, sys, time

binary, folder, breaks = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
store, words = folder / "store", ["--mono"]
listed = subprocess.run([binary, "ls", "--store", store, "--json"], capture_output=True, text=True, check=True).stdout
one = json.loads(listed.splitlines()[0])["id"]
most = {"VmHWM": 0, "RssAnon": 0}


def written(out):
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def run(out, more, until=None):
    """Seconds and exit code; `until`: (octets, signal) to break it off with."""
    began, sent = time.monotonic(), False
    process = subprocess.Popen([binary, "export", "--store", store, one, "-o", out, *words, *more],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        time.sleep(0.05)
        try:
            for row in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
                name, _, value = row.partition(":")
                if name in most:
                    most[name] = max(most[name], int(value.split()[0]))
        except (FileNotFoundError, ProcessLookupError):
            pass
        if until and not sent and written(out) >= until[0]:
            process.send_signal(until[1])
            sent = True
    said = process.stderr.read().decode()
    return time.monotonic() - began, process.returncode, said, sent


def sums(out):
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            with open(path, "rb") as file:
                found[str(path.relative_to(out))] = (path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return found


def verified(out):
    done = subprocess.run([binary, "verify", out], capture_output=True, text=True)
    return done.returncode == 0 or done.stdout[-500:] + done.stderr[-500:]


failed = 0


def claim(name, holds, detail=""):
    global failed
    print(f"{'ok   ' if holds is True else 'FAIL '} {name} {detail} {'' if isinstance(holds, bool) else holds}", flush=True)
    failed += holds is not True


whole = folder / "whole"
took, code, said, _ = run(whole, [])
claim("at a stretch", code == 0 or said[-400:], f"{took:.0f} s")
print(f"      memory: VmHWM {most['VmHWM'] / 1024:.0f} MiB, RssAnon {most['RssAnon'] / 1024:.0f} MiB")
claim("verifies offline", verified(whole))
expected = sums(whole)
size = sum(size for size, _ in expected.values())
print(f"      {len(expected)} files, {size / 1e9:.2f} GB, {size / took / 1e6:.0f} MB/s")
shutil.rmtree(whole)

most.update(VmHWM=0, RssAnon=0)
parts, spent = folder / "parts", 0
for part in range(breaks):
    by = signal.SIGINT if part % 2 == 0 else signal.SIGKILL
    share = (part + 1) / (breaks + 1)
    seconds, code, said, sent = run(parts, ["--resume"] if part else [], (size * share, by))
    spent += seconds
    claim(f"broken off by {by.name} at {100 * share:.0f} %", sent and code != 0, f"exit {code}, {seconds:.0f} s")
seconds, code, said, _ = run(parts, ["--resume"])
claim("resumed to its end", code == 0 or said[-400:], f"{seconds:.0f} s, {spent + seconds:.0f} s in all")
print(f"      memory: VmHWM {most['VmHWM'] / 1024:.0f} MiB, RssAnon {most['RssAnon'] / 1024:.0f} MiB")
found = sums(parts)
differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
claim("the same bytes", not differ, ", ".join(differ[:5]))
claim("verifies offline", verified(parts))
shutil.rmtree(parts)
print(f"{failed} failed")
sys.exit(1 if failed else 0)
PY
