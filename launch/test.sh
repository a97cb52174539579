#!/usr/bin/env bash
# Checks the style and runs the tests, in an environment of its own: .venv-test, beside setup.py.
#
#   bash launch/test.sh                           everything but the slow tests
#   bash launch/test.sh -m slow                   the slow ones; all words go on to pytest
#   PYTHON=/usr/bin/python3.12 bash launch/test.sh
#   WORKERS=0 bash launch/test.sh                 one after another, in one process
#
# The page of `explore` is driven in headless Chromium where there is one; on Debian and Ubuntu:
# apt install chromium chromium-driver
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

python=$(make_environment .venv-test '.[test]')
"$python" -m ruff check --quiet . || stop "ruff found something to mend, above"
"$python" -m ruff format --quiet --check . || stop "ruff format . has something to lay out anew"
# Two at a time, each file in one process: what a file compiles, its tests share.
exec "$python" -m pytest -q -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
