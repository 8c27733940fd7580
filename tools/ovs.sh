#!/usr/bin/env bash
# Puts Debian's Open vSwitch, a peer of the tests, at target/peers/ovs.
#
# Its packages start daemons on the machine that they are installed on. The tests want a switch of their own in a network
# namespace, so the packages are only unpacked, and the libraries that they need installed.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/target/peers
tools/install.sh "Open vSwitch, a peer of the tests" libbpf1 libcap-ng0 libnuma1 libssl3 libunbound8 libxdp1

[ ! -x "$peers/ovs/usr/sbin/ovsdb-server" ] || exit 0
echo "unpacking Debian's Open vSwitch into target/peers"
rm -rf "$peers/ovs" "$peers/ovs.new"
mkdir -p "$peers/ovs.new"
(
    cd "$peers/ovs.new"
    # apt's own user may not write here.
    download() {
        apt-get download --quiet --quiet --option APT::Sandbox::User=root openvswitch-switch openvswitch-common
    }
    download 2>/dev/null || { apt-get update --quiet --quiet && download; }
    for package in *.deb; do
        dpkg --extract "$package" .
    done
    rm -f ./*.deb
)
mv "$peers/ovs.new" "$peers/ovs"
