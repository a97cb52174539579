"""Checkpoints: bitwise, on any number of devices, refused where unfit, safe when killed."""

import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from soda_jax.training.checkpoint import Checkpointer, SaveError
from soda_jax.training.checkpoint_reader import CheckpointMismatch, CheckpointReader
from soda_jax.training.integrity import CorruptCheckpoint, NonFiniteStateError, seal, unseal
from soda_jax.training.state import TrainState

REPOSITORY = Path(__file__).parents[2]


def is_matrix(tree):
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def optimizer(learning_rate=1e-3):
    adam = {
        "encoder": optax.adamw(2 * learning_rate, weight_decay=0.05, mask=is_matrix),
        "denoiser": optax.adamw(optax.linear_schedule(0.0, learning_rate, 10), mask=is_matrix),
    }
    labels = {"encoder": "encoder", "denoiser": "denoiser"}
    return optax.chain(optax.clip_by_global_norm(1.0), optax.multi_transform(adam, labels))


def make_state(width=8, updates=2):
    """A state after some updates: every moment, average and count is something other than 0."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    params = {
        "encoder": {"stem": {"kernel": draw(3, 3, 3, width), "bias": draw(width)}},
        "denoiser": {"32x32_block0": {"kernel": draw(width, 16)}, "mid": {"scale": draw(16)}},
    }
    tx = optimizer()

    @jax.jit
    def update(params, ema_params, opt_state):
        change, opt_state = tx.update(jax.tree.map(jnp.sin, params), opt_state, params)
        params = optax.apply_updates(params, change)
        return params, optax.incremental_update(params, ema_params, 0.1), opt_state

    opt_state, ema_params = tx.init(params), params
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its counts with floats
        for _ in range(updates):
            params, ema_params, opt_state = update(params, ema_params, opt_state)
    return TrainState(
        step=jnp.asarray(updates, jnp.int32),
        params=params,
        ema_params=ema_params,
        batch_stats={"encoder": {"norm": {"mean": draw(width).astype(jnp.bfloat16)}}},
        ema_batch_stats={"encoder": {"norm": {"mean": draw(width).astype(jnp.bfloat16)}}},
        opt_state=opt_state,
    )


def shard(state, num_devices):
    """The state's shardings on the first devices: last axis split where it divides."""
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("fsdp",))

    def sharding(x):
        split = x.ndim > 0 and x.shape[-1] % num_devices == 0
        spec = PartitionSpec(*[None] * (x.ndim - 1), "fsdp") if split else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map(sharding, state)


def abstract(state, num_devices=1):
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        shard(state, num_devices),
    )


