#!/usr/bin/env bash
# retention.sh - a peer that is away never fills the disk: near the journal's cap it is detached,
# every append succeeds, the journal stays below its cap. One that comes back in time rejoins by
# itself; one that comes back too late has a link that says that it needs a bootstrap.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin retention

cap_mib=44
next=1000
# capped NAME COUNT [PAUSE]: entries of some 300 bytes; the producer lives PAUSE seconds longer.
capped() {
    {
        lines "$2" "$next" 200
        sleep "${3:-0}"
    } | "$bin/cfs-repl" journal append --data-dir "$work/$1" --retention-cap "${cap_mib}MiB" \
        >>"$work/$1.append" 2>&1 || fail "append at $1: $(tail -n 3 "$work/$1.append")"
    next=$((next + $2))
}
detached() { # NAME VALUE
    status_is "$1" '.links[0].detached' "$2"
}
site_pair() {
    site "$1" "$3" --lanes 1 --segment-bytes 2MiB
    site "$2" "$4" --lanes 1 --segment-bytes 2MiB
    serve "$2" --peer "$(peer "$1")"
    serve "$1" --peer "$(peer "$2")"
    capped "$1" 1000
    caught_up "$1"
    stop "$2"
}

say "-- back in time"
site_pair a b 1 2
capped a 118000
for ((i = 0; i < 60; i++)); do
    ! detached a true || break
    capped a 3000 1.2
done
detached a true || fail "a peer that holds back the whole journal was not detached"
grep -q 'event=peer_detached peer=2' "$work/a.append" || fail "it is not in the producer's log"
[[ $(status a .retention.cap_bytes) == $((cap_mib << 20)) ]] || fail "the status shows another cap"
serve b --peer "$(peer a)"
caught_up a
rejoined() {
    capped a 10 1.2
    detached a false
}
until_true 30 "the peer holds retention again" rejoined
grep -q 'event=peer_rejoined peer=2' "$work/a.append" || fail "it is not in the producer's log"
caught_up a
stop a
stop b
sound b
no_entry_twice b 1

say "-- too late"
site_pair c d 3 4
capped c "$(pick 250000 250000 1000000)"
used=$(du -s --apparent-size -k "$work/c/journal" | cut -f 1)
# Above the cap may stand the segment that is being prepared and, where the helper was late, the one
# that a committing thread made for itself, 2 MiB each; the cap counts bodies, du headers as well.
((used <= (cap_mib + 5) << 10)) || fail "the journal takes $used KiB, its cap is $cap_mib MiB"
((used >= (cap_mib - 8) << 10)) ||
    fail "the journal takes $used KiB: more was given up than had to be"
until_true 10 "the peer is shown as detached" detached c true
serve d --peer "$(peer c)"
until_true 20 "c's link to d needs a bootstrap" \
    status_is c '.links[0] | "\(.state) \(.reason)"' "FAULTED needs_bootstrap"
stop c
stop d
sound c
