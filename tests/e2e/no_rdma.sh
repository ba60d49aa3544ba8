#!/usr/bin/env bash
# no_rdma.sh - where RDMA cannot be used (here: a device that does not exist): one line says so, TCP
# at the same address carries the link, status and table say why; --rdma require does not start.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin no-rdma

peer() { printf '%s:site-%s:rdma://127.0.0.1:%s' "${site_id[$1]}" "$1" "${site_port[$1]}"; }
launch() {
    local name=$1
    shift
    "$bin/cfs-repl" serve --data-dir "$work/$name" --key-file "$work/key" \
        --listen "rdma://127.0.0.1:${site_port[$name]}" --rdma-device nonesuch0 \
        "${e2e_reconnect[@]}" --status-interval-s 0 "$@" 2>>"$work/$name.log" &
    site_pid[$name]=$!
}

site a 1
site b 2
result=0
launch a --peer "$(peer b)" --rdma require
wait_pid "${site_pid[a]}" $((10 * slow)) || fail "the daemon runs without what it requires"
wait "${site_pid[a]}" || result=$?
((result == 78)) || fail "it ended with $result and not with 78"
log_has a 'RDMA cannot be used here' || fail "it does not say why"
: >"$work/a.log"

serve a --peer "$(peer b)"
serve b --peer "$(peer a)"
append a 2000 1000
caught_up a
status_is a .links[0].transport tcp || fail "not on TCP"
# Not there, or not built in.
[[ $(status a .links[0].transport_reason) =~ ^(enodev|enotsup|eopnotsupp)$ ]] ||
    fail "the reason is $(status a .links[0].transport_reason)"
"$bin/cfs" admin replication status --data-dir "$work/a" >"$work/table"
grep -Eq '^site-b .* tcp \((no device|not built)\)' "$work/table" ||
    fail "the table lacks why: $(cat "$work/table")"
[[ $(grep -c 'event=rdma_unusable' "$work/a.log") == 1 ]] || fail "not one line about it"
grep 'event=rdma_unusable' "$work/a.log"
stop a
stop b

say "RDMA turned off: nothing to say"
: >"$work/a.log"
serve a --peer "$(peer b)" --rdma off
serve b --peer "$(peer a)"
append a 2000 9000
caught_up a
status_is a .links[0].transport_reason null || fail "a reason though nobody wants RDMA"
! grep -q rdma_unusable "$work/a.log" || fail "a line though nobody wants RDMA"
stop a
stop b
in_step a b
sound b
