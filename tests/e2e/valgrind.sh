#!/usr/bin/env bash
# valgrind.sh [BUILD_DIR] - memcheck. Without an argument: a unit test and a short main job, both
# daemons under memcheck. With the folder of a whole build: every unit test program once, too.
# Leaks are the address sanitizer's business: a test that ends by a signal or an assertion, as
# Criterion tests may, leaves its memory behind. No suppressions are needed.
# Left out: programs whose threads wait in io_uring_enter() for one another; valgrind 3.19 keeps its
# one lock during that call. For the same reason the daemons here spin before they sleep.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ -z ${1:-} ]] || bin=$(cd "$1/bin" && pwd)
command -v valgrind >/dev/null || skip "no valgrind"
# Sanitized programs bring their own.
((slow == 1)) || skip "the programs are built with a sanitizer"
e2e_begin valgrind

tests=$bin/../tests
left_out=(test_contract test_core_reactor)
memcheck=(valgrind -q --vgdb=no --trace-children=yes --child-silent-after-fork=no --leak-check=no)
slow=10

# errors FOLDER: what memcheck wrote there, if anything.
errors() { find "$1" -type f -size +0 -exec cat {} +; }

# unit NAME: one Criterion program.
unit() {
    local began=$SECONDS logs=$work/logs-$1
    mkdir "$logs"
    timeout 900 "${memcheck[@]}" --log-file="$logs/%p" "$tests/$1" --jobs 1 --timeout 800 \
        >"$work/$1.out" 2>&1 || fail "$1 under memcheck: $(tail -n 20 "$work/$1.out")"
    [[ -z $(errors "$logs") ]] || fail "$1: $(errors "$logs" | head -n 60)"
    say "$1: sound, $((SECONDS - began)) s"
}

main_job() {
    mkdir "$work/logs"
    site a 1 --segment-bytes 2MiB --lanes 2
    site b 2 --segment-bytes 2MiB --lanes 2
    append a 500 1
    e2e_wrapper=("${memcheck[@]}" "--log-file=$work/logs/%p")
    serve b --peer "$(peer a)" --inbox-slots 2 --batch-slots 4 --idle-spin 1s
    serve a --peer "$(peer b)" --inbox-slots 2 --batch-slots 4 --idle-spin 1s
    append a 500 3000
    append b 200 3000
    caught_up a
    caught_up b
    stop a
    stop b
    in_step a b
    in_step b a
    [[ -z $(errors "$work/logs") ]] || fail "a daemon: $(errors "$work/logs" | head -n 60)"
    say "both daemons: sound"
}

main_job
if [[ -z ${1:-} ]]; then
    [[ ! -x $tests/test_base_list ]] || unit test_base_list
    exit 0
fi
for program in "$tests"/test_*; do
    [[ -f $program && -x $program ]] || continue
    name=${program##*/}
    if [[ " ${left_out[*]} " == *" $name "* ]]; then
        say "$name: left out, its threads wait in io_uring_enter()"
    elif [[ $name == test_contract_rdma && -z $(ls /sys/class/infiniband 2>/dev/null) ]]; then
        say "$name: left out, there is no RDMA device here"
    else
        unit "$name"
    fi
done
