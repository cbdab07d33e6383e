#!/usr/bin/env bash
# What a tap costs whoever records: a load from the built-in client, and in turns of some seconds nobody
# taps, one tap is read, one tap's output is not read, and one tap's process is stopped (SIGSTOP). Prints
# CPU of media per packet for each turn (nanoseconds, all its threads, /proc/PID/task/*/schedstat), what
# the readers used, and at the end what the store says: nothing lost, by a reader that shares no code
# with the writer.
#
#   benches/tap.sh [STREAMS [TURN_S [ROUNDS]]]     default 2,000 streams, turns of 5 s, 3 rounds; needs python3
# Segments are small, so that each turn has the same share of the work of sealing them: those of 256 MiB come
# every 12 s, one turn in two.
#
# FLOORTAPE: the binary (target/release/floortape). KEEP=1 keeps the store.
set -euo pipefail
streams=${1:-2000} turn=${2:-5} rounds=${3:-3}
root=$(cd "$(dirname "$0")/.." && pwd)
floortape=${FLOORTAPE:-$root/target/release/floortape}
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-tap.XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
echo "$(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"

"$floortape" serve --set "store.dir=$dir/store" --set "sip.udp=[\"127.0.0.1:$port\"]" \
    --set "sip.tcp=[\"127.0.0.1:$port\"]" --set media.ports=10000-31999 \
    --set "media.streams_max=$streams" --set store.segment_mib=8 2>"$dir/serve.log" &
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
grep -q '^ready' "$dir/serve.log" || { cat "$dir/serve.log" >&2; exit 1; }

# Children of a process by their argv[0].
named() {
    for pid in $(cat "/proc/$1/task/"*/children); do
        if tr '\0' '\n' <"/proc/$pid/cmdline" | head -1 | grep -qx "$2"; then echo "$pid"; fi
    done
}
media=$(named "$keeper" floortape-media) control=$(named "$keeper" floortape-control)
# Nanoseconds on a processor of all threads of a process.
spent() { cat "/proc/$1/task/"*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

seconds=$(((turn + 2) * 4 * rounds + 10))
"$floortape" src call --to "sip:load@127.0.0.1:$port;transport=tcp" --streams "$streams" \
    --duration "$seconds" --numbered --json >"$dir/sent.json" 2>/dev/null &
caller=$!
for _ in $(seq 300); do
    [ "$("$floortape" ls --live --json --store "$dir/store" | wc -l)" -ge $((streams / 2)) ] && break
    sleep 0.2
done
"$floortape" ls --live --json --store "$dir/store" >"$dir/live.json"
id=$(python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["id"])' <"$dir/live.json")
sleep 3

measure() {
    local before after began ended
    began=$(date +%s%N) before=$(spent "$media")
    sleep "$turn"
    after=$(spent "$media") ended=$(date +%s%N)
    awk -v what="$1" -v spent=$((after - before)) -v took=$((ended - began)) -v streams="$streams" 'BEGIN {
        packets = streams * 50 * took / 1e9
        printf "%-22s %6.0f ns of media a packet\n", what, spent / packets }' | tee -a "$dir/turns"
}
mkfifo "$dir/unread"
for _ in $(seq "$rounds"); do
    measure "no tap"

    "$floortape" tap "$id" --from -10s --format jsonl --store "$dir/store" >"$dir/tapped" 2>/dev/null &
    tap=$!
    sleep 1
    reader=$(named "$control" floortape-reader)
    used=$(spent "$reader")
    measure "a tap that is read"
    awk -v used=$(($(spent "$reader") - used)) -v turn="$turn" \
        'BEGIN { printf "    its reader: %.1f %% of a core\n", used / turn / 1e7 }'
    kill -INT "$tap"
    wait "$tap" || true

    # Both ends are open, and nobody reads.
    exec 9<>"$dir/unread"
    "$floortape" tap "$id" --from -10s --format jsonl --store "$dir/store" >"$dir/unread" 2>/dev/null &
    tap=$!
    sleep 1
    measure "a tap that is not read"
    kill -INT "$tap"
    wait "$tap" || true
    exec 9>&-

    "$floortape" tap "$id" --format jsonl --store "$dir/store" >"$dir/tapped" 2>/dev/null &
    tap=$!
    sleep 1
    reader=$(named "$control" floortape-reader)
    kill -STOP "$reader"
    measure "a tap that is stopped"
    kill -KILL "$reader"
    wait "$tap" || true
done
echo "by turn, mean of $rounds:"
awk '{ n = $0; sub(/ +[0-9]+ ns.*/, "", n); match($0, /[0-9]+ ns/); v = substr($0, RSTART, RLENGTH) + 0
    sum[n] += v; count[n]++ } END { for (n in sum) printf "  %-22s %6.0f\n", n, sum[n] / count[n] }' "$dir/turns" | sort
wait "$caller"

for _ in $(seq 300); do
    "$floortape" ls --json --store "$dir/store" >"$dir/ls.json"
    grep -q '"state":"open"\|"state":"live"' "$dir/ls.json" || break
    sleep 0.2
done
kill -TERM "$keeper"
wait "$keeper"
grep 'health: ' "$dir/serve.log" | tail -1 || true
python3 "$root/tests/checker.py" "$dir/store" --numbered "--sent=$dir/sent.json"
