#!/usr/bin/env bash
# journal_repair.sh - damage in a site's own journal: the producer is refused with the place, the
# daemon starts all the same and fetches the lost records from a peer, then the producer goes on;
# `journal verify --repair` without a daemon, with one, and for a header that needs nobody.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin journal_repair

site a 1 --lanes 2 --segment-bytes 2MiB
site b 2 --lanes 2 --segment-bytes 2MiB
run_both() {
    serve b --peer "$(peer a)"
    serve a --peer "$(peer b)"
}
append a 5000 100000 60
run_both
caught_up a
stop a
cp -a --sparse=always "$work/a/journal" "$work/journal.old"
append a 40000 1000 60
serve a --peer "$(peer b)"
caught_up a
stop a
whole=$(digest a 1)

segment() { # FILTER: head or tail: the first or the last of lane 0
    find "$work/a/journal/00" -name '*.seg' | sort | "$1" -n 1
}
spoil() { # FILE OFFSET BYTES: other bytes there
    head -c "$3" /dev/urandom | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
repair() { # EXPECTED_STATUS
    local status=0
    "$bin/cfs-repl" journal verify --data-dir "$work/a" --repair --timeout "$((60 * slow))s" \
        >"$work/repair.out" 2>&1 || status=$?
    [[ $status == "$1" ]] ||
        fail "verify --repair ended with $status, not $1: $(cat "$work/repair.out")"
}

say "-- damage in the last segment: the producer is refused, and told what to do"
spoil "$(segment tail)" 20000 700
lines 10 900000 | "$bin/cfs-repl" journal append --data-dir "$work/a" >"$work/refused.out" 2>&1 &&
    fail "a damaged journal was opened for writing"
grep -q 'verify --repair' "$work/refused.out" || fail "no advice: $(cat "$work/refused.out")"
grep -Eq 'LSN [0-9a-f]+' "$work/refused.out" || fail "no place: $(cat "$work/refused.out")"
repair 69
grep -q 'cfs-repl serve' "$work/repair.out" || fail "no advice: $(cat "$work/repair.out")"

say "-- the daemon starts, and repairs it by itself"
serve a --peer "$(peer b)"
log_has a 'event=journal_damaged .*lane=0' || fail "the daemon does not say that a lane is damaged"
producer_goes_on() {
    lines 10 900000 | "$bin/cfs-repl" journal append --data-dir "$work/a" >"$work/append.out" 2>&1
}
until_true 60 "the producer goes on" producer_goes_on
caught_up a
stop a
[[ $(digest a 1) != "$whole" ]] || fail "the producer's entries are not in the journal"
in_step a b
sound a

say "-- the last record of all: no later one proves it, but the peer acknowledged it"
whole=$(digest a 1)
end=$(grep -abo -P '[^\x00]' "$(segment tail)" | tail -n 1 | cut -d: -f1)
spoil "$(segment tail)" $((end - 20)) 16
repair 69
: >"$work/a.log"
serve a --peer "$(peer b)"
log_has a 'event=journal_damaged .*lane=0' || fail "its end was taken for a torn tail"
until_true 60 "the end is there again" log_has a 'event=journal_recovered .*lane=0'
caught_up a
stop a
[[ $(digest a 1) == "$whole" ]] || fail "the journal is not what it was"
sound a

say "-- a damaged header needs neither daemon nor peer"
stop b
spoil "$(segment head)" 30 20
repair 0
grep -q 'repaired: lane 0, the header' "$work/repair.out" ||
    fail "not said: $(cat "$work/repair.out")"

say "-- records in the middle, with the daemon running"
run_both
whole=$(digest a 1)
spoil "$(segment head)" 500000 30000
repair 0
[[ $(digest a 1) == "$whole" ]] || fail "the journal is not what it was"

say "-- a whole segment"
stop a
missing=$(segment head)
missing=${missing/0000000000000000/0000000000200000}
[[ -f $missing ]] || fail "no second segment"
rm "$missing"
repair 69 # it is the last one: only what b acknowledged tells that it was there
serve a --peer "$(peer b)"
repair 0
[[ $(digest a 1) == "$whole" ]] || fail "the journal is not what it was"
stop a
stop b
sound a
in_step a b

say "-- the journal alone comes back as it was long ago: what peers acknowledged is fetched"
whole=$(digest a 1)
rm -r "$work/a/journal"
cp -a --sparse=always "$work/journal.old" "$work/a/journal"
: >"$work/a.log"
run_both
until_true 60 "lane 0 is there again" log_has a 'event=journal_recovered .*lane=0'
until_true 60 "lane 1 is there again" log_has a 'event=journal_recovered .*lane=1'
caught_up a
stop a
stop b
[[ $(digest a 1) == "$whole" ]] || fail "the journal is not what it was"
in_step a b
