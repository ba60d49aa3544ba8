#!/usr/bin/env bash
# filesystems.sh - the main job and a `kill -9` storm with both sites on ext4, then on xfs, every
# file with direct I/O; the disks count flushes, so that what is called durable is seen to reach
# them. CFSR_ROUNDS: kills on each.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin filesystems

skipped=()
direct=(--journal-io direct --inbox-io direct)

# flushes NAME: cache flushes that the disk of the site has done; nothing if the kernel does not
# count them.
flushes() {
    local disk
    disk=$(findmnt -no SOURCE --target "$work/$1")
    awk '{ print $16 }' "/sys/block/${disk##*/}/stat"
}

# flushed_for NAME BEFORE WRITES: the kernel joins flushes that wait for each other, of all lanes
# and the writes they have on their way; without durable writes there are next to none.
flushed_for() {
    local now
    now=$(flushes "$1")
    [[ -n $now ]] || return 0
    (((now - $2) * 10 >= $3)) || fail "$1: $3 durable writes, but $((now - $2)) flushes"
    say "$1: $3 durable writes, $((now - $2)) flushes"
}

main_job() { # FILESYSTEM ID
    local a=a-$1 b=b-$1 count=$((20000 / slow)) before
    site "$a" "$2" --segment-bytes 4MiB
    site "$b" $(($2 + 1)) --segment-bytes 4MiB
    serve "$a" --peer "$(peer "$b")" "${direct[@]}"
    serve "$b" --peer "$(peer "$a")" "${direct[@]}" --compress zstd:3
    append "$b" 3000 1000
    caught_up "$b"
    before=$(flushes "$b")
    appender "$a" "$count" 1500 0 direct
    appender_ends "$a"
    (($(appended "$a") == count)) || fail "$(appended "$a") of $count entries on $1"
    caught_up "$a"
    # b appends nothing now: all of these are for its inbox.
    flushed_for "$b" "$before" "$(status "$b" .counters.inbox_writes)"
    caught_up "$b"
    stop "$a"
    stop "$b"
    holds_all "$a" "$b"
    in_step "$b" "$a"
    no_entry_twice "$b" "$2"
    sound "$a"
    sound "$b"
}

id=1
for filesystem in ext4 xfs; do
    say "-- $filesystem: $(uname -r)"
    if ! on_image "a-$filesystem" "$filesystem" 3000 ||
        ! on_image "b-$filesystem" "$filesystem" 3000; then
        say "not shown here: $filesystem: $not_mounted"
        skipped+=("$filesystem: $not_mounted")
        continue
    fi
    main_job "$filesystem" "$id"
    id=$((id + 2))
    mkdir "$work/a-$filesystem/storm"
    TMPDIR=$work/a-$filesystem/storm CFSR_ROUNDS=${CFSR_ROUNDS:-$(pick 3 2 30)} \
        CFSR_ENTRIES=$((20000 / slow)) CFSR_SERVE_FLAGS="${direct[*]}" "$e2e_dir/kill_storm.sh" ||
        fail "the kill storm on $filesystem"
done
((${#skipped[@]} < 2)) || skip "${skipped[*]}"
((${#skipped[@]} == 0)) || say "not shown on this machine: ${skipped[*]}"
