#!/usr/bin/env bash
# Makes sure that there is a Redis and a MongoDB server to start, for the tests and the demo. For the tests also a
# Prometheus, a Chromium to look at the status page, Node for the clients that they use, and valgrind. Starts none of them.
#
#   servers.sh         what the tests need
#   servers.sh demo    what the demo needs
#
#   Redis       redis-server on the PATH, else Debian's package.
#   MongoDB     mongod on the PATH, else secantusd-rs, a server with MongoDB's protocol, built once into
#               TIDEGATE_SERVERS_DIR (default: .servers in the repository).
#   Prometheus  prometheus and promtool on the PATH, else Debian's package.
#   Chromium    under one of its names on the PATH, else Debian's package.
#   valgrind    on the PATH, else Debian's package; without root it is done without, and no instructions are counted.
#
# TIDEGATE_TEST_REDIS_URL and TIDEGATE_TEST_MONGODB_URI name servers that the tests use where they need not stop them.
# With both set neither is installed; tests that need a server of their own then take what is there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly crate=secantus-mdb version=0.5.3-beta.193
servers_dir=${TIDEGATE_SERVERS_DIR:-.servers}
mkdir -p "$servers_dir"
servers_dir=$(cd "$servers_dir" && pwd)
secantusd=$servers_dir/bin/secantusd-rs

say() {
    printf 'servers: %s\n' "$*"
}

fail() {
    printf 'servers: %s\n' "$*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Where a Chromium is; fails if there is none.
browser() {
    command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable
}

# install PACKAGE: from Debian, as root.
install() {
    has apt-get || fail "please install $1"
    [ "$(id -u)" -eq 0 ] || fail "please install $1: sudo apt-get install -y $1"
    say "installing $1"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

built() {
    [ -x "$secantusd" ] && [ "$("$secantusd" --version | awk 'NR == 1 { print $2 }')" = "$version" ]
}

build_secantusd() {
    # Two at a time would build it twice. Without flock they do.
    exec 9>"$servers_dir/lock"
    if has flock; then flock 9; fi
    if built; then return; fi
    has cmake || install cmake
    say "building $crate $version, once; this takes three to five minutes"
    # A target folder of its own, whatever the caller has set. It stays after a failure, to go on from there.
    CARGO_TARGET_DIR=$servers_dir/build cargo install "$crate" --version "$version" \
        --ignore-rust-version --root "$servers_dir" --force --quiet
    rm -rf "$servers_dir/build"
}

if [ "${1:-}" != demo ]; then
    has node || install nodejs
    has npm || install npm
    { has prometheus && has promtool; } || install prometheus
    say "prometheus: $(command -v prometheus)"
    browser >/dev/null || install chromium
    say "browser: $(browser)"
    if ! has valgrind && has apt-get && [ "$(id -u)" -eq 0 ]; then install valgrind; fi
    say "valgrind: $(command -v valgrind || echo 'none; no instructions are counted')"
fi

if [ -n "${TIDEGATE_TEST_REDIS_URL:-}" ] && [ -n "${TIDEGATE_TEST_MONGODB_URI:-}" ]; then
    say "both are named by the environment"
    exit 0
fi

if [ -n "${TIDEGATE_TEST_REDIS_URL:-}" ]; then
    say "redis: named by TIDEGATE_TEST_REDIS_URL"
else
    has redis-server || install redis-server
    say "redis: $(command -v redis-server)"
fi

if [ -n "${TIDEGATE_TEST_MONGODB_URI:-}" ]; then
    say "mongodb: named by TIDEGATE_TEST_MONGODB_URI"
elif has mongod; then
    say "mongodb: $(command -v mongod)"
else
    built || build_secantusd
    say "mongodb: $secantusd"
fi
