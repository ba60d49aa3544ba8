#!/usr/bin/env bash
# The main job over RDMA and nothing else (--rdma require), on an NVMe disk with O_DIRECT for
# journal and inbox: a real source tree is imported at one site while the other takes it; digests
# equal, the tree the same byte for byte, the RDMA device carried it, status and table say so.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
in_guest 480 --nvme 1G
guest_begin daemon-rdma

rdma_site a 1
rdma_site b 2
site_listen[a]="--listen ${site_rdma[a]}"
site_listen[b]="--listen ${site_rdma[b]}"
peer() { printf '%s:site-%s:%s' "${site_id[$1]}" "$1" "${site_rdma[$1]}"; }
direct=(--rdma require --journal-io direct --inbox-io direct)
real_tree
before=$(device_packets)
serve a --peer "$(peer b)" "${direct[@]}"
serve b --peer "$(peer a)" "${direct[@]}"
on_transport a rdma
on_transport b rdma
import_tree a
opened_directly a /journal/ || fail "a does not read its journal with O_DIRECT"
opened_directly b /inbox/ || fail "b does not write its inbox with O_DIRECT"
lines 500 1000 | "$bin/cfs-repl" journal append --data-dir "$work/b" >"$work/append.out" 2>&1 ||
    fail "append at b: $(cat "$work/append.out")"
caught_up a
caught_up b
runs_on a rdma || fail "a ended on $(status a .links[0].transport)"
"$bin/cfs" admin replication status --data-dir "$work/a" >"$work/table"
grep -Eq '^site-b .* rdma ' "$work/table" || fail "the table lacks rdma: $(cat "$work/table")"
packets=$(($(device_packets) - before))
bytes=$(stat -c %s "$work/tree.tar")
# One at most of 1 KiB each (path MTU of an interface with 1500), both directions.
((packets > 200)) || fail "the device sent $packets packets for $bytes bytes"
say "the RDMA device sent $packets packets for a tree of $bytes bytes"
status_is a .counters.bad_frames 0 || fail "bad frames at a"
status_is b .counters.bad_frames 0 || fail "bad frames at b"
stop a
stop b
in_step a b
in_step b a
no_entry_twice b 1
sound a
sound b
same_tree b
