#!/usr/bin/env bash
# What an hour of one stream takes on the disk, against a capture of the same traffic.
#
#   benches/bytes.sh [STREAMS [SECONDS]]      default 2,000 streams, 60 s; needs python3
#
# G.711, 20 ms, from the built-in client over loopback, in the clear and as SRTP
# (AES_CM_128_HMAC_SHA1_80), each with store.packing on and off in turn, and packed and encrypted at rest. On the disk: the segments as they
# are when all is sealed, with their headers, footers, events and RTCP; the log is used again and the journal
# belongs to the signalling. In a capture: libpcap's 16 octets for each packet, Ethernet 14, IPv4 20, UDP 8,
# and what stands in the segments as RTP; of SRTP also the tag of 10, and RTCP not. Prints the ratio, and the
# CPU of the spool's threads and of all of media over the run. Exit 1 where packed is more than 0.85 of the capture.
#
# FLOORTAPE: the binary (target/release/floortape). RUNS: how often each (1).
set -euo pipefail
streams=${1:-2000} seconds=${2:-60}
root=$(cd "$(dirname "$0")/.." && pwd)
floortape=${FLOORTAPE:-$root/target/release/floortape}
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-bytes.XXXXXX")
keeper=
stop() {
    [ -z "$keeper" ] || { kill -TERM "$keeper" 2>/dev/null; wait "$keeper" 2>/dev/null; } || true
    keeper=
}
trap 'stop; rm -rf "$dir"' EXIT

# Nanoseconds on a core of all threads of a process whose name begins with a word.
spent() {
    local task sum=0 ns
    for task in /proc/"$1"/task/*; do
        case $(cat "$task/comm") in "$2"*) read -r ns _ <"$task/schedstat" && sum=$((sum + ns)) ;; esac
    done
    echo "$sum"
}

one() {
    local srtp=$1 packing=$2 encryption=$3 port media before after all_before all_after
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    rm -rf "$dir/store" "$dir/serve.log"
    "$floortape" serve --set "store.dir=$dir/store" --set "sip.udp=[\"127.0.0.1:$port\"]" \
        --set "sip.tcp=[\"127.0.0.1:$port\"]" --set media.ports=10000-31999 \
        --set media.srtp=allow --set "media.streams_max=$streams" --set "store.packing=$packing" \
        --set "store.encryption=\"$encryption\"" \
        2>"$dir/serve.log" &
    keeper=$!
    for _ in $(seq 1200); do
        grep -qs '^ready' "$dir/serve.log" && break
        sleep 0.05
    done
    grep -q '^ready' "$dir/serve.log" || { echo "not ready after a minute" >&2; cat "$dir/serve.log" >&2; exit 1; }
    media=$(for pid in $(cat "/proc/$keeper/task/$keeper/children"); do
        if tr '\0' '\n' <"/proc/$pid/cmdline" | head -1 | grep -qx floortape-media; then echo "$pid"; fi
    done)
    before=$(spent "$media" spool) all_before=$(spent "$media" "")
    "$floortape" src call --to "sip:bytes@127.0.0.1:$port;transport=tcp" --streams "$streams" \
        --srtp "$srtp" --duration "$seconds" >/dev/null
    for _ in $(seq 300); do
        "$floortape" ls --json --store "$dir/store" --kek "$dir/kek" >"$dir/ls.json"
        grep -q '"state":"open"\|"state":"live"' "$dir/ls.json" || break
        sleep 0.2
    done
    after=$(spent "$media" spool) all_after=$(spent "$media" "")
    stop
    python3 - "$dir/store/segments" "$srtp" "$packing" "$streams" "$seconds" $((after - before)) \
        $((all_after - all_before)) "$encryption" <<'PYTHON'
import glob, struct, sys
folder, srtp, packing, streams, seconds, cpu, media, encryption = sys.argv[1:]
stored = packets = octets = 0
for path in glob.glob(folder + "/*.seg"):
    data = open(path, "rb").read()
    stored += len(data)
    # format-segment.md: rows of the trailer; of a row RTP packets and their octets.
    at, count = struct.unpack_from("<QQ", data, len(data) - 512 + 64)
    for row in range(count):
        found = struct.unpack_from("<QQ", data, at + row * 128 + 32)
        packets, octets = packets + found[0], octets + found[1]
captured = octets + packets * (16 + 14 + 20 + 8 + (10 if srtp == "sdes" else 0))
ratio = stored / captured
print("%-5s packing %-5s %-9s: %d packets; %.2f MB a stream-hour, captured %.2f: ratio %.3f; spool %.0f ns a packet, media %.0f"
      % ("SRTP" if srtp == "sdes" else "plain", packing, "clear" if encryption == "off" else "encrypted", packets, stored / packets * 180_000 / 1e6,
         captured / packets * 180_000 / 1e6, ratio, int(cpu) / packets, int(media) / packets))
if packets != int(streams) * int(seconds) * 50:
    print("  of %d sent" % (int(streams) * int(seconds) * 50))
sys.exit(packing == "true" and ratio > 0.85)
PYTHON
}

"$floortape" kek make "$dir/kek" >/dev/null
failed=0
for _ in $(seq "${RUNS:-1}"); do
    for srtp in none sdes; do
        for packing in true false; do
            one "$srtp" "$packing" off || failed=1
        done
        one "$srtp" true "$dir/kek" || failed=1
    done
done
exit "$failed"
