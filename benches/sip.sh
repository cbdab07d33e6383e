#!/usr/bin/env bash
# How fast signalling is, by SIPp: calls of one rtcp-mux SAVP line with an SBC's full metadata, ended by
# BYE after one second, default configuration, journal synced. Prints the latency INVITE→200 over all
# calls (p50, p99, longest), retransmissions of either side, CPU of control, and whether `ls` shows
# exactly the calls made. SIPp's own limit is some 3,000 such calls a second on one core.
#
#   benches/sip.sh [CALLS_A_SECOND [SECONDS [udp|tcp]]]     default 1000 calls/s, 30 s, udp
#
# HOLD_MS=60000: each call lasts so long; prints what control keeps of each (2,000 of them: 200 10). With
# session timers (1,800 s, we refresh), as all calls here.
#
# FLOORTAPE: the binary (target/release/floortape). KEEP=1 keeps the store. PERF=1 writes a profile of
# control beside it (needs perf).
set -euo pipefail
rate=${1:-1000} seconds=${2:-30} transport=${3:-udp}
root=$(cd "$(dirname "$0")/.." && pwd)
floortape=${FLOORTAPE:-$root/target/release/floortape}
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-sip.XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# A call lasts 1 s and its port rests 2 s at least: 3.3 times the rate, and a third more.
hold_ms=${HOLD_MS:-1000}
streams=$((rate * (2 * hold_ms + 7000) / 2000)) all=$((rate * seconds + 100))
[ "$streams" -le "$all" ] || streams=$all
ports_last=$((10000 + 2 * streams - 1))
[ "$ports_last" -le 59999 ] || ports_last=59999

"$floortape" serve --set "store.dir=$dir/store" --set "sip.udp=[\"127.0.0.1:$port\"]" \
    --set "sip.tcp=[\"127.0.0.1:$port\"]" --set "media.ports=10000-$ports_last" \
    --set "media.streams_max=${STREAMS:-$streams}" 2>"$dir/serve.log" &
keeper=$!
cleanup() {
    kill -TERM "$keeper" 2>/dev/null || true
    wait "$keeper" 2>/dev/null || true
    [ -n "${KEEP:-}" ] && echo "kept: $dir" || rm -rf "$dir"
}
trap cleanup EXIT
for _ in $(seq 400); do
    grep -q '^ready' "$dir/serve.log" && break
    sleep 0.05
done
grep '^ready' "$dir/serve.log" || { cat "$dir/serve.log" >&2; exit 1; }
for pid in $(cat "/proc/$keeper/task/$keeper/children"); do
    if tr '\0' '\n' <"/proc/$pid/cmdline" | head -1 | grep -qx floortape-control; then control=$pid; fi
done

associations=
for name in ann bob; do
    associations+="      <participantsessionassoc participant_id=\"$name==\" session_id=\"hVpd7YQgRW2nD22h7q60JQ==\"><associate-time>2026-01-05T09:30:00Z</associate-time></participantsessionassoc>
      <participantstreamassoc participant_id=\"$name==\"><send>UAAMm5GRQKSCMVvLyl4rFw==</send><recv>UAAMm5GRQKSCMVvLyl4rFw==</recv></participantstreamassoc>
