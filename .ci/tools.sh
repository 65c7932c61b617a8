#!/usr/bin/env bash
# Installs what the checks use and this machine lacks, from Debian's packages. Does nothing, and needs no network,
# where everything is there.
set -euo pipefail

# command:package
TOOLS=(
    cc:gcc                   # ring builds C
    c++:g++                  # libFuzzer is C++
    Xvfb:xvfb                # the screen that is recorded
    ffmpeg:ffmpeg            # records it, and judges what was reassembled
    strace:strace            # what is synced, and when
    systemd-analyze:systemd  # verifies the units
    faketime:faketime        # sets the clock of one process
    nbdkit:nbdkit            # a disk with a volatile cache, and one that fails
    nbdfuse:libnbd-bin       # makes a file of it
    qemu-storage-daemon:qemu-system-common # writes down what a disk is told
    mke2fs:e2fsprogs         # small filesystems
    mkfs.btrfs:btrfs-progs   # with a quota
    prlimit:util-linux       # takes descriptors away
)

for tool in cargo cargo-fmt cargo-clippy; do
    command -v "$tool" >/dev/null || { echo "tools: $tool is missing; install a Rust toolchain with it" >&2; exit 69; }
done

packages=()
for tool in "${TOOLS[@]}"; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
done
# A compiler without the C library's headers is there and still cannot build.
[ -e /usr/include/stdio.h ] || packages+=(libc6-dev)

if [ ${#packages[@]} -eq 0 ]; then
    echo "tools: all there"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools: missing; as root: apt-get install ${packages[*]}" >&2
    exit 69
fi
echo "tools: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
# A mirror that answers slowly or wrongly once is no reason to fail.
apt=(apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
"${apt[@]}" update
"${apt[@]}" install --yes --no-install-recommends "${packages[@]}" >/dev/null

for tool in "${TOOLS[@]}"; do
    command -v "${tool%%:*}" >/dev/null || { echo "tools: ${tool##*:} brought no ${tool%%:*}" >&2; exit 69; }
done
