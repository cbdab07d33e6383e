# The subjects of benches/path.sh, a function each: starts one, lets the generator send, ends it; sets
# sent, late, unsent and kept, and whatever `measure` sets.

floor() {
    start ready "$path" floor "$here" 40000
    generate 40000 srtp
    wait "$subject_pid"
    kept=$(field "$dir/out" kept)
}
serve() {
    start ^ready "$floortape" serve --set "store.dir=$dir/store" --set "sip.tcp=[\"$here:5060\"]" \
        --set "sip.udp=[\"$here:5060\"]" --set "media.address=$here" --set media.ports=10000-31999 \
        --set "media.streams_max=$streams" "$@"
}
kept_by_us() {
    finish TERM
    kept=$("$floortape" ls --json --store "$dir/store" | python3 -c 'import json, sys
print(sum(source["packets"] for line in sys.stdin for stream in json.loads(line)["streams"]
          for source in stream["sources"]))')
}
ours() {
    serve "$@"
    on_sender "$floortape" src call --to "sip:load@$here:5060;transport=tcp" --streams "$streams" \
        --duration $((seconds + 5)) --numbered --one-port --json >"$dir/sent" 2>"$dir/src.err" &
    generator=$!
    measure
    wait "$generator" || { tail -n 3 "$dir/src.err" >&2; return 1; }
    grep -o '^{"sent.*"streams"' "$dir/sent" >"$dir/totals"
    sent=$(field "$dir/totals" sent) late=$(field "$dir/totals" late)
    unsent=$(python3 -c 'import json, sys
print(sum(stream["unsent"] for stream in json.loads(sys.stdin.readlines()[-1])["streams"]))' <"$dir/sent")
    kept_by_us
}
ours-each() { ours --set media.steering=off; }
ours-xdp() { ours --set media.engine=xdp --set "media.interface=$near"; }
ours-100() {
    local few=100 caller
    serve
    # Ends its calls when its input ends.
    mkfifo "$dir/hold"
    on_sender python3 "$root/benches/path/call.py" "$here" 5060 "$few" <"$dir/hold" >"$dir/ports" &
    caller=$!
    exec 9>"$dir/hold"
    for _ in $(seq 100); do [ "$(wc -l <"$dir/ports")" = "$few" ] && break || sleep 0.1; done
    generate "@$dir/ports" srtp
    exec 9>&-
    wait "$caller"
    rm "$dir/hold"
    kept_by_us
}
dumpcap() {
    start 'File: ' dumpcap -i "$near" -f 'udp portrange 10000-31999' -B 32 -w "$dir/packets"
    generate 10000+2 plain "$elsewhere"
    finish TERM
    kept=$(sed -n 's/^Packets received.*: \([0-9]*\)\/.*/\1/p' "$dir/err")
}
tcpdump() {
    start 'listening on' tcpdump -i "$near" -n -B 32768 -w "$dir/packets" udp portrange 10000-31999
    generate 10000+2 plain "$elsewhere"
    finish TERM
    kept=$(sed -n 's/^\([0-9]*\) packets captured/\1/p' "$dir/err")
}
tokio() {
    start ready "$path" record "$here" 10000 "$streams" "$dir"
    generate 10000+2 srtp
    wait "$subject_pid"
    kept=$(field "$dir/out" kept)
}
rtpengine() {
    mkdir -p "$dir/pcap"
    start "Startup complete" rtpengine --foreground --log-stderr --log-level=6 --table=-1 --interface="$here" \
        --listen-ng=127.0.0.1:22222 --port-min=10000 --port-max=31999 \
        --recording-method=pcap --recording-dir="$dir/pcap"
    inside python3 "$root/benches/path/rtpengine.py" calls 127.0.0.1:22222 "$streams" >"$dir/ports"
    generate "@$dir/ports" srtp
    inside python3 "$root/benches/path/rtpengine.py" end 127.0.0.1:22222 "$streams"
    finish TERM
    kept=$(python3 "$root/benches/path/rtpengine.py" count "$dir/pcap/pcaps")
}