def assert_same_bits(restored, saved):
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def listing(folder):
    return sorted((str(p.relative_to(folder)), p.stat().st_mtime_ns) for p in folder.rglob("*"))


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A workdir with the state at step 300: for tests that only read."""
    workdir = tmp_path_factory.mktemp("saved")
    with Checkpointer(workdir, asynchronous=False) as checkpointer:
        checkpointer.save(300, state, {"seed": 7})
    return workdir


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_restored_is_bitwise_what_was_saved(tmp_path, state, asynchronous):
    later = make_state(updates=5)
    with Checkpointer(tmp_path, asynchronous=asynchronous) as checkpointer:
        checkpointer.save(2, state, {"seed": 7, "config": {"name": "base", "lr": 1e-4}})
        checkpointer.save(5, later, {"seed": 8})
    with Checkpointer(tmp_path, asynchronous=asynchronous) as checkpointer:
        assert checkpointer.steps() == [2, 5] and checkpointer.latest_step() == 5
        restored, run = checkpointer.restore(abstract(state))
        assert_same_bits(restored, later)
        assert run == {"seed": 8}
        restored, run = checkpointer.restore(abstract(state), step=2)
        assert_same_bits(restored, state)
        assert run == {"seed": 7, "config": {"name": "base", "lr": 1e-4}}
    leaves = zip(
        jax.tree.leaves(restored.params), jax.tree.leaves(restored.ema_params), strict=True
    )
    assert all(np.any(np.asarray(raw) != np.asarray(ema)) for raw, ema in leaves)


def test_odd_bits_survive(tmp_path):
    """-0, subnormals, the largest."""
    bits = np.array([0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF], np.uint32)
    tree = {"x": jnp.asarray(bits.view(np.float32))}
    with Checkpointer(tmp_path, asynchronous=False) as checkpointer:
        checkpointer.save(1, tree, {})
        restored, _ = checkpointer.restore(abstract(tree))
    np.testing.assert_array_equal(np.asarray(restored["x"]).view(np.uint32), bits)


def test_8_devices_then_1_then_4(tmp_path, state):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    held = jax.device_put(state, shard(state, 8))
    for step, next_devices in enumerate([1, 4, 8], start=1):
        with Checkpointer(tmp_path, asynchronous=False) as checkpointer:
            checkpointer.save(step, held, {})
        checkpointer = CheckpointReader(tmp_path)
        target = abstract(state, next_devices)
        held, _ = checkpointer.restore(target)
        assert_same_bits(held, state)
        for leaf, wanted in zip(jax.tree.leaves(held), jax.tree.leaves(target), strict=True):
            assert leaf.sharding == wanted.sharding
    kernel = held.params["denoiser"]["32x32_block0"]["kernel"]
    assert len({shard.data.shape for shard in kernel.addressable_shards}) == 1
    assert kernel.addressable_shards[0].data.shape == (8, 2)


def test_an_asynchronous_save_holds_the_values_of_its_own_step(tmp_path):
    """The next step is donated the same buffers while they are still being written."""
    start = {"x": jnp.arange(2_000_000, dtype=jnp.float32)}
    expected = np.asarray(start["x"]).copy()
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x * -3, tree), donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, start, {})
        tree = start
        for _ in range(3):
            tree = jax.block_until_ready(update(tree))
        checkpointer.wait()
        restored, _ = checkpointer.restore(abstract(tree))
    np.testing.assert_array_equal(np.asarray(restored["x"]), expected)


def test_all_restored_arrays_can_be_donated(saved, state):
    checkpointer = CheckpointReader(saved)
    restored, _ = checkpointer.restore(abstract(state))
    before = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(restored)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # jax warns of donated buffers that it could not use
        negate = jax.jit(lambda tree: jax.tree.map(lambda x: -x, tree), donate_argnums=0)
        after = jax.block_until_ready(negate(restored))
    assert {x.unsafe_buffer_pointer() for x in jax.tree.leaves(after)} == before
    assert all(x.is_deleted() for x in jax.tree.leaves(restored))


def test_a_part_is_restored_alone_and_nothing_else_is_read(tmp_path):
    rng = np.random.default_rng(0)

    def noise(count):
        return jnp.asarray(rng.integers(0, 2**32, count, np.uint32))  # does not compress

    tree = {"ema_params": {"x": noise(1000)}, "params": {"x": noise(1_000_000)}, "batch_stats": {}}
    with Checkpointer(tmp_path, asynchronous=False) as checkpointer:
        checkpointer.save(1, tree, {})

    def bytes_read():
        prefix = "/tensorstore/kvstore/file/bytes_read"
        metrics = tensorstore.experimental_collect_matching_metrics(prefix)
        return sum(value["value"] for metric in metrics for value in metric["values"])

    checkpointer = CheckpointReader(tmp_path)
    start = bytes_read()
    part, _ = checkpointer.restore_part(
        abstract({"ema_params": tree["ema_params"], "batch_stats": {}})
    )
    part_bytes = bytes_read() - start
    assert_same_bits(part, {"ema_params": tree["ema_params"], "batch_stats": {}})
    checkpointer.restore(abstract(tree))
    whole_bytes = bytes_read() - start - part_bytes
    assert 4_000 <= part_bytes < 200_000
    assert whole_bytes >= 4_000_000


def change(tree, path, value):
    """The tree with one entry replaced, or dropped where the value is None."""
    key, *rest = path
    changed = {**tree, key: change(tree[key], rest, value) if rest else value}
    return {k: v for k, v in changed.items() if v is not None}


BIAS = ("encoder", "stem", "bias")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            BIAS,
            jnp.zeros(4),
            "params/encoder/stem/bias: the config makes float32 [4],"
            " the checkpoint at step 300 holds float32 [8]",
        ),
        (
            BIAS,
            jnp.zeros(8, jnp.bfloat16),
            "params/encoder/stem/bias: the config makes bfloat16 [8],"
            " the checkpoint at step 300 holds float32 [8]",
        ),
        (
            BIAS,
            None,
            "params/encoder/stem/bias: the config makes no such array,"
            " the checkpoint at step 300 holds float32 [8]",
        ),
        (
            ("encoder", "head"),
            jnp.zeros((2, 3), jnp.int32),
            "params/encoder/head: the config makes int32 [2,3],"
            " the checkpoint at step 300 holds no such array",
        ),
    ],
)
def test_a_leaf_that_differs_is_refused_by_name(saved, state, path, value, message):
    params = change(state.params, path, value)
    checkpointer = CheckpointReader(saved)
    with pytest.raises(CheckpointMismatch) as raised:
        checkpointer.restore(abstract(state.replace(params=params)))
    assert str(raised.value) == message
    with pytest.raises(CheckpointMismatch) as raised:
        checkpointer.restore_part(abstract({"params": params}))
    assert str(raised.value) == message


def test_many_differences_are_counted_in_one_line(saved):
    checkpointer = CheckpointReader(saved)
    with pytest.raises(CheckpointMismatch) as raised:
        checkpointer.restore(abstract(jax.eval_shape(lambda: make_state(width=16))))
    message = str(raised.value)
    # Of each of params, average and two moments: 3 leaves; and the batch statistics.
    assert message.count("the config makes") == 3 and message.endswith("; 11 more")
    assert "\n" not in message


def test_a_part_that_the_checkpoint_lacks_is_refused(saved, state):
    checkpointer = CheckpointReader(saved)
    with pytest.raises(CheckpointMismatch, match="extra/x: .* holds no such array"):
        checkpointer.restore_part(abstract({"extra": {"x": jnp.zeros(2)}}))
    with pytest.raises(CheckpointMismatch, match="batch_stats/encoder/norm/mean"):
        checkpointer.restore_part({"batch_stats": {}})
    with pytest.raises(ValueError, match="step has no sharding"):
        checkpointer.restore(jax.eval_shape(lambda: state))


def test_only_finished_directories_are_steps(tmp_path, state):
    with Checkpointer(tmp_path, asynchronous=False) as checkpointer:
        checkpointer.save(90, state, {})
        checkpointer.save(95, state, {"at": 95})
    directory = tmp_path / "checkpoints"
    (directory / "99").mkdir()
    for damaged, lost in ((96, "_CHECKPOINT_METADATA"), (97, "state/_METADATA"), (98, "run")):
        shutil.copytree(directory / "95", directory / str(damaged))
        target = directory / str(damaged) / lost
        shutil.rmtree(target) if target.is_dir() else target.write_bytes(b"")
    # As on a store without rename, where a directory has its last name before it is committed.
    shutil.copytree(directory / "95", directory / "100")
    commit = json.loads((directory / "100" / "_CHECKPOINT_METADATA").read_text())
    commit["commit_timestamp_nsecs"] = None
    (directory / "100" / "_CHECKPOINT_METADATA").write_text(json.dumps(commit))
    (directory / "notes.txt").write_text("not a step")

    checkpointer = CheckpointReader(tmp_path)
    assert checkpointer.steps() == [90, 95]
    assert checkpointer.latest_step() == 95
    assert checkpointer.restore(abstract(state))[1] == {"at": 95}
    with pytest.raises(CorruptCheckpoint, match="a part of it is missing"):
        checkpointer.restore(abstract(state), step=96)
    with pytest.raises(FileNotFoundError, match="no finished checkpoint of step 99.* 90, 95"):
        checkpointer.restore(abstract(state), step=99)

    # The empty 99 neither blocks its step nor counts among those that are kept.
    with Checkpointer(tmp_path, asynchronous=False, keep=2) as checkpointer:
        checkpointer.save(99, state, {"at": 99})
        assert checkpointer.steps() == [95, 99]
        with pytest.raises(ValueError, match="already has a checkpoint of step 99"):
            checkpointer.save(99, state, {})


def test_killed_in_the_middle_of_a_save(tmp_path):
    """SIGKILL while step 2 is being written: step 1 is the newest, and 2 can be saved again."""
    code = """
