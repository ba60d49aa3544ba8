#!/usr/bin/env bash
# The contract of every transport, and attacks below the frames, over soft-RoCE in a guest.
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_guest
vm --memory 3G --timeout 840 -- timeout 800 "$CFSR_BUILD/tests/test_contract_rdma" \
    --short-filename -j1 --verbose=1
