# shellcheck shell=bash
# Sourced by the other scripts: finds a Python, and makes a virtual environment where it is needed.

stop() {
  printf '%s: error: %s\n' "$0" "$*" >&2
  exit 1
}

# The command may exist and yet not work: a shim of a version manager, for one.
is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [[ -n "${PYTHON:-}" ]]; then
    is_new_enough "$PYTHON" || stop "PYTHON=$PYTHON does not run, or is older than Python 3.11"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3.12 python3.11 python3; do
    if is_new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  stop "no Python 3.11 or newer was found; install one, or name it: PYTHON=/path/to/python $0"
}

# XLA's faster convolutions are the slower ones on processors without AVX-512 (results/cifar10.md).
# Says which flag helps here, where this jaxlib knows it and nobody has set any.
xla_flags() {
  local python=$1 flag=--xla_cpu_experimental_ynn_fusion_type=
  if [[ -n "${XLA_FLAGS:-}" ]] || ! grep -q '^flags' /proc/cpuinfo 2>/dev/null ||
    grep -qw avx512f /proc/cpuinfo; then
    printf '%s' "${XLA_FLAGS:-}"
  elif XLA_FLAGS=$flag JAX_PLATFORMS=cpu "$python" -c 'import jax; jax.devices()' >/dev/null 2>&1; then
    printf '%s' "$flag"
  fi
}

# make_environment DIR WHAT installs WHAT, such as '.[test]', into DIR, and prints its Python.
# It is made anew when setup.py, the Python or WHAT changes.
make_environment() {
  local environment=$1 what=$2 log=$1.log python version wanted stamp=$1/stamp
  python=$(find_python) || exit 1
  wanted=$(
    "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
    cksum setup.py
    printf '%s' "$what"
  )
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
      stop "Python $version has no venv module; on Debian and Ubuntu: apt install python$version-venv"
    fi
    printf 'making %s with Python %s (some minutes, once)\n' "$environment" "$version" >&2
    rm -rf "$environment"
    if ! { "$python" -m venv "$environment" &&
      "$environment/bin/python" -m pip install --quiet --editable "$what"; } >"$log" 2>&1; then
      tail -n 15 "$log" >&2
      stop "the environment could not be made; $log has everything"
    fi
    rm -f "$log"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  printf '%s\n' "$environment/bin/python"
}

# needs_run WORDS... reads the words of pretrain into `words`, and takes --dry_run out of them;
# that of the workdir stands in `workdir`, too.
# shellcheck disable=SC2034  # what is read here is used by who sources this
needs_run() {
  local word
  words=() dry_run='' workdir=''
  for word in "$@"; do
    case $word in
    --dry_run | --dry-run) dry_run=1 ;;
    --workdir=*) workdir=$word words+=("$word") ;;
    *) words+=("$word") ;;
    esac
  done
  for word in --config= --workdir=; do
    case " ${words[*]-}" in
    *" $word"?*) ;;
    *) stop "$word... is missing, such as --config=configs/cifar10.py --workdir=runs/cifar10" ;;
    esac
  done
}

# What stays wrong, started again or not: command, pictures, loss, memory, workdir, config.
# shellcheck disable=SC2034  # slurm.sbatch uses it
for_good='64|65|70|71|73|78'

# The machine ended it (disk, preemption, a signal): the same command may go on. But not Ctrl-C.
is_worth_another() {
  [[ $1 == 74 || $1 == 75 ]] || (($1 > 128 && $1 != 130))
}

# again COUNT COMMAND... runs a command, and up to COUNT times more where that is worth it.
again() {
  local left=$1 code
  shift
  while true; do
    code=0
    "$@" || code=$?
    if ((left == 0)) || ! is_worth_another "$code"; then
      return "$code"
    fi
    printf 'ended with %s; starting again, %s more times at most\n' "$code" "$left" >&2
    left=$((left - 1))
  done
}
