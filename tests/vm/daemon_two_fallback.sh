#!/usr/bin/env bash
# Between two machines everything RDMA sends is lost from one moment on (an XDP program), in the
# middle of a transfer: the link goes on over TCP, with delay and loss on top, and says why. Then
# RDMA works again: it is taken back beside the running TCP connection. Nothing is lost or repeated.
set -euo pipefail
# shellcheck source=tests/vm/daemon_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/daemon_lib.sh"
script=${BASH_SOURCE[0]}

if [[ ${CFSR_VM-} != 1 ]]; then
    need_guest
    need_programs
    if ! command -v clang >/dev/null; then
        printf 'skipped: clang is missing, which makes the XDP program\n'
        exit 77
    fi
    work=$(mktemp -d "${TMPDIR:-/tmp}/cfsr-daemon-two.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    clang -O2 -g -ffreestanding -target bpf -c "$(dirname "$script")/drop_roce.c" \
        -o "$work/drop_roce.o"
    "$CFSR_BUILD/bin/cfs-repl" keygen --out "$work/key" >/dev/null
    cat /proc/sys/kernel/random/uuid >"$work/cluster"
    status=0
    vm --two --timeout 540 --nvme 512M -- "${guest_command[@]}" 480 "$script" "$work" \
        --- "${guest_command[@]}" 480 "$script" "$work" | tee "$work/output" || status=$?
    ((status == 0)) || exit "$status"
    [[ $(grep -o "DIGEST .*" "$work/output" | sort | uniq -c | awk '{ print $1 }') == 2 ]] ||
        fail "the two sites differ"
    printf 'two machines: digests equal\n'
    exit
fi

prepared=$1
names=(- a b)
own=${names[$CFSR_VM_INDEX]} other=${names[3 - CFSR_VM_INDEX]}
guest_begin "daemon-two-$own"
cp "$prepared/key" "$work/key"
site "$own" "$CFSR_VM_INDEX" --cluster-id "$(cat "$prepared/cluster")" "${small[@]}"
site_listen[$own]="--listen rdma://$CFSR_VM_ADDRESS:7400"
site_id[$other]=$((3 - CFSR_VM_INDEX))
serve "$own" --peer "${site_id[$other]}:site-$other:rdma://$CFSR_VM_PEER:7400" \
    --heartbeat-interval 500ms --peer-timeout 5s

if [[ $own == b ]]; then
    busybox nc -l -p 9999 >"$work/told" # until the other one is done
    stop b
    say "DIGEST a $(digest b 1)"
    no_entry_twice b 1
    sound b
    exit
fi

on_transport a rdma
appender a 100000000 500 20000
more_acked "over RDMA"

ip link set dev "$CFSR_VM_INTERFACE" xdpgeneric obj "$prepared/drop_roce.o" sec xdp
tc qdisc add dev "$CFSR_VM_INTERFACE" root netem delay 10ms loss 1%
on_transport a tcp
[[ $(status a .links[0].transport_reason) != null ]] || fail "a does not say why it uses TCP"
(($(status a .links[0].transport_fallbacks) > 0)) || fail "a does not count the fallback"
more_acked "over TCP with delay and loss"
"$bin/cfs" admin replication status --data-dir "$work/a" >"$work/table"
grep -Eq '^site-b .* tcp \(' "$work/table" || fail "the table lacks why: $(cat "$work/table")"

tc qdisc del dev "$CFSR_VM_INTERFACE" root
ip link set dev "$CFSR_VM_INTERFACE" xdpgeneric off
began=$SECONDS
more_acked "over TCP, RDMA back any moment"
on_transport a rdma 45
say "RDMA was taken back within $((SECONDS - began)) s"
(($(status a .links[0].transport_returns) > 0)) || fail "a does not count the return"
more_acked "over RDMA again"

kill -TERM "$appender_pid"
appender_ends a
caught_up a
runs_on a rdma || fail "a ended on $(status a .links[0].transport)"
grep 'event=link_path' "$work/a.log"
stop a
say "DIGEST a $(digest a 1)"
[[ $(digest a 1 | cut -d ' ' -f 1) == "$(appended a)" ]] ||
    fail "a holds $(digest a 1), its producer was told of $(appended a)"
sound a
printf 'done\n' | busybox nc "$CFSR_VM_PEER" 9999
