#!/usr/bin/env bash
# Measures on one GPU, without a network: every configuration of configs/validate/gpu-*.yaml, one
# process each (a CUDA engine gives its memory back only when its process ends).
#
#   bash experiments/measured/measure.sh [OUT]
#
# Needs bssim's dependencies and vLLM importable. A configuration that was measured before is left
# alone; one that failed keeps the rows it has, and the script goes on with the next.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${1:-experiments/measured}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1
failed=0
for config in configs/validate/gpu-*.yaml; do
  name=$(basename "$config" .yaml)
  if [ -f "$OUT/$name/report.md" ]; then
    echo "$name: measured before"
    continue
  fi
  echo "$name: measuring"
  if ! python3 -m bssim validate "$config" --out "$OUT/$name"; then
    echo "$name: failed" >&2
    failed=1
  fi
done
exit $failed
