#!/usr/bin/env bash
# Throughput of the transport over RDMA beside ib_send_bw on the same emulated device, at the same
# message size and depth: runs in turn, medians. The ratio is printed; emulated clocks make it a
# figure to look at, not a limit to fail.
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if ! command -v ib_send_bw >/dev/null; then
    printf 'skipped: ib_send_bw is missing (package perftest)\n'
    exit 77
fi
if [[ ${CFSR_VM-} != 1 ]]; then
    need_guest
    vm --timeout 600 -- env CFSR_BUILD="$CFSR_BUILD" CFSR_SOURCE="$CFSR_SOURCE" \
        CFSR_SEND_BYTES="${CFSR_SEND_BYTES-65536}" CFSR_SEND_RUNS="${CFSR_SEND_RUNS-5}" \
        timeout 580 "${BASH_SOURCE[0]}"
    exit
fi

# ---- in the guest ----
size=${CFSR_SEND_BYTES-65536} depth=16 runs=${CFSR_SEND_RUNS-5}
work=$(mktemp -d)

# perftest counts cycles, which mean nothing here: two runs by the clock, their difference without
# the set-up.
seconds_of() { # ITERATIONS
    local began server
    local options=(-d "$CFSR_VM_RDMA" -x 1 -F -s "$size" -n "$1" -t "$depth" -r 64)
    ib_send_bw "${options[@]}" >/dev/null 2>&1 &
    server=$!
    sleep 1
    began=$EPOCHREALTIME
    ib_send_bw "${options[@]}" "$CFSR_VM_ADDRESS" >/dev/null 2>&1
    awk -v from="$began" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }'
    wait "$server"
}

theirs() { # MB/s
    local few many
    few=$(seconds_of 200)
    many=$(seconds_of 1200)
    awk -v few="$few" -v many="$many" -v size="$size" \
        'BEGIN { print 1000 * size / (many - few) / 1e6 }'
}

# MB/s, processor seconds a GB of both sides, doorbells a MiB.
ours() {
    "$CFSR_BUILD/bin/cfs-repl-bench" transport --rdma "$CFSR_VM_ADDRESS" --runs 1 \
        --frame-size "$size" --depth "$depth" --stage-time 3s --pings 100 --cpu-a 0 --cpu-b 1 \
        --json >"$work/report"
    # Of each result the section, the name and the median, one a line each.
    awk -F '"' '/"section"/ { rdma = $4 == "transport: rdma" }
        /"name"/ { name = $4 }
        /"median"/ && rdma { gsub(/[:, ]/, "", $3); value[name] = $3 }
        END { print value["throughput"] * 1000, value["processor time, sender"],
                    value["processor time, receiver"], value["doorbells"] }' "$work/report"
}

median() { # COLUMN FILE
    sort -g -k "$1,$1" "$2" | awk -v column="$1" \
        '{ v[NR] = $column } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

line() { # NAME THEIRS OURS SENDER RECEIVER DOORBELLS
    printf '%-6s %7.2f MB/s %7.2f MB/s %12.2f %14.2f %14.2f\n' "$@"
}

printf '%-6s %12s %12s %12s %14s %14s\n' run ib_send_bw transport 'sender s/GB' 'receiver s/GB' \
    'doorbells/MiB'
for ((run = 1; run <= runs; run++)); do
    theirs >>"$work/theirs"
    ours >>"$work/ours"
    read -ra figures < <(tail -n 1 "$work/ours")
    line "$run" "$(tail -n 1 "$work/theirs")" "${figures[@]}"
done
line median "$(median 1 "$work/theirs")" "$(median 1 "$work/ours")" "$(median 2 "$work/ours")" \
    "$(median 3 "$work/ours")" "$(median 4 "$work/ours")"
awk -v ours="$(median 1 "$work/ours")" -v theirs="$(median 1 "$work/theirs")" -v size="$size" \
    -v depth="$depth" \
    'BEGIN { printf "ratio %.2f (messages of %d bytes, depth %d)\n", ours / theirs, size, depth }'
