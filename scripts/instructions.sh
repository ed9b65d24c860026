#!/usr/bin/env bash
# Counts the instructions that an event takes on its way through tidegate, and fails where one phase takes more than a
# tenth above what was recorded. Machines differ in time, hardly in this.
#
#   instructions.sh           compares with benches/instructions/recorded.txt
#   instructions.sh record    writes it anew
set -euo pipefail
cd "$(dirname "$0")/.."

readonly recorded=benches/instructions/recorded.txt phases='decode-routed decode-native fold encode'

if ! command -v valgrind >/dev/null; then
    echo 'instructions: valgrind is not installed, so none are counted' >&2
    [ -z "${CI:-}" ]
    exit
fi

# What the tests are built with, so that no dependency is built again, but tidegate itself as in a release.
build=(--config profile.dev.package.tidegate.opt-level=3 --config profile.dev.package.tidegate.codegen-units=4
    --config profile.dev.package.tidegate.debug-assertions=false
    --config profile.dev.package.tidegate.overflow-checks=false)
CARGO_INCREMENTAL=0 "${CARGO:-cargo}" build --locked --quiet --example instructions "${build[@]}"
program=${CARGO_TARGET_DIR:-target}/debug/examples/instructions
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# count PHASE: instructions an event.
count() {
    local events collected
    events=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        --toggle-collect='*measured*' "$program" "$1" 2>"$output") || { cat "$output" >&2; return 1; }
    collected=$(awk '/Collected/ { print $NF }' "$output")
    echo $((collected / events))
}

if [ "${1:-}" = record ]; then
    {
        echo '# Instructions an event, by phase: `make instructions RECORD=1` writes this, `make instructions` holds them to it.'
        echo "# $(rustc --version)"
        for phase in $phases; do echo "$phase $(count "$phase")"; done
    } >"$output.new"
    mv "$output.new" "$recorded"
    cat "$recorded"
    exit
fi

failed=0
for phase in $phases; do
    now=$(count "$phase")
    before=$(awk -v phase="$phase" '$1 == phase { print $2 }' "$recorded")
    [ -n "$before" ] || { echo "instructions: $phase is not in $recorded" >&2; exit 1; }
    verdict=
    if [ $((now * 10)) -gt $((before * 11)) ]; then
        verdict='  more than a tenth above'
        failed=1
    elif [ $((now * 10)) -lt $((before * 9)) ]; then
        verdict='  more than a tenth below: record it (make instructions RECORD=1), so that it stays there'
    fi
    printf 'instructions: %-14s %6d an event, recorded %6d%s\n' "$phase" "$now" "$before" "$verdict"
done
if [ "$failed" -ne 0 ]; then
    echo "instructions: find out why; if it is worth it, or the compiler's doing, make instructions RECORD=1" >&2
    echo "instructions: recorded with$(sed -n 's/^# rustc/ rustc/p' "$recorded"), this is $(rustc --version)" >&2
fi
exit "$failed"
