#!/usr/bin/env bash
# shellcheck disable=SC2034 # scripts that source this use the variables
# lib.sh - what the end-to-end tests share: a scratch folder, sites, daemons, waiting, comparing.
#
# A script sources this file and calls e2e_begin NAME. CFSR_BIN names the folder of the programs.
# Every daemon belongs to the script that started it and ends with it; nothing is killed by name.
# CFSR_SLOW (default 1) multiplies every limit: sanitizer builds set it.
set -euo pipefail

e2e_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${CFSR_BIN:-$e2e_dir/../../build/bin}
slow=${CFSR_SLOW:-1}
work=
sites=()
declare -A site_id site_port site_pid site_key # site_key[NAME]: a keyring of its own
mounts=()
cluster=$(cat /proc/sys/kernel/random/uuid)

# pick USUAL SLOW LONG: how much work: of a usual run, with sanitized programs, in a campaign
# (CFSR_E2E_LONG=1).
pick() {
    if [[ ${CFSR_E2E_LONG:-0} == 1 ]]; then
        printf '%s\n' "$3"
    elif ((slow > 1)); then
        printf '%s\n' "$2"
    else
        printf '%s\n' "$1"
    fi
}

say() { printf '%s\n' "$*"; }

# fail TEXT: ends the test; the daemons' last words are shown.
fail() {
    local log
    printf 'FAIL: %s\n' "$*" >&2
    for log in "$work"/*.log; do
        [[ -f $log ]] || continue
        printf -- '--- last lines of %s\n' "${log##*/}" >&2
        tail -n 12 "$log" >&2
    done
    exit 1
}

# skip TEXT: this machine cannot run the test (ctest's SKIP_RETURN_CODE).
skip() {
    printf 'SKIPPED: %s\n' "$*"
    exit 77
}

e2e_end() {
    local status=$? pid
    trap - EXIT
    for pid in $(jobs -p); do
        kill -KILL "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    # A daemon that a sanitizer ended before its SIGKILL came would go unnoticed.
    if ((status == 0)) && grep -qE 'WARNING: ThreadSanitizer|assertion' "$work"/*.log \
        2>/dev/null; then
        grep -E -A 12 -m 1 'WARNING: ThreadSanitizer|assertion' "$work"/*.log >&2
        status=1
    fi
    for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do
        umount -l "${mounts[i]}" 2>/dev/null || true
    done
    if [[ $status -ne 0 && $status -ne 77 && -n ${CFSR_KEEP:-} ]]; then
        printf 'kept: %s\n' "$work" >&2
    elif [[ -n $work ]]; then
        rm -rf "$work"
    fi
    exit "$status"
}

e2e_begin() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/cfsr-$1.XXXXXX")
    trap e2e_end EXIT
    trap 'exit 1' INT TERM
    [[ -x $bin/cfs-repl && -x $bin/cfs ]] || fail "no programs in $bin: build first or set CFSR_BIN"
    "$bin/cfs-repl" keygen --out "$work/key" >/dev/null
    # Without it a machine that forbids io_uring would fail every test instead of skipping them.
    "$bin/cfs-repl" --version >/dev/null
}

# free_ports N: N unused ports, one a line. They lie below the range the kernel takes for outgoing
# connections, so that none is taken by a dial between this look and the daemon's bind.
free_ports() {
    python3 - "$1" <<'PY'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    probe = socket.socket()
    try:
        probe.bind(("127.0.0.1", random.randrange(12000, 30000)))
        held.append(probe)
    except OSError:
        probe.close()
for probe in held:
    print(probe.getsockname()[1])
PY
}

# site NAME ID [INIT_ARGUMENT...]: a data directory $work/NAME and a port.
site() {
    local name=$1 id=$2
    shift 2
    [[ " $* " == *" --cluster-id "* ]] || set -- --cluster-id "$cluster" "$@"
    "$bin/cfs-repl" init --data-dir "$work/$name" --site-id "$id" --name "site-$name" "$@" \
        >"$work/$name.init"
    sites+=("$name")
    site_id[$name]=$id
    site_port[$name]=$(free_ports 1)
}

# peer NAME [PORT]: the --peer value that names the site.
peer() {
    printf '%s:site-%s:tcp://127.0.0.1:%s' "${site_id[$1]}" "$1" "${2:-${site_port[$1]}}"
}

# launch NAME ARGUMENT...: starts the site's daemon, does not wait. Its log grows over restarts.
launch() {
    local name=$1
    shift
    "${e2e_wrapper[@]}" "$bin/cfs-repl" serve --data-dir "$work/$name" \
        --key-file "${site_key[$name]:-$work/key}" \
        --listen "tcp://127.0.0.1:${site_port[$name]}" \
        "${e2e_reconnect[@]}" --status-interval-s 0 "$@" 2>>"$work/$name.log" &
    site_pid[$name]=$!
}
e2e_wrapper=()
e2e_reconnect=(--reconnect-min 20ms --reconnect-max 500ms)

# serve NAME ARGUMENT...: starts the site's daemon and waits until it answers.
serve() {
    local name=$1 try
    launch "$@"
    for ((try = 0; try < 200 * slow; try++)); do
        "$bin/cfs" admin replication status --data-dir "$work/$name" --json \
            >/dev/null 2>&1 && return 0
        ! wait_pid "${site_pid[$name]}" 0 || fail "the daemon of $name ended at its start"
        sleep 0.05
    done
    fail "the daemon of $name does not answer"
}

# stop NAME: SIGTERM; must end with 0 within 10 s.
stop() {
    local name=$1 status=0 began=$SECONDS
    kill -TERM "${site_pid[$name]}"
    wait_pid "${site_pid[$name]}" $((12 * slow)) || fail "$name does not end after SIGTERM"
    wait "${site_pid[$name]}" || status=$?
    ((status == 0)) || fail "the daemon of $name ended with $status after SIGTERM"
    ((SECONDS - began <= 11 * slow)) || fail "$name took $((SECONDS - began)) s to end"
}

# crash NAME: SIGKILL.
crash() {
    kill -KILL "${site_pid[$1]}" 2>/dev/null || true
    wait "${site_pid[$1]}" 2>/dev/null || true
}

# wait_pid PID SECONDS: until the process is gone (or a zombie, which is gone too).
wait_pid() {
    local try state
    for ((try = 0; ; try++)); do
        state=$(sed -E 's/.*\) ([A-Z]) .*/\1/' "/proc/$1/stat" 2>/dev/null) || return 0
        [[ -n $state && $state != Z ]] || return 0
        ((try < $2 * 20)) || return 1
        sleep 0.05
    done
}

