#!/usr/bin/env bash
# The RDMA device goes away in the middle of a transfer: RDMA ends within its retries, TCP goes on
# from the receiver's position, and every frame is there once. Then the same with RDMA back.
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${CFSR_VM-} != 1 ]]; then
    need_guest
    vm --timeout 400 -- env CFSR_BUILD="$CFSR_BUILD" CFSR_SOURCE="$CFSR_SOURCE" \
        timeout 380 "${BASH_SOURCE[0]}"
    exit
fi

# ---- in the guest ----
stream=$CFSR_BUILD/tests/vm_stream
work=$(mktemp -d)
rdma=rdma://$CFSR_VM_ADDRESS:7400
tcp=tcp://127.0.0.1:7401 # another path than the interface that goes down

transfer() { # NAME COUNT ACTION: starts both ends, does ACTION in the middle, waits for both
    local name=$1 count=$2 action=$3 receiver sender status=0
    printf -- '-- %s\n' "$name"
    "$stream" receive "$rdma" "$tcp" >"$work/$name.receiver" 2>&1 &
    receiver=$!
    for _ in {1..100}; do
        grep -q listening "$work/$name.receiver" && break
        sleep 0.1
    done
    "$stream" send "$rdma" "$tcp" "$count" >"$work/$name.sender" 2>&1 &
    sender=$!
    sleep 2
    "$action"
    wait "$sender" || status=$?
    wait "$receiver" || status=$?
    cat "$work/$name.sender" "$work/$name.receiver"
    return "$status"
}

interface_down() { # until RDMA has ended
    ip link set "$CFSR_VM_INTERFACE" down
    for _ in {1..300}; do
        grep -q "^$rdma:" "$work/interface_down.sender" && break
        sleep 0.1
    done
    sleep 1
    ip link set "$CFSR_VM_INTERFACE" up
    ip address replace "$CFSR_VM_ADDRESS/24" dev "$CFSR_VM_INTERFACE"
}
device_gone() { rdma link delete "$CFSR_VM_RDMA"; }
nothing() { :; }

transfer undisturbed 300 nothing || fail "an undisturbed transfer"
grep -q "^$rdma: frame 300, closed" "$work/undisturbed.sender" || fail "it did not run over RDMA"

transfer interface_down 4000 interface_down || fail "frames were lost or repeated"
grep -q "^$rdma: frame [1-9][0-9]*, " "$work/interface_down.sender" || fail "RDMA did not begin"
grep -q "^$tcp: frame 4000, closed" "$work/interface_down.sender" || fail "TCP did not finish it"

# Whether the connection manager of the device still works, by a program that is not ours. Soft-RoCE
# of Linux 6.1 does not get over a message it has to send while its interface is down: queue pair 1
# stays in error, in state RTS, and no connection is made any more until the device is made again.
# The transport sends none then, but the kernel does for a process that ends.
manager_works() {
    local server status=0
    timeout 10 rping -s -a "$CFSR_VM_ADDRESS" -C 3 >/dev/null 2>&1 &
    server=$!
    sleep 1
    timeout 8 rping -c -a "$CFSR_VM_ADDRESS" -C 3 >/dev/null 2>&1 || status=$?
    wait "$server" || status=$?
    return "$status"
}

is_active() { rdma link show | grep -q "$CFSR_VM_RDMA.*ACTIVE"; }

await_active() {
    for _ in {1..50}; do
        is_active && return
        sleep 0.1
    done
    fail "the RDMA device does not come back"
}

await_active
if ! manager_works; then
    printf -- '-- rping does not connect any more either: the device is made again\n'
    rdma link delete "$CFSR_VM_RDMA"
    rdma link add "$CFSR_VM_RDMA" type rxe netdev "$CFSR_VM_INTERFACE"
    await_active
    manager_works || fail "rping does not connect over a new device"
fi
transfer interface_up 300 nothing || fail "after the interface came back"
grep -q "^$rdma: frame 300, closed" "$work/interface_up.sender" || fail "RDMA was not taken back"

transfer device_gone 4000 device_gone || fail "frames were lost or repeated"
grep -q "^$tcp: frame 4000, closed" "$work/device_gone.sender" || fail "TCP did not finish it"
"$stream" send "$rdma" 1 >"$work/none" 2>&1 &
none=$!
sleep 1
kill -KILL "$none" 2>/dev/null || true
wait "$none" 2>/dev/null || true
grep -q 'no RDMA device' "$work/none" || fail "the missing device is not named: $(cat "$work/none")"
printf 'fallback: all transfers complete\n'
