#!/usr/bin/env bash
# No secret in what the suite traced and said: secrets.sh TRACES OUTPUT. That a build which logs one header is found out is
# shown by the suite itself (tests/it/canary.rs); here it is enough that there was something to look through.
set -euo pipefail
traces=$1 output=$2 found=0

lines=$(grep -c TRACE "$traces" || true)
echo "$lines lines of trace"
[ "$lines" -gt 10000 ] || exit 1
# The marks of tests/it/support/canary.rs.
grep -n -a -m 5 -e canary -e Y2FuYXJ5 -e NhbmFye -e jYW5hcn "$traces" && found=1
# Tests are named after the canary; a secret goes on behind it.
grep -n -a -m 5 -E 'canary-[[:alnum:]-]*[0-9]' "$output" && found=1
exit $found
