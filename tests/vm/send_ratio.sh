#!/usr/bin/env bash
# Throughput of the transport over RDMA beside ib_send_bw on the same emulated device, at the same
# message size and depth. The ratio is printed; emulated clocks make it a figure to look at, not a
# limit to fail.
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if ! command -v ib_send_bw >/dev/null; then
    printf 'skipped: ib_send_bw is missing (package perftest)\n'
    exit 77
fi
if [[ ${CFSR_VM-} != 1 ]]; then
    need_guest
    vm --timeout 400 -- env CFSR_BUILD="$CFSR_BUILD" CFSR_SOURCE="$CFSR_SOURCE" \
        timeout 380 "${BASH_SOURCE[0]}"
    exit
fi

# ---- in the guest ----
size=${CFSR_SEND_BYTES-65536} depth=16

# perftest counts cycles, which mean nothing here: two runs by the clock, their difference without
# the set-up.
seconds_of() { # ITERATIONS
    local began server
    ib_send_bw -d "$CFSR_VM_RDMA" -x 1 -F -s "$size" -n "$1" -t "$depth" -r 64 >/dev/null 2>&1 &
    server=$!
    sleep 1
    began=$EPOCHREALTIME
    ib_send_bw -d "$CFSR_VM_RDMA" -x 1 -F -s "$size" -n "$1" -t "$depth" -r 64 "$CFSR_VM_ADDRESS" \
        >/dev/null 2>&1
    awk -v from="$began" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }'
    wait "$server"
}
few=$(seconds_of 200)
many=$(seconds_of 1800)
floor=$(awk -v few="$few" -v many="$many" -v size="$size" \
    'BEGIN { print 1600 * size / (many - few) / 1e6 }')
report=$("$CFSR_BUILD/bin/cfs-repl-bench" transport --rdma "$CFSR_VM_ADDRESS" --runs 3 \
    --frame-size "$size" --depth "$depth" --stage-time 4s --pings 200 --cpu-a 0 --cpu-b 1)
printf '%s\n' "$report"
printf 'ib_send_bw: %s MB/s (%s bytes, depth %s)\n' "$floor" "$size" "$depth"
