#!/usr/bin/env bash
# proxy_cut.sh - the connection between two sites is cut after byte N of a direction, by RST
# and now and then by FIN, for N over the handshake and the first batches; a new connection for each
# N, while a producer appends. It ends with equal digests and each entry once.
#   CFSR_CUT_STEP   distance of the cuts of the first bytes (default 5; campaign: 1, every byte)
#   CFSR_CUT_BYTES  how far the batches are cut (default 1 MiB)
#   CFSR_CUT_COUNT  cuts of the batches (default 60; campaign: 3000)
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin proxy_cut

handshake=1400 # covers preamble, HELLO, HELLO_ACK and the first small frames
step=${CFSR_CUT_STEP:-$(pick 5 60 1)}
bytes=${CFSR_CUT_BYTES:-1048576}
count=${CFSR_CUT_COUNT:-$(pick 60 15 3000)}
stride=$(((bytes - handshake) / count))
((stride > 0)) || stride=1
e2e_reconnect=(--reconnect-min 1ms --reconnect-max 3ms)
limits=(--compress none --window-bytes 2MiB --heartbeat-interval 100ms --peer-timeout 2s
    --dial-timeout 2s)

site a 1 --segment-bytes 4MiB
site b 2 --segment-bytes 4MiB
nowhere=$(free_ports 1)
serve b --peer "$(peer a "$nowhere")" "${limits[@]}"
appender a 100000000 3000 4000

said_done() { grep -q '^done$' "$work/proxy.out"; }
total=0

# cut_from_to WHAT DIRECTION FROM STEP TO: a cut at each of these bytes of the direction.
cut_from_to() {
    local what=$1 cuts=$((($5 - $3) / $4 + 1)) proxy port late
    shift
    port=$(free_ports 1)
    "$bin/cfsr-proxy" "$port" "${site_port[b]}" cut "$@" 400 >"$work/proxy.out" &
    proxy=$!
    serve a --peer "$(peer b "$port")" "${limits[@]}"
    until_true $((30 + cuts / 2)) "the connection was cut at every byte ($what)" said_done
    caught=$(appended a)
    until_true 30 "what was appended before the last cut is acknowledged" acked_at_least "$caught"
    (($(status a .counters.bad_frames) == 0)) || fail "a cut was taken for a damaged frame ($what)"
    stop a
    kill -TERM "$proxy"
    wait "$proxy" || true
    late=$(sed -n 's/.* late \([0-9]*\) .*/\1/p' "$work/proxy.out")
    say "$what, $1: $(tail -n 1 "$work/proxy.out")"
    ((late * 10 <= cuts * 9)) || fail "$late of $cuts connections did not carry their bytes in time"
    total=$((total + cuts))
}
acked_at_least() { (($(status a '[.links[0].lanes[].acked_entries] | add') >= $1)); }

cut_from_to "handshake" to-target 0 "$step" "$handshake"
cut_from_to "handshake" to-client 0 "$step" "$handshake"
cut_from_to "batches" to-target "$handshake" "$stride" "$bytes"
(($(status b .counters.bad_frames) == 0)) || fail "b took a cut for a damaged frame"
kill -TERM "$appender_pid"
appender_ends a
serve a --peer "$(peer b)" "${limits[@]}"
caught_up a
say "$total cuts; b refused $(status b .counters.refused_in), took duplicates \
$(status b .counters.duplicate_batches)"
stop a
stop b
holds_all a b
no_entry_twice b 1
sound a
sound b
