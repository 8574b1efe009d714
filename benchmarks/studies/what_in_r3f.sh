#!/bin/sh
# What in R3F does anything? Two passes without noise (R-Drop's, with the task loss on one), noise of four sizes, and
# dropout masks that are independent, shared or absent in the noised pass. Offline; about an hour of one core.
# Several of these commands may run at once on one folder: they share the work.
#
#   sh benchmarks/studies/what_in_r3f.sh [OUTPUT FOLDER] [more options of ftbench finetune]
set -eu
out=${1:-runs-what-in-r3f}
[ $# -gt 0 ] && shift
methods=""
for dropout in independent shared off; do
  for eps in 0 1e-5 1e-3 1e-1; do
    methods="$methods --method r3f:dropout=$dropout,eps=$eps"
  done
done
# shellcheck disable=SC2086
ftbench finetune --task news-topic --train-size 1000 --steps 150 --evaluations 1 --seeds 0-5 $methods \
  --output-dir "$out" "$@"
