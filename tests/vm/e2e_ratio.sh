#!/usr/bin/env bash
# Two daemons over TCP and over RDMA in the same guest, in turn: throughput, processor time and
# doorbells a MiB of records. The table is to look at: the device is emulated, so are the clocks.
# What must be: both ran, over what they were asked to, and B has A's records each time.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
in_guest 780 --nvme 1G
guest_begin e2e-ratio
rounds=3

site a 1 "${small[@]}"
real_tree
"$bin/cfs-repl" journal import --data-dir "$work/a" --tar "$work/tree.tar" --with-data --repeat 80 \
    >"$work/import.out" 2>&1 || fail "import: $(cat "$work/import.out")"
expected=$(digest a 1)
[[ -n $expected ]] || fail "no digest of the records"
say "records: $expected"

# measure PATH: a line in $work/PATH: raw MB/s; seconds a MiB of A, B and the whole machine;
# doorbells a MiB at A and B; bytes sent by raw bytes.
measure() {
    local there before packets carried
    before=$(device_packets)
    "$bin/cfs-repl-bench" e2e --path "$1" --rdma "$CFSR_VM_ADDRESS" --data-dir "$work/a" \
        --work-dir "$work/bench" --runs 1 --no-floor --json >"$work/report" ||
        fail "e2e over $1: $(jq -r .message "$work/report")"
    packets=$(($(device_packets) - before))
    carried=tcp
    ((packets < 10000)) || carried=rdma
    [[ $carried == "$1" ]] || fail "over $1 the RDMA device sent $packets packets"
    jq -r '[.results[] | select(.section == "e2e") | {(.name): (.median // .text)}] | add
        | [."links carried by", ."throughput, raw",
           (."processor time, A", ."processor time, B", ."processor time, whole machine"
            | . * 1.048576e-3),
           (."doorbells, A", ."doorbells, B" | . // 0), ."wire by raw bytes"]
        | @tsv' "$work/report" >"$work/line"
    [[ $(cut -f 1 "$work/line") == "$1" ]] || fail "not over $1: $(cat "$work/line")"
    cut -f 2- "$work/line" >>"$work/$1"
    there=$("$bin/cfs-repl" journal digest --data-dir "$work/bench/site-b" --site 1 --json |
        jq -r 'select(.total) | "\(.entries) \(.total)"')
    [[ $there == "$expected" ]] || fail "over $1 B got '$there', not '$expected'"
}

line() { # NAME PATH FIGURE...
    printf '%-7s %-5s %8.2f %9.3f %9.3f %9.3f %11.2f %11.2f %9.3f\n' "$@"
}

median() { # PATH COLUMN
    sort -g -k "$2,$2" "$work/$1" |
        awk -v column="$2" '{ v[NR] = $column } END { print v[int((NR + 1) / 2)] }'
}

printf '%-7s %-5s %8s %9s %9s %9s %11s %11s %9s\n' run path MB/s 'A s/MiB' 'B s/MiB' 'all s/MiB' \
    'A bells/MiB' 'B bells/MiB' wire/raw
for ((round = 1; round <= rounds; round++)); do
    for path in tcp rdma; do
        measure "$path"
        read -ra figures < <(tail -n 1 "$work/$path")
        line "$round" "$path" "${figures[@]}"
    done
done
for path in tcp rdma; do
    figures=()
    for ((column = 1; column <= 7; column++)); do
        figures+=("$(median "$path" "$column")")
    done
    line median "$path" "${figures[@]}"
done
awk -v tcp="$(median tcp 1)" -v rdma="$(median rdma 1)" \
    'BEGIN { printf "rdma by tcp: %.2f (raw bytes a second)\n", rdma / tcp }'
