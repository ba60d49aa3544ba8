#!/usr/bin/env bash
# shellcheck disable=SC2317 # functions are called by name and by traps
# cli_offline.sh - the tools without a daemon: init, import, verify, digest, dump, append, tail,
# materialize; and that
# a materialised journal is what tar unpacks.
set -euo pipefail

bin=${CFSR_BIN_DIR:-${CFSR_BIN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../../build/bin" && pwd)}}
work=$(mktemp -d)
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
failed=0

repl() { timeout 60 "$bin/cfs-repl" "$@"; }

# check NAME COMMAND...: one case.
check() {
    local name=$1
    shift
    if "$@" >out.txt 2>err.txt; then
        echo "PASS: $name"
    else
        echo "FAIL: $name (exit $?)"
        cat out.txt err.txt
        failed=1
    fi
}

listing() { (cd "$1" && find . -printf '%p %y %m %U %G %T@ %n %s %l\n' | sed \
    's/\( d .*\) [0-9]* [0-9]* $/\1/' | sort); }
same_tree() { diff <(listing "$1") <(listing "$2") && diff -r --no-dereference "$1" "$2"; }

make_tree() {
    mkdir -p tree/dir/deep tree/locked "tree/with space"
    head -c 700000 /dev/urandom >tree/dir/big
    : >tree/dir/empty
    printf 'text\n' >tree/dir/deep/text
    printf 'x' >tree/$'odd\xff name'
    printf 'ä' >"tree/with space/ünicode"
    ln -s ../dir/big tree/dir/link
    ln tree/dir/big tree/hard
    truncate -s 3M tree/sparse
    printf 'middle' | dd of=tree/sparse bs=1 seek=1000000 conv=notrunc status=none
    setfattr -n user.note -v hello tree/dir/deep/text 2>/dev/null || true
    chmod 4755 tree/dir/deep/text
    chmod 0500 tree/locked
    touch -h -d '2001-02-03 04:05:06.789' tree/dir/link tree/dir/empty tree/dir
    touch -d '2002-02-03 04:05:06.789' tree
    tar --format=pax --xattrs --sparse -cf tree.tar -C tree .
    mkdir unpacked
    tar --xattrs -xpf tree.tar -C unpacked
}
make_tree

check "init makes a site" repl init --data-dir d --site-id 7 --name site-a
check "import takes the tar" repl journal import --data-dir d --tar tree.tar --with-data
cp out.txt import.txt
check "import reports the average record" grep -q 'average record' import.txt
check "verify finds it sound" repl journal verify --data-dir d
check "digest" repl journal digest --data-dir d
check "digest is stable" diff <(repl journal digest --data-dir d) <(repl journal digest \
    --data-dir d)
check "materialize" repl materialize --data-dir d --into m
check "the materialised tree is what tar unpacks" same_tree unpacked m
if getfattr -n user.note unpacked/dir/deep/text >/dev/null 2>&1; then
    check "extended attributes are there" getfattr -n user.note m/dir/deep/text
fi

# A dump can be appended to another journal and makes the same tree.
repl init --data-dir d2 --site-id 7 --name copy >/dev/null
repl journal dump --data-dir d --json >dump.ndjson
copy() { repl journal append --data-dir d2 <dump.ndjson; }
check "append takes what dump prints" copy
check "materialize of the copy" repl materialize --data-dir d2 --into m2
check "the copy is the same tree" same_tree unpacked m2
check "records file is taken by import" repl journal import --data-dir d2 --records /dev/null

check "tail shows the last records" repl journal tail --data-dir d
cp out.txt tail.txt
check "tail shows ten and a heading" test "$(wc -l <tail.txt)" -eq 11
check "recover reports every lane" repl journal recover --data-dir d
check "inbox of a lone site is empty and sound" repl inbox verify --data-dir d

# A second import into the same journal gets fresh inode numbers.
repl journal import --data-dir d --tar tree.tar --under second --with-data >/dev/null
unique_inodes() {
    [[ -z $(repl journal dump --data-dir d --json | grep -E '"op":"(Create|MkDir|Symlink)"' | \
        grep -o '"inode":[0-9]*' | sort | uniq -d) ]]
}
check "inode numbers are never given twice" unique_inodes

repl init --data-dir r --site-id 1 --name site-r >/dev/null
check "import --repeat" repl journal import --data-dir r --tar tree.tar --repeat 3
check "materialize of a listing" repl materialize --data-dir r --into mr
check "every round has its directory" test -d mr/r0001 -a -d mr/r0002 -a -d mr/r0003/dir/deep
check "a listing keeps lengths" test "$(stat -c %s mr/r0003/dir/big)" = 700000

pipe() { repl journal import --data-dir r --tar - --under piped <tree.tar; }
check "import from standard input" pipe
exit "$failed"
