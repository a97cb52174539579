#!/usr/bin/env bash
# Pretrains on a slice of TPU VMs: makes it or takes the one that is there, brings this folder and a
# Python of its own to every worker, and starts the same command on each. It goes on where a run
# was cut off, also when the slice had to be made again.
#
#   NAME=soda ZONE=us-west4-a TYPE=v5litepod-256 bash launch/tpu_pod.sh \
#     --config=configs/imagenet.py --workdir=/mnt/runs/imagenet
#   ... bash launch/tpu_pod.sh --dry_run ...    prints what it would do
#   NAME=soda ZONE=us-west4-a bash launch/tpu_pod.sh --stop      the run, which saves; or --delete
#
# PROJECT=...     of Google Cloud; gcloud's own by default
# RUNTIME=...     of the VMs; what suits the TYPE by default
# QUEUED=1        ask for a queued resource, and wait for it; SPOT=1: one that may be taken away
# JAX_COMPILATION_CACHE_DIR=/mnt/runs/xla   keeps compiled programs where all workers find them
# RESTARTS=3      how often a run is started again that the machines ended
# The workdir is a folder that all workers mount. Each writes ~/soda_jax/worker.log; what they print
# comes here, too, until Ctrl-C, after which the run goes on. Once before:
# ssh-add ~/.ssh/google_compute_engine
# shellcheck disable=SC2153  # names in capitals come from the environment
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

for name in NAME ZONE; do
  [[ -n "${!name:-}" ]] || stop "$name is not set; see the first lines of $0"
done
place=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})
vm=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)

# Shows the command in a dry run; else runs it.
does() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_workers() {
  does "${vm[@]}" ssh "$NAME" "${place[@]}" --worker=all \
    --ssh-flag="-o ServerAliveInterval=30" --command="$1"
}

state() {
  "${vm[@]}" describe "$NAME" "${place[@]}" --format='value(state)' 2>/dev/null || true
}

# Of the request for the slice, which outlives it.
request() {
  [[ -z "${QUEUED:-}" ]] || "${queue[@]}" describe "$NAME" "${place[@]}" \
    --format='value(state.state)' 2>/dev/null || true
}

# A request takes its slice with it.
delete_slice() {
  if [[ -n "${QUEUED:-}" ]]; then
    does "${queue[@]}" delete "$NAME" "${place[@]}" --force --quiet
  else
    does "${vm[@]}" delete "$NAME" "${place[@]}" --quiet
  fi
}

case "${1:-}" in
--stop | --delete)
  dry_run=
  [[ "${2:-}" != --dry_run ]] || dry_run=1
  if [[ $1 == --stop ]]; then
    on_workers "pkill -TERM -f '[s]oda_jax pretrain'"
  else
    delete_slice
  fi
  exit
  ;;
esac

needs_run "$@"
[[ $workdir == --workdir=/* ]] ||
  stop "$workdir: must be the absolute path of a folder that all workers mount"
[[ -n "${TYPE:-}" ]] || stop "TYPE is not set, such as v5litepod-256"
# The number counts chips of v5e and v6e, and cores, two a chip, of the others.
size=${TYPE##*-}
[[ $size =~ ^[0-9]+$ ]] || stop "TYPE=$TYPE: it ends with a number, such as v5litepod-256"
case $TYPE in
v5litepod-*) chips=$size runtime=v2-alpha-tpuv5-lite ;;
v6e-*) chips=$size runtime=v2-alpha-tpuv6e ;;
v5p-*) chips=$((size / 2)) runtime=v2-alpha-tpuv5 ;;
v4-*) chips=$((size / 2)) runtime=tpu-ubuntu2204-base ;;
*) stop "TYPE=$TYPE: one of v4-N, v5litepod-N, v5p-N, v6e-N" ;;
esac
if [[ -z $dry_run ]]; then
  command -v gcloud >/dev/null || stop "there is no gcloud: install the Google Cloud CLI"
fi

make_slice() {
  local made=(--accelerator-type="$TYPE" ${SPOT:+--spot})
  if [[ -n "${QUEUED:-}" ]]; then
    does "${queue[@]}" create "$NAME" "${place[@]}" --node-id="$NAME" "${made[@]}" \
      --runtime-version="${RUNTIME:-$runtime}"
  else
    does "${vm[@]}" create "$NAME" "${place[@]}" "${made[@]}" --version="${RUNTIME:-$runtime}"
  fi
}

prepare_slice() {
  local now='' asked=''
  [[ -n $dry_run ]] || now=$(state) asked=$(request)
  case $now,$asked in
  PREEMPTED,* | TERMINATED,* | *,FAILED | *,SUSPENDED) delete_slice && make_slice || return ;;
  READY,*) echo "taking $NAME, which is there" >&2 ;;
  STOPPED,*) does "${vm[@]}" start "$NAME" "${place[@]}" || return ;;
  ,) make_slice || return ;;
  esac
  if [[ -z $dry_run ]]; then
    until now=$(state) && [[ $now == READY ]]; do
      asked=$(request)
      echo "waiting for $NAME (${now:-${asked:-nothing yet}})" >&2
      [[ $asked != FAILED && $asked != SUSPENDED ]] || return 75
      sleep "${WAIT:-30}"
    done
  fi
  local tar code=0
  tar=$(mktemp -t soda_jax.XXXXXX) && tar -czf "$tar" soda_jax configs setup.py README.md || return
  does "${vm[@]}" scp "$tar" "$NAME:soda_jax.tar.gz" "${place[@]}" --worker=all || code=$?
  rm -f "$tar"
  ((code == 0)) || return "$code"
  on_workers 'set -e; mkdir -p soda_jax
flock -n soda_jax/run.lock true || { echo "a run is under way: ~/soda_jax/worker.log" >&2; exit 73; }
tar -xzf soda_jax.tar.gz -C soda_jax; cd soda_jax
[ -x .venv/bin/python ] || { python3 -m pip install --quiet --user uv
  ~/.local/bin/uv venv --quiet --python 3.12 .venv; }
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable ".[tpu]"' || return
  on_workers "cd soda_jax && .venv/bin/python -c 'import jax; jax.distributed.initialize()
n = jax.device_count(); assert n == $chips, f\"{n} chips, not $chips\"'"
}

# A slice that is gone is worth another start; a run that failed on one that stands is not, but
# where its exit code says so.
train() {
  local code=0
  prepare_slice || code=$?
  ((code != 0)) || start || code=$?
  if ((code == 0)) || [[ -n $dry_run || $(state) == READY ]]; then
    return "$code"
  fi
  return 75
}

# A machine that is taken away, or a connection that is lost, ends the shell with signals: they are
# for the Python in it alone, which saves, and tee goes on although nobody reads.
start() {
  local cache=${JAX_COMPILATION_CACHE_DIR:-}
  on_workers "set -o pipefail; trap '' TERM HUP; cd soda_jax
exec 9>run.lock; flock -n 9 || { echo 'a run is under way: ~/soda_jax/worker.log' >&2; exit 73; }
${cache:+export JAX_COMPILATION_CACHE_DIR=$(printf '%q' "$cache")}
.venv/bin/python -m soda_jax pretrain --distributed=auto $(printf '%q ' "${words[@]}") 2>&1 |
  tee -ap worker.log"
}

if [[ -n $dry_run ]]; then
  train
else
  again "${RESTARTS:-3}" train
fi
