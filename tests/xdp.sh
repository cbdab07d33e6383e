#!/usr/bin/env bash
# The third receive engine (media.engine = "xdp") at interfaces of network namespaces of its own: real calls over
# a veth pair, the kill harness of tests/crash.sh at a loopback, and what it is refused by.
#
#   tests/xdp.sh                       all of it, about two minutes besides the builds
#   tests/xdp.sh calls kills           only these: refused calls user behind workers damaged kills aimed
#   FLOORTAPE=path tests/xdp.sh        this binary instead of a build
#
# For a bare Debian 12, as root. Prints a line per claim, "ok …" or "FAILED …", then "N passed, N failed".
# KEEP=1 keeps the stores.
set -uo pipefail
cd "$(dirname "$0")/.."
cases=${*:-refused calls user behind workers damaged kills aimed}
[ "$(id -u)" = 0 ] || { echo "run as root: makes network namespaces, puts programs at their interfaces" >&2; exit 2; }
missing=
for pair in ip:iproute2 python3:python3 ethtool:ethtool setpriv:util-linux pgrep:procps; do
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
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-xdp.XXXXXX")
srs=xdp$$-srs src=xdp$$-src
clean() {
    trap - EXIT INT TERM
    # Everything of ours, and nothing else, lives in the two namespaces.
    for space in "$src" "$srs"; do
        ip netns pids "$space" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
        ip netns delete "$space" 2>/dev/null
    done
    if [ -n "${KEEP:-}" ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap clean EXIT
trap 'exit 130' INT TERM
passed=0 failed=0
claim() { # WHAT STATUS [FOUND]
    if [ "$2" = 0 ]; then passed=$((passed + 1)) && echo "ok      $1${3:+ ($3)}"
    else failed=$((failed + 1)) && echo "FAILED  $1${3:+ ($3)}"; fi
}
wants() { case " $cases " in *" $1 "*) ;; *) return 1 ;; esac; }

ip netns add "$srs" && ip netns add "$src" || exit 1
ip -n "$srs" link add near numrxqueues 2 numtxqueues 2 type veth peer name far netns "$src" \
    numrxqueues 2 numtxqueues 2 || exit 1
near4=198.18.81.2 near6=fd00:81::2
ip -n "$srs" address add $near4/24 dev near
ip -n "$src" address add 198.18.81.1/24 dev far
ip -n "$srs" address add $near6/64 dev near nodad
ip -n "$src" address add fd00:81::1/64 dev far nodad
for one in "$srs near" "$srs lo" "$src far" "$src lo"; do
    # shellcheck disable=SC2086
    set -- $one
    ip -n "$1" link set "$2" up
done
# How many queues the card has.
queues() { inside ethtool -L near rx "$1" tx "$1" && ip netns exec "$src" ethtool -L far rx "$1" tx "$1"; }
inside() { ip netns exec "$srs" "$@"; }
outside() { ip netns exec "$src" "$@"; }

# Starts a recorder on an empty store: its ADDRESS, more of its configuration.
serve() {
    local address=$1 bracketed
    shift
    case $address in *:*) bracketed="[$address]" ;; *) bracketed=$address ;; esac
    target="$bracketed:5060;transport=tcp"
    rm -rf "$dir/store"
    # Not by a function: the number is to be the server's own.
    ip netns exec "$srs" "$floortape" serve --set "store.dir=$dir/store" --set "sip.tcp=[\"$bracketed:5060\"]" \
        --set "media.address=$address" --set media.ports=10000-31999 --set media.streams_max=400 \
        --set media.engine=xdp --set media.interface=near "$@" >"$dir/out" 2>"$dir/log" &
    server=$!
    for _ in $(seq 200); do
        grep -q ^ready "$dir/out" "$dir/log" && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    cat "$dir/out" "$dir/log" >&2
    return 1
}
finish() {
    kill -TERM "$server" 2>/dev/null
    wait "$server"
}
load() { # STREAMS SECONDS…
    local streams=$1 seconds=$2
    shift 2
    outside "$floortape" src call --to "sip:load@$target" --streams "$streams" --duration "$seconds" \
        --numbered --json "$@" >"$dir/sent"
}
# What the caller sent, and what of it is in the store: packets, and whether nothing is missing or twice.
judged() {
    "$floortape" ls --json --store "$dir/store" >"$dir/listed"
    python3 - "$dir/sent" "$dir/listed" <<'PYTHON'
import json, sys
sent = json.loads(open(sys.argv[1]).read().splitlines()[-1])["sent"]
sources = [source for line in open(sys.argv[2]) for stream in json.loads(line)["streams"] for source in stream["sources"]]
kept = sum(source["packets"] for source in sources)
lost = sum(sum(source["lost"].values()) + source["unexplained"] for source in sources)
twice = sum(source["duplicates"] for source in sources)
print(f"{sent} sent, {kept} kept, {lost} lost, {twice} twice")
sys.exit(not (sent == kept > 0 and lost == 0 and twice == 0))
PYTHON
}
# Datagrams that the recorder's sockets took.
by_sockets() {
    inside awk '/^Udp:/ && n++ { sum += $2 } /^Udp6InDatagrams/ { sum += $2 } END { print sum }' \
        /proc/net/snmp /proc/net/snmp6
}

