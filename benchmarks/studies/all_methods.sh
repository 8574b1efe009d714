#!/bin/sh
# Every method of the table at its defaults beside plain fine-tuning: 300 rows of two tasks, three seeds, offline.
# DATA holds TREC/ as its download leaves it (--data-dir); without DATA its rows come from the hub.
#
# It works for at most PIECE (30 minutes unless told), then stops at the next step with a checkpoint: start it again until it
# prints the table. Finished runs are skipped. Several may work on one folder at once. Seed by seed, so that a study that is
# left half-done has whole pairs.
#
# PRECISION is bf16 unless told: fp32 for a CPU without instructions for bf16, where that takes tens of times as long (a run
# warns of it).
#
#   [DATA=$FTBENCH_DATA/extra] [PIECE=30m] [PRECISION=fp32] sh benchmarks/studies/all_methods.sh [OUTPUT FOLDER] [more options]
set -eu
out=${1:-runs-all-methods}
[ $# -gt 0 ] && shift
timeout --signal=INT "${PIECE:-30m}" ftbench finetune --task news-topic --task trec ${DATA:+--data-dir "$DATA"} \
  --method all --seeds 0-2 --train-size 300 --precision "${PRECISION:-bf16}" --threads 1 --output-dir "$out" "$@" || {
  code=$?
  [ $code -eq 124 ] && echo "the piece is over: start it again to go on" >&2
  exit $code
}
