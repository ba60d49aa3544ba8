#!/usr/bin/env bash
# sigstop.sh - SIGSTOP of the receiver for longer than the progress timeout, of the sending daemon,
# and of the producer in the middle of its work; then SIGCONT. It ends with equal digests and every
# entry that the producer was told is durable; and whenever the status named a lag, it was not less
# than the entries known to be appended before and not held by the peer after. What is stored as
# acknowledged is never more than the receiver holds: while it is stopped, and while a backlog goes
# to it over a slow network.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin sigstop

rounds=${CFSR_ROUNDS:-$(pick 1 1 12)}
site a 1 --segment-bytes 4MiB
site b 2 --segment-bytes 4MiB
limits=(--peer-timeout 2s --heartbeat-interval 100ms --dial-timeout 1s)
serve b --peer "$(peer a)" "${limits[@]}"
serve a --peer "$(peer b)" "${limits[@]}"
appender a 100000000 200 2000

samples=0
compared=0
# sample HELD [SINCE_US]: one look at a's status. HELD: entries that b cannot be above during this
# look, or "ask": b tells afterwards. SINCE_US: since then b lacks something.
sample() {
    local before now_us link lag lag_us caught_up truth held=$1 since_us=${2:-}
    before=$(appended a)
    now_us=${EPOCHREALTIME/./}
    # shellcheck disable=SC2016 # jq's own variable
    link=$(status a '.links[0] | (.lag_seconds as $s |
        "\(.caught_up) \(.lag_entries) \(if $s == null then null else $s * 1e6 | floor end)")') ||
        return 0
    [[ -n $link ]] || return 0
    read -r caught_up lag lag_us <<<"$link"
    if [[ $held == ask ]]; then
        held=$(status b '[.incoming[0].lanes[].entries] | add') || return 0
    fi
    [[ -n $held && $held != null ]] || return 0
    truth=$((before - held))
    samples=$((samples + 1))
    ((truth > 0)) || return 0
    [[ $caught_up == false ]] ||
        fail "a says that b is caught up: $before entries were appended, b has $held"
    # Unknown is an answer too: the peer is not there to tell.
    [[ $lag != null ]] || return 0
    compared=$((compared + 1))
    ((lag >= truth)) || fail "lag $lag: $before entries were appended before, b has $held"
    [[ -n $since_us && $lag_us != null ]] || return 0
    ((lag_us >= now_us - since_us)) ||
        fail "lag of $lag_us us, but b has lacked something for $((now_us - since_us)) us"
}

# sample_for SECONDS HELD [SINCE_US]: so long, and at least eight times.
sample_for() {
    local until=$((SECONDS + $1)) looks
    for ((looks = 0; looks < 8 || SECONDS < until; looks++)); do
        sample "${@:2}"
        sleep 0.02
    done
}

# stored_acks NAME: "LANE LSN" of what the site has stored of its one peer (format: journal/acks.h).
stored_acks() {
    python3 - "$work/$1/acks" <<'PY'
import struct, sys
slots = open(sys.argv[1], "rb").read()
slot = max((slots[at:at + 36864] for at in (0, 36864) if slots[at:at + 8] == b"CFSRACK1"),
           key=lambda bytes: struct.unpack_from("<Q", bytes, 8))
lanes, peers = struct.unpack_from("<II", slot, 32)
assert peers == 1
for lane in range(lanes):
    print(lane, struct.unpack_from("<Q", slot, 48 + 8 + 8 * lane)[0])
PY
}

# Retention acts on them: they must not say more than b holds. b is stopped.
acks_are_no_more() {
    local lane lsn acked stored
    sleep 2.5 # they are stored once a second
    stored=$(stored_acks a) || fail "the stored acks cannot be read"
    while read -r lane lsn; do
        acked=$(status a ".links[0].lanes[] | select(.lane == $lane) | .acked")
        ((lsn <= acked)) || fail "lane $lane: LSN $lsn is stored as acked, b has acked $acked"
    done <<<"$stored"
}

