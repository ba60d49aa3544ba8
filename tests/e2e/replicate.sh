#!/usr/bin/env bash
# replicate.sh - two sites send to each other at once while producers append: every codec, equal and
# different core counts, both ack modes. Digests are equal in the end; SIGTERM ends daemons with 0.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin replicate

a_tar "$work/input.tar" $((slow > 1 ? 4 : 24))

# both_ways ROUND CODEC CORES_A CORES_B ACK: new entries at both sites while the daemons run.
both_ways() {
    local round=$1 codec=$2 cores_a=$3 cores_b=$4 ack=$5 pids=() pid
    say "round $round: $codec, $cores_a and $cores_b cores, --ack $ack at b"
    serve a --peer "$(peer b)" --compress "$codec" --core-count "$cores_a"
    serve b --peer "$(peer a)" --compress "$codec" --core-count "$cores_b" --ack "$ack"
    "$bin/cfs-repl" journal import --data-dir "$work/a" --tar "$work/input.tar" --with-data \
        --under "round$round" >"$work/import.a" 2>&1 &
    pids+=($!)
    lines $((20000 / slow)) $((round * 1000000)) 60 |
        "$bin/cfs-repl" journal append --data-dir "$work/b" >"$work/append.b" 2>&1 &
    pids+=($!)
    for pid in "${pids[@]}"; do
        wait "$pid" || fail "a producer failed: $(cat "$work/import.a" "$work/append.b")"
    done
    caught_up a
    caught_up b
    status_is a '.links[0].ack_mode' "$ack" ||
        fail "a shows ack mode $(status a '.links[0].ack_mode') and not $ack"
    status_is a '.counters.bad_frames' 0 || fail "bad frames at a"
    status_is b '.counters.bad_frames' 0 || fail "bad frames at b"
    stop a
    stop b
    in_step a b
    in_step b a
}

site a 1
site b 2
both_ways 1 lz4 1 1 durable
both_ways 2 zstd:3 1 2 written
both_ways 3 none 2 1 durable
both_ways 4 lz4 2 4 durable
no_entry_twice a 2
no_entry_twice b 1
sound a
sound b
