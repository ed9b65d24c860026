#!/usr/bin/env bash
# ./produce.sh QUEUE, with redis-cli 7.0 or newer: an older one does not know -e, which makes an error one.
set -euo pipefail

for title in Draft Hello; do
    # Titles that are not one's own need quoting, by jq for example.
    event='{"collection":"notes","id":"n1","update":{"$set":{"title":"'$title'"},"$inc":{"edits":1}}}'
    waiting=$(printf '%s' "$event" | redis-cli -u "${REDIS_URL:-redis://127.0.0.1:6379}" -e -x RPUSH "$1")
    echo "accepted; $waiting in the queue"
done