import os, signal, sys, time
import jax.numpy as jnp
from soda_jax.training.checkpoint import Checkpointer
checkpointer = Checkpointer(sys.argv[1])
checkpointer.save(1, {"x": jnp.ones(3)}, {})
checkpointer.wait()
checkpointer.save(2, {"x": jnp.ones(20_000_000)}, {})
while len(os.listdir(os.path.join(sys.argv[1], "checkpoints"))) < 2:
    time.sleep(0.001)  # a busy machine may not have begun to write
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, timeout=120, check=False
    )
    assert killed.returncode == -9
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert "1" in left and "2" not in left and len(left) == 2  # the other is Orbax's, unfinished
    tree = {"x": jnp.full(3, 2.0)}
    checkpointer = CheckpointReader(tmp_path)
    assert checkpointer.latest_step() == 1
    restored, _ = checkpointer.restore(abstract(tree))
    np.testing.assert_array_equal(np.asarray(restored["x"]), 1.0)
    unfinished = next(name for name in left if name != "1")
    shutil.copytree(
        tmp_path / "checkpoints" / unfinished,
        tmp_path / "checkpoints" / unfinished.replace("2", "7", 1),
    )
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(2, tree, {})
        checkpointer.wait()
        restored, _ = checkpointer.restore(abstract(tree))
    assert_same_bits(restored, tree)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


