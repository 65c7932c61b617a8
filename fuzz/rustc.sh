#!/usr/bin/env bash
# Stands before rustc: the crate under test tells the fuzzer which edges it took and what it compared, as cargo-fuzz makes
# it do. Nothing else is built differently, so what the tests built is used again. No sanitizer of memory: the crate
# denies unsafe code, but for two places that no decoder reaches.
rustc=$1
shift
case " $* " in
    *' --crate-name reelay '*'feature="fuzzing"'*)
        set -- "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
esac
exec "$rustc" "$@"
