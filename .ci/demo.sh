#!/bin/sh
# `make demo`: the same commands that you would type, on the model that ships inside mobilepack.
set -eu
out=$1
mobilepack=.venv/bin/mobilepack

# Show a command as one would type it, then run it.
step() {
  line="mobilepack"
  for word in "$@"; do
    case $word in
      *" "*) line="$line \"$word\"" ;;
      *) line="$line $word" ;;
    esac
  done
  printf '\n$ %s\n' "$line"
  "$mobilepack" "$@"
}

step build --force --output-dir "$out"
step verify "$out/xnnpack"
step bench "$out/xnnpack"
step chat "$out/xnnpack" --prompt "What is the capital of France?"
step chat "$out/xnnpack" --prompt "What is 12 + 30?"
step report "$out/xnnpack"
