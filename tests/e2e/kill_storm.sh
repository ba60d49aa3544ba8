#!/usr/bin/env bash
# kill_storm.sh - `kill -9` of the sending daemon, the receiving daemon and the producer, at random
# moments, ten times and more during one transfer with live producers at both sites. It ends with
# equal digests, each entry once and in order, and sound journals and inboxes. CFSR_SEED repeats a
# run; CFSR_ROUNDS kills more or less often, CFSR_ENTRIES are there before; CFSR_SERVE_FLAGS are
# given to both daemons.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin kill_storm

seed=${CFSR_SEED:-$((SRANDOM % 30000))}
RANDOM=$seed
say "seed $seed"
small=() # each start after a kill looks through a whole segment
((slow == 1)) || small=(--lanes 4 --segment-bytes 2MiB)
site a 1 "${small[@]}"
site b 2 "${small[@]}"
append a "${CFSR_ENTRIES:-$((100000 / slow))}" 1 60

read -ra flags <<<"${CFSR_SERVE_FLAGS:-}"
start_a() { serve a --peer "$(peer b)" --core-count 2 "${flags[@]}"; }
start_b() { serve b --peer "$(peer a)" --compress zstd:1 "${flags[@]}"; }
start_a
start_b
producer a 0.005
producer_a=$producer_pid
producer b 0.02
producer_b=$producer_pid

entries() { status a '[.journal[].entries] | add'; }
grows() { (($(entries) > $1)); }

for ((round = 1; round <= ${CFSR_ROUNDS:-$(pick 10 10 60)}; round++)); do
    until_true 20 "the producer goes on" grows "$(entries)"
    sleep "0.$((RANDOM % 700 + 200))"
    case $((round < 4 ? round : RANDOM % 4)) in
    1)
        victim=sender
        crash a
        start_a
        ;;
    2)
        victim=receiver
        crash b
        sleep "0.$((RANDOM % 300 + 100))"
        start_b
        ;;
    3)
        victim=producer
        kill -KILL "$producer_a"
        wait "$producer_a" 2>/dev/null || true
        producer a 0.005
        producer_a=$producer_pid
        ;;
    *)
        victim="both daemons and the producer"
        kill -KILL "$producer_a" "${site_pid[a]}" "${site_pid[b]}"
        wait "$producer_a" "${site_pid[a]}" "${site_pid[b]}" 2>/dev/null || true
        producer a 0.005
        producer_a=$producer_pid
        start_b
        start_a
        ;;
    esac
    say "kill $round: $victim; a has $(entries) entries"
done
sleep 0.5
kill -KILL "$producer_a" "$producer_b"
wait "$producer_a" "$producer_b" 2>/dev/null || true

# A group that was being committed when its producer died is found by the next recovery, and counts.
"$bin/cfs-repl" journal append --data-dir "$work/a" </dev/null >/dev/null
"$bin/cfs-repl" journal append --data-dir "$work/b" </dev/null >/dev/null
caught_up a
caught_up b
stop a
stop b
in_step a b
in_step b a
no_entry_twice b 1
no_entry_twice a 2
sound a
sound b
