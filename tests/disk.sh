#!/usr/bin/env bash
# Disk trouble under a real `floortape serve` with numbered packets, judged from disk by a reader that
# shares no code with the writer: full, read-only, unmounted and stalled disks, and a journal without
# room (failure catalogue F11, F12, F14, F16, F18, F19).
#
#   tests/disk.sh                 short form, about 2 minutes: 500 streams, stall of 10 s
#   tests/disk.sh long            long form: stall of 30 s, latency judged, not only printed
#   tests/disk.sh short full ro   only these cases: full spread over held brim ro death unmount stall journal ends mount
#   FLOORTAPE=path tests/disk.sh  this binary instead of a build
#
# As root: makes loop mounts below a folder of its own. Last line: "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
form=${1:-short}
shift || true
cases=${*:-mount journal ends full spread over held brim ro death unmount stall}
[ "$(id -u)" = 0 ] || { echo "run as root: mounts loop disks" >&2; exit 2; }
missing=
for pair in mkfs.ext4:e2fsprogs losetup:mount fsfreeze:util-linux python3:python3; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    echo "installing:$missing" >&2
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
fi
if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --quiet --bin floortape
    FLOORTAPE="${CARGO_TARGET_DIR:-target}/release/floortape"
fi
floortape=$(realpath "$FLOORTAPE")
streams=${STREAMS:-500}
port_base=${PORT_BASE:-28000}
ports=${PORTS:-$((port_base + 2))-$((port_base + 1401))}
sip=127.0.0.1:$port_base
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-disk.XXXXXX")
keeper= passed=0 failed=0

