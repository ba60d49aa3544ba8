#!/usr/bin/env bash
# proxy.sh - a network that flips bits, cuts connections and delays bytes lies between two sites
# (proxy.c). Each damaged frame ends its connection and is counted, the sites connect again, and the
# end is the same digests. CFSR_SEED repeats a run.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin proxy
[[ -x $bin/cfsr-proxy ]] || fail "no cfsr-proxy in $bin"

seed=${CFSR_SEED:-$RANDOM}
say "seed $seed"
site a 1
site b 2
a_tar "$work/input.tar" $((slow > 1 ? 4 : 16))
"$bin/cfs-repl" journal import --data-dir "$work/a" --tar "$work/input.tar" --with-data >/dev/null
append b 20000 1000 60

# Each site reaches the other through its own proxy; no compression: there is much to hit.
mapfile -t ports < <(free_ports 2)
"$bin/cfsr-proxy" "${ports[0]}" "${site_port[b]}" noise "$seed" 1500000 2 \
    >"$work/proxy-b.out" &
proxy_b=$!
"$bin/cfsr-proxy" "${ports[1]}" "${site_port[a]}" noise $((seed + 1000)) 700000 2 \
    >"$work/proxy-a.out" &
proxy_a=$!
limits=(--compress none --window-bytes 1MiB --peer-timeout 2s --heartbeat-interval 100ms
    --dial-timeout 2s)
serve a --peer "$(peer b "${ports[0]}")" "${limits[@]}"
serve b --peer "$(peer a "${ports[1]}")" "${limits[@]}"

# New entries all the while, until enough was damaged.
first=1000000
enough() {
    append a 1500 "$first" 230
    append b 1500 "$first" 230
    first=$((first + 2000))
    (($(status a .counters.bad_frames) + $(status b .counters.bad_frames) >= 5))
}
until_true 40 "five damaged frames were seen" enough
kill -USR1 "$proxy_a" "$proxy_b"
caught_up a
caught_up b
for name in a b; do
    say "$name: $(status "$name" '.counters | "bad_frames \(.bad_frames) connects \(.connects)
        retransmitted_bytes \(.retransmitted_bytes)"' | tr -s '\n ' ' ')"
    (($(status "$name" .counters.connects) > 1)) || fail "$name did not connect again"
done
stop a
stop b
kill -TERM "$proxy_a" "$proxy_b"
wait "$proxy_a" "$proxy_b" || true
cat "$work/proxy-a.out" "$work/proxy-b.out"
in_step a b
in_step b a
no_entry_twice b 1
no_entry_twice a 2
sound a
sound b
