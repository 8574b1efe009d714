#!/bin/sh
# The choice of `ftbench choose` against the best of all its candidates on a large held-out part: 300 rows of four tasks, offline.
# EXTRA holds TREC/ and MR/, GLUE holds MRPC/ and SST-2/, as their downloads leave them.
#
#   EXTRA=$FTBENCH_DATA/extra GLUE=$FTBENCH_DATA/glue sh benchmarks/studies/choose.sh [BUDGET] [OUTPUT FOLDER]
set -eu
here=$(dirname "$0")/..
python "$here/choose.py" trec mr --data-dir "$EXTRA" --budget "${1:-20m}" --output "${2:-runs-choose}"
python "$here/choose.py" mrpc sst2 --data-dir "$GLUE" --budget "${1:-20m}" --output "${2:-runs-choose}"
