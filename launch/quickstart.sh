#!/usr/bin/env bash
# SODA on handwritten digits, from nothing to one HTML page, in minutes on a laptop's CPU.
#
# Makes its own environment (.venv), pretrains, probes, samples, and writes runs/digits/report.html.
# Run it again, and it goes on where it stopped. PYTHON=... chooses the Python (3.11 or newer),
# WORKDIR=... another place for the run; further words go to pretrain, such as --config.seed=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

# Where there is nothing but a CPU, two devices keep two cores busier than one does.
if [[ $(nproc 2>/dev/null || echo 2) -gt 1 ]]; then
  export XLA_FLAGS=${XLA_FLAGS:---xla_force_host_platform_device_count=2}
fi

python=$(make_environment .venv .)
workdir=${WORKDIR:-runs/digits}
"$python" -m soda_jax pretrain --config=configs/digits.py --workdir="$workdir" "$@"
"$python" -m soda_jax probe --workdir="$workdir"
"$python" -m soda_jax sample --workdir="$workdir"
"$python" -m soda_jax report --workdir="$workdir"
