#!/usr/bin/env bash
# A transfer that goes on while its transport changes, in one guest: the peer comes back without
# RDMA (--rdma off): TCP, with delay and loss on it; the peer comes back with RDMA: that is taken
# back beside the running TCP connection; the interface of the RDMA device goes down: TCP; it comes
# up again: RDMA, if the device itself works again (Linux 6.1's soft-RoCE may not: rping tells).
# Nothing is lost or repeated; status, table and log name each switch.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
in_guest 720 --nvme 1G
guest_begin daemon-fallback

says_why() { # a uses TCP and knows why
    [[ $(status a .links[0].transport_reason) != null ]] || fail "a does not say why it uses TCP"
    (($(status a .links[0].transport_fallbacks) > 0)) || fail "a does not count the fallback"
    "$bin/cfs" admin replication status --data-dir "$work/a" >"$work/table"
    grep -Eq '^site-b .* tcp \(' "$work/table" || fail "the table lacks why: $(cat "$work/table")"
}

# Whether the device connects anybody, us left aside.
device_works() {
    local server status=0
    rping -s -a "$CFSR_VM_ADDRESS" -p 7999 >/dev/null 2>&1 &
    server=$!
    sleep 2
    timeout 20 rping -c -a "$CFSR_VM_ADDRESS" -p 7999 -C 1 >/dev/null 2>&1 || status=1
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    return "$status"
}

rdma_site a 1
rdma_site b 2
# Silence of a dead path is noticed soon.
patience=(--heartbeat-interval 500ms --peer-timeout 4s)
serve a --peer "$(peer b)" "${patience[@]}"
serve b --peer "$(peer a)" "${patience[@]}"
on_transport a rdma
appender a 100000000 500 20000
more_acked "over RDMA"

stop b
tc qdisc add dev lo root netem delay 10ms loss 1%
serve b --peer "$(peer a)" "${patience[@]}" --rdma off
on_transport a tcp
says_why
more_acked "over TCP with delay and loss"
stop b
serve b --peer "$(peer a)" "${patience[@]}"
tc qdisc del dev lo root
on_transport a rdma 45
more_acked "over RDMA, the peer has it again"

interface down
on_transport a tcp
says_why
more_acked "over TCP, the interface down"
interface up
if device_works; then
    returns=$(status a .links[0].transport_returns)
    on_transport a rdma 45
    (($(status a .links[0].transport_returns) >= returns)) || fail "a does not count the return"
    more_acked "over RDMA, the interface up"
else
    say "NOT SHOWN: after the interface was down this kernel's soft-RoCE connects nobody, rping" \
        "neither; the return is shown by vm_daemon_two_fallback"
fi

kill -TERM "$appender_pid"
appender_ends a
caught_up a
log_has a 'event=link_path.*rdma' || fail "no switch is in the log"
say "$(grep 'event=link_path' "$work/a.log")"
stop a
stop b
holds_all a b
no_entry_twice b 1
sound a
sound b
