import contextlib
import errno
import os
import pathlib
import subprocess
import sys

import pytest

from soda_jax.workdir import WorkdirError, owned_workdir, prepare_workdir, write_json

OWNS = """
import sys, time
from soda_jax.workdir import owned_workdir, prepare_workdir
with owned_workdir(prepare_workdir(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def owner(path: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-c", OWNS, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_a_second_run_is_refused_and_told_whose_it_is(tmp_path):
    with owner(tmp_path) as first:
        assert first.stdout.readline() == b"mine\n"
        with pytest.raises(WorkdirError, match=f"process {first.pid} on .* trains in it"):
            with owned_workdir(str(tmp_path)):
                pass
        first.kill()


def test_what_a_killed_run_owned_is_free_again(tmp_path):
    with owner(tmp_path) as first:
        assert first.stdout.readline() == b"mine\n"
        first.kill()
    with owned_workdir(str(tmp_path)):
        pass
    with owned_workdir(str(tmp_path)):
        pass


def test_of_many_at_once_one_wins(tmp_path):
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(owner(tmp_path)) for _ in range(6)]
        firsts = [run.stdout.readline() for run in runs]  # nothing where it was refused
        assert sorted(firsts) == [b""] * 5 + [b"mine\n"]
        for run in runs:
            run.kill()


@pytest.mark.parametrize("kind", ["a file", "under a file", "a loop"])
def test_a_path_that_cannot_be_one_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "a loop":
        path.symlink_to(path)
    else:
        path.write_text("")
    with pytest.raises(WorkdirError, match=str(path)):
        prepare_workdir(str(path / "y" if kind == "under a file" else path))


def test_a_file_is_written_whole_or_stays_what_it_was(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    assert path.read_text() == '{\n "a": 1\n}\n'

    def full(file):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert path.read_text() == '{\n "a": 1\n}\n' and os.listdir(tmp_path) == ["x.json"]
