#!/usr/bin/env bash
# environment.sh - a machine that does not give what the daemon needs: each time one clear line and
# the documented exit code (1 2 69 74 75 77 78), and nothing is lost. A full disk stops the receiver
# until there is room, and then it goes on by itself.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin environment

skipped=()
# A case that this machine cannot show is named, and does not hide the others.
not_here() {
    skipped+=("$1")
    say "skipped: $1"
}

# ends NAME CODE PATTERN COMMAND...: the command must end by itself with the code, and its last line
# must say the pattern.
ends() {
    local name=$1 code=$2 pattern=$3 status=0 last
    shift 3
    timeout $((20 * slow)) "$@" >"$work/out" 2>"$work/err" || status=$?
    last=$(tail -n 1 "$work/err")
    ((status == code)) || fail "$name: exit $status and not $code: $last"
    [[ $last =~ $pattern ]] || fail "$name: the message does not say '$pattern': $last"
    [[ $(grep -c '^cfs' "$work/err") == 1 ]] || fail "$name: not one line: $(cat "$work/err")"
    say "$name: exit $code: ${last//$work/DIR}"
}

site a 1
site b 2
append a 1000 10
serve_a=("$bin/cfs-repl" serve --data-dir "$work/a" --key-file "$work/key"
    --listen "tcp://127.0.0.1:${site_port[a]}" --peer "$(peer b)")

ends "missing key file" 74 "$work/none" "${serve_a[@]::4}" --key-file "$work/none" \
    --peer "$(peer b)"
cp "$work/key" "$work/open-key"
chmod 644 "$work/open-key"
ends "key file for all to read" 77 'chmod|0600|600' "${serve_a[@]::4}" --key-file "$work/open-key" \
    --peer "$(peer b)"
printf 'nonsense\n' >"$work/bad-key"
chmod 600 "$work/bad-key"
ends "key file with nonsense" 78 'bad-key' "${serve_a[@]::4}" --key-file "$work/bad-key" \
    --peer "$(peer b)"
ends "cores beyond the machine" 78 'cpu|core' "${serve_a[@]}" --cores 99
ends "unknown flag" 2 'did you mean' "${serve_a[@]}" --batch-byte 1
ends "wrong unit" 2 'window-bytes' "${serve_a[@]}" --window-bytes 16parsec
ends "another site's directory" 78 'belongs to site 1' "${serve_a[@]}" --site-id 5
ends "no data directory" 74 'nowhere' "$bin/cfs-repl" serve --data-dir "$work/nowhere" \
    --key-file "$work/key" --peer "$(peer b)"
printf '[serve]\nbatch-byte = 3\n' >"$work/wrong.ini"
ends "unknown key in the configuration" 78 'wrong.ini.*batch-byte' "${serve_a[@]}" \
    --config "$work/wrong.ini"
ends "io_uring forbidden" 78 'io_uring' "$bin/cfsr-no-io-uring" "${serve_a[@]}"
ends "daemon unreachable" 69 'reached' "$bin/cfs" admin replication status --data-dir "$work/a"

# Root is not bound by limits and modes: those cases run as another user, if there is one.
other=
if ((EUID == 0)) && command -v setpriv >/dev/null; then
    other=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
if [[ -n ${other[*]} ]] && (
    chmod 755 "$work"
    "${other[@]}" test -x "$bin/cfs-repl"
); then
    ends "no permission" 77 'ermission' "${other[@]}" "${serve_a[@]}"
    chown -R 65534:65534 "$work/a"
    cp "$work/key" "$work/their-key"
    chown 65534:65534 "$work/their-key"
    # It works without registered buffers, only slower: one warning that names the limit, no end.
    e2e_wrapper=("${other[@]}" prlimit --memlock=65536:65536)
    site_key[a]=$work/their-key
    serve a --peer "$(peer b)"
    log_has a 'event=buffers_not_registered .*limit=64KiB .*hint=.*(ulimit|MEMLOCK)' ||
        fail "memlock too small: no warning that names the limit: $(cat "$work/a.log")"
    say "memlock too small: $(grep -o 'event=buffers_not_registered.*' "$work/a.log")"
    e2e_wrapper=()
    stop a
    site_key=()
    chown -R 0:0 "$work/a"