# status NAME FILTER: the status document through jq -r; nothing if the daemon is not there.
status() {
    "$bin/cfs" admin replication status --data-dir "$work/$1" --json 2>/dev/null | jq -r "$2"
}

# until_true SECONDS WHAT COMMAND...: tries the command until it succeeds.
until_true() {
    local limit=$(($1 * slow)) what=$2 began=$SECONDS
    shift 2
    until "$@"; do
        ((SECONDS - began <= limit)) || fail "not within $limit s: $what"
        sleep 0.1
    done
}

status_is() { # NAME FILTER VALUE
    [[ $(status "$1" "$2") == "$3" ]]
}

log_has() { # NAME PATTERN
    grep -Eq -- "$2" "$work/$1.log"
}

caught_up() { # NAME [SECONDS]
    "$bin/cfs" admin replication wait --for caught-up --data-dir "$work/$1" \
        --timeout "$((${2:-60} * slow))s" >"$work/wait.out" 2>&1 ||
        fail "$1 is not caught up: $(cat "$work/wait.out")"
}

# digest NAME ORIGIN_ID: "ENTRIES DIGEST" over what the site holds of an origin.
digest() {
    "$bin/cfs-repl" journal digest --data-dir "$work/$1" --site "$2" --json |
        jq -r 'select(.total) | "\(.entries) \(.total)"'
}

# in_step ORIGIN REPLICA: both hold the same records of the origin.
in_step() {
    local here there
    here=$(digest "$1" "${site_id[$1]}")
    there=$(digest "$2" "${site_id[$1]}")
    [[ -n $here && $here == "$there" ]] ||
        fail "$1 and $2 differ in the records of $1: '$here' and '$there'"
    say "in step: records of $1 at $2: $here"
}

# no_entry_twice REPLICA ORIGIN_ID: every (shard, seq) of the origin is there once, without a hole.
no_entry_twice() {
    "$bin/cfs-repl" inbox dump --data-dir "$work/$1" --site "$2" --json >"$work/dump.json"
    python3 - "$work/dump.json" <<'PY' || fail "the inbox of $1 is not each entry once and in order"
import json, sys
last, count = {}, 0
for line in open(sys.argv[1]):
    entry = json.loads(line)
    shard, seq = entry["shard"], entry["seq"]
    if seq != last.get(shard, seq - 1 if seq == 1 else 0) + 1:
        sys.exit(f"shard {shard}: {seq} comes after {last.get(shard)}")
    last[shard] = seq
    count += 1
print(f"each entry once and in order: {count} entries, {len(last)} shards")
PY
}

sound() { # NAME: journal and inbox
    "$bin/cfs-repl" journal verify --data-dir "$work/$1" >"$work/verify.out" 2>&1 ||
        fail "the journal of $1 is not sound: $(cat "$work/verify.out")"
    "$bin/cfs-repl" inbox verify --data-dir "$work/$1" >"$work/verify.out" 2>&1 ||
        fail "the inbox of $1 is not sound: $(cat "$work/verify.out")"
}

