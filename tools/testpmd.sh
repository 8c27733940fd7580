#!/usr/bin/env bash
# Puts Debian's dpdk-testpmd, the memif peer of tests and benchmarks, at target/peers/bin/dpdk-testpmd.
#
# The program is in package dpdk-dev, which depends on two hundred others. It needs about fifty small runtime
# libraries of them: those are installed as packages, and of dpdk-dev only the program is unpacked.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/target/peers
program=$peers/dpdk-dev/usr/bin/dpdk-testpmd

if [ -x "$peers/bin/dpdk-testpmd" ] && ! ldd "$program" | grep --quiet 'not found'; then
    exit 0
fi
tools/install.sh "unpacking dpdk-testpmd" binutils

rm -rf "$peers/dpdk-dev" "$peers/bin/dpdk-testpmd"
mkdir -p "$peers/bin"
echo "unpacking dpdk-testpmd from Debian's package dpdk-dev into target/peers"
(
    cd "$peers"
    rm -f dpdk-dev_*.deb
    # apt's own user may not write here.
    download() { apt-get download --quiet --quiet --option APT::Sandbox::User=root dpdk-dev; }
    download 2>/dev/null || { apt-get update --quiet --quiet && download; }
    dpkg --extract dpdk-dev_*.deb dpdk-dev
    rm -f dpdk-dev_*.deb
)

# The package of librte_net_bnxt.so.23 is librte-net-bnxt23; a name that ends in a digit gets a hyphen more.
mapfile -t libraries < <(
    objdump --private-headers "$program" | awk '$1 == "NEEDED" && $2 ~ /^librte_/ { print $2 }' |
        sed -E 's/_/-/g; s/([0-9])\.so\./\1-/; s/\.so\.//'
)
version=${libraries[0]##*[!0-9]}
tools/install.sh "dpdk-testpmd, the memif peer" "${libraries[@]}" "librte-net-memif$version" \
    "librte-mempool-ring$version" libbsd0 libelf1 libfdt1 libibverbs1 ibverbs-providers libjansson4 libnuma1 libpcap0.8

cat >"$peers/bin/dpdk-testpmd" <<EOF
#!/bin/sh
exec $program "\$@"
EOF
chmod +x "$peers/bin/dpdk-testpmd"

if ldd "$program" | grep 'not found' >&2; then
    echo "dpdk-testpmd lacks these libraries" >&2
    rm "$peers/bin/dpdk-testpmd"
    exit 1
fi
