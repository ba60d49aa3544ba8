#!/usr/bin/env bash
# seal.sh - two sites with --seal require: everything arrives, and nothing of it can be read on the
# wire between them, which a listener in the middle recorded; a site that does not seal is refused
# by name, whoever dials, and told to seal it is let in.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin seal

secret="the quick brown plaintext $(od -An -N12 -tx1 /dev/urandom | tr -d ' ')"

# listener PORT TARGET FILE: passes connections on and records both directions; sets listener_pid.
listener() {
    python3 - "$@" <<'PY' &
import socket, sys, threading
listen, target, record = int(sys.argv[1]), int(sys.argv[2]), open(sys.argv[3], "ab", 0)

def carry(source, sink):
    try:
        while data := source.recv(65536):
            record.write(data)
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

door = socket.socket()
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
door.bind(("127.0.0.1", listen))
door.listen()
while True:
    client, _ = door.accept()
    try:
        server = socket.create_connection(("127.0.0.1", target))
    except OSError:
        client.close()
        continue
    for ends in ((client, server), (server, client)):
        threading.Thread(target=carry, args=ends, daemon=True).start()
PY
    listener_pid=$!
}

# recorded: how often the secret was on the wire.
recorded() { grep -acF -- "$secret" "$work/wire" || true; }

import_secret() { # NAME
    rm -rf "$work/tree"
    mkdir "$work/tree"
    for i in $(seq 40); do
        printf '%s in file %d of %s, over and over\n' "$secret" "$i" "$1" >"$work/tree/f$i"
    done
    head -c 400000 /dev/urandom >"$work/tree/random"
    tar -C "$work/tree" -cf "$work/tree.tar" .
    "$bin/cfs-repl" journal import --data-dir "$work/$1" --tar "$work/tree.tar" --with-data \
        >/dev/null
}

mapfile -t ports < <(free_ports 2)
begin() {
    rm -rf "$work/a" "$work/b"
    : >"$work/wire"
    site a 1
    site b 2
    listener "${ports[0]}" "${site_port[b]}" "$work/wire"
    listener_b=$listener_pid
    listener "${ports[1]}" "${site_port[a]}" "$work/wire"
    listener_a=$listener_pid
}
end() {
    kill -TERM "$listener_a" "$listener_b"
    wait "$listener_a" "$listener_b" || true
}
flags=(--compress none --heartbeat-interval 100ms)

say "-- what a listener sees without sealing"
begin
import_secret a
serve b --peer "$(peer a "${ports[1]}")" "${flags[@]}"
serve a --peer "$(peer b "${ports[0]}")" "${flags[@]}"
caught_up a
(($(recorded) > 0)) || fail "the listener does not see what is there to be seen"
say "on the wire in $(recorded) lines"
stop a
stop b
end

say "-- both sealed"
begin
import_secret a
import_secret b
serve b --peer "$(peer a "${ports[1]}")" "${flags[@]}" --seal require
serve a --peer "$(peer b "${ports[0]}")" "${flags[@]}" --seal require
append a 3000 1000000 200
caught_up a
caught_up b
(($(status a .counters.bad_frames) + $(status b .counters.bad_frames) == 0)) ||
    fail "sealed frames were refused"
crash b
append a 1000 2000000 200
serve b --peer "$(peer a "${ports[1]}")" "${flags[@]}" --seal require
caught_up a

say "-- what was damaged is fetched again, sealed"
stop a
segment=$(find "$work/a/journal" -name '*.seg' -size +0 | sort | while read -r file; do
    grep -aqF -- "$secret" "$file" && printf '%s\n' "$file" && break
done)
at=$(grep -aobF -m 1 -- "$secret" "$segment" | head -n 1 | cut -d : -f 1)
printf 'XXXX' | dd of="$segment" bs=1 seek="$at" conv=notrunc status=none
serve a --peer "$(peer b "${ports[0]}")" "${flags[@]}" --seal require
caught_up a
"$bin/cfs" admin replication scrub --data-dir "$work/a" --wait >"$work/scrub.out" 2>&1 || true
until_true 30 "the damage is repaired" status_is a '.counters.damage_repaired > 0' true
caught_up b
stop a
stop b
end
in_step a b
in_step b a
no_entry_twice b 1
sound a
sound b
(($(stat -c %s "$work/wire") > 800000)) || fail "the listener saw too little"
(($(recorded) == 0)) || fail "the secret was on the wire in $(recorded) lines"
"$bin/cfs-repl" inbox dump --data-dir "$work/b" --site 1 --json >"$work/dump.json"
say "$(stat -c %s "$work/wire") bytes on the wire, nothing to be read;" \
    "at b: $(wc -l <"$work/dump.json") entries"

# refused_both SEALS OTHER: one requires it, the other does not; both links say so.
refused_both() {
    local name
    for name in a b; do
        until_true 20 "$name is FAULTED (seal_required)" \
            status_is "$name" '.links[0] | "\(.state) \(.reason)"' "FAULTED seal_required"
        until_true 10 "the log of $name names it" log_has "$name" "reason=seal_required"
        (($(status "$name" .counters.entries_received) == 0)) || fail "$name took entries"
    done
    (($(status "$1" .counters.refused_in) > 0)) || fail "$1 does not count the refusal"
    (($(recorded) == 0)) || fail "the secret was on the wire"
    say "refused: '$(status "$2" '.links[0].detail')'"
}

say "-- one of the two does not seal"
begin
import_secret a
import_secret b
serve b --peer "$(peer a "${ports[1]}")" "${flags[@]}" --seal require
serve a --peer "$(peer b "${ports[0]}")" "${flags[@]}"
refused_both b a
stop a
serve a --peer "$(peer b "${ports[0]}")" "${flags[@]}" --seal require
caught_up a
caught_up b
stop a
stop b
end
in_step a b
in_step b a
(($(recorded) == 0)) || fail "the secret was on the wire"
