#!/usr/bin/env bash
# kill -9 of the receiver, then of the sender, in the middle of a transfer over RDMA, with a
# producer that never pauses: both come back on RDMA by themselves, everything the producer was told
# is durable is at the other site, each entry once and in order.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
in_guest 480 --nvme 1G
guest_begin daemon-kill

rdma_site a 1
rdma_site b 2
serve a --peer "$(peer b)"
serve b --peer "$(peer a)"
on_transport a rdma
appender a 100000000 600 20000
for victim in b a b; do
    acknowledged=$(acked a)
    until_true 20 "more is acknowledged before $victim is killed" acked_at_least a \
        $((acknowledged + 200))
    crash "$victim"
    say "killed $victim at $(acked a) acknowledged entries, $(appended a) durable"
    if [[ $victim == a ]]; then
        serve a --peer "$(peer b)"
    else
        serve b --peer "$(peer a)"
    fi
    on_transport a rdma
done
kill -TERM "$appender_pid"
appender_ends a
caught_up a
runs_on a rdma || fail "a ended on $(status a .links[0].transport)"
stop a
stop b
holds_all a b
no_entry_twice b 1
sound a
sound b
