#!/usr/bin/env bash
# Puts what Debian packages hold at target/peers/NAME, for packages that start daemons on the machine that they are installed on: the
# tests want daemons of their own in a network namespace.
#
#     tools/unpack.sh NAME PROGRAM PACKAGE...
#
# Does nothing, and needs no network, when PROGRAM is there.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 3 ]; then
    echo "usage: tools/unpack.sh NAME PROGRAM PACKAGE..." >&2
    exit 2
fi
name=$1
program=$2
shift 2
peers=$PWD/target/peers

[ ! -x "$peers/$name/$program" ] || exit 0
echo "unpacking Debian's $* into target/peers"
rm -rf "$peers/$name" "$peers/$name.new"
mkdir -p "$peers/$name.new"
(
    cd "$peers/$name.new"
    # apt's own user may not write here.
    download() {
        apt-get download --quiet --quiet --option APT::Sandbox::User=root "$@"
    }
    download "$@" 2>/dev/null || { apt-get update --quiet --quiet && download "$@"; }
    for package in *.deb; do
        dpkg --extract "$package" .
    done
    rm -f ./*.deb
)
mv "$peers/$name.new" "$peers/$name"