"
done
cat >"$dir/call.xml" <<XML
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="rs">
  <send retrans="500" start_rtd="1">
    <![CDATA[

      INVITE sip:srs@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: "SBC" <sip:sbc@[local_ip]>;tag=[pid]S[call_number]
      To: <sip:srs@[remote_ip]>
      Call-ID: [call_id]
      CSeq: 101 INVITE
      Max-Forwards: 70
      Min-SE: 1800
      User-Agent: Example-SBC/17.9
      Supported: 100rel,timer,resource-priority,replaces,sdp-anat
      Allow: INVITE, OPTIONS, BYE, CANCEL, ACK, PRACK, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, REGISTER
      Session-ID: 5cb31bcd00105000a000aabbcc[call_number];remote=00000000000000000000000000000000
      Contact: <sip:sbc@[local_ip]:[local_port];transport=[transport]>;+sip.src
      Require: siprec
      Content-Type: multipart/mixed;boundary="uniqueBoundary"
      MIME-Version: 1.0
      Content-Length: [len]

      --uniqueBoundary
      Content-Type: application/sdp
      Content-Disposition: session;handling=required

      v=0
      o=SBC 7271 [call_number] IN IP4 [local_ip]
      s=SIP Call
      c=IN IP4 [local_ip]
      t=0 0
      m=audio 9 RTP/SAVP 0 8 101
      a=rtpmap:0 PCMU/8000
      a=rtpmap:8 PCMA/8000
      a=rtpmap:101 telephone-event/8000
      a=fmtp:101 0-16
      a=ptime:20
      a=rtcp-mux
      a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd
      a=label:1
      a=sendonly

      --uniqueBoundary
      Content-Type: application/rs-metadata+xml
      Content-Disposition: recording-session

      <?xml version="1.0" encoding="UTF-8"?>
      <recording xmlns="urn:ietf:params:xml:ns:recording:1">
      <datamode>complete</datamode>
      <session session_id="hVpd7YQgRW2nD22h7q60JQ=="><sipSessionID>5cb31bcd00105000a000aabbcc[call_number];remote=f81d4fae7dec11d0a76500a0c91e6bf6</sipSessionID><start-time>2026-01-05T09:30:00Z</start-time></session>
      <participant participant_id="ann=="><nameID aor="sip:ann@desk.example.com"><name xml:lang="en">Ann</name></nameID></participant>
      <participant participant_id="bob=="><nameID aor="sip:+15550100@carrier.example.net"><name xml:lang="en">Bob</name></nameID></participant>
      <stream stream_id="UAAMm5GRQKSCMVvLyl4rFw==" session_id="hVpd7YQgRW2nD22h7q60JQ=="><label>1</label></stream>
      <sessionrecordingassoc session_id="hVpd7YQgRW2nD22h7q60JQ=="><associate-time>2026-01-05T09:30:00Z</associate-time></sessionrecordingassoc>
$associations      </recording>
      --uniqueBoundary--

    ]]>
  </send>
  <recv response="100" optional="true"/>
  <recv response="200" rtd="1" rrs="true"/>
  <send>
    <![CDATA[

      ACK [next_url] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: "SBC" <sip:sbc@[local_ip]>;tag=[pid]S[call_number]
      [last_To:]
      Call-ID: [call_id]
      CSeq: 101 ACK
      Max-Forwards: 70
      Content-Length: 0

    ]]>
  </send>
  <pause milliseconds="$hold_ms"/>
  <send retrans="500">
    <![CDATA[

      BYE [next_url] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: "SBC" <sip:sbc@[local_ip]>;tag=[pid]S[call_number]
      [last_To:]
      Call-ID: [call_id]
      CSeq: 102 BYE
      Max-Forwards: 70
      Content-Length: 0

    ]]>
  </send>
  <recv response="200"/>
</scenario>
XML

ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }
calls=$((rate * seconds))
mode=u1 && [ "$transport" = tcp ] && mode=t1
if [ -n "${PERF:-}" ]; then
    perf record -g -F 499 -p "$control" -o "$dir/perf.data" -- sleep "$seconds" >/dev/null 2>&1 &
fi
before=$(ticks "$control")
anonymous() { awk '$1 == "RssAnon:" { print $2 }' "/proc/$control/status"; }
empty=$(anonymous)
if [ "$hold_ms" -gt 1000 ]; then
    # All are up, none has ended, and what 64*T1 keep of their INVITEs is gone where they last long enough.
    { sleep $((hold_ms / 1000 - 1)); echo "control keeps $(((($(anonymous) - empty) * 10 / calls + 5) / 10)) KiB of each of $calls held dialogs"; } &
fi
cd "$dir"
sipp -sf call.xml -i 127.0.0.1 -t "$mode" -r "$rate" -m "$calls" -l $((rate * (hold_ms + 4000) / 1000)) -nostdin \
    -trace_rtt -rtt_freq 1000 -trace_stat -stf stat.csv -fd 1 -trace_err -error_file errors \
    -recv_timeout 30000 "127.0.0.1:$port" >screen 2>&1 || echo "sipp ended with $?"
after=$(ticks "$control")
awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v seconds="$seconds" \
    'BEGIN { printf "control: %.1f s of CPU in %d s: %.0f %% of a core\n", ticks / hz, seconds, ticks / hz / seconds * 100 }'
grep -hE '^(VmHWM|RssAnon)' "/proc/$control/status" | tr -s ' \t' ' ' | paste -sd ' '
cat call_*_rtt.csv | awk -F';' 'NR > 1 && $2 + 0 == $2 { print $2 }' | sort -n | awk '
    { value[NR] = $1 }
    END { printf "INVITE to 200: %d calls, p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", NR, value[int(NR / 2)], value[int(NR * 0.99)], value[NR] }'
awk -F';' 'NR == 1 { for (i = 1; i <= NF; i++) place[$i] = i }
    { successful = $place["SuccessfulCall(C)"]; failed = $place["FailedCall(C)"]; again = $place["Retransmissions(C)"] }
    END { printf "sipp: %d successful, %d failed, %d retransmissions of its own\n", successful, failed, again }' stat.csv
sleep 3
shown=$("$floortape" ls --json --store "$dir/store" | wc -l)
echo "ls shows $shown of $calls calls"
grep -c 'refused\|over the rate' serve.log | sed 's/^/lines of refusals in the log: /' || true
if [ -n "${PERF:-}" ]; then
    wait %2 2>/dev/null || true
    perf report -i perf.data --no-children --sort symbol 2>/dev/null | grep -v '^#' | grep '%' | head -40
fi
[ "$shown" = "$calls" ]