if wants refused; then
    said() { # STATUS WORDS ARGUMENTS…
        local status=$1 words=$2
        shift 2
        inside "$floortape" serve --set "store.dir=$dir/none" --set "sip.udp=[\"$near4:5060\"]" "$@" >"$dir/said" 2>&1
        [ $? = "$status" ] && grep -q "$words" "$dir/said"
        claim "refused: $words" $? "$(tail -n 1 "$dir/said" | cut -c1-150)"
    }
    said 78 'media.interface names none' --set media.address=$near4 --set media.engine=xdp
    said 78 'no interface nowhere' --set media.address=$near4 --set media.engine=xdp --set media.interface=nowhere
    said 78 'diverted by their address' --set media.address=0.0.0.0 --set media.advertise=$near4 \
        --set media.engine=xdp --set media.interface=near
    said 78 'worker 2 cannot have queue 2 of near' --set media.address=$near4 --set media.engine=xdp \
        --set media.interface=near --set cpu.workers=3
    inside setpriv --bounding-set=-net_raw,-net_admin,-bpf,-sys_admin --inh-caps=-all \
        "$floortape" serve --set "store.dir=$dir/none" --set "sip.udp=[\"$near4:5060\"]" --set media.address=$near4 \
        --set media.engine=xdp --set media.interface=near >"$dir/said" 2>&1
    [ $? = 78 ] && grep -q 'not permitted' "$dir/said"
    claim "refused: without the privilege" $? "$(tail -n 1 "$dir/said" | cut -c1-150)"
    ! ip -n "$srs" link show near | grep -q prog/xdp
    claim "what was refused has left nothing at the interface" $?
fi

if wants calls; then
    queues 1
    for address in $near4 $near6; do
        serve "$address" || claim "starts on $address" 1
        grep -q 'diverted at near, in the driver, to 1 queue' "$dir/log"
        claim "$address: diverted in the driver" $? "$(grep -o 'frames are diverted.*' "$dir/log")"
        before=$(by_sockets)
        load 100 5
        claim "$address: 100 streams for 5 s are called" $?
        after=$(by_sockets)
        finish
        found=$(judged)
        claim "$address: all is kept" $? "$found"
        [ $((after - before)) -lt 500 ]
        claim "$address: past the sockets" $? "$((after - before)) datagrams by sockets"
        "$floortape" verify --all --store "$dir/store" >"$dir/verified"
        claim "$address: verify" $? "$(tail -n 1 "$dir/verified")"
    done
    ! ip -n "$srs" link show near | grep -q prog/xdp
    claim "at its end nothing is left at the interface" $?
fi

# As appliance/systemd/xdp.conf permits: no root, three privileges. The unit may lock any memory; where our limit is
# lower, a fourth one stands for that.
if wants user; then
    queues 1
    chmod 711 "$dir"
    install -m 755 "$floortape" "$dir/floortape"
    mkdir -p "$dir/home" && chown 65534:65534 "$dir/home"
    three=+net_admin,+bpf,+net_raw
    [ "$(ulimit -Hl)" = unlimited ] || three=$three,+ipc_lock
    ip netns exec "$srs" setpriv --reuid 65534 --regid 65534 --clear-groups \
        --no-new-privs --bounding-set=-all,$three --inh-caps=-all,$three --ambient-caps=-all,$three \
        "$dir/floortape" serve --set "store.dir=$dir/home/store" --set "sip.tcp=[\"$near4:5060\"]" \
        --set "media.address=$near4" --set media.engine=xdp --set media.interface=near >"$dir/out" 2>"$dir/log" &
    server=$!
    for _ in $(seq 200); do grep -q ^ready "$dir/log" || sleep 0.05; done
    grep -q ^ready "$dir/log" || cat "$dir/log" >&2
    target="$near4:5060;transport=tcp"
    load 20 2
    claim "a user with three privileges: 20 streams are called" $? "$(grep -o 'frames are diverted.*' "$dir/log")"
    finish
    rm -rf "$dir/store" && mv "$dir/home/store" "$dir/store"
    found=$(judged)
    claim "a user with three privileges: all is kept" $? "$found"
