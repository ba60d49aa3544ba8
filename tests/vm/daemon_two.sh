#!/usr/bin/env bash
# The main job between two machines over RDMA, path MTU 1024: a real source tree goes one way while
# entries come the other way; both ends print the same digests, the tree is the same byte for byte.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
script=${BASH_SOURCE[0]}

# A guest sees what the machine prepared: archive, key, how many entries the archive makes.
if [[ ${CFSR_VM-} != 1 ]]; then
    need_guest
    need_programs
    work=$(mktemp -d "${TMPDIR:-/tmp}/cfsr-daemon-two.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    tar -C "$CFSR_SOURCE" -cf "$work/tree.tar" include docs src/repl src/journal src/base
    "$CFSR_BUILD/bin/cfs-repl" keygen --out "$work/key" >/dev/null
    "$CFSR_BUILD/bin/cfs-repl" init --data-dir "$work/probe" --site-id 9 --name probe >/dev/null
    "$CFSR_BUILD/bin/cfs-repl" journal import --data-dir "$work/probe" --tar "$work/tree.tar" \
        --with-data >/dev/null
    entries=$("$CFSR_BUILD/bin/cfs-repl" journal digest --data-dir "$work/probe" --json |
        jq -r 'select(.total) | .entries')
    cat /proc/sys/kernel/random/uuid >"$work/cluster"
    status=0
    vm --two --timeout 480 --nvme 512M -- "${guest_command[@]}" 420 "$script" "$work" "$entries" \
        --- "${guest_command[@]}" 420 "$script" "$work" "$entries" | tee "$work/output" || status=$?
    ((status == 0)) || exit "$status"
    for origin in a b; do
        count=$(grep -o "DIGEST $origin .*" "$work/output" | sort | uniq -c | awk '{ print $1 }')
        [[ $count == 2 ]] || fail "the two sites differ in the records of $origin"
    done
    printf 'two machines: digests equal\n'
    exit
fi

prepared=$1 tree_entries=$2 back_entries=300
names=(- a b)
own=${names[$CFSR_VM_INDEX]} other=${names[3 - CFSR_VM_INDEX]}
guest_begin "daemon-two-$own"
cp "$prepared/key" "$work/key"
cp "$prepared/tree.tar" "$work/tree.tar"
site "$own" "$CFSR_VM_INDEX" --cluster-id "$(cat "$prepared/cluster")" "${small[@]}"
site_listen[$own]="--listen rdma://$CFSR_VM_ADDRESS:7400"
site_id[$other]=$((3 - CFSR_VM_INDEX))
serve "$own" --peer "${site_id[$other]}:site-$other:rdma://$CFSR_VM_PEER:7400"

# The other machine may still be making its site.
on_transport "$own" rdma 25
if [[ $own == a ]]; then
    import_tree a
    expected=$back_entries
else
    append b "$back_entries" 1000
    expected=$tree_entries
fi
received() {
    status_is "$own" "[.incoming[0].lanes[].entries] | add >= $expected" true
}
until_true 40 "$own received $expected entries" received
caught_up "$own"
runs_on "$own" rdma || fail "$own ended on $(status "$own" .links[0].transport)"
say "DIGEST $own $(digest "$own" "${site_id[$own]}")"
say "DIGEST $other $(digest "$own" "${site_id[$other]}")"
sound "$own"
no_entry_twice "$own" "${site_id[$other]}"
[[ $own == a ]] || same_tree b
# The other one may still wait for acknowledgements: it has them once its link is at rest.
other_is_done() { status_is "$own" '.incoming[0].lag_entries' 0; }
until_true 20 "$other has everything acknowledged" other_is_done
sleep 5
stop "$own"