else
    not_here "no permission, memlock too small (needs root and a readable build)"
fi

say "-- in use"
serve a --peer "$(peer b)"
ends "data directory in use" 75 'in use' "${serve_a[@]}"
ends "port in use" 78 'in use' "$bin/cfs-repl" serve --data-dir "$work/b" --key-file "$work/key" \
    --listen "tcp://127.0.0.1:${site_port[a]}" --peer "$(peer a)"
ends "not caught up in time" 75 'not caught up' "$bin/cfs" admin replication wait \
    --data-dir "$work/a" --for caught-up --timeout 300ms
stop a

# on_small_disk NAME SIZE: mounts a file system of this size at $work/NAME.
on_small_disk() {
    mkdir -p "$work/$1"
    mount -t tmpfs -o "size=$2" none "$work/$1" 2>/dev/null || return 1
    mounts+=("$work/$1")
}

say "-- read-only disk"
if on_small_disk readonly 700m && cp -a --sparse=always "$work/b/." "$work/readonly/" &&
    mount -o remount,ro "$work/readonly" 2>/dev/null; then
    ends "read-only data directory" 74 'ead-only' "$bin/cfs-repl" serve \
        --data-dir "$work/readonly" --key-file "$work/key" --peer "$(peer a)"
else
    not_here "read-only data directory (no mount)"
fi

say "-- the receiver's disk is full, and then there is room"
if on_small_disk full 40m; then
    site full 3 --segment-bytes 2MiB --lanes 8
    site source 4 --segment-bytes 2MiB --lanes 8
    a_tar "$work/input.tar" 24
    "$bin/cfs-repl" journal import --data-dir "$work/source" --tar "$work/input.tar" --with-data \
        >/dev/null
    serve full --peer "$(peer source)"
    serve source --peer "$(peer full)" --compress none
    full_disk() {
        (($(status full .counters.inbox_write_errors) > 0)) || log_has full 'error=enospc'
    }
    if ! full_disk; then
        # Whatever the transfer left free is taken away, so that it must stop.
        head -c 64M /dev/zero >"$work/full/ballast" 2>/dev/null || true
    fi
    append source 4000 1000 200
    until_true 30 "the full disk is noticed" full_disk
    kill -0 "${site_pid[full]}" || fail "the receiver ended on a full disk"
    say "full: $(grep -Eo 'event=inbox_[a-z_]+ .*(enospc|space).*' "$work/full.log" | head -n 1)"
    rm -f "$work/full/ballast"
    mount -o remount,size=600m "$work/full"
    caught_up source 60
    stop full
    stop source
    in_step source full
    no_entry_twice full 4
    sound full
else
    not_here "full disk (no mount)"
fi

say "-- the producer's disk is full"
if on_small_disk tight 24m; then
    if "$bin/cfs-repl" init --data-dir "$work/tight/site" --site-id 9 --name tight --lanes 1 \
        --shards 4 --segment-bytes 2MiB >/dev/null && lines 200000 1 200 >"$work/many"; then
        status=0
        "$bin/cfs-repl" journal import --data-dir "$work/tight/site" --records "$work/many" \
            >"$work/out" 2>"$work/err" || status=$?
        ((status == 74)) || fail "append on a full disk: exit $status: $(cat "$work/err")"
        [[ $(tail -n 1 "$work/err") =~ space|full ]] ||
            fail "append on a full disk: $(cat "$work/err")"
        "$bin/cfs-repl" journal verify --data-dir "$work/tight/site" >/dev/null ||
            fail "a full disk damaged the journal"
        say "append on a full disk: exit 74: $(tail -n 1 "$work/err" | sed "s|$work|DIR|g")"
    fi
else
    not_here "the producer's disk is full (no mount)"
fi

sound a
sound b
((${#skipped[@]} == 0)) || say "not shown on this machine: ${skipped[*]}"
