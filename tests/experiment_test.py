"""From a config to its parts."""

import pytest

from soda_jax import experiment, inference, pretrained
from soda_jax.config_schema import ConfigError, load
from soda_jax.training.state import TrainState


def build(*overrides, config="configs/smoke.py"):
    return experiment.build(load(config, [f"--config.{override}" for override in overrides]))


def test_a_picture_takes_as_many_operations_in_however_many_parts():
    whole, parts = (
        experiment.flops_per_image(build("train.batch_size=16", f"optimizer.accumulate={count}"))
        for count in (1, 2)
    )
    assert parts == pytest.approx(whole, rel=0.02)


def test_a_block_to_be_probed_is_one_that_puts_something_out():
    read = ("probe.features=('z','block')", "model.denoiser.attention_levels=(1,)")
    for block in ("mid_attention", "up_8x8_block0_attention", "down_8x8_block0"):
        build(*read, f"probe.block={block}")
    for block, near in (
        ("down_8x8_sample", "down_8x8_block"),  # not read, as it is no block
        ("up_16x16_block0_attention", "up_8x8_block0_attention"),  # no attention at this level
    ):
        with pytest.raises(ConfigError, match=f"nearest: {near}"):
            build(*read, f"probe.block={block}")


def test_averaged_weights_are_evaluated_with_averaged_statistics():
    state = TrainState(0, "params", "ema_params", "batch_stats", "ema_batch_stats", ())
    for weights, average in (("ema", "ema_"), ("raw", "")):
        assert inference.eval_variables(state, weights) == {
            "params": f"{average}params", "batch_stats": f"{average}batch_stats",
        }  # fmt: skip


def test_weights_of_another_name_are_refused(tmp_path):
    config = load("configs/smoke.py", [])
    with pytest.raises(ValueError, match="weights must be 'ema' or 'raw', not 'EMA'"):
        pretrained.restore(config, str(tmp_path), weights="EMA")
