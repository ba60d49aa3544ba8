#!/usr/bin/env bash
# attack.sh - everything a hostile peer can send, against real daemons (attacker.c).
# usage: attack.sh [accept|dial ...]
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

attacker=$bin/cfsr-attacker
[[ $# -gt 0 ]] || set -- accept dial

e2e_begin attack
site evil 1 --lanes 4 --segment-bytes 2MiB
site good 2 --lanes 4 --segment-bytes 2MiB
lines 60000 2 150 | "$bin/cfs-repl" journal append --data-dir "$work/good" >/dev/null

for suite; do
    # Dialling is slow to be given up where silence is the attack, and quick where it is the test.
    case $suite in
    accept) limits=(--dial-timeout 30s --peer-timeout 3s) port=${site_port[good]} away=1 ;;
    *) limits=(--dial-timeout 1s --peer-timeout 2s) port=${site_port[evil]} away=$port ;;
    esac
    serve good --peer "$(peer evil "$away")" --heartbeat-interval 200ms \
        --compress none "${limits[@]}"
    echo "== $suite"
    timeout $((120 * slow)) "$attacker" "$suite" "$work/evil" "$work/key" 2 "$port" \
        "$work/good/run/admin.sock" || fail "the daemon did not withstand"
    stop good
    ! grep -Eq 'assert|ERROR: AddressSanitizer|runtime error' "$work/good.log" ||
        fail "the daemon's log tells of a fault"
done
sound good
