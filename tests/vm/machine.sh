#!/usr/bin/env bash
# What scripts/vm promises: exit codes, the deadline, an NVMe disk that keeps what was synced over a
# power cut, network emulation, kernel TLS, and nothing left behind.
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_guest
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch

status=0
vm --timeout 120 -- bash -c 'exit 7' || status=$?
[[ $status == 7 ]] || fail "exit code $status instead of 7"

status=0
vm --timeout 12 -- sleep 1000 || status=$?
[[ $status == 124 ]] || fail "exit code $status instead of 124 after the deadline"

# shellcheck disable=SC2016 # expanded in the guest
vm --timeout 200 --nvme 256M --netem 'delay 20ms' --power-cut-after 3 -- bash -c '
    echo kept >/mnt/nvme/synced && sync
    while :; do echo more >>/mnt/nvme/unsynced; done' --- bash -c '
    set -e
    grep -q kept /mnt/nvme/synced
    dd if=/dev/zero of=/mnt/nvme/direct bs=4k count=8 oflag=direct conv=fsync status=none
    tc qdisc show dev $CFSR_VM_INTERFACE | grep -q "delay 20"
    grep -q "^tls " /proc/modules
    rdma link show | grep -q "$CFSR_VM_RDMA.*ACTIVE"' || fail "the machine after the power cut"

left=$(ls -A "$scratch")
[[ -z $left ]] || fail "left behind: $left"
printf 'machine: as promised\n'
