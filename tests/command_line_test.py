import errno
import os
import pathlib
import queue
import subprocess
import sys
import threading
import types

import jax
import pytest

from soda_jax import __main__ as command_line
from soda_jax import exit_codes
from soda_jax.config_schema import ConfigError, load, recall, remember
from soda_jax.workdir import WorkdirError, existing_workdir, prepare_workdir

REPOSITORY = pathlib.Path(__file__).parents[1]
BASE = str(REPOSITORY / "configs" / "base.py")


@pytest.mark.parametrize(
    "words, code, expected",
    [
        ([], 64, "COMMAND"),
        (["pretrian"], 64, "unknown command 'pretrian' (nearest: pretrain)"),
        (["pretrain"], 64, "pretrain needs --config"),
        (["pretrain", f"--config={BASE}"], 64, "pretrain needs --workdir"),
        (["probe"], 64, "probe needs --workdir"),
        (["pretrain", "--config.train.seed", "8"], 64, "are one word, --config.train.seed=VALUE"),
        (["pretrain", "configs/smoke.py"], 64, "nearest: --config=configs/smoke.py"),
        (["probe", "--dry_run", "--workdir=x"], 64, "--dry_run goes with pretrain"),
        (["sample", "--worddir=x"], 64, "unknown option '--worddir' (nearest: --workdir)"),
        (["sample", "more"], 64, "unknown option 'more'"),
        (["sample", "--workdir"], 64, "argument --workdir: expected one argument"),
        (["prepare", f"--config={BASE}", "--config.seed=x"], 78, "seed = 'x': a whole number"),
        (["pretrain", "--config=configs/nobody.py", "--workdir=x"], 78, "no such file"),
        (["probe", "--workdir=/nowhere/at/all"], 73, "/nowhere/at/all: No such file or directory"),
        (["probe", f"--workdir={REPOSITORY}"], 73, "no run is there"),
        (["probe", "--suite=code", "--workdir=x"], 64, "--suite goes with evaluate"),
        (["evaluate", "--suite=codes", "--workdir=x"], 64, "suite 'codes' (nearest: code)"),
        (["evaluate", f"--workdir={REPOSITORY}"], 73, "no run is there"),
        (["report"], 64, "report needs --workdir"),
        (["report", f"--workdir={REPOSITORY}"], 73, "no run to report"),
        (["pretrain", f"--config={BASE}", f"--workdir={BASE}/x"], 73, "Not a directory (ENOTDIR)"),
        (["prepare", f"--config={BASE}", "--config.data.source=arrays"], 78, "data.path = ''"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(words, code, expected, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(REPOSITORY)
    assert command_line.main(words) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("soda_jax: error: ") and expected in line
    assert captured.out == ""


def test_pictures_that_are_not_there_are_a_data_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    words = ["prepare", f"--config={BASE}", "--config.data.source=cifar10"]
    assert command_line.main([*words, f"--config.data.path={tmp_path}"]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line


def test_overrides_go_on_top_of_the_saved_config(tmp_path, monkeypatch):
    """`probe` without --config takes the workdir's, and hands over what the words change."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    remember(load(BASE, ["--config.train.num_steps=7"]), str(tmp_path))
    given = []
    loop = types.SimpleNamespace(probe=lambda *arguments: given.append(arguments))
    monkeypatch.setitem(sys.modules, "soda_jax.probe", loop)
    words = ["probe", f"--workdir={tmp_path}", "--config.probe.draws=3"]
    assert command_line.main(words) == 0
    ((config, workdir),) = given
    assert workdir == str(tmp_path)
    assert (config.train.num_steps, config.probe.draws) == (7, 3)
    assert recall(str(tmp_path)).probe.draws == 5


def test_the_environment_is_filled_in_not_overwritten(monkeypatch):
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": "/c", "TF_CPP_MIN_LOG_LEVEL": "0"})
    command_line.set_environment()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/c/soda_jax/xla"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def raised(function, *arguments) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_exit_codes_of_what_a_loop_may_raise():
    from soda_jax.data import sources
    from soda_jax.preemption import Preempted
    from soda_jax.training.checkpoint import SaveError
    from soda_jax.training.checkpoint_reader import CheckpointMismatch, CheckpointReader
    from soda_jax.training.integrity import CorruptCheckpoint

    def fail(error):
        raise error

    for error, code in [
        (ConfigError("x"), 78),
        (CheckpointMismatch("x"), 78),
        (ModuleNotFoundError("this needs pip install soda_jax[tf]"), 78),
        (SaveError("x"), 74),
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (WorkdirError("x"), 73),
        (MemoryError(), 71),
        (type("XlaRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: Out of memory"), 71),
        (type("JaxRuntimeError", (RuntimeError,), {})("Gloo: Connection closed by peer [x]"), 75),
        (CorruptCheckpoint("x"), 65),
        (Preempted("x"), 75),
        (KeyboardInterrupt(), 130),
        (ValueError("nobody expected this"), None),
        (FileNotFoundError(errno.ENOENT, "nobody expected this"), None),
        (ModuleNotFoundError("No module named 'x'", name="x"), None),
    ]:
        assert exit_codes.exit_code(raised(fail, error)) == code, error

    unreadable = raised(lambda: sources.open_source("x", "train", image_size=8, channels=3))
    assert exit_codes.exit_code(unreadable) == 65
    no_checkpoint = raised(lambda: CheckpointReader("/nowhere").restore({}))
    assert exit_codes.exit_code(no_checkpoint) == 73


def test_a_data_error_of_another_thread_is_still_one():
    from soda_jax.data import sources

    errors = queue.Queue()

    def work():
        errors.put(raised(lambda: sources.open_source("x", "train", image_size=8, channels=3)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    def hand_over():
        raise errors.get()

    assert exit_codes.exit_code(raised(hand_over)) == 65


def test_an_unexpected_error_keeps_its_traceback(capsys, monkeypatch):
    def broken(*unused):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(command_line, "run", broken)
    assert command_line.main(["doctor"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and "broken" in "\n".join(lines)
    assert lines[-1] == "soda_jax: error: a bug"


def test_the_doctor_survives_what_it_is_asked_about(capsys, monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", none)
    assert command_line.main(["doctor"]) == 78
    told = capsys.readouterr()
    assert "JAX finds no devices" in told.err and "backend 'cuda'" in told.err
    assert "flax" in told.out and "xprof" in told.out


def test_a_python_without_what_is_needed_is_told_of_in_a_line(tmp_path):
    missing = "raise ModuleNotFoundError(name='ml_collections')"
    (tmp_path / "ml_collections.py").write_text(missing)
    found = subprocess.run(
        [sys.executable, "-m", "soda_jax", "doctor"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 78, found.stderr
    (line,) = found.stderr.splitlines()
    assert "has no package ml_collections" in line and "activate" in line


def test_many_problems_are_cut_short(capsys):
    assert exit_codes.tell(ConfigError(*(f"problem {i}" for i in range(15)))) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 and lines[-1] == "soda_jax: error: and 5 more"


def test_a_workdir_is_made_and_left_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare_workdir("a/größe und/b") == str(tmp_path / "a" / "größe und" / "b")
    assert os.listdir(tmp_path / "a" / "größe und" / "b") == []
    assert existing_workdir("a") == str(tmp_path / "a")


@pytest.mark.parametrize(
    "call, code",
    [
        ("makedirs", errno.EROFS),
        ("fsync", errno.ENOSPC),
        ("fsync", errno.EIO),
        ("rename", errno.EACCES),
    ],
)
def test_a_workdir_that_cannot_be_written(tmp_path, monkeypatch, call, code):
    def refuse(*unused, **unused_too):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(WorkdirError) as caught:
            prepare_workdir(str(tmp_path))
    expected = f"workdir {tmp_path}: {os.strerror(code)} ({errno.errorcode[code]})"
    assert str(caught.value) == expected
    assert os.listdir(tmp_path) == []


def test_paths_that_are_no_workdir(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, expected in [
        (f"{tmp_path}/file", f"File exists (EEXIST); {tmp_path}/file is a file"),
        (f"{tmp_path}/file/x/y", f"Not a directory (ENOTDIR); {tmp_path}/file is a file"),
        (f"{tmp_path}/loop/x", "Too many levels of symbolic links (ELOOP)"),
        ("", "the path is empty"),
        ("gs://bucket/run", "mount the bucket"),
    ]:
        with pytest.raises(WorkdirError) as caught:
            prepare_workdir(path)
        assert expected in str(caught.value) and "\n" not in str(caught.value)
