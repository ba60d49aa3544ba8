#!/usr/bin/env bash
# restore_old.sh - a data directory restored from an older copy. The sender's: it has lost entries
# that the peer holds and goes another way, which is refused as a fork with the place named, and the
# peer keeps what it has. The receiver's: it is refilled, and an alarm tells of it.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin restore_old

site a 1
site b 2
run_both() {
    serve b --peer "$(peer a)"
    serve a --peer "$(peer b)"
}
step_on() { # FIRST: 3000 entries more, at both sites
    append a 3000 "$1"
    run_both
    caught_up a
    stop a
    stop b
}
step_on 1000
cp -a --sparse=always "$work/a" "$work/a.old"
cp -a --sparse=always "$work/b" "$work/b.old"
step_on 10000
in_step a b

say "-- the receiver comes back as it was before"
mv "$work/b" "$work/b.lost"
cp -a --sparse=always "$work/b.old" "$work/b"
: >"$work/a.log"
run_both
caught_up a
(($(status a .counters.peer_regressions) > 0)) || fail "a does not count that its peer went back"
log_has a 'event=peer_regressed .*peer=2' || fail "a's log raises no alarm"
stop a
stop b
in_step a b
no_entry_twice b 1

say "-- the sender comes back as it was before, and goes another way"
before=$(digest b 1)
mv "$work/a" "$work/a.lost"
cp -a --sparse=always "$work/a.old" "$work/a"
append a 4000 70000
run_both
until_true 20 "a's link is FAULTED (journal_forked)" \
    status_is a '.links[0] | "\(.state) \(.reason)"' "FAULTED journal_forked"
place=$(status a '.links[0] | "lane \(.fault_lane) LSN \(.fault_lsn)"')
log_has a 'event=link_faulted .*reason=journal_forked' || fail "a's log does not name the fork"
log_has b 'journal_forked' || fail "b's log does not name the fork"
[[ $place =~ ^lane\ [0-9]+\ LSN\ [1-9][0-9]*$ ]] || fail "no divergence point: $place"
sleep 1 # it tries again, and must not come through
status_is a '.links[0].reason' journal_forked || fail "the fault went away by itself"
stop a
stop b
[[ $(digest b 1) == "$before" ]] || fail "b has changed: $(digest b 1) was $before"
sound b
say "forked at $place; b still holds $before"

say "-- the right sender comes back"
rm -rf "$work/a"
mv "$work/a.lost" "$work/a"
append a 100 90000
run_both
caught_up a
stop a
stop b
in_step a b
