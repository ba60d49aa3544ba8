#!/usr/bin/env bash
# A transfer between two guests, over RDMA with a path MTU of 1024.
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_guest
stream=$CFSR_BUILD/tests/vm_stream
# shellcheck disable=SC2016 # expanded in the guests
vm --two --timeout 300 -- bash -c \
    'timeout 250 '"$stream"' receive rdma://$CFSR_VM_ADDRESS:7400' --- bash -c \
    'sleep 2; timeout 240 '"$stream"' send rdma://$CFSR_VM_PEER:7400 500'
