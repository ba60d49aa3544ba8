#!/usr/bin/env bash
# proxy_stall.sh - one direction of the network stands still while the other works, for longer than
# the progress timeout, first towards the receiver, then towards the sender, then both; bytes of
# dead connections arrive late. Then every connection is played to the receiver twice. Nothing of it
# is taken for news: equal digests, each entry once.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin proxy_stall

limits=(--compress none --window-bytes 1MiB --heartbeat-interval 100ms --peer-timeout 1s
    --dial-timeout 1s)
site a 1 --segment-bytes 4MiB
site b 2 --segment-bytes 4MiB
nowhere=$(free_ports 1)
serve b --peer "$(peer a "$nowhere")" "${limits[@]}"
appender a 100000000 1000 3000

acked() { status a '[.links[0].lanes[].acked_entries] | add'; }
acked_at_least() { (($(acked) >= $1)); }
stalled() { [[ $(status a '.links[0].state') == STALLED ]]; }
streams() { [[ $(status a '.links[0].state') =~ ^(STREAMING|CATCHUP)$ ]]; }

# through MODE...: a reaches b through a proxy; sets proxy.
through() {
    local port
    port=$(free_ports 1)
    "$bin/cfsr-proxy" "$port" "${site_port[b]}" "$@" >"$work/proxy.out" &
    proxy=$!
    serve a --peer "$(peer b "$port")" "${limits[@]}"
    until_true 20 "the link is up ($*)" streams
    until_true 20 "entries arrive ($*)" acked_at_least "$(appended a)"
}

no_longer() {
    stop a
    kill -TERM "$proxy"
    wait "$proxy" || true
    say "$*: $(tail -n 1 "$work/proxy.out")"
}

for direction in to-target to-client both; do
    through stall "$direction"
    kill -USR2 "$proxy"
    until_true 20 "a notices that nothing moves ($direction)" stalled
    say "$direction stands still: $(status a '.links[0] | "\(.state) \(.reason)"')"
    sleep 1 # it tries again, which goes no better
    before=$(appended a)
    kill -USR1 "$proxy"
    until_true 20 "the link comes back ($direction)" streams
    until_true 30 "what was appended meanwhile arrives ($direction)" acked_at_least "$before"
    no_longer "$direction"
done

for ((round = 0; round < ${CFSR_ROUNDS:-$(pick 3 1 20)}; round++)); do
    through twice
    until_true 20 "entries arrive beside a duplicate" acked_at_least $(($(appended a) + 200))
    no_longer "twice"
done
(($(status b .counters.refused_in) + $(status b .counters.bad_frames) > 0)) ||
    fail "b did not refuse a connection that was played twice"
say "b: $(status b '.counters | "refused_in \(.refused_in) bad_frames \(.bad_frames)"')"
kill -TERM "$appender_pid"
appender_ends a
serve a --peer "$(peer b)" "${limits[@]}"
caught_up a
stop a
stop b
holds_all a b
no_entry_twice b 1
sound a
sound b
