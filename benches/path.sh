#!/usr/bin/env bash
# What a packet costs: ours against the bare receive path and against peers, on the same traffic.
#
#   benches/path.sh [--peers] [RUNS [SECONDS [STREAMS]]]      default 7 runs, 10 s, 2,000 streams
#
# As root, with ip, tc, ethtool and python3, on two cores at least that nobody else uses; builds first.
# --peers installs dumpcap, tcpdump and rtpengine by apt-get where they are missing (Debian 12). The
# default takes about 5 minutes, with --peers 19.
#
# Cost: CPU of all threads of the subject on all cores, and of the thread that does the receiving
# softirq work, by /proc/PID/task/TID/schedstat (ns), over SECONDS in the middle of a run, divided by
# the packets that came in meanwhile and were kept. What the kernel's own writeback threads do is
# billed to nobody. A veth pair between two network namespaces; NAPI of the receiving end is threaded
# and pinned to the recorder's core beside the subject, the generator sits on the other one (over
# loopback, and without a thread of its own, the sender would pay for receiving).
#
# Traffic: G.711, 20 ms, 172 octets of RTP, 50 packets/s a stream, all streams from one socket in
# bursts of 2.5 ms, SRTP with AES_CM_128_HMAC_SHA1_80.
#   floor        all of it to one port: multishot recv, no control data, 5 ms wait, discarded
#   ours         `floortape serve` as it comes, called by `floortape src call` (SIP, SDES keys), kept as
#                `ls` counts it; "worker" is its worker thread alone, with the softirq work
#   ours-each    the same with a socket a stream, as without the privilege to steer; only where SUBJECTS
#                names it
#   ours-xdp     the same with media.engine = "xdp" at the receiving end of the pair; only where SUBJECTS names
#                it, or with --peers
#   ours-100     the same packets a second in 100 streams, 1,000 each: by SIP of benches/path/call.py,
#                since `src call` keeps to 50, and 100 streams of 50 would tell what a wake-up costs
#   dumpcap      plain RTP to another machine's address, as on a mirror port, to one file, no streams
#   tcpdump      the same
#   rtpengine    10.5, user space, SRTP by its ng protocol to a pcap a call, media not forwarded
#   tokio        benches/path/record.rs: a task a stream, webrtc-srtp, buffered files, never synced
# Subjects take turns within each run; a ratio is of neighbours in one run. Exit 1 where the generator
# had more than 1 % of its packets late or unsent, or where the floor or ours lost one; figures and
# goals never fail it, and what a peer loses is only said.
#
# FLOORTAPE: the binary (target/release/floortape). SUBJECTS: only these. KEEP=1 keeps the results.
# COALESCE_US=50: the receiving end rests so long after each poll, as a network card that coalesces its
# interrupts. Without it a subject that leaves its core idle pays for a poll a packet or so, and one
# that is busy for fewer: the column "softirq" says how much of the cost that is.
# CORES="0 1": of the generator and the recorder (the first and the last). TMPDIR: where all write.
set -euo pipefail
subjects="floor ours ours-100"
if [ "${1:-}" = --peers ]; then
    subjects="$subjects ours-xdp dumpcap tcpdump rtpengine tokio"
    shift
fi
subjects=${SUBJECTS:-$subjects}
runs=${1:-7} seconds=${2:-10} streams=${3:-2000}
root=$(cd "$(dirname "$0")/.." && pwd)
floortape=${FLOORTAPE:-$root/target/release/floortape}
read -r send_core record_core <<<"${CORES:-0 $(($(nproc) - 1))}"
[ "$(id -u)" = 0 ] && [ "$send_core" != "$record_core" ] || { echo "root and two cores are needed" >&2; exit 1; }

missing=
for pair in dumpcap:wireshark-common tcpdump:tcpdump rtpengine:rtpengine-daemon ethtool:ethtool; do
    command -v "${pair%:*}" >/dev/null || case " $subjects ethtool " in *" ${pair%:*} "*) missing+=" ${pair#*:}" ;; esac
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >&2
    # The package may start it as a service, which has no part in this.
    case $missing in *rtpengine*) systemctl disable --now rtpengine-daemon >/dev/null 2>&1 || true ;; esac
fi
path=$(cd "$root" && cargo build --release --locked --bin floortape --bench path --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/path-[0-9a-f]*\)".*/\1/p' | tail -1)
[ -x "$path" ] || exit 1
# A socket a stream, in the peers.
ulimit -n "$(ulimit -Hn)"

dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-path.XXXXXX")
sender=ftpath-snd-$$ receiver=ftpath-rcv-$$
# Short: the name of the thread must hold it in 15 octets.
near=fpr$(($$ % 10000)) far=fps$(($$ % 10000))
here=198.18.77.2 elsewhere=198.18.77.3
cleanup() {
    trap - EXIT INT TERM
    # Everything of ours, and nothing else, lives in the two namespaces.
    for name in "$sender" "$receiver"; do
        ip netns pids "$name" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
    done
    wait 2>/dev/null || true
    ip netns del "$sender" 2>/dev/null || true
    ip netns del "$receiver" 2>/dev/null || true
    if [ -n "${KEEP:-}" ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

ip netns add "$sender"
ip netns add "$receiver"
ip -n "$sender" link add "$far" type veth peer name "$near" netns "$receiver"
ip -n "$sender" addr add 198.18.77.1/24 dev "$far"
ip -n "$receiver" addr add "$here/24" dev "$near"
# Nobody is asked for its Ethernet address, since a burst does not wait for the answer; what is for
# elsewhere has another one.
ip -n "$receiver" link set "$near" address 02:00:00:00:77:02
ip -n "$sender" neigh add "$here" lladdr 02:00:00:00:77:02 dev "$far"
ip -n "$sender" neigh add "$elsewhere" lladdr 02:00:00:00:77:03 dev "$far"
for name in "$sender" "$receiver"; do ip -n "$name" link set lo up; done
# A veth has NAPI where GRO is on, and uses it for packets of a sender without TSO.
ip netns exec "$sender" ethtool -K "$far" tso off
ip netns exec "$receiver" ethtool -K "$near" gro on
ip -n "$sender" link set "$far" up
ip -n "$receiver" link set "$near" up
# A burst waits where the receiving end has not come to it yet, as in the queue of a network card.
tc -n "$sender" qdisc add dev "$far" root pfifo limit 20000
# /sys shows the devices of the namespace that it was mounted in, and `ip netns exec` mounts it.
inside() { ip netns exec "$receiver" "$@"; }
inside sh -c "cd /sys/class/net/$near; echo 1 >threaded
    [ ${COALESCE_US:-0} = 0 ] || { echo ${COALESCE_US:-0}000 >gro_flush_timeout; echo 1 >napi_defer_hard_irqs; }"
napi=$(grep -l "^napi/$near-" /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3)
[ -n "$napi" ] || { echo "no NAPI thread" >&2; exit 1; }
# All of it alike before whatever else this machine does: the scheduler's delays are not what is asked.
# Each in a session of its own, since sessions share a core before processes do (sched(7), autogroup).
# Always in the background, since a shell becomes it.
first() {
    exec nice -n -15 setsid sh -c 'echo -15 2>/dev/null >/proc/self/autogroup; exec "$@"' sh "$@"
}
for pid in $napi; do
    taskset -cp "$record_core" "$pid" >/dev/null
    renice -n -15 -p "$pid" >/dev/null
done
on_receiver() { first ip netns exec "$receiver" taskset -c "$record_core" "$@"; }
on_sender() { first ip netns exec "$sender" taskset -c "$send_core" "$@"; }
packets_in() { inside cat "/sys/class/net/$near/statistics/rx_packets"; }

# Of processes and all that they started: threads, a line each, with ns on a CPU.
tree() {
    local pid child
    for pid in "$@"; do
        for task in "/proc/$pid/task"/*; do
            echo "$(cut -d' ' -f1 "$task/schedstat") $(cat "$task/comm")"
        done
        for child in $(cat "/proc/$pid/task"/*/children); do tree "$child"; done
    done 2>/dev/null || true
}
sum() { awk '{ sum += $1 } END { printf "%.0f", sum }'; }

# Two looks, SECONDS apart, in the middle of the traffic: sets spent, two parts of it, and came.
measure() {
    local before after
    # All flows run, and what setting them up cost is over.
    local idle=$(($(packets_in) + 5 * streams)) tries=0
    until [ "$(packets_in)" -gt "$idle" ]; do
        sleep 0.1
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { echo "no packets came" >&2; return 1; }
    done
    sleep 2
    look before
    sleep "$seconds"
    look after
    spent=$((after_all - before_all + after_napi - before_napi))
    spent_worker=$((after_worker - before_worker)) spent_napi=$((after_napi - before_napi))
    came=$((after_came - before_came))
}
look() {
    local threads
    threads=$(tree "$subject_pid")
    printf -v "$1_all" %s "$(sum <<<"$threads")"
    printf -v "$1_worker" %s "$(grep ' worker-' <<<"$threads" | sum)"
    printf -v "$1_napi" %s "$(tree $napi | sum)"
    printf -v "$1_came" %s "$(packets_in)"
}

# Starts a subject and waits until its output says that it is ready.
start() {
    local word=$1
    shift
    on_receiver "$@" >"$dir/out" 2>"$dir/err" </dev/null 9>&- &
    subject_pid=$!
    for _ in $(seq 600); do
        grep -q "$word" "$dir/out" "$dir/err" && return
        kill -0 "$subject_pid" 2>/dev/null || break
        sleep 0.05
    done
    cat "$dir/out" "$dir/err" >&2
    echo "$1 did not start" >&2
    return 1
}
# A word of JSON in a file.
field() { sed -n "s/.*\"$2\":\([0-9]*\).*/\1/p" "$1" | tail -1; }
# Sends $streams flows, or $few faster ones: PORTS, srtp or plain, and to whom.
generate() {
    local flows=${few:-$streams}
    on_sender "$path" send "${3:-$here}" "$1" "$flows" $((streams * 50 / flows)) $((seconds + 5)) "$2" >"$dir/sent" &
    generator=$!
    measure
    wait "$generator"
    sent=$(field "$dir/sent" sent) late=$(field "$dir/sent" late) unsent=$(field "$dir/sent" unsent)
}
# Ends it by a signal, when the last packets have come out of the kernel's buffers.
finish() {
    sleep 1
    kill "-$1" "$subject_pid" 2>/dev/null || true
    wait "$subject_pid" || true
}

. "$root/benches/path/subjects.sh"

for run in $(seq "$runs"); do
    for subject in $subjects; do
        "$subject"
        echo "$subject $run $spent $spent_worker $spent_napi $came $sent $late $unsent $kept" >>"$dir/results"
        echo "run $run, $subject: $((spent / (came + 1))) ns/packet, $came packets in the middle; sent $sent, late $late, unsent $unsent, kept $kept" >&2
        rm -rf "$dir/store" "$dir/pcap" "$dir/packets" "$dir"/*.rec
    done
done
awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo
echo "$(nproc) cores, Linux $(uname -r); $runs runs of $seconds s, $streams streams"
python3 "$root/benches/path/table.py" "$dir/results"
