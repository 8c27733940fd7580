#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing.
#
#     tools/install.sh REASON PACKAGE...
#
# Does nothing, and needs no network and no root, when all are there. REASON says what they are for.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: tools/install.sh REASON PACKAGE..." >&2
    exit 2
fi
reason=$1
shift

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing for $reason: run, as root,  apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]} (for $reason)"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --yes --quiet --quiet --no-install-recommends "${missing[@]}" </dev/null >/dev/null
