#!/bin/sh
# Fails unless the committed wharf.bpf.o is what wharf.bpf.c compiles to.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/build.sh" "$work/wharf.bpf.o"
if ! cmp "$work/wharf.bpf.o" "$here/wharf.bpf.o"; then
    echo "drivers/xdp/wharf.bpf.o does not match wharf.bpf.c: run drivers/xdp/build.sh" >&2
    exit 1
fi
if strings -n 4 "$here/wharf.bpf.o" | grep -E '^/|/(home|root|tmp|usr|work)/' >&2; then
    echo "drivers/xdp/wharf.bpf.o holds a path of the machine that built it" >&2
    exit 1
fi
