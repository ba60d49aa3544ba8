#!/usr/bin/env bash
# full_disk.sh - a small ext4 and a small xfs, filled while entries are on their way. At the
# producer's side each append gets the typed error (no space), goes on when there is room again, and
# nothing that was said to be durable is missing; at the receiver's side replication pauses with a
# stall reason in the status, and goes on by itself. Equal digests in the end.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin full_disk

skipped=()
count=${CFSR_ENTRIES:-$(pick 12000 9000 40000)} # of 4 KiB
bytes=4096

free_mib() { df --output=avail -B 1048576 "$work/$1" | tail -n 1; }

# leave NAME MEGABYTES: takes all space of the file system but this much.
leave() {
    local take=$(($(free_mib "$1") - $2))
    ((take <= 0)) || fallocate -l "${take}M" "$work/$1/ballast"
}

refused() { (($(appended "$1" refused) > ${2:-0})); }
ended() { ! kill -0 "$appender_pid" 2>/dev/null; }

# sites FULL OTHER ID: the site FULL on its small disk and another one on the usual disk.
producer_full() { # FILESYSTEM ID
    local disk=p$1 a=p$1 b=q$1
    say "-- $1: the producer's disk is full"
    if ! on_image "$disk" "$1" "$([[ $1 == xfs ]] && echo 320 || echo 160)"; then
        say "not shown here: $1: $not_mounted"
        skipped+=("$1: $not_mounted")
        return
    fi
    site "$a" "$2" --segment-bytes 2MiB --lanes 4
    site "$b" $(($2 + 1)) --segment-bytes 2MiB --lanes 4
    leave "$disk" 24
    serve "$b" --peer "$(peer "$a")"
    serve "$a" --peer "$(peer "$b")"
    appender "$a" "$count" "$bytes" 0
    until_true 60 "an append is refused for want of space" refused "$a"
    kill -0 "$appender_pid" || fail "the producer ended on a full disk"
    # What it was told is durable goes to the peer, full disk or not.
    caught_up "$a"
    say "full: $(appended "$a") entries durable, $(appended "$a" refused) refusals"
    rm "$work/$disk/ballast"
    until_true 60 "the producer goes on once there is room" ended
    appender_ends "$a"
    (($(appended "$a") == count)) || fail "$(appended "$a") of $count entries were appended"
    caught_up "$a"
    stop "$a"
    stop "$b"
    holds_all "$a" "$b"
    no_entry_twice "$b" "$2"
    sound "$a"
    sound "$b"
}

says_full() { log_has "$1" 'error=enospc'; }
# The sender's view: the link stands, with a reason that is no broken connection.
pauses() {
    [[ $(status "$1" '.links[0] | "\(.state) \(.reason)"') =~ \
        ^STALLED\ (peer_not_accepting|backpressure|inbox_full|no_space|enospc|disk_full) ]]
}

receiver_full() { # FILESYSTEM ID
    local disk=r$1 a=s$1 b=r$1
    say "-- $1: the receiver's disk is full"
    if ! on_image "$disk" "$1" "$([[ $1 == xfs ]] && echo 320 || echo 160)"; then
        say "not shown here: $1: $not_mounted"
        return
    fi
    site "$a" "$2" --segment-bytes 2MiB --lanes 4
    site "$b" $(($2 + 1)) --segment-bytes 2MiB --lanes 4
    leave "$disk" 24
    serve "$b" --peer "$(peer "$a")"
    serve "$a" --peer "$(peer "$b")" --compress none
    appender "$a" "$count" "$bytes" 0
    until_true 60 "the receiver notices its full disk" says_full "$b"
    until_true 30 "the sender pauses with a reason" pauses "$a"
    say "full: $(status "$a" '.links[0] | "\(.state) \(.reason), lag \(.lag_entries)"')"
    # The producer is not held up by it, and appends all it has.
    until_true 60 "the producer appends in spite of its peer" ended
    appender_ends "$a"
    kill -0 "${site_pid[$b]}" || fail "the receiver ended on a full disk"
    status_is "$a" '.links[0].caught_up' false || fail "caught up with a full disk"
    rm "$work/$disk/ballast"
    caught_up "$a"
    say "room again: $(status "$a" '.links[0] | "\(.state) \(.reason)"')"
    stop "$a"
    stop "$b"
    holds_all "$a" "$b"
    no_entry_twice "$b" "$2"
    sound "$a"
    sound "$b"
}

id=1
for filesystem in ext4 xfs; do
    producer_full "$filesystem" "$id"
    receiver_full "$filesystem" $((id + 2))
    id=$((id + 4))
done
((${#skipped[@]} < 2)) || skip "${skipped[*]}"
((${#skipped[@]} == 0)) || say "not shown on this machine: ${skipped[*]}"
