#!/usr/bin/env bash
# The crash harness (tests/crash/): real processes killed under load, judged from disk; dialogs of SIPp,
# and of a caller of our own over TCP, through deaths of control; kills aimed at instructions, and every
# rule broken on purpose, in a build with fault points. Exit 1 where a figure is not as it should be, or
# where a broken rule went unseen.
#
#   tests/crash.sh                   the short form, about five minutes on two cores with its builds
#   tests/crash.sh NAME…             only these of its steps
#   tests/crash.sh --long DIR [NAME…]    the long form; its rounds are kept in DIR as JSON lines, and
#                                    a second call goes on where the first one stopped
#   tests/crash.sh --report DIR      what the long form has gathered
#
# For a bare Debian 12: SIPp and python3-cryptography are installed by apt-get where they are missing and
# we may. Nothing else needs root. PORTS=A-B: media ports (10000-31999).
set -uo pipefail
cd "$(dirname "$0")/.."
ports=${PORTS:-10000-31999}
failed=0 passed=0 long=
if [ "${1:-}" = --long ] || [ "${1:-}" = --report ]; then
    mode=$1 long=${2:?a folder for the results}
    shift 2
    mkdir -p "$long"
fi
wanted=" $* "

opens() { python3 -c 'import cryptography' 2>/dev/null; }
packages=()
command -v sipp >/dev/null || packages+=(sip-tester)
opens || packages+=(python3-cryptography)
if [ "${#packages[@]}" -gt 0 ] && [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends "${packages[@]}"; } >&2
fi

cargo build --release --quiet --locked --bin floortape || exit 1
kill=$(cargo test --release --quiet --locked --test kill --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/kill-[0-9a-f]*\)".*/\1/p' | tail -1)
[ -x "$kill" ] || exit 1
if [ "${mode:-}" = --report ]; then
    cat "$long"/*.jsonl >"$long/.all"
    exec "$kill" --report "$long/.all"
fi

. tests/faulty.sh
faulty_cargo build --quiet --bin floortape || exit 1
faulty_binary=$(realpath "$faulty/release/floortape")

# NAME: a word to choose it by. Everything behind it is for the harness.
step() {
    local name=$1 begin=$SECONDS; shift
    case $wanted in "  " | *" $name "*) ;; *) return ;; esac
    [ -z "$long" ] || set -- "$@" --resume "$long/$name.jsonl"
    echo "::: $name: $*"
    if "$kill" "$@" --ports "$ports"; then
        passed=$((passed + 1)); echo "::: $name: ok ($((SECONDS - begin)) s)"
    else
        failed=$((failed + 1)); echo "::: $name: FAILED ($((SECONDS - begin)) s)"
    fi
}
# The same with fault points.
faults() { FLOORTAPE=$faulty_binary step "$@"; }

# Media dies under a store that is encrypted; only Python's `cryptography` reads that here.
sealed() {
    case $wanted in "  " | *" sealed "*) ;; *) return ;; esac
    if opens; then
        step sealed media "$@" --encrypted
    else
        echo "::: sealed: SKIPPED: no python3-cryptography"
    fi
}

# Panics and dead engines: tests/faults.rs.
panics() {
    case $wanted in "  " | *" panics "*) ;; *) return ;; esac
    echo "::: panics"
    if faulty_cargo test --quiet --test faults; then
        passed=$((passed + 1)); echo "::: panics: ok"
    else
        failed=$((failed + 1)); echo "::: panics: FAILED"
    fi
}

panics
if [ -z "$long" ]; then
    step media media --streams 500 --kills 40 --seed "$RANDOM"
    sealed --streams 100 --kills 10
    step dialogs dialogs --streams 20 --dialogs 50 --kills 10
    step dialogs-tcp dialogs --streams 20 --dialogs 50 --kills 10 --tcp
    step pair pair --streams 40 --kills 3
    step keeper keeper --streams 40 --kills 2
    step invite invite --streams 40 --kills 2
    step rekey rekey --streams 40 --kills 6 --spacing-ms 700
    step hang hang --streams 40 --kills 1
    step upgrade upgrade --streams 100 --kills 4 --other "$faulty_binary"
    step go-back upgrade --streams 100 --kills 1 --other "$faulty_binary" --faults keeper.other_layouts
    step go-back-dead upgrade --streams 100 --kills 1 --other "$faulty_binary" --faults worker.kill=before_go
    faults aimed aimed --streams 100 --kills 18 --seconds 35
else
    step media media --streams 500 --kills 1000
    sealed --streams 200 --kills 100
    step media-2000 media --streams 2000 --kills 20 --kills-per-round 20 --gap-median-ms 25 --late-share 0.3
    step media-workers media --streams 500 --kills 100 --workers 2
    step media-plain media --streams 500 --kills 100 --plain
    step engine engine --streams 500 --kills 100
    step restart restart --streams 500 --kills 200
    step seal seal --streams 500 --kills 200
    step rekey rekey --streams 500 --kills 200
    step invite invite --streams 200 --kills 100 --kills-per-round 20
    step dialogs dialogs --streams 200 --dialogs 200 --kills 100 --kills-per-round 100
    step dialogs-tcp dialogs --streams 200 --dialogs 200 --kills 100 --kills-per-round 100 --tcp
    step keeper keeper --streams 200 --kills 50 --kills-per-round 10
    step pair pair --streams 200 --kills 60 --kills-per-round 12
    step hang hang --streams 200 --kills 20 --kills-per-round 5
    step upgrade upgrade --streams 500 --kills 40 --kills-per-round 10 --other "$faulty_binary"
    step go-back upgrade --streams 500 --kills 20 --kills-per-round 5 --other "$faulty_binary" \
        --faults keeper.other_layouts
    step go-back-dead upgrade --streams 500 --kills 20 --kills-per-round 5 --other "$faulty_binary" \
        --faults worker.kill=before_go
    faults aimed aimed --streams 100 --kills 500 --seconds 25
fi

# Negative controls: each breaks one rule, and must be seen.
faults red-private faults --streams 100 --kills 2 --seconds 5 --red \
    --faults worker.private_buffers,worker.kill=before_tail:100
faults red-in-place faults --streams 100 --kills 2 --seconds 5 --red \
    --faults worker.decrypt_in_place,worker.kill=before_tail:100
faults red-offered-early faults --streams 100 --kills 2 --seconds 5 --red \
    --faults worker.offer_before_publish,worker.kill=before_tail:100
faults reply-late reply --streams 20 --kills 2 --faults journal.delay=append:1+:50
faults red-reply-early reply --streams 20 --kills 2 --red \
    --faults control.reply_before_persist,journal.delay=append:1+:300

echo "crash harness: $passed passed, $failed failed"
[ "$failed" = 0 ]
