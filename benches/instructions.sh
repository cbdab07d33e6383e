#!/usr/bin/env bash
# Instructions a packet, counted and not timed, so that a busy machine says the same as a quiet one: the
# worker's turn over 100 streams of SRTP and of RTP, reading a datagram, making a record of it
# (benches/turn.rs). Each against its bound in benches/instructions.txt.
#
#   benches/instructions.sh             compare; exit 1 where one is above its bound
#   benches/instructions.sh --write     write the bounds anew: 2 % above what is counted now
#
# Valgrind counts, on a processor of its own that has AES and carry-less multiplication, but neither SHA
# instructions nor AVX-512: a bound is about this code and no measure of speed. It is of one compiler; a new
# one (rust-version) asks for new bounds. Installs valgrind where it is missing (Debian, as root).
set -euo pipefail
cd "$(dirname "$0")/.."
bounds=benches/instructions.txt
command -v valgrind >/dev/null || {
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends valgrind libc6-dbg
} >&2
turn=$(cargo build --release --locked --bench turn --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/turn-[0-9a-f]*\)".*/\1/p' | tail -1)
[ -x "$turn" ] || { echo "benches/turn.rs is not built" >&2; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-instructions.XXXXXX")
trap 'rm -rf "$dir"' EXIT
failed=0 passed=0 written=
for subject in turn-srtp turn-rtp parse append; do
    packets=$(valgrind --tool=callgrind --callgrind-out-file="$dir/$subject" --collect-atstart=no \
        --toggle-collect='*counted*' "$turn" --once "$subject" 2>"$dir/err") ||
        { cat "$dir/err" >&2; exit 1; }
    total=$(sed -n 's/^\(summary\|totals\): *\([0-9]*\).*/\2/p' "$dir/$subject" | tail -1)
    [ "${total:-0}" -gt 0 ] || { echo "nothing was counted in $subject" >&2; exit 1; }
    each=$((total / packets))
    written+="$subject $((each + each / 50))"$'\n'
    bound=$(sed -n "s/^$subject //p" "$bounds" 2>/dev/null || true)
    if [ "${1:-}" = --write ] || [ "$each" -le "${bound:-0}" ]; then
        echo "ok $subject: $each instructions a packet (at most ${bound:-none yet})"
        passed=$((passed + 1))
    else
        echo "FAILED $subject: $each instructions a packet, at most ${bound:-none written}"
        failed=$((failed + 1))
    fi
done
[ "${1:-}" != --write ] || printf %s "$written" >"$bounds"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
