#!/usr/bin/env bash
# A daemon without an RDMA device says so in one line and uses TCP; with --rdma require it does not
# start. Two daemons of which one has RDMA turned off meet on TCP, and the other one says why.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
# The data is on an overlay over a tmpfs, where O_DIRECT can be asked for and does not work.
in_guest 480
guest_begin daemon-no-device

rdma_site a 1
rdma_site b 2
say "-- the peer has RDMA turned off"
serve a --peer "$(peer b)"
serve b --peer "$(peer a)" --rdma off
on_transport a tcp
on_transport b tcp
[[ $(status a .links[0].transport_reason) != null ]] || fail "a does not say why it uses TCP"
[[ $(status b .links[0].transport_reason) == null ]] || fail "b wants TCP and names a reason"
append a 200 1000
caught_up a
stop a
stop b

say "-- no device"
rdma link delete "$CFSR_VM_RDMA"
: >"$work/a.log"
serve a --peer "$(peer b)"
serve b --peer "$(peer a)"
on_transport a tcp
[[ $(status a .links[0].transport_reason) == enodev ]] ||
    fail "the reason is $(status a .links[0].transport_reason) and not enodev"
"$bin/cfs" admin replication status --data-dir "$work/a" >"$work/table"
grep -q 'tcp (no device)' "$work/table" || fail "the table does not say why: $(cat "$work/table")"
[[ $(grep -c 'event=rdma_unusable' "$work/a.log") == 1 ]] ||
    fail "not one line about the missing device: $(grep -i rdma "$work/a.log")"
grep 'event=rdma_unusable' "$work/a.log"
append a 200 2000
caught_up a
stop a
stop b

say "-- no device, but RDMA is required"
site_listen[a]="--listen ${site_rdma[a]}"
status=0
launch a --peer "$(peer b)" --rdma require
wait_pid "${site_pid[a]}" $((10 * slow)) || fail "the daemon runs without a device"
wait "${site_pid[a]}" || status=$?
((status == 78)) || fail "it ended with $status and not with 78"
tail -n 1 "$work/a.log" | grep -q 'RDMA' || fail "it does not say why: $(tail -n 1 "$work/a.log")"
tail -n 1 "$work/a.log"
in_step a b
no_entry_twice b 1
sound b