def flip_a_bit(workdir, step):
    """In the largest file of a step's arrays, where no checksum of Orbax's looks."""
    files = (workdir / "checkpoints" / str(step) / "state").rglob("*")
    path = max((file for file in files if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 8
    path.write_bytes(data)


def test_damaged_steps_are_set_aside_and_saved_again(tmp_path, caplog):
    def tree(step):
        return {"x": jax.random.normal(jax.random.key(step), (100, 100))}

    with Checkpointer(tmp_path, asynchronous=False, keep=5) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, tree(step), {"at": step})
            checkpointer.verify(step)
        flip_a_bit(tmp_path, 3)
        with pytest.raises(SaveError, match="step 3 .*reads back wrong"):
            checkpointer.verify(3)
    (tmp_path / "checkpoints" / "2" / "_CHECKPOINT_METADATA").write_bytes(b"")
    template = abstract(tree(1))
    with pytest.raises(CorruptCheckpoint):
        CheckpointReader(tmp_path).restore(template, step=3)
    restored, run = CheckpointReader(tmp_path).restore(template)
    assert run == {"at": 1} and not list(tmp_path.rglob("*.corrupt"))
    with Checkpointer(tmp_path, asynchronous=False, keep=5) as checkpointer:
        restored, run = checkpointer.restore(template)
        assert_same_bits(restored, tree(1))
        checkpointer.save(2, tree(7), {})
        assert checkpointer.steps() == [1, 2]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"1", "2", "2.corrupt", "3.corrupt"}
    assert "3 is damaged" in caplog.text and "2 is damaged" in caplog.text
    # With nothing intact it says so, rather than to begin anew.
    for step in (1, 2):
        (tmp_path / "checkpoints" / str(step) / "run" / "metadata").write_text("{")
    with Checkpointer(tmp_path, asynchronous=False) as checkpointer:
        assert checkpointer.latest_step() is None and not checkpointer.is_empty()
        with pytest.raises(CorruptCheckpoint, match="no checkpoint is intact"):
            checkpointer.restore(template)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == names


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, value):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"x": jnp.ones(3)}, {})
        with pytest.raises(NonFiniteStateError, match="ema/x has infinities or NaN"):
            checkpointer.save(2, {"ema": {"x": jnp.array([0.0, value])}}, {})
        assert checkpointer.steps() == [1]


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"x": jnp.ones(3)}, {})
        checkpointer.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=100)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage)
            with pytest.raises(SaveError, match="takes up to 4,000 bytes, and the disk has 100"):
                checkpointer.save(2, {"x": jnp.ones(1000)}, {})
        checkpointer.save(2, {"x": jnp.ones(1000)}, {})
        checkpointer.wait()
        assert checkpointer.steps() == [1, 2]


