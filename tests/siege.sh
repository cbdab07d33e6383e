#!/usr/bin/env bash
# A siege: a real `floortape serve` in a network namespace of its own, strangers in another one and
# clients who may call in a third. The strangers send 5,000 requests a second from 2,000 addresses
# (INVITEs with metadata, OPTIONS, forged credentials, bytes that are no SIP) and hold 256 TLS
# connections at half a ClientHello. Meanwhile INVITEs of clients who prove who they are must be answered:
# of a known address, of a user at any address, and over a new TLS connection each. Running recordings
# lose nothing, and memory is bounded (failure catalogue F52, F55).
#
#   tests/siege.sh                    the short form: 8 s of siege, under half a minute in all
#   tests/siege.sh --long             60 s of siege
#   FLOORTAPE=path SIEGE=path tests/siege.sh      these instead of builds: the server, its besiegers
#
# RATE=5000, STREAMS=60: requests a second, streams of the running recordings. For a bare Debian 12, as
# root; installs ip and python3 where they are missing. Prints each figure; exits 1 where one is missed.
set -uo pipefail
cd "$(dirname "$0")/.."
# Calls a second of each kind: a hundred in either form at least, of which one may be slow.
seconds=8 call_rate=15 streams=60
# In memory where there is room: how long a busy disk takes to sync is another test's matter.
if [ -z "${TMPDIR:-}" ] &&
    [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -ge 2097152 ] 2>/dev/null; then
    export TMPDIR=/dev/shm
fi
[ "${1:-}" != --long ] || { seconds=60 call_rate=8 streams=100; }
rate=${RATE:-5000} streams=${STREAMS:-$streams}
# What a process may grow by under siege, MiB of memory of its own.
control_mib=64 media_mib=16 keeper_mib=4
# What control and media keep for a while of each call of those who may, KiB.
call_kib=16
[ "$(id -u)" = 0 ] || { echo "run as root: makes network namespaces" >&2; exit 2; }
missing=
for pair in ip:iproute2 python3:python3 pgrep:procps; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    echo "installing:$missing" >&2
    # shellcheck disable=SC2086
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >&2
fi
if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --quiet --locked --bin floortape || exit 1
    FLOORTAPE="${CARGO_TARGET_DIR:-target}/release/floortape"
