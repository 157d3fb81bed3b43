#!/usr/bin/env bash
# Make hello.flac again: two machine voices, each at -18 dBFS RMS, joined by a short pause.
# Needs espeak-ng and sox. Run it from anywhere; it writes next to itself.
set -euo pipefail

readonly SAMPLING_RATE=24000
readonly LEVEL_DBFS=-18
readonly PAUSE_SECONDS=0.35

folder=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# say NAME VOICE PITCH TEXT: speak TEXT, cut the silent ends, bring it to the level.
# Its loudest moments are pressed down first, so that at that level nothing clips.
say() {
  espeak-ng -v "$2" -p "$3" -s 155 -w "$work/$1-raw.wav" "$4"
  sox -R "$work/$1-raw.wav" -b 32 "$work/$1-cut.wav" rate -v "$SAMPLING_RATE" \
    silence 1 0.02 -55d reverse silence 1 0.02 -55d fade 0.02 reverse fade 0.01 \
    gain -n compand 0.002,0.05 6:-24,-24,0,-11 0 -90 0.004
  local level
  level=$(sox "$work/$1-cut.wav" -n stats 2>&1 | awk '/^RMS lev dB/ {print $4}')
  sox -R "$work/$1-cut.wav" -b 32 "$work/$1.wav" \
    gain "$(awk -v level="$level" -v target="$LEVEL_DBFS" 'BEGIN {print target - level}')"
}

say first en-us 45 "Hello! In a moment, my voice becomes a list of numbers."
say second en-us+f3 60 "Listen: these are my own words, back from the codes."

sox -R "$work/first.wav" "$work/first-padded.wav" pad 0.1 "$PAUSE_SECONDS"
sox -R "$work/second.wav" "$work/second-padded.wav" pad 0 0.15
sox -R "$work/first-padded.wav" "$work/second-padded.wav" -b 16 -C 8 "$folder/hello.flac"
