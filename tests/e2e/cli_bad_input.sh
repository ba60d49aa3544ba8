#!/usr/bin/env bash
# shellcheck disable=SC2317 # functions are called by name and by traps
# cli_bad_input.sh - what the tools say and how they exit when something is wrong: usage, damage,
# locks, permissions, disks, archives.
set -euo pipefail

bin=${CFSR_BIN_DIR:-${CFSR_BIN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../../build/bin" && pwd)}}
work=$(mktemp -d)
mounted=()
cleanup() {
    local at
    for at in ${mounted[@]+"${mounted[@]}"}; do umount "$at" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
chmod 755 "$work"
failed=0

repl() { timeout 60 "$bin/cfs-repl" "$@"; }

# expect NAME CODE TEXT COMMAND...: the exit code, the text somewhere in what it says, and one
# line of error at most.
expect() {
    local name=$1 code=$2 text=$3 got=0
    shift 3
    "$@" >out.txt 2>err.txt </dev/null || got=$?
    if [[ $got != "$code" ]]; then
        echo "FAIL: $name: exit $got, not $code"
    elif [[ -n $text ]] && ! grep -qF -- "$text" out.txt err.txt; then
        echo "FAIL: $name: does not say '$text'"
    else
        echo "PASS: $name"
        return
    fi
    cat out.txt err.txt
    failed=1
}

skip() { echo "SKIP: $1: $2"; }
input() { # input TEXT COMMAND...
    local text=$1
    shift
    printf '%s\n' "$text" | "$@"
}

expect "no command" 2 "Usage:" repl
expect "unknown command" 2 "did you mean 'journal dump'" repl journal dmp
expect "unknown flag" 2 "did you mean --lanes" repl init --lane 3
expect "missing flag" 2 "--data-dir is missing" env -u CFSR_DATA_DIR "$bin/cfs-repl" journal dump
expect "lanes not a power of two" 2 "power of two" repl init --data-dir x --site-id 1 --name a \
    --lanes 3
expect "bad cluster id" 2 "not a UUID" repl init --data-dir x --site-id 1 --name a --cluster-id zz
expect "help" 0 "--site-id" repl init --help
expect "version" 0 "io_uring" repl --version

expect "init" 0 "cluster id" repl init --data-dir d --site-id 1 --name site-a --lanes 2
expect "init twice" 1 "d" repl init --data-dir d --site-id 1 --name site-a
expect "keygen" 0 "key 1" repl keygen --out key
expect "keygen does not overwrite" 1 "key" repl keygen --out key
expect "no site there" 74 "init" repl journal dump --data-dir nowhere
expect "data directory from the environment" 0 "0 damaged" env CFSR_DATA_DIR=d "$bin/cfs-repl" \
    journal verify
chmod 644 key
expect "serve with an unsafe key file" 77 "key" repl serve --data-dir d --key-file key --listen \
    tcp://127.0.0.1:1
expect "serve with a missing configuration file" 74 "nofile" repl serve --data-dir d --key-file \
    key --config nofile
printf 'batch-byts = 1MiB\n' >bad.ini
expect "unknown key in the configuration file" 78 \
    "bad.ini:1: unknown key: batch-byts: did you mean batch-bytes?" \
    repl serve --data-dir d --key-file key --config bad.ini
expect "RDMA required, none given" 78 "peer 2:b has only tcp://h:1" repl serve --data-dir d \
    --key-file key --rdma require --peer 2:b:tcp://h:1
expect "one address to listen at, twice" 78 "are one address" repl serve --data-dir d \
    --key-file key --listen rdma://h:1 --listen tcp://h:1
expect "two endpoints of a kind" 2 "two endpoints with rdma://" repl serve --data-dir d \
    --key-file key --peer 2:b:rdma://h:1,rdma://g:1
expect "daemon unreachable" 69 "cannot be reached" timeout 10 "$bin/cfs" admin replication status \
    --data-dir d
expect "wait, daemon unreachable" 69 "cannot be reached" timeout 10 "$bin/cfs" admin replication \
    wait --for caught-up --data-dir d

# Appending.
expect "a wrong line is named" 1 'standard input:1: unknown key: "nam": did you mean "name"?' \
    input '{"op":"Create","inode":5,"parent":1,"nam":"a","mode":"0100644"}' repl journal append \
        --data-dir d
expect "a missing records file" 74 "norec" repl journal import --data-dir d --records norec

# Archives.
mkdir -p t && head -c 200000 /dev/urandom >t/f && tar cf t.tar -C t .
expect "import" 0 "imported" repl journal import --data-dir d --tar t.tar --with-data
head -c 100000 t.tar >cut.tar
expect "truncated archive" 1 "after member cut/f" repl journal import --data-dir d --tar cut.tar \
    --with-data --under cut
head -c 100000 /dev/urandom >noise.tar
expect "no archive" 1 "noise.tar" repl journal import --data-dir d --tar noise.tar
expect "missing archive" 74 "none.tar" repl journal import --data-dir d --tar none.tar
tar -P --transform 's,^t/f,/abs/f,' -cf abs.tar t/f
expect "absolute path" 0 "member changed: /abs/f" repl journal import --data-dir d --tar abs.tar
tar -P --transform 's,^t/f,../../f,' -cf up.tar t/f
expect "path with .." 1 "member refused: ../../f: its path contains '..'" repl journal import \
    --data-dir d --tar up.tar
expect "repeat of standard input" 2 "only once" repl journal import --data-dir d --tar - --repeat 2

# Materialize.
mkdir full && touch full/x
expect "target not empty" 1 "not empty" repl materialize --data-dir d --into full
expect "materialize" 0 "applied" repl materialize --data-dir d --into full --force

# In use. The one that is to hold it may meet the other one there, and is then begun anew.
mkfifo feed
hold() {
    repl journal append --data-dir d <feed >/dev/null 2>&1 &
    holder=$!
    exec 9>feed
}
hold
for _ in $(seq 50); do
    got=0
    input '{"op":"Create","inode":50,"parent":1,"name":"late","mode":"0100644"}' timeout 20 \
        "$bin/cfs-repl" journal append --data-dir d >out.txt 2>err.txt || got=$?
    [[ $got == 75 ]] && break
    sleep 0.1
    if ! kill -0 "$holder" 2>/dev/null; then
        exec 9>&-
        hold
        sleep 0.1
    fi
done
if [[ $got == 75 ]]; then echo "PASS: data directory in use"; else
    echo "FAIL: data directory in use: exit $got"
    cat err.txt
    failed=1
fi
exec 9>&-
wait "$holder" || true

# Damage.
cp -a d rot
segment=$(find rot/journal/00 -name '*.seg' | sort | head -n 1)
printf 'XXXX' | dd of="$segment" bs=1 seek=4700 conv=notrunc status=none
expect "damaged segment" 1 "DAMAGED" repl journal verify --data-dir rot
expect "damaged segment, as JSON" 1 '"sound":false' repl journal verify --data-dir rot --json
cp -a d foreign
touch foreign/journal/00/alien.txt
expect "foreign file" 1 "alien.txt" repl journal verify --data-dir foreign
repl init --data-dir many --site-id 1 --name many --lanes 1 --segment-bytes 2MiB >/dev/null
head -c 9000000 /dev/urandom >t/f && tar cf many.tar -C t f
expect "import over several segments" 0 "imported" repl journal import --data-dir many --tar \
    many.tar --with-data
rm "$(find many/journal/00 -name '*.seg' | sort | sed -n 2p)"
expect "missing segment" 1 "missing" repl journal verify --data-dir many
expect "writing with a missing segment" 1 "missing" repl journal import --data-dir many --tar t.tar

# No permission: as nobody, because root may do everything.
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null && setpriv --reuid=65534 --regid=65534 \
    --clear-groups test -x "$bin/cfs-repl" && setpriv --reuid=65534 --regid=65534 --clear-groups \
    test -r "$work"; then
    chmod -R go-rwx d
    expect "no permission" 77 "" setpriv --reuid=65534 --regid=65534 --clear-groups \
        "$bin/cfs-repl" journal dump --data-dir "$work/d"
else
    skip "no permission" "needs root, setpriv, and a build that other users can read"
fi

# Full and read-only disks.
mkdir disk
if [[ $(id -u) == 0 ]] && mount -t tmpfs -o size=24m none disk 2>/dev/null; then
    mounted+=("$work/disk")
    expect "init on a small disk" 0 "ready" repl init --data-dir disk/s --site-id 1 --name small \
        --lanes 1 --segment-bytes 2MiB
    head -c 60000000 /dev/urandom >t/f && tar cf large.tar -C t f
    head -c 60000000 /dev/zero >disk/filler 2>/dev/null || true
    expect "full disk" 74 "space" repl journal import --data-dir disk/s --tar large.tar --with-data
    expect "what was written before is sound" 0 "sound" repl journal verify --data-dir disk/s
    mount -o remount,ro disk
    expect "read-only disk" 74 "" repl journal import --data-dir disk/s --tar t.tar
else
    skip "full disk, read-only disk" "needs root and mount"
fi
exit "$failed"
