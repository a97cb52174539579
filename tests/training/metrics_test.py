"""Metrics: exact floats, the same bytes after a kill and a resume, a loop one step behind."""

import io
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from soda_jax.training import metrics, progress


def write_steps(writer, steps):
    for step in steps:
        writer.scalars(step, {"loss": 1 / (step + 3), "grad_norm": float(np.float32(0.1) * step)})


@pytest.mark.parametrize(
    "tail",
    [b"", b'{"step": 8, "lo', b'{"step": 8, "loss": 0.125}\n{"st', b'{"step": 5, "loss": 0.125}'],
)
def test_a_resumed_run_leaves_the_bytes_of_an_uninterrupted_one(tmp_path, tail):
    with metrics.Writer(tmp_path / "whole", resume_step=None, tensorboard=False) as writer:
        write_steps(writer, range(1, 13))
    whole = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert len(whole.splitlines()) == 12

    killed = tmp_path / "killed"
    with metrics.Writer(killed, resume_step=None, tensorboard=False) as writer:
        write_steps(writer, range(1, 8))
    with open(killed / "metrics.jsonl", "ab") as file:
        file.write(tail)
    with metrics.Writer(killed, resume_step=5, tensorboard=False) as writer:
        write_steps(writer, range(6, 13))
    assert (killed / "metrics.jsonl").read_bytes() == whole


def test_a_run_from_the_start_begins_the_file_anew(tmp_path):
    for _ in range(2):  # killed before its first checkpoint, then started again
        with metrics.Writer(tmp_path, resume_step=None, tensorboard=False) as writer:
            write_steps(writer, range(1, 4))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_floats_read_back_to_the_same_bits(tmp_path):
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, float(np.float32(0.1)), 1e16, 3]
    values += [math.inf, -math.inf, math.nan]
    with metrics.Writer(tmp_path, resume_step=None, tensorboard=False) as writer:
        for step, value in enumerate(values):
            writer.scalars(step, {"value": value})

    def refuse(constant):
        raise AssertionError(f"{constant} isn't JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    read = [float(json.loads(line, parse_constant=refuse)["value"]) for line in lines]
    assert [struct.pack("d", x) for x in read] == [struct.pack("d", float(x)) for x in values]


def test_the_time_stays_out_of_metrics_and_in_timing(tmp_path):
    (tmp_path / "timing.jsonl").write_text('{"time": "2026-01-01T00:00:00.000+00:00", "st')
    with metrics.Writer(tmp_path, resume_step=4, tensorboard=False) as writer:
        writer.scalars(5, {"loss": 1.0})
        writer.timing(5, {"steps_per_second": 2.5})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 5, "loss": 1.0}\n'
    torn, line = (tmp_path / "timing.jsonl").read_text().splitlines()
    line = json.loads(line)
    assert line["steps_per_second"] == 2.5 and line["step"] == 5 and line["time"].endswith("+00:00")


def test_a_scalar_may_not_take_the_place_of_the_step(tmp_path):
    with metrics.Writer(tmp_path, resume_step=None, tensorboard=False) as writer:
        with pytest.raises(ValueError, match="'step' is taken"):
            writer.scalars(1, {"step": 2.0})


def test_pictures_are_written_losslessly_and_checked(tmp_path):
    rng = np.random.default_rng(0)
    with metrics.Writer(tmp_path, resume_step=None, tensorboard=False) as writer:
        for name, channels in (("colour", 3), ("gray", 1)):
            picture = rng.integers(0, 256, (5, 7, channels), np.uint8)
            writer.images(12, name, picture)
            with Image.open(tmp_path / "samples" / f"{name}_00000012.png") as read:
                np.testing.assert_array_equal(np.asarray(read).reshape(picture.shape), picture)
        with pytest.raises(ValueError, match=r"uint8 \[h w c\].*float32 \[5, 7, 3\]"):
            writer.images(12, "float", np.zeros((5, 7, 3), np.float32))
        with pytest.raises(ValueError, match="can't name a file"):
            writer.images(12, "../outside", picture)


