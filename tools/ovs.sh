#!/usr/bin/env bash
# Puts Debian's Open vSwitch, a peer of the tests, at target/peers/ovs, and installs the libraries that it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install.sh "Open vSwitch, a peer of the tests" libbpf1 libcap-ng0 libnuma1 libssl3 libunbound8 libxdp1
tools/unpack.sh ovs usr/sbin/ovsdb-server openvswitch-switch openvswitch-common
