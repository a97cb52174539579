#!/usr/bin/env bash
# Pretrains on the GPUs of this machine. A run that was cut off goes on where it stopped.
#
#   bash launch/gpu.sh --config=configs/cifar10.py --workdir=runs/cifar10 --config.data.path=DIR
#   bash launch/gpu.sh --dry_run ...    prints what it would do
#
# GPUS=8       refuses to start with any other number of them
# CUDA=12      which of JAX's CUDA wheels (12 or 13; 13 needs a driver of 580 or newer)
# RESTARTS=3   how often a run is started again that the machine ended (exit codes 74, 75, signals)
# THEN='probe evaluate apply report'   what is done with the run when it has ended
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

needs_run "$@"
cuda=${CUDA:-13}
[[ $cuda == 12 || $cuda == 13 ]] || stop "CUDA=$cuda: 12 or 13"
for command in ${THEN:-}; do
  [[ $command =~ ^(probe|sample|evaluate|apply|novel_views|report)$ ]] ||
    stop "THEN: '$command' is none of probe, sample, evaluate, apply, novel_views, report"
done
command -v nvidia-smi >/dev/null || stop "there is no nvidia-smi: is the driver of the GPUs installed?"
found=$(nvidia-smi --list-gpus | wc -l)
((found > 0)) || stop "nvidia-smi shows no GPU"
[[ -z "${GPUS:-}" || $GPUS == "$found" ]] || stop "GPUS=$GPUS, but this machine has $found"

if [[ -n $dry_run ]]; then
  echo "on $found GPUs, in .venv-gpu with '.[cuda$cuda]':"
  echo "python -m soda_jax pretrain ${words[*]}"
  for command in ${THEN:-}; do
    echo "python -m soda_jax $command $workdir"
  done
  exit
fi
python=$(make_environment .venv-gpu ".[cuda$cuda]")
again "${RESTARTS:-3}" "$python" -m soda_jax pretrain "${words[@]}"
for command in ${THEN:-}; do
  "$python" -m soda_jax "$command" "$workdir"
done
