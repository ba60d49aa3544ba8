#!/usr/bin/env bash
# determinism.sh PROGRAM: the same seeds give the same events, whatever process runs them and
# whatever ran in it before.
set -euo pipefail
program=$1

digest() {
    "$program" "$@" --digest --quiet | sed -nE 's/^digest +//p'
}

together=$(digest --seeds 1..24 --jobs 1)
apart=$(digest --seeds 1..24 --jobs 3)
again=$(digest --seeds 1..24 --jobs 2)
printf 'one process %s, three %s, two %s\n' "$together" "$apart" "$again"
[[ -n $together && $together == "$apart" && $together == "$again" ]]

alone=$(digest --seed 7)
twice=$(digest --seed 7 --verbose)
other=$(digest --seed 8)
printf 'seed 7 alone %s, traced %s; seed 8 %s\n' "$alone" "$twice" "$other"
[[ -n $alone && $alone == "$twice" && $alone != "$other" ]]
