#!/usr/bin/env bash
# Fuzzes one target with libFuzzer, on stable Rust.
#
#     tools/fuzz.sh TARGET SECONDS
#
# A find ends the run and stays in fuzz/regressions/TARGET/, where the tests replay it: commit it with its fix.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -ne 2 ]; then
    echo "usage: tools/fuzz.sh TARGET SECONDS" >&2
    exit 2
fi
target=$1
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz sets, without the flags that only a nightly compiler takes. With --target, build scripts don't get it.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
# Debian's libFuzzer, where it is: compiling one takes a minute.
shopt -s nullglob
libraries=(/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-"$(uname -m)".a)
if [ ${#libraries[@]} -gt 0 ]; then
    export CUSTOM_LIBFUZZER_PATH=${libraries[-1]} CUSTOM_LIBCXX=stdc++
fi

cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" --features libfuzzer --bin "$target"
build=${CARGO_TARGET_DIR:-fuzz/target}
found=$build/corpus/$target
log=$build/fuzz-$target.log
mkdir -p "$found" "fuzz/regressions/$target"
trap 'rmdir --ignore-fail-on-non-empty "fuzz/regressions/$target" fuzz/regressions 2>/dev/null || true' EXIT
echo "fuzzing $target for $2 s"
if "$build/$host/release/$target" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -max_len=4096 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix="fuzz/regressions/$target/" "$found" "fuzz/corpus/$target" </dev/null >"$log" 2>&1
then
    echo "fuzzed $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    exit 0
fi
# The find as text too: where only the output is kept, it can be made again.
{
    echo "fuzzing $target failed:"
    grep -vE '^\s*NEW_FUNC|ecommended dictionary|# Uses: ' "$log" | tail -n 60
    for find in "fuzz/regressions/$target"/*; do
        echo "$find, at most 4096 bytes by base64:"
        head -c 4096 "$find" | base64 -w 160
    done
} >"$build/failed-$target.log"
cat "$build/failed-$target.log"
exit 1
