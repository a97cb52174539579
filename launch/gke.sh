#!/usr/bin/env bash
# Pretrains on a slice of TPUs of a GKE cluster, as a JobSet (launch/gke.yaml).
#
#   NAME=soda IMAGE=REGISTRY/soda_jax:1 TPU=tpu-v5-lite-podslice TOPOLOGY=16x16 HOSTS=64 CHIPS=4 \
#     CLAIM=runs bash launch/gke.sh --config=configs/imagenet.py --workdir=/runs/imagenet
#   ... bash launch/gke.sh --dry_run ...    prints what it would send
#
# IMAGE     holds this package, installed with '.[tpu]'
# TPU, TOPOLOGY   of the node pool; HOSTS machines with CHIPS chips each
# CLAIM     a PersistentVolumeClaim that all of them mount at /runs
# shellcheck disable=SC2153  # names in capitals come from the environment
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

needs_run "$@"
for name in NAME IMAGE TPU TOPOLOGY HOSTS CHIPS CLAIM; do
  [[ -n "${!name:-}" ]] || stop "$name is not set; see the first lines of $0"
done
[[ $workdir == --workdir=/runs/?* ]] ||
  stop "$workdir: only what lies under /runs, which is CLAIM's volume, outlives the pods"
chips=1
for side in ${TOPOLOGY//x/ }; do
  [[ $side =~ ^[0-9]+$ ]] || stop "TOPOLOGY=$TOPOLOGY: numbers with x between, such as 16x16"
  chips=$((chips * side))
done
((HOSTS * CHIPS == chips)) ||
  stop "HOSTS=$HOSTS with CHIPS=$CHIPS each are $((HOSTS * CHIPS)) chips, but $TOPOLOGY are $chips"
arguments=
for word in "${words[@]}"; do
  escaped=${word//\\/\\\\}
  arguments+="\"${escaped//\"/\\\"}\", "
done
text=$(<launch/gke.yaml)
for name in NAME IMAGE TPU TOPOLOGY HOSTS CHIPS CLAIM; do
  text=${text//"\${$name}"/"${!name}"}
done
text=${text//"\${ARGUMENTS}"/"${arguments%, }"}
if [[ -n $dry_run ]]; then
  printf '%s\n' "$text"
else
  command -v kubectl >/dev/null || stop "there is no kubectl"
  kubectl create -f - <<<"$text" ||
    stop "if $NAME is there from before: kubectl delete jobset $NAME, and this once more"
fi
