#!/usr/bin/env bash
# Checks the dashboards against Grafana's schema, as published in a package of types for TypeScript: each dashboard
# becomes a typed literal, and the compiler names what Grafana does not know. Needs npm; what it installs is kept in
# TIDEGATE_SERVERS_DIR (default: .servers in the repository).
set -euo pipefail
cd "$(dirname "$0")/.."

command -v npm >/dev/null || {
    printf 'dashboards: please install npm\n' >&2
    exit 1
}

folder=${TIDEGATE_SERVERS_DIR:-.servers}/dashboards
mkdir -p "$folder"
# The mark is the package.json that was installed to the end.
if ! cmp -s scripts/dashboards/package.json "$folder/installed.json"; then
    cp scripts/dashboards/package.json "$folder/"
    npm install --prefix "$folder" --no-audit --no-fund --no-package-lock --ignore-scripts --silent
    cp "$folder/package.json" "$folder/installed.json"
fi

cp scripts/dashboards/shape.ts "$folder/"
checked=()
for dashboard in dashboards/*.json; do
    name=$(basename "$dashboard" .json)
    {
        printf "import type { Shape } from './shape';\nexport const dashboard: Shape = "
        cat "$dashboard"
    } >"$folder/$name.ts"
    checked+=("$folder/$name.ts")
done
"$folder/node_modules/.bin/tsc" --noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler "${checked[@]}"
printf 'dashboards: %s of them are as Grafana wants them\n' "${#checked[@]}"
