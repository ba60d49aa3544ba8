#!/usr/bin/env bash
# repair.sh - both daemons run while bits flip on the disk: in the journal of a and in the inbox of
# b. `cfs admin replication scrub --wait` finds and repairs each, a's from b's inbox and b's from
# a's journal; verify finds both sound, the digests are equal, and the trees made of them the same.
# CFSR_FLIPS: flipped bits in each round; CFSR_SEED repeats a run.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin repair

seed=${CFSR_SEED:-$((SRANDOM % 30000))}
flips=${CFSR_FLIPS:-$(pick 12 4 60)}
rounds=${CFSR_ROUNDS:-$(pick 2 1 10)}
say "seed $seed"
site a 1 --lanes 2 --segment-bytes 2MiB
site b 2 --lanes 2 --segment-bytes 2MiB
a_tar "$work/input.tar" 8
"$bin/cfs-repl" journal import --data-dir "$work/a" --tar "$work/input.tar" --with-data >/dev/null
append b 3000 1000
serve a --peer "$(peer b)" --scrub-rate 0
serve b --peer "$(peer a)" --scrub-rate 0
caught_up a
caught_up b
whole=$(digest a 1)

# flip SEED COUNT FILE...: single bits in what was written to these files, behind their headers.
flip() {
    python3 - "$@" <<'PY'
import random, sys
random.seed(int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    name = random.choice(sys.argv[3:])
    with open(name, "r+b") as file:
        data = file.read()
        place = random.randrange(4096, len(data.rstrip(b"\0")))
        file.seek(place)
        file.write(bytes([data[place] ^ 1 << random.randrange(8)]))
PY
}

# full FOLDER: segments that are not written to any more, and hold something.
full() { find "$work/$1" -name '*.seg' | sort | head -n -1; }

damaged() { # journal|inbox NAME: what verify must find before the repair
    local status=0
    "$bin/cfs-repl" "$1" verify --data-dir "$work/$2" >"$work/verify.out" 2>&1 || status=$?
    ((status == 1)) || fail "$1 verify at $2 ended with $status, not 1: $(cat "$work/verify.out")"
}

scrub() { # NAME ARGUMENT...
    local name=$1 status=0
    shift
    "$bin/cfs" admin replication scrub --data-dir "$work/$name" --wait --timeout "$((60 * slow))s" \
        "$@" >"$work/scrub.out" 2>&1 || status=$?
    ((status == 0)) || fail "the scrub of $name ended with $status: $(cat "$work/scrub.out")"
}

repaired() { status "$1" .counters.damage_repaired; }

for ((round = 1; round <= rounds; round++)); do
    say "-- round $round: $flips flipped bits in the journal of a"
    before=$(repaired a)
    mapfile -t segments < <(full a/journal/00 && full a/journal/01)
    flip $((seed + round)) "$flips" "${segments[@]}"
    damaged journal a
    if ((round % 2 == 1)); then
        scrub a --journal-only
    else
        "$bin/cfs-repl" journal verify --data-dir "$work/a" --repair --timeout "$((60 * slow))s" \
            >"$work/repair.out" 2>&1 || fail "verify --repair: $(cat "$work/repair.out")"
    fi
    sound a
    [[ $(digest a 1) == "$whole" ]] || fail "the journal of a is not what it was"
    (($(repaired a) > before)) || fail "a counts no repair"

    say "-- round $round: $flips flipped bits in the inbox of b"
    before=$(repaired b)
    mapfile -t segments < <(full b/inbox/00 && full b/inbox/01)
    flip $((seed + 1000 + round)) "$flips" "${segments[@]}"
    damaged inbox b
    scrub b --inbox-only
    sound b
    [[ $(digest b 1) == "$whole" ]] || fail "the inbox of b is not what it was"
    (($(repaired b) > before)) || fail "b counts no repair"
    say "repaired so far: $(repaired a) at a, $(repaired b) at b"
done

"$bin/cfs-repl" journal import --data-dir "$work/a" --tar "$work/input.tar" --under again >/dev/null
caught_up a
stop a
stop b
in_step a b
in_step b a
no_entry_twice b 1
"$bin/cfs-repl" materialize --data-dir "$work/a" --site 1 --into "$work/tree.a" >/dev/null
"$bin/cfs-repl" materialize --data-dir "$work/b" --site 1 --into "$work/tree.b" >/dev/null
diff -r --no-dereference "$work/tree.a" "$work/tree.b" || fail "the trees of a and b differ"
say "the same tree at both: $(find "$work/tree.a" -type f | wc -l) files"
