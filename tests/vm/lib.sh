# shellcheck shell=bash
# Helpers of the tests that need a guest. Sourced; set -euo pipefail is the caller's.
# CFSR_BUILD: the build folder; CFSR_SOURCE: the source folder.

# Ends with 77 and a reason on a machine that cannot run a guest: skipped, never passed.
need_guest() {
    "$CFSR_SOURCE/scripts/vm" --check || exit 77
}

vm() { "$CFSR_SOURCE/scripts/vm" "$@"; }

fail() {
    printf 'FAILED: %s\n' "$1" >&2
    exit 1
}
