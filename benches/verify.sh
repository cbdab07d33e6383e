#!/bin/bash
# How fast a store is read against its proof: `verify --all`, `verify` of one recording and `rebuild`, over sealed
# segments in the page cache. Makes two stores of the same packets (benches/archive.rs), one packed and one not,
# and measures them in turn, round by round.
#
#   benches/verify.sh [RECORDINGS] [SECONDS]   500 of two lines, 360 s: 18 M packets, 3.0 GB packed, 3.8 GB plain
#   FLOORTAPE=…  the binary; BASELINE=…  another one, measured in the same rounds; REPEATS=…  rounds (5)
#   FOLDER=…     where the stores are made, and kept; those that are there are measured as they are
#   STORE=…      measures a store that is there instead
#
# Prints for each: the machine; seconds on the clock, and bytes of the segments a second of one core (user and system
# time of the process, all threads), as they lie on the disk and of the records in them; median, least to most.
set -euo pipefail
cd "$(dirname "$0")/.."
RECORDINGS=${1:-500} SECONDS_KEPT=${2:-360} REPEATS=${REPEATS:-5}
if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --locked --bin floortape
    FLOORTAPE=target/release/floortape
fi
STORES=()
if [ -n "${STORE:-}" ]; then
    STORES+=("there $STORE 0")
else
    if [ -z "${FOLDER:-}" ]; then
        FOLDER=$(mktemp -d "${TMPDIR:-/dev/shm}/floortape-verify.XXXXXX")
        trap 'rm -rf "$FOLDER"' EXIT
    fi
    for kind in packed plain; do
        if [ ! -e "$FOLDER/$kind.made" ]; then
            archive=$(cargo build --release --locked --bench archive --message-format=json |
                sed -n 's/.*"executable":"\([^"]*archive-[^"]*\)".*/\1/p' | tail -1)
            rm -rf "${FOLDER:?}/$kind"
            "$archive" "$FOLDER/$kind" "$RECORDINGS" "$SECONDS_KEPT" $kind > "$FOLDER/$kind.making"
            mv "$FOLDER/$kind.making" "$FOLDER/$kind.made"
        fi
        said=$(cat "$FOLDER/$kind.made")
        echo "$kind: $said"
        STORES+=("$kind $FOLDER/$kind $(sed 's/.*, \([0-9]*\) bytes of records/\1/' <<< "$said")")
    done
fi
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /machine: /'
echo "load: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores"
python3 - "$REPEATS" "$FLOORTAPE" "${BASELINE:-}" "${STORES[@]}" <<'PY'
import json, os, resource, statistics, subprocess, sys, time

repeats, binary, baseline, *stores = sys.argv[1:]
binaries = [("", binary)] + ([("baseline ", baseline)] if baseline else [])


def run(words):
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr.decode()}")
    return took, core, done.stdout


subjects = {}
for store in stores:
    kind, folder, records = store.split(" ")
    segments = f"{folder}/segments"
    size = sum(os.path.getsize(f"{segments}/{name}") for name in os.listdir(segments))
    listed = run([binary, "verify", "--all", "--json", "--store", folder])[2].splitlines()
    one, many = json.loads(listed[0])["id"], len(listed)
    for name, path in binaries:
        for verb, words, share in (
            ("verify --all", ["--all"], 1), ("verify one", [one], many), ("rebuild", [], 1)
        ):
            words = [path, verb.split(" ")[0], *words, "--store", folder]
            subjects[f"{name}{verb}, {kind}"] = (words, size / share, int(records) / share, [])
# The first round warms up.
for turn in range(int(repeats) + 1):
    for words, _, _, found in subjects.values():
        took, core, _ = run(words)
        if turn > 0:
            found.append((took, core))
for what, (_, size, records, found) in subjects.items():
    def rates(times, count):
        all_of = sorted(count / one / 1e9 for one in times)
        return f"{statistics.median(all_of):.2f} ({all_of[0]:.2f} to {all_of[-1]:.2f})"

    clock, core = [one for one, _ in found], [one for _, one in found]
    text = f"{what}: {size / 1e6:.0f} MB, {statistics.median(clock):.3f} s, GB/s of a core: {rates(core, size)} on the disk"
    if records:
        text += f", {rates(core, records)} of records"
    print(f"{text}; by the clock {rates(clock, size)}")
PY
