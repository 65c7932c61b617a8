#!/usr/bin/env bash
# Records a virtual screen, for real, into the chunks beside this file: three sessions of twelve
# MPEG-TS segments of 1.5 s. Takes about a minute. Another run makes other bytes: the clocks on the
# screen run. Nothing is replaced unless every session was recorded and decodes.
#
#   tests/recording/record.sh [TARGET]      TARGET: default the folder of this script
set -euo pipefail

CHUNKS=12
FPS=10
FRAMES_A_CHUNK=15
SIZE=640x360
# All sessions together are compiled into the binary.
MOST_BYTES=$((2 * 1024 * 1024))

# What happens on the screen. Each scene runs inside a terminal until the screen goes away.
clock() {
    local beat=0
    while sleep 0.1; do
        printf '\e[H\e[1;36m%s\e[0m\e[K\n\e[33m%s\e[0m\e[K\n%*s\e[7m \e[0m\e[K' \
            "$1" "$(date -u '+%F %H:%M:%S.%1N UTC')" $((beat++ % 38)) ''
    done
}

typing() {
    local line
    while true; do
        printf '\e[32mdesk@%s\e[0m:~$ ' "$1"
        line="grep -c restart /var/log/cap-$((RANDOM % 90 + 10)).log"
        while [ -n "$line" ]; do
            printf '%s' "${line:0:1}"
            line=${line:1}
            sleep 0.05
        done
        sleep 0.3
        printf '\n%d\n' $((RANDOM % 500))
    done
}

log() {
    local number=0 words=(opened answered held transferred resumed noted closed)
    while sleep 0.25; do
        printf 'call %d \e[9%dm%s\e[0m after %d ms\n' \
            $((10000 + number++)) $((RANDOM % 6 + 1)) "${words[RANDOM % 7]}" $((RANDOM % 900))
    done
}

case "${1:-}" in
--clock) clock "$2" ;;
--typing) typing "$2" ;;
--log) log ;;
esac

missing=()
for tool in Xvfb ffmpeg ffplay ffprobe xterm timeout sha256sum; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "record.sh needs ${missing[*]}; on Debian: apt-get install xvfb xfonts-base xterm ffmpeg" >&2
    exit 69
fi

self=$(realpath "$0")
target=$(realpath "${1:-$(dirname "$self")}")
work=$(mktemp -d)
started=()

# Ends only what this script started, newest first.
end_started() {
    local index
    for ((index = ${#started[@]} - 1; index >= 0; index--)); do
        kill "${started[index]}" 2>/dev/null || true
        wait "${started[index]}" 2>/dev/null || true
    done
    started=()
}
trap 'end_started; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Xvfb picks a free display itself and writes its number once it answers.
open_screen() {
    : >"$work/display"
    timeout 60 Xvfb -displayfd 1 -nolisten tcp -screen 0 ${SIZE}x24 >"$work/display" 2>"$work/xvfb.log" &
    started+=($!)
    for _ in $(seq 100); do
        [ -s "$work/display" ] && break
        sleep 0.1
    done
    DISPLAY=:$(<"$work/display")
    [ "$DISPLAY" != : ] || { echo "no virtual screen: $(cat "$work/xvfb.log")" >&2; exit 70; }
    export DISPLAY
}

terminal() {
    local geometry=$1
    shift
    xterm -geometry "$geometry" -fn 7x13 -bg "$background" -fg grey90 -e "$self" "$@" &
    started+=($!)
}

moving_picture() {
    SDL_AUDIODRIVER=dummy SDL_RENDER_DRIVER=software timeout 60 ffplay -v error -an -noborder \
        -left 390 -top 110 -f lavfi -i "$1,format=yuv420p" &
    started+=($!)
}

record() {
    local session=$1 background=$2 scene=$3
    open_screen
    terminal 45x4+4+4 --clock "$session"
    case "$scene" in
    log) terminal 60x20+4+80 --log ;;
    both) terminal 52x20+4+80 --typing "$session"; terminal 36x20+378+80 --log ;;
    picture) terminal 52x20+4+80 --typing "$session"; moving_picture testsrc2=s=240x180:r=$FPS ;;
    esac
    sleep 1.5
    kill -0 "${started[@]}" || { echo "$session: a window did not stay" >&2; exit 70; }
    mkdir "$work/$session"
    # A key frame starts each segment, so that each plays alone; the continuity counters run on
    # (individual_header_trailer), so that the segments of a session, one after another, are one film.
    timeout 60 ffmpeg -v error -nostdin -f x11grab -framerate $FPS -video_size $SIZE -draw_mouse 0 \
        -i "$DISPLAY" -vf fps=$FPS -frames:v $((CHUNKS * FRAMES_A_CHUNK)) \
        -c:v libx264 -preset veryfast -crf 30 -pix_fmt yuv420p -bf 0 \
        -g $FRAMES_A_CHUNK -keyint_min $FRAMES_A_CHUNK -sc_threshold 0 \
        -f segment -segment_format mpegts -segment_time 1.5 -segment_time_delta 0.05 \
        -individual_header_trailer 0 "$work/$session/%06d.ts" &
    started+=($!)
    wait "${started[-1]}"
    end_started
}

frames() {
    ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames \
        -of default=nokey=1:noprint_wrappers=1 "$1" 2>&1 | sort -u
}

check() {
    local session=$1 chunk
    for chunk in "$work/$session"/*.ts; do
        [ "$(frames "$chunk")" = "$FRAMES_A_CHUNK" ] || { echo "$chunk: $(frames "$chunk")" >&2; exit 70; }
    done
    cat "$work/$session"/*.ts >"$work/$session.whole"
    [ "$(frames "$work/$session.whole")" = $((CHUNKS * FRAMES_A_CHUNK)) ] ||
        { echo "$session, put together: $(frames "$work/$session.whole")" >&2; exit 70; }
}

record desk-1 '#101c2c' log
record desk-2 '#2c1018' picture
record desk-3 '#10281c' both
for session in desk-1 desk-2 desk-3; do check "$session"; done
bytes=$(cat "$work"/desk-*/*.ts | wc -c)
[ "$bytes" -lt $MOST_BYTES ] || { echo "$bytes bytes are too many to ship" >&2; exit 70; }

for session in desk-1 desk-2 desk-3; do
    rm -rf "${target:?}/$session"
    cp -r "$work/$session" "$target/"
done
(cd "$target" && sha256sum desk-*/*.ts >SHA256SUMS)
echo "$bytes bytes in 3 sessions of $CHUNKS chunks"
