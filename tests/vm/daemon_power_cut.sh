#!/usr/bin/env bash
# The machine loses its power in the middle of a transfer over RDMA, journals and inboxes on its
# NVMe disk with O_DIRECT. After it: what the producer was told is durable is in the journal, what
# the other site acknowledged is in its inbox, and the transfer is brought to its end over RDMA.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
script=${BASH_SOURCE[0]}
if [[ ${CFSR_VM-} != 1 ]]; then
    need_guest
    need_programs
    status=0
    # The first half cuts the power itself when enough has gone: the limit is for the worst.
    vm --timeout 560 --nvme 1G --power-cut-after 250 -- "${guest_command[@]}" 240 "$script" before \
        --- "${guest_command[@]}" 240 "$script" after || status=$?
    exit "$status"
fi

told=$CFSR_VM_SHARE/told # outlives the machine: what was promised last
start() {
    local direct=(--journal-io direct --inbox-io direct)
    serve a --peer "$(peer b)" "${direct[@]}"
    serve b --peer "$(peer a)" "${direct[@]}"
    on_transport a rdma
}

before() {
    guest_begin daemon-power-cut
    rdma_site a 1
    rdma_site b 2
    start
    sync # the sites were made: that is not what is tested
    appender a 100000000 600 20000 direct
    local count=0 promised
    while ((count < 600)); do
        promised=$(appended a)
        count=$(acked a)
        printf '%s %s\n' "$promised" "${count:=0}" >"$told.new"
        mv "$told.new" "$told"
    done
    printf 'power off at %s\n' "$(cat "$told")"
    sleep 0.5
    echo b >/proc/sysrq-trigger # at once: nothing is synced, nothing unmounted
    sleep 60
}

after() {
    local promised acknowledged entries
    [[ -s $told ]] || fail "the power was cut before anything was promised"
    read -r promised acknowledged <"$told"
    ((acknowledged > 0)) || fail "the power was cut before anything was acknowledged"
    work=$(echo /mnt/nvme/cfsr-daemon-power-cut.*)
    [[ -d $work ]] || fail "nothing is left on the disk"
    trap e2e_end EXIT
    trap 'fail "the time is up"' TERM
    site_id[a]=1
    site_id[b]=2
    place_site a 7010
    place_site b 7020

    entries=$("$bin/cfs-repl" inbox dump --data-dir "$work/b" --site 1 --json | wc -l)
    ((entries >= acknowledged)) ||
        fail "b had acknowledged $acknowledged entries and holds $entries"
    say "b acknowledged $acknowledged entries and holds $entries"
    start
    entries=$(digest a 1 | cut -d ' ' -f 1)
    ((entries >= promised)) || fail "a was told $promised entries are durable and holds $entries"
    say "a was told $promised entries are durable and holds $entries"
    append a 300 1000
    caught_up a
    runs_on a rdma || fail "a ended on $(status a .links[0].transport)"
    stop a
    stop b
    in_step a b
    no_entry_twice b 1
    sound a
    sound b
}

"$1"
