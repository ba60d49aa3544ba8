# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # scripts that source this, and e2e/lib.sh, use the variables
# daemon_lib.sh - whole daemons over RDMA in a guest: sites, endpoints, which transport carries a
# link. Sourced behind `set -euo pipefail`; on the machine itself it offers tests/vm/lib.sh, in the
# guest tests/e2e/lib.sh.
#
# A test is one script that runs twice: on the machine, where in_guest boots the guest for it and
# ends it, and in the guest, where in_guest does nothing.

if [[ ${CFSR_VM-} == 1 ]]; then
    CFSR_BIN=$CFSR_BUILD/bin
    [[ -e /dev/fd ]] || ln -s /proc/self/fd /dev/fd # nobody made it; <( ) needs it
    export CFSR_SLOW=${CFSR_SLOW:-4} # emulation
    # shellcheck source=tests/e2e/lib.sh
    source "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"
    export TMPDIR=/tmp
    [[ ! -d /mnt/nvme ]] || ! mountpoint -q /mnt/nvme || export TMPDIR=/mnt/nvme
else
    # shellcheck source=tests/vm/lib.sh
    source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
fi

need_programs() {
    [[ -x $CFSR_BUILD/bin/cfs-repl && -x $CFSR_BUILD/bin/cfs ]] ||
        fail "no programs in $CFSR_BUILD/bin: build first"
}

# in_guest SECONDS [VM_OPTION...]: on the machine: runs this script in a guest, and ends with its
# exit code; within SECONDS, boot included.
in_guest() {
    local limit=$1 status=0
    shift
    [[ ${CFSR_VM-} != 1 ]] || return 0
    need_guest
    need_programs
    vm --timeout "$limit" "$@" -- "${guest_command[@]}" $((limit - 60)) "$0" || status=$?
    exit "$status"
}
# What runs a script in the guest: SECONDS SCRIPT [ARGUMENT...] follow. It ends before the guest
# does, so that it can say where it was.
guest_command=(env "CFSR_BUILD=${CFSR_BUILD-}" "CFSR_SOURCE=${CFSR_SOURCE-}" timeout -k 10)

# ---- in the guest ----

# guest_begin NAME: e2e_begin, and an end that says where the time went.
guest_begin() {
    e2e_begin "$1"
    trap 'fail "the time is up"' TERM
}

declare -A site_listen # site_listen[NAME]: the words of its --listen flags
declare -A site_rdma   # site_rdma[NAME]: "rdma://HOST:PORT"

say() { printf '[%s s] %s\n' "$SECONDS" "$*"; } # an emulated second is long

# Small sites: an emulated disk is slow to fill, and lanes are made whole.
small=(--lanes 2 --segment-bytes 4MiB)
free_ports() { printf '0\n'; } # all of the guest's are: place_site() chooses

# rdma_site NAME ID: a site that listens by RDMA at the guest's address, and by TCP at an address
# that outlives the guest's interface.
rdma_site() {
    site "$@" "${small[@]}"
    place_site "$1" $((7000 + $2 * 10))
}

place_site() { # NAME PORT
    site_port[$1]=$2
    site_rdma[$1]=rdma://$CFSR_VM_ADDRESS:$(($2 + 1))
    site_listen[$1]="--listen ${site_rdma[$1]} --listen tcp://127.0.0.1:$2"
}

peer() { # NAME
    printf '%s:site-%s:%s,tcp://127.0.0.1:%s' "${site_id[$1]}" "$1" "${site_rdma[$1]}" \
        "${site_port[$1]}"
}

# launch NAME ARGUMENT...: as in e2e/lib.sh, at the endpoints of the site.
launch() {
    local name=$1 listen
    shift
    read -ra listen <<<"${site_listen[$name]}"
    "$bin/cfs-repl" serve --data-dir "$work/$name" --key-file "$work/key" "${listen[@]}" \
        "${e2e_reconnect[@]}" --status-interval-s 0 "$@" 2>>"$work/$name.log" &
    site_pid[$name]=$!
}

# runs_on NAME TRANSPORT: every connection of the site's first link is carried by it.
runs_on() {
    status_is "$1" '.links[0] | select(.connections > 0) | .transport' "$2"
}

on_transport() { # NAME TRANSPORT [SECONDS]
    local limit=$((${3:-20} * slow)) began=$SECONDS
    until runs_on "$1" "$2"; do
        ((SECONDS - began <= limit)) || fail "$1 is not on $2 within $limit s: $(status "$1" \
            '.links[0] | "\(.state) \(.reason) \(.transport) \(.transport_reason)"')"
        sleep 0.1
    done
    say "$1 sends over $2: $(status "$1" '.links[0].transport_reason')"
}

# device_packets: what the guest's RDMA device has sent since the guest began.
device_packets() {
    cat "/sys/class/infiniband/$CFSR_VM_RDMA/ports/1/hw_counters/sent_pkts"
}

# counter NAME COUNTER: of the daemon.
counter() { status "$1" ".counters.$2"; }

# acked NAME: entries that the site's first peer has acknowledged.
acked() { status "$1" '[.links[0].lanes[].acked_entries] | add // 0'; }
acked_at_least() { # NAME COUNT
    local count
    count=$(acked "$1")
    ((${count:-0} >= $2))
}

more_acked() { # WHAT: the transfer goes on
    local now
    now=$(acked a)
    until_true 25 "$1" acked_at_least a $((now + 100))
    say "$1: $now acknowledged, then $(acked a)"
}

interface() { # up|down
    ip link set "$CFSR_VM_INTERFACE" "$1"
    [[ $1 == down ]] || ip address replace "$CFSR_VM_ADDRESS/24" dev "$CFSR_VM_INTERFACE"
}

# real_tree: a tar of a real source tree, $work/tree.tar.
real_tree() {
    tar -C "$CFSR_SOURCE" -cf "$work/tree.tar" include docs src/repl src/journal src/base
}

import_tree() { # NAME
    "$bin/cfs-repl" journal import --data-dir "$work/$1" --tar "$work/tree.tar" --with-data \
        >"$work/import.out" 2>&1 || fail "import at $1: $(cat "$work/import.out")"
}

# same_tree NAME: what the site received is the tree of the archive, byte for byte.
same_tree() {
    "$bin/cfs-repl" materialize --data-dir "$work/$1" --into "$work/$1.replica" \
        >"$work/materialize.out" 2>&1 || fail "materialize: $(cat "$work/materialize.out")"
    tar -d -C "$work/$1.replica" -f "$work/tree.tar" >"$work/differ.out" 2>&1 ||
        fail "the tree at $1 differs: $(head -n 5 "$work/differ.out")"
    say "the tree at $1 is that of the archive: $(head -n 1 "$work/materialize.out")"
}

# opened_directly NAME PATTERN: the site's daemon has a file like this open with O_DIRECT.
opened_directly() {
    local fd flags
    for fd in "/proc/${site_pid[$1]}/fd"/*; do
        [[ $(readlink "$fd") == *$2* ]] || continue
        flags=$(awk '$1 == "flags:" { print $2 }' "/proc/${site_pid[$1]}/fdinfo/${fd##*/}")
        (((8#$flags & 8#40000) == 0)) || return 0
    done
    return 1
}