fi
floortape=$(realpath "$FLOORTAPE")
siege=${SIEGE:-$(cargo test --release --quiet --locked --test siege --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/siege-[0-9a-f]*\)".*/\1/p' | tail -1)}
[ -x "$siege" ] || exit 1

dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-siege.XXXXXX")
name=siege$$ keeper= failed=0
at=10.64.1.1 load=10.64.1.2 sbc=10.64.1.3 desk=10.64.1.4 tls=10.64.1.5
clean() {
    local pids
    pids=$(jobs -p)
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -TERM $pids 2>/dev/null
    if [ -n "$keeper" ]; then
        kill -TERM "$keeper" 2>/dev/null
        for _ in $(seq 80); do kill -0 "$keeper" 2>/dev/null || break; sleep 0.1; done
        # shellcheck disable=SC2046
        kill -KILL "$keeper" $(pgrep -P "$keeper") 2>/dev/null
    fi
    for space in srs out in; do ip netns delete "$name-$space" 2>/dev/null; done
    [ -n "${KEEP:-}" ] && echo "kept: $dir" || rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM

# Words before a command: `ip` becomes it, so that $! is the command itself.
srs=(ip netns exec "$name-srs") out=(ip netns exec "$name-out") in=(ip netns exec "$name-in")
for space in srs out in; do
    ip netns add "$name-$space" || exit 1
    ip -n "$name-$space" link set lo up
done
wire() { # space server's address, its own: a veth pair of both
    ip -n "$name-srs" link add "to-$1" type veth peer name wire netns "$name-$1" || exit 1
    ip -n "$name-srs" address add "$2/24" dev "to-$1"
    ip -n "$name-$1" address add "$3/24" dev wire
    ip -n "$name-srs" link set "to-$1" up
    ip -n "$name-$1" link set wire up
}
wire in "$at" "$load"
wire out 10.64.2.1 10.64.2.2
for own in "$sbc" "$desk" "$tls"; do ip -n "$name-in" address add "$own/24" dev wire; done
# All of 10.65.0.0/16 and 10.66.0.0/16 are the strangers'.
ip -n "$name-out" route add 10.64.1.0/24 via 10.64.2.1
for net in 10.65.0.0/16 10.66.0.0/16; do
    ip -n "$name-out" route add local "$net" dev lo
    ip -n "$name-srs" route add "$net" via 10.64.2.2
done

"$siege" stage "$dir" "$at" >/dev/null || exit 1
cat >"$dir/f.toml" <<TOML
[sip]
udp = ["$at:5060"]
tcp = ["$at:5060"]
tls = ["$at:5061"]
cert = "$dir/ca/srs.pem"
key = "$dir/ca/srs.key"
client_ca = "$dir/ca/ca.pem"
require_client_cert = true
require_digest = true
[[peers]]
name = "sbc"
match = "$sbc"
digest = "$dir/sbc.password"
[[peers]]
name = "desk"
match = "user:desk"
digest = "$dir/desk.password"
[media]
address = "$at"
ports = "28400-28999"
streams_max = 240
[store]
dir = "$dir/store"
TOML
expect() { # what command…
    local what=$1; shift
    if "$@"; then return 0; fi
    echo "FAILED: $what"
    failed=1
}
await() { # what tenths command…
    local what=$1 tenths=$2; shift 2
    for _ in $(seq "$tenths"); do "$@" && return 0; sleep 0.1; done
    echo "waited in vain for $what" >&2
    return 1
}
log_says() { grep -q -- "$1" "$dir/serve.log" 2>/dev/null; }

"${srs[@]}" "$floortape" serve -c "$dir/f.toml" 2>"$dir/serve.log" &
keeper=$!
await "the ready line" 100 log_says "^ready" || { cat "$dir/serve.log" >&2; exit 1; }
child() { pgrep -P "$keeper" -f "^floortape-$1"; }
declare -A process=([control]=$(child control) [media]=$(child media) [keeper]=$keeper)
declare -A before=() most=() half=()
own_kib() { # role: memory of its own, KiB, in $kib
    local key value
    kib=0
    while read -r key value _; do
        if [ "$key" = RssAnon: ]; then kib=$value; return; fi
    done <"/proc/${process[$1]}/status"
}

# The recordings that run all the time: over TLS, with certificates.
"${in[@]}" "$floortape" src call --to "sips:srs@$at:5061" --streams "$streams" --numbered --json \
    --duration $((seconds + 8)) --one-port --tls-ca "$dir/ca/ca.pem" --tls-cert "$dir/ca/client.pem" \
    --tls-key "$dir/ca/client.key" >"$dir/sent.json" 2>"$dir/call.log" &
caller=$!
await "the recordings" 100 grep -q '^sending' "$dir/call.log" || { cat "$dir/call.log" "$dir/serve.log" >&2; exit 1; }

calls() { # form seconds: all three kinds at once; what they print is $dir/calls.FORM.KIND
    local pids=()
    "${in[@]}" "$siege" call udp --to "$at:5060" --from "$sbc" --user sbc --folder "$dir" \
        --rate "$call_rate" --seconds "$2" >"$dir/calls.$1.1" &
    pids+=($!)
    "${in[@]}" "$siege" call udp --to "$at:5060" --from "$desk" --user desk --folder "$dir" \
        --rate "$call_rate" --seconds "$2" >"$dir/calls.$1.2" &
    pids+=($!)
    "${in[@]}" "$siege" call tls --to "$at:5061" --from "$tls" --folder "$dir" \
        --rate "$call_rate" --seconds "$2" >"$dir/calls.$1.3" &
    pids+=($!)
    calling_pids=("${pids[@]}")
}
ended() { # what pids…: each must have ended well
    local what=$1 pid; shift
    for pid in "$@"; do expect "$what" wait "$pid"; done
}
calls quiet 2
ended "calls before the siege" "${calling_pids[@]}"
echo "before the siege:"
sed 's/^/  /' "$dir"/calls.quiet.*

for role in control media keeper; do own_kib "$role"; before[$role]=$kib most[$role]=$kib; done
"${out[@]}" "$siege" flood --to "$at:5060" --net 10.65.0.1 --rate "$rate" --seconds "$seconds" >"$dir/flood" &
flood=$!
"${out[@]}" "$siege" half --to "$at:5061" --net 10.66.0.1 --seconds "$seconds" >"$dir/half" &
halves=$!
# The flood tries itself alone for half a second before it begins.
sleep 1
calls siege $((seconds - 1))
begin=$SECONDS
while kill -0 "$flood" 2>/dev/null; do
    for role in control media keeper; do
        own_kib "$role"
        [ "$kib" -le "${most[$role]}" ] || most[$role]=$kib
        [ $((2 * (SECONDS - begin))) -gt "$seconds" ] || half[$role]=$kib
    done
    sleep 0.2
done
declare -A last=()
for role in control media keeper; do own_kib "$role"; last[$role]=$kib; done
ended "the flood" "$flood"
ended "connections half open" "$halves"
ended "calls under siege" "${calling_pids[@]}"
echo "under siege:"
sed 's/^/  /' "$dir/flood" "$dir/half" "$dir"/calls.siege.*
for role in control media keeper; do
    limit=${role}_mib
    printf '  %s: %d KiB of its own before, at most %d, %d at the end\n' \
        "$role" "${before[$role]}" "${most[$role]}" "${last[$role]}"
    expect "$role grows by ${!limit} MiB at most" \
        test $((most[$role] - before[$role])) -le $((${!limit} * 1024))
    # What grows with each request shows in the second half of a long siege.
    [ "$seconds" -lt 60 ] || expect "$role grows no more in the second half" \
        test $((last[$role] - half[$role])) -le $((4096 + call_kib * 3 * call_rate * seconds / 2))
    expect "$role is the same process" test -d "/proc/${process[$role]}"
done

expect "the recordings were taken to their end" wait "$caller"
settled() { ! "$floortape" ls --json --store "$dir/store" | grep '"state":"open"\|"state":"live"' >/dev/null; }
await "the end of all recordings" 200 settled || failed=1
"$floortape" ls --json --store "$dir/store" >"$dir/listed"
kill -TERM "$keeper"
expect "the server ends in order" wait "$keeper"
keeper=
echo "the recordings:"
python3 - "$dir/listed" "$dir/sent.json" <<'PY' || failed=1
import json, sys
listed = [json.loads(line) for line in open(sys.argv[1])]
sent = {stream["ssrc"]: stream["sent"] for stream in json.load(open(sys.argv[2]))["streams"]}
sources = [source for one in listed for stream in one["streams"] for source in stream["sources"]]
found = {source["ssrc"]: source["packets"] for source in sources}
lost = sum(sum(source["lost"].values()) for source in sources)
unexplained = sum(source["unexplained"] for source in sources)
print(f"  {len(listed)} recordings, of them {len(sent)} streams with media: {sum(found.values())} packets of "
      f"{sum(sent.values())}, {lost} lost, {unexplained} unexplained")
sys.exit(found != sent or lost > 0 or unexplained > 0)
PY
python3 tests/checker.py "$dir/store" --numbered --proofs "--sent=$dir/sent.json" >"$dir/checked" 2>&1 || failed=1
tail -1 "$dir/checked" | sed 's/^/  /'
expect "verify --all" "$floortape" verify --all --store "$dir/store" >"$dir/verified"
grep -h 'over the rate\|since the last look\|TLS from' "$dir/serve.log" | tail -4 | cut -c1-200 | sed 's/^/  log: /'
if [ "$failed" = 0 ]; then echo "siege: ok"; else
    echo "siege: FAILED"
    tail -20 "$dir/serve.log" >&2
    exit 1
fi