def test_a_disabled_writer_touches_nothing(tmp_path):
    with metrics.Writer(tmp_path / "run", resume_step=None, enabled=False) as writer:
        writer.scalars(1, {"loss": 1.0})
        writer.timing(1, {"seconds": 1.0})
        writer.images(1, "grid", np.zeros((2, 2, 3), np.uint8))
        writer.flush()
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_events_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboardX")
    with metrics.Writer(tmp_path, resume_step=None) as writer:
        writer.scalars(1, {"a_loss": 0.5})
        writer.images(1, "a_grid", np.zeros((4, 4, 3), np.uint8))
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"a_loss" in events and b"a_grid" in events


def test_without_tensorboardx_it_is_off(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # makes the import fail
    with metrics.Writer(tmp_path, resume_step=None) as writer:
        writer.scalars(1, {"loss": 0.5})
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'


def test_pending_lags_by_one_and_loses_nothing():
    pending = metrics.Pending()
    seen = []
    for step in range(1, 6):
        out = pending.exchange(step, {"loss": jnp.float32(step) / 3, "count": jnp.int32(step)})
        assert out is None if step == 1 else out[0] == step - 1
        seen.append(out)
    seen.append(pending.flush())
    assert pending.flush() is None
    thirds = [float(np.float32(step) / np.float32(3)) for step in range(1, 6)]
    assert seen[1:] == [(s, {"loss": third, "count": s}) for s, third in enumerate(thirds, 1)]
    assert all(type(value) is float for _, floats in seen[1:] for value in floats.values())


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_progress_prints_plain_lines_seldom_and_leaves_compilation_out(monkeypatch):
    clock = Clock(monkeypatch)
    stream = io.StringIO()
    line = progress.Progress(1000, batch_size=64, stream=stream)
    clock.now += 90.0  # the compilation, in the first step
    for step in range(1, 101):
        line.update(step, {"loss": 0.25})
        clock.now += 0.5
    line.close()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert lines[0] == "step 1/1000  loss 0.2500"
    assert len(lines) == 5  # every 10 s of 50 s
    # 2 steps/s exactly: the 90 s of compilation aren't in it. 959 steps are left at step 41.
    assert lines[2] == "step 41/1000  loss 0.2500  2.00 steps/s  128 images/s  ETA 0:08:00"


def test_progress_always_prints_the_last_step(monkeypatch):
    Clock(monkeypatch)
    stream = io.StringIO()
    line = progress.Progress(3, batch_size=1, stream=stream)
    for step in range(1, 4):
        line.update(step, {})
    assert stream.getvalue().splitlines() == ["step 1/3", "step 3/3"]


def test_progress_refreshes_one_line_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = Clock(monkeypatch)
    stream = Terminal()
    line = progress.Progress(9, batch_size=1, stream=stream)
    line.update(1, {"loss": 1e40})
    clock.now += 1.0
    line.update(9, {})
    line.close()
    first, second = stream.getvalue().removesuffix("\n").split("\r")[1:]
    assert stream.getvalue().count("\n") == 1
    assert first.startswith("step 1/9") and second.startswith("step 9/9")
    assert len(second) >= len(first)  # nothing of the longer line is left on the screen


def test_profile_writes_a_trace_of_the_steps_asked_for(tmp_path):
    off = progress.Profile(tmp_path / "off", first=2, num_steps=0)
    on = progress.Profile(tmp_path / "on", first=2, num_steps=2)
    add = jax.jit(lambda x: x + 1)
    x = jnp.zeros(())
    tracing = []
    for step in range(1, 6):
        off.step(step, x)
        on.step(step, x)
        tracing.append(on._tracing)
        x = add(x)
    on.close()
    assert tracing == [False, True, True, False, False]
    assert list((tmp_path / "on" / "profile").rglob("*.xplane.pb"))
    assert not (tmp_path / "off").exists()


def test_parameter_table_and_count():
    params = {"encoder": {"stem": {"kernel": jax.ShapeDtypeStruct((3, 3, 3, 8), jnp.float32)}}}
    params["denoiser"] = {"bias": jnp.zeros(5)}
    assert metrics.count(params) == 3 * 3 * 3 * 8 + 5
    table = metrics.parameter_table(params)
    assert "encoder/stem/kernel" in table and "denoiser/bias" in table and "221" in table


def test_importing_it_needs_no_tensorflow():
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'tensorboard', 'tensorboardX'): sys.modules[name] = None\n"
        "import soda_jax.training.metrics\n"
        "assert 'clu.metric_writers' not in sys.modules\n"
    )
    repository = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, timeout=60)
