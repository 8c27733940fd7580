#!/usr/bin/env bash
# Puts unmodified clients of VPP's API from PyPI, which the tests drive wharf with, into a virtual environment at target/papi.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$PWD/target/papi
packages=(vpp-papi==2.4.2 vppcfg==1.2.4)

wanted="${packages[*]}"
if [ "$(cat "$venv/packages" 2>/dev/null || true)" = "$wanted" ]; then
    exit 0
fi
tools/install.sh "vpp_papi, the client of the binary API" python3-venv
rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
echo "$wanted" >"$venv/packages"
