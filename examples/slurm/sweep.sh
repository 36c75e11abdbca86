#!/bin/bash
# One part of a sweep per array task: sbatch examples/slurm/sweep.sh; then `bssim sweep` once for the tables.
#SBATCH --job-name=bssim-sweep
#SBATCH --array=0-7
#SBATCH --cpus-per-task=16
set -euo pipefail
bssim sweep "${SWEEP:-configs/quickstart.yaml}" --out "${OUT:-results}" \
  --jobs "${SLURM_CPUS_PER_TASK:-1}" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
