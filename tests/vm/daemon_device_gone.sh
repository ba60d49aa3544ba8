#!/usr/bin/env bash
# The RDMA device is removed under two running daemons: the removal comes to its end (soft-RoCE
# waits for every program that has the device open), TCP goes on with the transfer, both say why,
# and nothing is lost or repeated.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
in_guest 420 --nvme 1G
guest_begin daemon-device-gone

stacks() { # where the kernel has them
    local process thread fd
    for process in "$@"; do
        [[ -d /proc/$process ]] || continue
        for thread in "/proc/$process/task"/*; do
            printf -- '-- %s %s\n' "$process" "$(cat "$thread/comm")"
            cat "$thread/stack" || true
        done
        for fd in "/proc/$process/fd"/*; do
            [[ $(readlink "$fd") != *infiniband* ]] || readlink "$fd"
        done
    done
}

rdma_site a 1
rdma_site b 2
patience=(--heartbeat-interval 500ms --peer-timeout 4s)
serve a --peer "$(peer b)" "${patience[@]}"
serve b --peer "$(peer a)" "${patience[@]}"
on_transport a rdma
on_transport b rdma
appender a 100000000 500 20000
more_acked "over RDMA"

rdma link delete "$CFSR_VM_RDMA" &
removal=$!
for _ in {1..150}; do
    kill -0 "$removal" 2>/dev/null || break
    sleep 0.2
done
if kill -0 "$removal" 2>/dev/null; then
    stacks "$removal" "${site_pid[a]}" "${site_pid[b]}"
    fail "the removal of the device waits for the daemons"
fi
wait "$removal" || fail "rdma link delete"
say "the device is gone"
on_transport a tcp
on_transport b tcp
more_acked "over TCP, no device"
log_has a 'event=rdma_device_gone' || fail "a does not say that the device is gone"
log_has b 'event=rdma_device_gone' || fail "b does not say that the device is gone"

kill -TERM "$appender_pid"
appender_ends a
caught_up a
stop a
stop b
holds_all a b
no_entry_twice b 1
sound a
sound b
