#!/usr/bin/env bash
# refusals.sh - what the handshake must refuse: wrong key, wrong cluster, unknown site, duplicate
# site id, other lane count, a peer that is not the site it was dialled as or claims a third site's
# id. Each reason is named in both logs and in the status, and nothing is written.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
e2e_begin refusals

# Entries of an origin that a site holds; 0 if none.
held() { "$bin/cfs-repl" inbox dump --data-dir "$work/$1" --json | wc -l; }

# refused DIALER ACCEPTOR REASON STATUS_REASON...: both daemons run; the dialer's link must be
# refused with the reason, both logs must name it.
refused() {
    local dialer=$1 acceptor=$2 reason=$3
    until_true 20 "$dialer is FAULTED ($reason)" \
        status_is "$dialer" '.links[0] | "\(.state) \(.reason)"' "FAULTED $reason"
    status_is "$dialer" .overall FAULTED || fail "overall is $(status "$dialer" .overall)"
    until_true 10 "the log of $dialer names $reason" \
        log_has "$dialer" "event=link_faulted .*reason=$reason"
    until_true 10 "the log of $acceptor names $reason" \
        log_has "$acceptor" "event=connection_refused .*reason=$reason"
    (($(status "$acceptor" .counters.refused_in) > 0)) || fail "$acceptor does not count refusals"
    (($(status "$dialer" .counters.refused_out) > 0)) || fail "$dialer does not count refusals"
    [[ $(held "$acceptor") == 0 ]] || fail "$acceptor took entries from a peer it refused"
    say "refused: $reason; '$(status "$dialer" '.links[0].detail')'"
}

# fresh ID_B [INIT_ARGUMENT...]: two new sites; a (1) has entries and dials, b listens.
round=0
fresh() {
    rm -rf "$work/a" "$work/b"
    rm -f "$work"/*.log
    round=$((round + 1))
    site a 1
    site b "$@"
    site_key=()
    append a 10 $((round * 100))
}

# b dials nobody that is there, so that only a's dial is seen.
nowhere=$(free_ports 1)

say "-- wrong key"
fresh 2
"$bin/cfs-repl" keygen --out "$work/other-key" >/dev/null
site_key[b]=$work/other-key
serve b --peer "$(peer a "$nowhere")"
serve a --peer "$(peer b)"
refused a b bad_key
stop a
stop b

say "-- wrong cluster"
fresh 2 --cluster-id "$(cat /proc/sys/kernel/random/uuid)"
serve b --peer "$(peer a "$nowhere")"
serve a --peer "$(peer b)"
refused a b wrong_cluster
stop a
stop b

say "-- unknown site"
fresh 2
serve b --peer "7:site-x:tcp://127.0.0.1:$nowhere"
serve a --peer "$(peer b)"
refused a b unknown_site
stop a
stop b

say "-- other lane count"
fresh 2 --lanes 8
serve b --peer "$(peer a "$nowhere")"
serve a --peer "$(peer b)"
refused a b lanes_differ
stop a
stop b

say "-- another site answers than was dialled"
fresh 2
serve b --peer "$(peer a "$nowhere")"
serve a --peer "3:site-c:tcp://127.0.0.1:${site_port[b]}"
refused a b wrong_site
stop a
stop b

say "-- two daemons with one site id"
fresh 1
serve b --peer "2:site-c:tcp://127.0.0.1:$nowhere"
serve a --peer "2:site-c:tcp://127.0.0.1:${site_port[b]}"
refused a b duplicate_site
stop a
stop b

say "-- a peer that claims a third site's id (keys for each pair)"
fresh 2
secret() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
secret_ab=$(secret)
secret_bc=$(secret)
printf 'cfs-repl-keyring 1\nkey 1 site-pair 1,2 %s\nkey 2 site-pair 2,3 %s\n' \
    "$secret_ab" "$secret_bc" >"$work/key-b"
# a holds only the key of the pair (1, 2); it says that it is site 3 and signs with what it has.
printf 'cfs-repl-keyring 1\nkey 2 site-pair 2,3 %s\n' "$secret_ab" >"$work/key-a"
chmod 600 "$work/key-a" "$work/key-b"
rm -rf "$work/a"
site a 3
append a 10 5000
site_key[a]=$work/key-a
site_key[b]=$work/key-b
serve b --peer "1:site-one:tcp://127.0.0.1:$nowhere" --peer "3:site-three:tcp://127.0.0.1:$nowhere"
serve a --peer "$(peer b)"
refused a b bad_key
stop a
stop b

say "-- the same sites, set right: entries flow"
fresh 2
site_key[b]=$work/other-key
serve b --peer "$(peer a "$nowhere")"
serve a --peer "$(peer b)"
refused a b bad_key
stop b
site_key=()
serve b --peer "$(peer a "$nowhere")"
caught_up a 30
stop a
stop b
in_step a b
