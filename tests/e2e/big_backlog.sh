#!/usr/bin/env bash
# big_backlog.sh - a peer that was never seen catches up with a million entries, and neither daemon
# needs more than 256 MiB of resident memory for it.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin big_backlog

site a 1
site b 2
python3 - "$work/input.tar" <<'PY'
import sys, tarfile
with tarfile.open(sys.argv[1], "w") as tar:
    for index in range(5000):
        member = tarfile.TarInfo(f"some/folder-{index % 50}/file-with-a-name-{index}")
        member.mode, member.mtime = 0o644, 1700000000 + index
        tar.addfile(member)
PY
repeat=$((slow > 1 ? 10 : 200))
"$bin/cfs-repl" journal import --data-dir "$work/a" --tar "$work/input.tar" --repeat "$repeat" \
    >"$work/import.out"
head -n 1 "$work/import.out"
entries=$(digest a 1 | cut -d ' ' -f 1)
((entries >= 5000 * repeat)) || fail "only $entries entries were imported"
serve a --peer "$(peer b)"
serve b --peer "$(peer a)"
caught_up a 120
for name in a b; do
    most=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/${site_pid[$name]}/status")
    say "$name: $((most / 1024)) MiB resident at most"
    # Sanitizers multiply memory; there only the transfer counts.
    ((most <= 262144 || slow > 1)) || fail "$name needed $((most / 1024)) MiB, more than 256 MiB"
done
(($(status a .process.rss_bytes) > 0)) || fail "the status names no resident memory"
stop a
stop b
in_step a b