# stored_rises LINES: the same while b runs; whether it is other than LINES by now. Sets stored.
stored_rises() {
    local lane lsn held
    stored=$(stored_acks a) || fail "the stored acks cannot be read"
    while read -r lane lsn; do
        held=$(status b ".incoming[0].lanes[] | select(.lane == $lane) | .durable")
        ((lsn <= held)) || fail "lane $lane: LSN $lsn is stored as acked, b has $held"
    done <<<"$stored"
    [[ $stored != "$1" ]]
}

more_than() { (($(appended a) > $1)); }
stalled() { [[ $(status a '.links[0].state') == STALLED ]]; }
streams() { [[ $(status a '.links[0].state') =~ ^(STREAMING|CATCHUP)$ ]]; }

for ((round = 1; round <= rounds; round++)); do
    until_true 20 "the producer appends" more_than $(($(appended a) + 100))
    until_true 20 "the link is up" streams
    sample_for 1 ask

    kill -STOP "${site_pid[b]}"
    # What b holds on its disk now is the most that it can have acknowledged.
    held=$(digest b 1 | cut -d ' ' -f 1)
    until_true 20 "the producer goes on without b" more_than $((held + 20))
    sample_for $((3 * slow)) "${held:-0}" "${EPOCHREALTIME/./}"
    until_true 20 "a notices that b makes no progress" stalled
    acks_are_no_more
    say "b stopped: $(status a '.links[0] | "\(.state) \(.reason)"'); b has $held of $(appended a)"
    kill -CONT "${site_pid[b]}"
    until_true 20 "the link comes back" streams
    sample_for 1 ask

    kill -STOP "${site_pid[a]}"
    before=$(appended a)
    until_true 20 "the producer goes on without its daemon" more_than $((before + 200))
    sleep $((2 * slow))
    kill -CONT "${site_pid[a]}"
    sample_for 1 ask
    until_true 20 "the link comes back" streams
    say "a stopped: $(($(appended a) - before)) entries were appended meanwhile"

    kill -STOP "$appender_pid"
    caught_up a
    before=$(appended a)
    sleep 1
    status_is a '.links[0].caught_up' true || fail "a stopped producer leaves something behind"
    (($(appended a) == before)) || fail "a stopped producer appends"
    kill -CONT "$appender_pid"
    until_true 20 "the producer goes on after its stop" more_than "$before"
    say "producer stopped at $before entries, now $(appended a)"
done
kill -TERM "$appender_pid"
appender_ends a
caught_up a
status_is a '.links[0].lag_entries' 0 || fail "lag $(status a '.links[0].lag_entries') at the end"
((samples >= 8)) || fail "only $samples looks at the lag"
((compared >= 1)) || fail "only $compared looks saw a lag"
say "the lag was never below the truth: $samples looks, in $compared of them b lacked something"
stop a
stop b
holds_all a b
no_entry_twice b 1
sound a
sound b

# The heads stand still, and b is far from them for long: what is stored moves with its acks.
appender a 2000 4000 0
appender_ends a
first=$(stored_acks a)
port=$(free_ports 1)
"$bin/cfsr-proxy" "$port" "${site_port[b]}" noise 1 1000000000000 100 >"$work/proxy.out" &
proxy=$!
slowly=(--compress none --batch-bytes 64KiB --window-bytes 256KiB)
serve b --peer "$(peer a "$(free_ports 1)")" "${slowly[@]}"
serve a --peer "$(peer b "$port")" "${slowly[@]}"
until_true 60 "acks of the backlog are stored" stored_rises "$first"
say "stored as acked in the middle of the backlog: ${stored//$'\n'/, }; b has" \
    "$(status b '[.incoming[0].lanes[].entries] | add') of $(digest a 1 | cut -d ' ' -f 1)"
kill -USR1 "$proxy"
caught_up a
stop a
stop b
kill -TERM "$proxy"
wait "$proxy" || true
in_step a b
