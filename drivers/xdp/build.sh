#!/bin/sh
# Compiles wharf.bpf.c to wharf.bpf.o, or to the file named as argument.
# Needs Debian's clang, llvm, libbpf-dev and linux-libc-dev. Another clang version
# gives other bytes: WHARF_CLANG_MAJOR is the one behind the committed object.
set -eu
WHARF_CLANG_MAJOR=14
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here/wharf.bpf.o}
clang=${CLANG:-clang-$WHARF_CLANG_MAJOR}
strip=${LLVM_STRIP:-llvm-strip-$WHARF_CLANG_MAJOR}

# -g is for BTF, which describes the maps. DWARF, source lines and local labels are then
# removed; the prefix maps keep the build machine's paths out of what stays.
cd "$here"
"$clang" -target bpf -mcpu=v2 -O2 -g -Wall -Wextra -Werror \
    -ffile-prefix-map="$here=." -fdebug-compilation-dir=. \
    -isystem "/usr/include/$(uname -m)-linux-gnu" \
    -c wharf.bpf.c -o "$out"
"$strip" -g -x -R .BTF.ext -R .rel.BTF.ext -R .llvm_addrsig "$out"
