#!/usr/bin/env bash
# Checks the style and runs the tests, in an environment of its own: .venv-test, beside setup.py.
#
#   bash launch/test.sh                           everything but the slow tests
#   bash launch/test.sh -m slow                   the slow ones; all words go on to pytest
#   PYTHON=/usr/bin/python3.12 bash launch/test.sh
#
# The environment is made anew when setup.py or the Python changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=.venv-test
log=$environment.log

stop() {
  printf 'launch/test.sh: error: %s\n' "$*" >&2
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

make_environment() {
  local python=$1 version
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    stop "Python $version has no venv module; on Debian and Ubuntu: apt install python$version-venv"
  fi
  printf 'making %s with Python %s (some minutes, once)\n' "$environment" "$version"
  rm -rf "$environment"
  if ! { "$python" -m venv "$environment" &&
    "$environment/bin/python" -m pip install --quiet --editable '.[test]'; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    stop "the environment could not be made; $log has everything"
  fi
  rm -f "$log"
}

python=$(find_python)
wanted=$(
  "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
  cksum setup.py
)
stamp=$environment/stamp
if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
  make_environment "$python"
  printf '%s\n' "$wanted" >"$stamp"
fi

"$environment/bin/ruff" check --quiet . || stop "ruff found something to mend, above"
exec "$environment/bin/python" -m pytest -q "$@"
