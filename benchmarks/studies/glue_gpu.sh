#!/bin/sh
# R3F and R4F on whole GLUE tasks with ten seeds, beside plain fine-tuning with as many steps and with as much compute.
# Written for a CUDA GPU; it was not run yet. Rows come from the hub, or from DATA (an unpacked GLUE download).
#
#   [MODEL=FacebookAI/roberta-base] [DATA=glue_data] sh benchmarks/studies/glue_gpu.sh [OUTPUT FOLDER]
set -eu
ftbench finetune --task mrpc,sst2,rte,cola,stsb --model "${MODEL:-minilm}" ${DATA:+--data-dir "$DATA"} \
  --method std --method std++:compute=r3f --method r3f --method r4f \
  --seeds 0-9 --precision bf16 --device cuda --output-dir "${1:-runs-glue}"