# lines COUNT FIRST [NAME_BYTES]: COUNT entries as `journal append` reads them, inodes from FIRST.
lines() {
    awk -v n="$1" -v first="$2" -v pad="${3:-20}" 'BEGIN {
        filler = sprintf("%*s", pad, ""); gsub(/ /, "x", filler)
        for (i = 0; i < n; i++)
            printf "{\"op\":\"Create\",\"inode\":%d," \
                "\"parent\":%d,\"name\":\"f%d-%s\",\"mode\":\"0100644\"}\n",
                first + i, 1 + i % 997, first + i, filler
    }'
}

append() { # NAME COUNT FIRST [NAME_BYTES]
    local name=$1
    shift
    lines "$@" | "$bin/cfs-repl" journal append --data-dir "$work/$name" >"$work/append.out" 2>&1 ||
        fail "append at $name: $(cat "$work/append.out")"
}

# producer NAME PAUSE: starts a producer that appends until it is killed; sets producer_pid.
producer() {
    local name=$1 pause=$2
    # The generator ends by SIGPIPE once the reader is gone.
    "$bin/cfs-repl" journal append --data-dir "$work/$name" >>"$work/producer.out" 2>&1 < <(
        trap - EXIT
        first=1000000000
        while lines 200 "$first" 100; do
            first=$((first + 1000))
            sleep "$pause"
        done
    ) &
    producer_pid=$!
}

# appender NAME COUNT PAYLOAD_BYTES PAUSE_US [direct]: starts a watched producer (appender.c) at the
# site; sets appender_pid. Its progress: appended NAME FIELD.
appender() {
    local name=$1
    shift
    : >"$work/$name.state"
    "$bin/cfsr-appender" "$work/$name" "${@:1:3}" "$work/$name.state" "${@:4}" \
        >>"$work/$name.appender" 2>&1 &
    appender_pid=$!
}

# appended NAME [durable|refused|held|given]: a number of the site's watched producer.
appended() {
    local numbers
    read -ra numbers < <(od -An -v -tu8 -w32 "$work/$1.state")
    case ${2:-durable} in
    durable) printf '%s\n' "${numbers[0]:-0}" ;;
    refused) printf '%s\n' "${numbers[1]:-0}" ;;
    held) printf '%s\n' "${numbers[2]:-0}" ;;
    given) printf '%s\n' "${numbers[3]:-0}" ;;
    esac
}

appended_at_least() { # NAME COUNT
    (($(appended "$1") >= $2))
}

# appender_ends NAME: the producer must end by itself, or has been told to, with 0.
appender_ends() {
    wait "$appender_pid" || fail "the producer of $1 failed: $(cat "$work/$1.appender")"
}

# holds_all ORIGIN REPLICA: the replica has exactly what the origin's watched producer was told is
# durable, and in the end that is all the origin has.
holds_all() {
    local count
    count=$(digest "$1" "${site_id[$1]}" | cut -d ' ' -f 1)
    [[ $count == "$(appended "$1")" ]] ||
        fail "$1 holds $count entries, its producer was told of $(appended "$1")"
    in_step "$1" "$2"
}

# on_image NAME ext4|xfs MEGABYTES: a file system in a file, mounted at $work/NAME. 1: not possible
# here; not_mounted says why.
on_image() {
    local image=$work/$1.img
    if ((EUID != 0)); then
        not_mounted="only root may mount"
    elif [[ ! -e /dev/loop-control ]]; then
        not_mounted="no loop devices"
    elif ! grep -qw "$2" /proc/filesystems && ! modprobe -q "$2" 2>/dev/null; then
        not_mounted="the kernel has no $2"
    elif ! command -v "mkfs.$2" >/dev/null; then
        not_mounted="no mkfs.$2"
    elif ! truncate -s "$3M" "$image" || ! "mkfs.$2" -q "$image" >"$work/mkfs.out" 2>&1; then
        not_mounted="mkfs.$2: $(tail -n 1 "$work/mkfs.out")"
    elif ! mkdir -p "$work/$1" || ! mount -o loop "$image" "$work/$1" 2>"$work/mount.out"; then
        not_mounted="mount: $(tail -n 1 "$work/mount.out")"
    else
        mounts+=("$work/$1")
        return 0
    fi
    rm -f "$image"
    return 1
}
not_mounted=

# a_tar FILE MEGABYTES: an archive of pseudo-random and of compressible files, the same every time.
a_tar() {
    python3 - "$1" "$2" <<'PY'
import io, random, sys, tarfile
random.seed(7)
left = int(sys.argv[2]) << 20
words = [bytes(random.choices(b"abcdefghijklmnop", k=random.randrange(2, 9))) for _ in range(500)]
with tarfile.open(sys.argv[1], "w") as tar:
    index = 0
    while left > 0:
        size = min(left, random.choice([100, 3000, 20000, 300000]))
        data = random.randbytes(size) if index % 4 == 0 else b" ".join(
            random.choices(words, k=size // 4))[:size]
        member = tarfile.TarInfo(f"d{index % 20}/f{index}")
        member.size, member.mode, member.mtime = len(data), 0o644, 1700000000 + index
        tar.addfile(member, io.BytesIO(data))
        left -= size
        index += 1
PY
}
