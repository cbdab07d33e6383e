#!/bin/bash
# How fast a store is read against its proof: `verify --all` and `rebuild` in bytes of the store a second, over
# sealed segments in the page cache. One thread each, so a second of it is a second of one core.
#
#   benches/verify.sh [STREAMS] [SECONDS]      500 streams for 60 s: some 320 MB
#   FLOORTAPE=…  the binary; STORE=…  measures a store that is there
set -euo pipefail
cd "$(dirname "$0")/.."
FLOORTAPE=${FLOORTAPE:-target/release/floortape}
STREAMS=${1:-500} SECONDS_SENT=${2:-60} REPEATS=${REPEATS:-5}
if [ -z "${STORE:-}" ]; then
    FOLDER=$(mktemp -d "${TMPDIR:-/dev/shm}/floortape-verify.XXXXXX")
    trap 'rm -rf "$FOLDER"' EXIT
    STORE=$FOLDER/store
    "$FLOORTAPE" serve --set "store.dir=$STORE" --set 'sip.udp=["127.0.0.1:5970"]' \
        --set 'sip.tcp=["127.0.0.1:5970"]' --set media.ports=30000-39999 \
        --set "media.streams_max=$STREAMS" --set store.ring_seconds=30 2> "$FOLDER/log" &
    SERVER=$!
    for _ in $(seq 100); do grep -q '^ready' "$FOLDER/log" && break; sleep 0.1; done
    "$FLOORTAPE" src call --to sip:srs@127.0.0.1:5970 --streams "$STREAMS" --one-port \
        --duration "$SECONDS_SENT" > /dev/null
    sleep 3
    kill -TERM $SERVER
    wait $SERVER
fi
BYTES=$(cat "$STORE"/segments/* | wc -c)
COUNT=$(ls "$STORE"/segments | wc -l)
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /machine: /'
echo "store: $COUNT segments, $BYTES bytes"
measure() {
    local what=$1
    shift
    for _ in $(seq "$REPEATS"); do
        /usr/bin/env python3 - "$BYTES" "$what" "$@" <<'PY'
import resource, subprocess, sys, time
size, what, *words = sys.argv[1:]
began = time.monotonic()
done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
took = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = used.ru_utime + used.ru_stime
print(f"{what}: exit {done.returncode}, {took:.3f} s, {int(size) / took / 1e9:.2f} GB/s, "
      f"{int(size) / cpu / 1e9:.2f} GB/s of core")
PY
    done
}
measure "verify --all" "$FLOORTAPE" verify --all --store "$STORE"
measure "rebuild" "$FLOORTAPE" rebuild --store "$STORE"
