#!/usr/bin/env bash
# Builds the image of the Dockerfile as it stands, without a registry, and tries it: what came of it drains a queue and stops
# by SIGTERM. As root, on Debian.
#
# The images that the Dockerfile starts from are made here: debian:bookworm-slim by debootstrap, rust:1-bookworm of that,
# Debian's build tools and the toolchain of this machine, with the crates that this machine has. So what is proven is that the
# Dockerfile copies what cargo wants and that the binary runs in what is left; not what Docker Hub's images are like.
#
# IMAGE_DIR (default: .servers/image in the repository) keeps the images, a GiB or two.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo 'image: to build it without a registry takes root' >&2; exit 1; }
dir=${IMAGE_DIR:-${TIDEGATE_SERVERS_DIR:-.servers}/image}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# Both work within containers, too.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
containers=(--root "$dir/storage" --runroot "$dir/run")
readonly slim=localhost/debian:bookworm-slim rust=localhost/rust:1-bookworm
readonly mirror=${DEBIAN_MIRROR:-}
work=()
mounted=

b() { buildah "${containers[@]}" "$@"; }
say() { printf 'image: %s\n' "$*"; }
has() { b inspect --type image "$1" >/dev/null 2>&1; }
tidy() {
    for container in "${work[@]}"; do b rm "$container" >/dev/null 2>&1 || true; done
}
trap tidy EXIT

# start IMAGE: a container of it, as `container`, whose files are in `mounted`.
start() {
    container=$(b from --pull-never "$1")
    work+=("$container")
    mounted=$(b mount "$container")
}

for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null && continue
    say "installing $tool"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$tool" >/dev/null
done

if ! has "$slim"; then
    say "making $slim"
    rm -rf "$dir/slim"
    debootstrap --variant=minbase bookworm "$dir/slim" ${mirror:+"$mirror"} >"$dir/debootstrap.log" || {
        tail -5 "$dir/debootstrap.log" >&2
        exit 1
    }
    start scratch
    cp -a "$dir/slim/." "$mounted/"
    rm -rf "$dir/slim"
    b config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$container"
    b commit --quiet "$container" "$slim" >/dev/null
fi

sysroot=$(rustc --print sysroot)
if ! has "$rust"; then
    say "making $rust"
    start "$slim"
    b run "$container" -- sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends ca-certificates gcc libc6-dev make >/dev/null'
    mkdir -p "$mounted/usr/local/rust" "$mounted/usr/local/cargo"
    tar -C "$sysroot" --exclude=./share -c . | tar -C "$mounted/usr/local/rust" -x
    b config --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env CARGO_HOME=/usr/local/cargo "$container"
    b commit --quiet "$container" "$rust" >/dev/null
fi

# The crates are lent for the build: they are no part of an image.
cargo fetch --locked --quiet
registry=${CARGO_HOME:-$HOME/.cargo}/registry
say 'building the Dockerfile; a release build takes some minutes'
b build --quiet --pull=never --network host --layers=false \
    --volume "$registry:/usr/local/cargo/registry" --tag tidegate . >"$dir/build.log" 2>&1 || {
    tail -20 "$dir/build.log" >&2
    exit 1
}

say 'trying it'
start tidegate
b inspect --type image tidegate >"$dir/image.json"
IMAGE_ROOT=$mounted IMAGE_CONFIG=$dir/image.json \
    cargo test --locked --quiet --test suite image::the_built_image -- --ignored --nocapture