unmount_all() {
    grep " $dir/" /proc/mounts | awk '{ print $2 }' | sort -r | while read -r path; do
        fsfreeze -u "$path" 2>/dev/null
        umount -l "$path" 2>/dev/null
    done
    rm -f "$dir"/*.img
}
stop() { # signal
    [ -n "$keeper" ] || return 0
    kill "-${1:-TERM}" "$keeper" 2>/dev/null
    for _ in $(seq 100); do kill -0 "$keeper" 2>/dev/null || break; sleep 0.1; done
    kill -TERM "$keeper" 2>/dev/null
    for _ in $(seq 80); do kill -0 "$keeper" 2>/dev/null || break; sleep 0.1; done
    wait "$keeper" 2>/dev/null
    keeper=
}
trap 'stop; unmount_all; [ -n "${KEEP:-}" ] || rm -rf "$dir"' EXIT

disk() { # name MiB: an ext4 loop disk at $dir/name
    truncate -s "$2M" "$dir/$1.img"
    mkfs.ext4 -q -m 0 -E lazy_itable_init=0,lazy_journal_init=0 "$dir/$1.img"
    mkdir -p "$dir/$1"
    mount -o loop,errors=remount-ro "$dir/$1.img" "$dir/$1"
}
serve() { # settings…
    local words=()
    for word in "$@"; do words+=(--set "$word"); done
    "$floortape" serve --set "sip.udp=[\"$sip\"]" --set "sip.tcp=[\"$sip\"]" \
        --set "media.ports=$ports" --set media.streams_max=$streams_max \
        "${words[@]}" 2>"$dir/serve.log" &
    keeper=$!
    await "the ready line" 100 log_says "^ready"
}
await() { # what tenths command…
    local what=$1 tenths=$2; shift 2
    for _ in $(seq "$tenths"); do "$@" && return 0; sleep 0.1; done
    echo "  waited in vain for $what" >&2
    return 1
}
call() { # streams seconds: in the background; the JSON is $dir/sent.json
    "$floortape" src call --to "sip:load@$sip;transport=tcp" --streams "$1" --duration "$2" \
        --numbered --json >"$dir/sent.json" 2>"$dir/call.log" &
    caller=$!
}
answer() { # the exit code of a call of one packet: 0 recorded, 75 refused with 503
    "$floortape" src call --to "sip:load@$sip;transport=tcp" --streams 2 --duration 1 \
        >/dev/null 2>>"$dir/call.log"
    echo $?
}
log_says() { grep -q -- "$1" "$dir/serve.log" 2>/dev/null; }
answers() { [ "$(answer)" = "$1" ]; }
expect() { # what command…
    local what=$1; shift
    if "$@"; then return 0; fi
    echo "  FAILED: $what" >&2
    bad=1
}
judge() { # store: every packet that was sent is there, once, equal; and the store proves itself
    python3 tests/checker.py "$1" --numbered --proofs "--sent=$dir/sent.json" >"$dir/checked" 2>&1 || {
        tail -3 "$dir/checked" >&2
        bad=1
    }
    tail -1 "$dir/checked"
    expect "verify --all" "$floortape" verify --all --store "$1" >/dev/null
}
run() { # name
    bad=0
    streams_max=$streams
    local begin=$SECONDS
    echo "::: $1"
    "case_$1" || bad=1
    stop
    if [ "$bad" = 0 ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        tail -20 "$dir/serve.log" >&2
    fi
    echo "::: $1: $([ "$bad" = 0 ] && echo ok || echo FAILED) ($((SECONDS - begin)) s)"
    unmount_all
    rm -rf "${dir:?}"/*
}

# F18: what is not the store that is meant is refused, and nothing is made there.
case_mount() {
    mkdir "$dir/root"
    local on=(--set "sip.udp=[\"$sip\"]" --set "sip.tcp=[]")
    "$floortape" serve "${on[@]}" --set "store.dir=$dir/root/store" --set store.volume=abc 2>"$dir/out"
    expect "exit 78 without the store" test $? = 78
    expect "expected and found are named" grep -q "expected the store abc.*found no store" "$dir/out"
    expect "nothing was made" test ! -e "$dir/root/store"
    if ! [ "$(stat -c %d "$dir")" = "$(stat -c %d /)" ]; then
        echo "  $dir is a mount of its own: store.require_mount not tried"
    else
        "$floortape" serve "${on[@]}" --set "store.dir=$dir/root/store" --set store.require_mount=true 2>"$dir/out"
        expect "exit 78 on the root disk" test $? = 78
    fi
    disk store 64
    mount -o remount,ro "$dir/store"
    "$floortape" serve "${on[@]}" --set "store.dir=$dir/store" 2>"$dir/out"
    expect "exit 74 on a read-only disk" test $? = 74
    expect "read-only is said" grep -q read-only "$dir/out"
    "$floortape" check --set "store.dir=$dir/store" --set store.reserve_minutes=0 >"$dir/out"
    expect "check says the same" grep -q "^store .*read-only" "$dir/out"
    cp "$dir/out" "$dir/serve.log"
}

# F19: a journal without room: 503 for what is new, recording goes on, and it ends by itself.
case_journal() {
    streams_max=64
    disk store 1500
    disk journal 12
    mkdir "$dir/journal/j"
    serve "store.dir=$dir/store/s" "store.journal_dir=$dir/journal/j"
    call 10 20
    await "the call" 50 log_says "recording, 2 streams"
    dd if=/dev/zero of="$dir/journal/fill" bs=4k status=none 2>/dev/null
    # The file has blocks of its own: the next ones bring it to the end of the room.
    await "503" 300 answers 75
    expect "control says why" log_says "journal"
    kill -0 "$caller" || { echo "  the running call has ended" >&2; bad=1; }
    rm "$dir/journal/fill"
    await "200 without a restart" 100 answers 0 || bad=1
    wait "$caller"
    expect "the running call was recorded to its end" test $? = 0
    await "sealed" 100 settled "$dir/store/s"
    stop
    python3 tests/checker.py "$dir/store/s" --numbered "--sent=$dir/sent.json" >"$dir/checked" 2>&1
    tail -1 "$dir/checked" >&2
    expect "the call is whole" grep -q '"missing": 0, "twice": 0, "unequal": 0' "$dir/checked"
}
# F19: an end that is answered while the journal's disk is full stays one, whatever is killed then.
case_ends() {
    streams_max=64
    disk store 1500
    disk journal 24
    mkdir "$dir/journal/j"
    serve "store.dir=$dir/store/s" "store.journal_dir=$dir/journal/j"
    call 2 12
    await "the call" 50 log_says "recording, 2 streams"
    dd if=/dev/zero of="$dir/journal/fill" bs=4k status=none 2>/dev/null
    await "503" 100 answers 75
    expect "control says why" log_says "disk is full"
    wait "$caller"
    expect "the call ended in order" test $? = 0
    # shellcheck disable=SC2046
    kill -9 "$keeper" $(pgrep -P "$keeper")
    wait "$keeper" 2>/dev/null
    keeper=
    rm "$dir/journal/fill"
    serve "store.dir=$dir/store/s" "store.journal_dir=$dir/journal/j"
    await "no recording runs" 20 settled "$dir/store/s"
    "$floortape" ls --json --store "$dir/store/s" >"$dir/listed"
    expect "it is there" test -s "$dir/listed"
    expect "every end is kept" sh -c "! grep -v '\"state\":\"ended\"' '$dir/listed'"
    await "200 again" 100 answers 0 || bad=1
    stop
}
settled() { ! "$floortape" ls --json --store "$1" | grep '"state":"open"\|"state":"live"' >/dev/null; }

# F11: the store's disk fills up under the calls: the spare folder takes what comes.
case_full() {
    disk store 400
    disk spare 2000
    serve "store.dir=$dir/store/s" "store.spare_dir=$dir/spare/s" store.reserve_minutes=0
    call "$streams" 12
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 3
    dd if=/dev/zero of="$dir/store/fill" bs=1M status=none 2>/dev/null
    wait "$caller"
    expect "the calls were taken and recorded" test $? = 0
    # The log had its room already; what needs more is the segment.
    await "sealed" 200 settled "$dir/store/s"
    expect "the alarm" log_says "goes on in $dir/spare/s"
    expect "segments in the spare folder" ls "$dir"/spare/s/segments/*.seg >/dev/null
    stop
    judge "$dir/store/s"
}

# A store of three disks: segments go to where the most room is; one that is not mounted is missed by name.
case_spread() {
    disk store 400
    disk two 1000
    disk three 1000
    local settings=("store.dir=$dir/store/s" "store.segment_dirs=[\"$dir/two/s\", \"$dir/three/s\"]"
        store.reserve_minutes=0 store.segment_s=2)
    serve "${settings[@]}"
    call "$streams" 12
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 5
    # shellcheck disable=SC2046
    kill -9 "$keeper" $(pgrep -P "$keeper")
    wait "$keeper" 2>/dev/null
    serve "${settings[@]}"
    wait "$caller"
    await "sealed" 200 settled "$dir/store/s"
    expect "no alarm" sh -c "! grep -q 'goes on in' '$dir/serve.log'"
    for disk in two three; do
        expect "segments on disk $disk" ls "$dir/$disk/s/segments"/*.seg >/dev/null
    done
    expect "the log on the first" sh -c "! ls '$dir'/two/s/log/w0/*.log 2>/dev/null"
    stop
    python3 tests/checker.py "$dir/store/s" --numbered --proofs >"$dir/checked" 2>&1
    expect "the store proves itself" test $? = 0
    tail -1 "$dir/checked"
    expect "verify --all" "$floortape" verify --all --store "$dir/store/s" >/dev/null
    umount "$dir/two"
    "$floortape" verify --all --store "$dir/store/s" >"$dir/out" 2>&1
    expect "verify misses what lies on the second" test $? != 0
    expect "by name" grep -q "$dir/two/s" "$dir/out"
    "$floortape" serve --set "sip.udp=[\"$sip\"]" --set "store.dir=$dir/store/s" 2>"$dir/out"
    expect "exit 74 without it" test $? = 74
    expect "the folder is named" grep -q "the folder $dir/two/s holds parts of the store" "$dir/out"
    expect "nothing was made there" test ! -e "$dir/two/s"
}

# F11: no room is left, no spare folder is there and the ring is full: who is being recorded is told by BYE.
case_over() {
    streams_max=100
    disk store 200
    serve "store.dir=$dir/store/s" store.reserve_minutes=0 store.ring_seconds=4 store.segment_mib=2
    call 100 120
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 2
    dd if=/dev/zero of="$dir/store/fill" bs=64k status=none 2>/dev/null
    local begin=$SECONDS
    await "the end of what cannot be kept" 900 log_says "is ended, nothing of it can be kept"
    echo "  after $((SECONDS - begin)) s with a ring of 4 s"
    wait "$caller"
    expect "their clients heard of it" grep -q "the recorder ended 50 calls early" "$dir/call.log"
    rm "$dir/store/fill"
    await "200 again" 300 answers 0
    await "sealed" 200 settled "$dir/store/s"
    stop
    "$floortape" verify --all --store "$dir/store/s" >"$dir/checked"
    expect "what was kept proves itself" test $? = 0
}

# F16: a full disk of what is due and held: nothing of it goes, and who is refused hears what keeps it.
case_held() {
    disk store 700
    serve "store.dir=$dir/store/s" store.retention=3s store.retention_check_s=1
    "$floortape" hold add '*' --reason "the whole floor" --store "$dir/store/s" >/dev/null
    expect "the hold" test $? = 0
    call 20 3
    wait "$caller"
    await "sealed" 200 settled "$dir/store/s"
    (cd "$dir/store/s/segments" && sha256sum -- *.seg) >"$dir/before"
    dd if=/dev/zero of="$dir/store/fill" bs=1M status=none 2>/dev/null
    await "503" 300 answers 75
    expect "the reason names the hold" await "it" 300 log_says "kept by hold"
    sleep 5
    # Only of what was there: a call that is taken before the first 503 makes segments of its own.
    expect "0 bytes overwritten" sh -c "cd '$dir/store/s/segments' && sha256sum -c --quiet '$dir/before'"
    rm "$dir/store/fill"
    await "200 again" 300 answers 0 || bad=1
    stop
    "$floortape" verify --all --store "$dir/store/s" >"$dir/checked"
    expect "what is held proves itself" test $? = 0
}

# F16: a disk without a single block: what is due goes all the same, by what the store has kept for that.
case_brim() {
    disk store 700
    serve "store.dir=$dir/store/s" store.retention=8s store.retention_check_s=1 store.reserve_minutes=0
    call 20 3
    wait "$caller"
    await "sealed" 200 settled "$dir/store/s"
    expect "there is something to go" ls "$dir"/store/s/segments/*.seg >/dev/null
    # Whatever the server lets go of meanwhile, such as a file of the log, is filled at once.
    local until=$((SECONDS + 20))
    while [ $SECONDS -lt $until ] && ! log_says "is given back" && ! all_gone; do
        for size in 1M 4k 1; do dd if=/dev/zero bs=$size status=none >>"$dir/store/fill" 2>/dev/null; done
        sleep 0.1
    done
    expect "what is due is gone" await "it" 50 all_gone
    expect "the reserve was needed" log_says "its reserve of 16 MiB is given back"
    expect "the trail says so" sh -c "'$floortape' audit --store '$dir/store/s' | grep -q retention.expired"
    rm "$dir/store/fill"
    expect "it is kept again" await "it" 100 test -s "$dir/store/s/reserve"
    stop
    # Nothing could be removed by a server that does not even start.
    for size in 1M 4k 1; do dd if=/dev/zero bs=$size status=none >>"$dir/store/fill" 2>/dev/null; done
    serve "store.dir=$dir/store/s" store.retention=8s store.retention_check_s=1 store.reserve_minutes=0
    expect "it starts on the full disk, by its reserve" log_says "its reserve of 16 MiB is given back"
    stop
    rm "$dir/store/fill"
    "$floortape" verify --all --store "$dir/store/s" >"$dir/checked"
    expect "what is left proves itself" test $? = 0
}
all_gone() { ! ls "$dir"/store/s/segments/*.seg >/dev/null 2>&1; }

# F12: the disk becomes read-only under the calls, as ext4 does after an error.
case_ro() {
    disk store 2000
    disk spare 2000
    serve "store.dir=$dir/store/s" "store.spare_dir=$dir/spare/s" store.reserve_minutes=5
    call "$streams" 12
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 3
    # Files open for writing forbid an ordinary remount; this is what an error of the disk does.
    mount -o remount,abort "$dir/store" 2>/dev/null ||
        echo 1 >"/sys/fs/ext4/$(basename "$(findmnt -no SOURCE "$dir/store")")/trigger_fs_error"
    expect "the disk is read-only" sh -c "! touch $dir/store/x 2>/dev/null"
    wait "$caller"
    expect "the calls were recorded" test $? = 0
    expect "the alarm" log_says "goes on in $dir/spare/s"
    await "sealed" 200 settled "$dir/store/s"
    stop
    judge "$dir/store/s"
}

# F12, F03: on a disk that has become read-only keeper dies, then each role: the ring and the spare
# folder go on, whoever dies.
case_death() {
    disk store 2000
    disk spare 2000
    local settings=("store.dir=$dir/store/s" "store.spare_dir=$dir/spare/s" store.reserve_minutes=5)
    serve "${settings[@]}"
    call "$streams" 16
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 2
    mount -o remount,abort "$dir/store" 2>/dev/null ||
        echo 1 >"/sys/fs/ext4/$(basename "$(findmnt -no SOURCE "$dir/store")")/trigger_fs_error"
    expect "the disk is read-only" sh -c "! touch $dir/store/x 2>/dev/null"
    await "the spare folder" 100 log_says "goes on in $dir/spare/s"
    kill -KILL "$keeper"
    wait "$keeper" 2>/dev/null
    mv "$dir/serve.log" "$dir/first.log"
    serve "${settings[@]}" || { tail -20 "$dir/first.log" >&2; return 1; }
    expect "it took over" log_says "took over memory"
    expect "nobody signed" log_says "names no holder"
    local other
    "$floortape" serve --set "store.dir=$dir/store/s" --set "sip.udp=[\"127.0.0.1:$((port_base + 1))\"]" \
        --set 'sip.tcp=[]' --set "media.ports=$ports" >"$dir/other" 2>&1
    other=$?
    expect "another server leaves it alone" test "$other" = 75
    expect "and names who has the store" grep -q "in use by another server (process $keeper)" "$dir/other"
    for role in control media; do
        local before
        before=$(child "$role")
        kill -KILL "$before"
        await "another $role" 100 succeeds "$role" "$before" || bad=1
    done
    wait "$caller"
    expect "the calls were recorded" test $? = 0
    await "sealed" 200 settled "$dir/store/s"
    stop
    judge "$dir/store/s"
}
child() { pgrep -P "$keeper" -f "^floortape-$1"; }
succeeds() { [ -n "$(child "$1")" ] && [ "$(child "$1")" != "$2" ]; }

# F18: somebody unmounts the store under the calls, and mounts it again later.
case_unmount() {
    disk store 2000
    disk spare 2000
    serve "store.dir=$dir/store/s" "store.spare_dir=$dir/spare/s" store.require_mount=true \
        store.reserve_minutes=5
    call "$streams" 12
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 3
    umount -l "$dir/store"
    wait "$caller"
    expect "the calls were recorded" test $? = 0
    expect "the alarm" log_says "goes on in $dir/spare/s"
    expect "nothing was written to what lies below" test -z "$(ls "$dir/store")"
    stop
    await "the disk is free again" 100 released
    mount -o loop "$dir/store.img" "$dir/store"
    judge "$dir/store/s"
}

released() { [ -z "$(losetup -j "$dir/store.img")" ]; }

# F14: the disk stalls. Workers never wait for it; the ring keeps everything.
case_stall() {
    local stall=10
    [ "$form" != long ] || stall=30
    local quiet=$stall
    measure 0 "$quiet" || return 1
    local undisturbed=$measured
    unmount_all
    rm -rf "${dir:?}"/*
    measure "$stall" 4 || return 1
    awk -v before="$undisturbed" -v during="$measured" 'BEGIN {
        printf "append (wire→captured) p99.9: undisturbed %.2f ms, with the stall %.2f ms: %.2f times\n",
            before, during, during / before }'
    # A busy machine makes either of them worse; the long form is for a quiet one.
    [ "$form" != long ] || expect "p99.9 within 20 %" \
        awk -v before="$undisturbed" -v during="$measured" 'BEGIN { exit during > before * 1.2 }'
}
measure() { # stall seconds: p99.9 of a run's appends in $measured
    disk store 3000
    serve "store.dir=$dir/store/s" store.ring_seconds=90 store.reserve_minutes=1 || return 1
    call "$streams" $(($1 + $2 + 4))
    await "the calls" 100 log_says "recording, 2 streams"
    sleep 3
    if [ "$1" != 0 ]; then
        fsfreeze -f "$dir/store"
        sleep "$1"
        fsfreeze -u "$dir/store"
    fi
    wait "$caller"
    expect "the calls were recorded" test $? = 0
    await "sealed" 300 settled "$dir/store/s"
    stop
    measured=$(grep 'health: ' "$dir/serve.log" | tail -1 |
        sed -n 's/.*wire→captured p50 [0-9.]* p99 [0-9.]* p99.9 \([0-9.]*\) .*/\1/p')
    [ "$1" = 0 ] || judge "$dir/store/s"
}

for name in $cases; do run "$name"; done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
