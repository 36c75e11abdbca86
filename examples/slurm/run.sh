#!/bin/bash
# One vLLM engine per array task, after `bssim plan batch.jsonl -o ordered.jsonl --dp 4`:
# MODEL=./llama-3-8b sbatch examples/slurm/run.sh. A task that is requeued continues its file.
#SBATCH --job-name=bssim-run
#SBATCH --array=0-3
#SBATCH --gpus-per-task=1
#SBATCH --requeue
set -euo pipefail
part=$SLURM_ARRAY_TASK_ID
bssim run "ordered.$part.jsonl" -o "results.$part.jsonl" --model "$MODEL" --scheduler fcfs