fi

# Nobody takes anything for a second: what the queue cannot hold waits in the sockets.
if wants behind; then
    queues 1
    serve "$near4" || claim "starts" 1
    load 400 6 &
    caller=$!
    sleep 2
    media=$(pgrep -P "$server" -f floortape-media)
    before=$(by_sockets)
    kill -STOP "$media"; sleep 0.9; kill -CONT "$media"
    wait "$caller"
    claim "400 streams go on while media stands still for 0.9 s" $?
    after=$(by_sockets)
    finish
    found=$(judged)
    claim "who was behind has lost nothing" $? "$found"
    [ $((after - before)) -gt 1000 ]
    claim "the sockets took what the queue could not" $? "$((after - before)) datagrams"
fi

if wants workers; then
    queues 2
    serve "$near4" --set cpu.workers=2 || claim "starts with two workers" 1
    grep -q 'to 2 queues' "$dir/log"
    claim "two workers have two queues" $?
    load 100 4
    claim "two workers: 100 streams for 4 s are called" $?
    finish
    found=$(judged)
    claim "two workers: all is kept, whichever queue it came by" $? "$found"
fi

# Frames with wrong sums, which no kernel lets through: into a port of a stream that is open.
if wants damaged; then
    queues 1
    serve "$near4" --set 'http.listen=["127.0.0.1:9099"]' || claim "starts" 1
    load 20 4 &
    caller=$!
    sleep 1.5
    outside python3 - "$near4" "$(ip -n "$srs" -o link show near | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2)" <<'PYTHON'
import socket, struct, sys
address, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("far", 0))
def total(data):
    data += b"\0" * (len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xffff) + (value >> 16)
    return value
for number in range(100):
    payload = b"\x80\x00" + bytes(170)
    udp = struct.pack("!HHHH", 6000, 10000, 8 + len(payload), 0x1234) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, socket.inet_aton("198.18.81.1"),
                       socket.inet_aton(address))
    head = head[:10] + struct.pack("!H", total(head) ^ 0xffff) + head[12:]
    out.send(mac + bytes(6) + b"\x08\x00" + head + udp)
PYTHON
    wait "$caller"
    count=$(inside python3 -c 'import urllib.request as u
for line in u.urlopen("http://127.0.0.1:9099/metrics").read().decode().splitlines():
    if line.startswith("floortape_datagrams_total") and "malformed" in line: print(line.split()[-1])')
    finish
    found=$(judged)
    claim "frames with wrong sums cost nobody a packet" $? "$found"
    [ "$count" = 100 ]
    claim "and are counted as malformed" $? "$count of 100"
fi

if wants kills || wants aimed; then
    kill=$(cargo test --release --quiet --locked --test kill --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\/kill-[0-9a-f]*\)".*/\1/p' | tail -1)
    step() {
        local what=$1
        shift
        inside "$kill" "$@" --xdp --ports 10000-31999 >"$dir/killed" 2>&1
        local status=$?
        [ "$status" = 0 ] || cat "$dir/killed" >&2
        claim "$what" "$status" "$(grep -m 1 -i 'missing' "$dir/killed" | cut -c1-150)"
    }
fi
if wants kills; then
    export FLOORTAPE=$floortape
    step "media dies under 300 streams" media --streams 300 --kills 20 --seed "$RANDOM"
    step "media and its successor die" restart --streams 100 --kills 6
    step "two roles at once die" pair --streams 40 --kills 3
    step "keeper dies" keeper --streams 40 --kills 2
    step "media hangs" hang --streams 40 --kills 1
fi
if wants aimed; then
    . tests/faulty.sh
    faulty_cargo build --quiet --bin floortape || exit 1
    FLOORTAPE=$(realpath "$faulty/release/floortape")
    export FLOORTAPE
    step "upgrades, and back" upgrade --streams 100 --kills 2 --other "$floortape"
    step "media kills itself at each step" aimed --streams 100 --kills 18 --seconds 35
    for point in head copied consumed; do
        step "media kills itself: $point" faults --streams 100 --kills 3 --seconds 6 --faults "xdp.kill=$point:300"
    done
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
