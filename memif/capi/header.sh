#!/bin/sh
# Makes include/wharf_memif.h from the source; `header.sh FILE` makes FILE instead. Needs cbindgen.
set -eu
cd "$(dirname "$0")"
exec cbindgen --quiet --config cbindgen.toml --output "${1:-include/wharf_memif.h}" src/lib.rs
