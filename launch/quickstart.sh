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

python=$(make_environment .venv .)
workdir=${WORKDIR:-runs/digits}
XLA_FLAGS=$(xla_flags "$python")
export XLA_FLAGS
# XLA asks for its temporary memory anew in every step: in huge pages that costs less (glibc 2.35).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
"$python" -m soda_jax pretrain --config=configs/digits.py --workdir="$workdir" "$@"
"$python" -m soda_jax probe --workdir="$workdir"
"$python" -m soda_jax sample --workdir="$workdir"
"$python" -m soda_jax report --workdir="$workdir"
