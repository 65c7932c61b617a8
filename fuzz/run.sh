#!/usr/bin/env bash
# Builds the fuzzer's targets with the installed toolchain and runs each for so many seconds (15), as many at a time as
# there are processors. A crash, a hang or an input that takes too much memory ends it with 1 and leaves the input in
# fuzz/artifacts; what was found on the way is kept in fuzz/grown, which is not committed.
#
#   fuzz/run.sh [SECONDS [TARGET...]]
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-15}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for file in targets/*.rs; do targets+=("$(basename "$file" .rs)"); done

export RUSTC_WRAPPER="$PWD/rustc.sh" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../target}"
CARGO_INCREMENTAL=0 cargo build --locked --bins
mkdir -p logs artifacts

one() {
    local target=$1
    mkdir -p "grown/$target" "artifacts/$target"
    # The inputs of many bytes are the slow ones; nothing here needs more.
    "$CARGO_TARGET_DIR/debug/$target" "grown/$target" "corpus/$target" -max_total_time="$seconds" -max_len=8192 \
        -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
        >"logs/$target" 2>&1 || { echo "fuzz: $target failed"; tail -n 30 "logs/$target"; return 1; }
    awk -v target="$target" '/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
        /number_of_executed_units/ { runs = $2 }
        END { printf "fuzz: %-15s %10d runs, %5d edges\n", target, runs, cov; exit runs == 0 }' "logs/$target"
}
export -f one
export seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'one "$1"' fuzz {}
