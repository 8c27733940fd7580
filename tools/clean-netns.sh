#!/usr/bin/env bash
# Deletes the network namespaces wh<pid>x... (tests) and wharf-demo-<pid>-... (demo) of processes that are gone.
set -euo pipefail

ip netns list | while read -r name _; do
    pid=$(sed -nE 's/^wh([0-9]+)x[0-9]+[a-z]*$/\1/p; s/^wharf-demo-([0-9]+)-.*/\1/p' <<<"$name")
    if [ -n "$pid" ] && [ ! -e "/proc/$pid" ]; then
        echo "deleting network namespace $name"
        ip netns delete "$name"
    fi
done
