#!/usr/bin/env bash
# A load from the built-in client, judged from disk by a reader that shares no code with the writer:
# equal payload hashes per stream, nothing missing, nothing twice. Prints memory and CPU of the roles,
# the health line, and what reading one recording back costs.
#
#   benches/load.sh [STREAMS [SECONDS]]       default 500 streams, 60 s; needs python3
#
# FLOORTAPE: the binary (target/release/floortape). KEEP=1 keeps the store.
set -euo pipefail
streams=${1:-500} seconds=${2:-60}
root=$(cd "$(dirname "$0")/.." && pwd)
floortape=${FLOORTAPE:-$root/target/release/floortape}
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-load.XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

"$floortape" serve --set "store.dir=$dir/store" --set "sip.udp=[\"127.0.0.1:$port\"]" \
    --set "sip.tcp=[\"127.0.0.1:$port\"]" --set media.ports=10000-31999 \
    --set "media.streams_max=$streams" 2>"$dir/serve.log" &
keeper=$!
cleanup() {
    kill -TERM "$keeper" 2>/dev/null || true
    wait "$keeper" 2>/dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf "$dir"
}
trap cleanup EXIT
for _ in $(seq 200); do
    grep -q '^ready' "$dir/serve.log" && break
    sleep 0.05
done
grep '^ready' "$dir/serve.log" || { cat "$dir/serve.log" >&2; exit 1; }

child() {
    for pid in $(cat "/proc/$keeper/task/$keeper/children"); do
        if tr '\0' '\n' <"/proc/$pid/cmdline" | head -1 | grep -qx "$1"; then echo "$pid"; fi
    done
}
media=$(child floortape-media) control=$(child floortape-control)
# User and system time, in clock ticks.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

before=$(ticks "$media")
"$floortape" src call --to "sip:load@127.0.0.1:$port;transport=tcp" --streams "$streams" \
    --duration "$seconds" --numbered --json >"$dir/sent.json"
after=$(ticks "$media")
awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v seconds="$seconds" \
    'BEGIN { printf "media: %.1f s of CPU in %d s: %.1f %% of a core\n", ticks / hz, seconds, ticks / hz / seconds * 100 }'
for role in keeper media control; do
    printf '%s: ' "$role"
    grep -E '^(VmHWM|RssAnon|RssShmem)' "/proc/${!role}/status" | tr -s ' \t' ' ' | paste -sd ' '
done

# Sealed: the catalogue has settled every recording.
for _ in $(seq 300); do
    "$floortape" ls --json --store "$dir/store" >"$dir/ls.json"
    grep -q '"state":"open"\|"state":"live"' "$dir/ls.json" || break
    sleep 0.2
done
id=$(head -1 "$dir/ls.json" | python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["id"])')

# One recording read back, beside the running server.
python3 "$root/benches/readback.py" "$floortape" "$dir" "$id"

kill -TERM "$keeper"
wait "$keeper"
grep 'health: ' "$dir/serve.log" || true
python3 "$root/tests/checker.py" "$dir/store" --numbered "--sent=$dir/sent.json"