@pytest.mark.parametrize("record", [{"array_metadatas": []}, {"data": "abc"}, [], 3])
def test_another_file_in_the_place_of_the_record_is_damage(record):
    sealed = seal(7, {"data": "abc"}, {})
    assert unseal(7, sealed) == ({"data": "abc"}, {})
    with pytest.raises(CorruptCheckpoint, match="no digests"):
        unseal(7, record)
    with pytest.raises(CorruptCheckpoint, match="that of step 7"):
        unseal(8, sealed)


def test_reading_leaves_the_directory_as_it_was(saved, state):
    unfinished = saved / "checkpoints" / "301.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = listing(saved)
    checkpointer = CheckpointReader(saved)
    checkpointer.restore(abstract(state))
    checkpointer.restore_part(abstract({"ema_params": state.ema_params}))
    assert listing(saved) == before
    unfinished.rmdir()


def test_a_workdir_without_a_checkpoint(tmp_path, state):
    checkpointer = CheckpointReader(tmp_path / "run")
    assert checkpointer.latest_step() is None and checkpointer.steps() == []
    with pytest.raises(FileNotFoundError) as raised:
        checkpointer.restore(abstract(state))
    message = str(raised.value)
    assert str(tmp_path / "run") in message and "python -m soda_jax pretrain" in message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()


def test_a_relative_workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpointer("run", asynchronous=False) as checkpointer:
        checkpointer.save(1, {"x": jnp.ones(2)}, {})
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (lambda: "text", "b/c is a str"),
        (lambda: 1.5, "b/c is a float"),
        (lambda: np.zeros(2), "b/c is a ndarray"),
        (lambda: jax.random.key(0), "b/c is a PRNG key"),
        (lambda: jnp.zeros((0, 3)), "b/c is empty"),
        (lambda: donated(), "b/c was donated"),
    ],
)
def test_what_orbax_would_choke_on_is_refused_before_it_starts(tmp_path, leaf, message):
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(ValueError, match=message):
            checkpointer.save(1, {"a": jnp.ones(2), "b": {"c": leaf()}}, {})
        with pytest.raises(ValueError, match="run can't be written as JSON"):
            checkpointer.save(1, {"a": jnp.ones(2)}, {"path": Path("/")})
        checkpointer.save(1, {"a": jnp.ones(2)}, {})  # nothing is left in the way
    assert os.listdir(tmp_path / "checkpoints") == ["1"]


def donated():
    x = jnp.ones(2)
    jax.jit(lambda x: x + 1, donate_argnums=0)(x).block_until_ready()
    return x


@pytest.mark.parametrize("surfaces", ["save", "wait", "close"])
def test_an_error_in_the_background_surfaces_once_and_the_next_save_works(tmp_path, surfaces):
    small = {"x": jnp.ones(4)}
    noise = np.random.default_rng(0).integers(0, 2**32, 500_000, np.uint32)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, small, {})
    checkpointer.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # as a disk that is full
    try:
        checkpointer.save(2, {"x": jnp.asarray(noise)}, {})
        with pytest.raises(SaveError, match="step 2 could not be written.*finished.*: 1\\)"):
            if surfaces == "save":
                checkpointer.save(3, small, {})
            elif surfaces == "wait":
                checkpointer.wait()
            else:
                checkpointer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if surfaces == "close":
        checkpointer.close()
        checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest_step() == 1
    checkpointer.save(2, small, {})
    checkpointer.close()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_a_process_whose_save_failed_still_exits(tmp_path):
    code = """
import resource, sys
import jax.numpy as jnp, numpy as np
from soda_jax.training.checkpoint import Checkpointer
noise = np.random.default_rng(0).integers(0, 2**32, 500_000, np.uint32)
with Checkpointer(sys.argv[1]) as checkpointer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, -1))
    checkpointer.save(1, {"x": jnp.asarray(noise)}, {})
"""
    failed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert "SaveError: the checkpoint of step 1 could not be written" in failed.stderr


def test_a_file_that_is_named_as_a_step_is_none(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "7").write_text("a note")
    assert CheckpointReader(tmp_path).is_empty() and CheckpointReader(tmp_path).steps() == []
