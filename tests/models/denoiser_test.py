"""Which section of z reaches which block, shown through gradients; the geometry; the variances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.models.bottleneck import section_sizes
from soda_jax.models.denoiser import (
    Denoiser,
    ModulatedBlock,
    num_sections,
    section_of_block,
)
from soda_jax.models.layers import from_patches, own_places, to_patches

TINY = dict(width=8, head_size=4, dropout=0.0, zero_init=False, mid_attention=False)


def make(size=8, z_size=23, **fields):
    denoiser = Denoiser(**(TINY | fields))
    x_t = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    t = jnp.asarray([0.3, 0.8])
    z = jax.random.normal(jax.random.key(1), (2, z_size))
    variables = jax.jit(denoiser.init)(jax.random.key(2), x_t, t, z)
    return denoiser, variables, x_t, t, z


@pytest.mark.parametrize("resample", ["strided", "residual"])
def test_a_section_travels_with_its_skip(resample):
    """The weights that read z in a block get a gradient through the block's own section alone."""
    denoiser, variables, x_t, t, z = make(
        multipliers=(1, 2), num_blocks=1, attention_levels=(1,), resample=resample
    )
    sizes = section_sizes(z.shape[1], 5)
    # m = 4 skips: 0 stem, 1 block, 2 down-sampler, 3 block; the middle takes section 4.
    expected = {
        "down_8x8_block0": 1,
        "down_4x4_block0": 3,
        "mid_block0": 4,
        "mid_block1": 4,
        "up_4x4_block0": 3,
        "up_4x4_block1": 2,
        "up_8x8_block0": 1,
        "up_8x8_block1": 0,
    }
    if resample == "residual":
        expected |= {"down_8x8_sample": 2, "up_4x4_sample": 2}

    @jax.jit
    def code_gradients(section):
        owner = jnp.repeat(jnp.arange(5), np.asarray(sizes), total_repeat_length=z.shape[1])
        alone = jnp.where(owner == section, z, 0.0)
        gradient = jax.grad(
            lambda params: jnp.square(denoiser.apply({"params": params}, x_t, t, alone)).sum()
        )(variables["params"])
        return {
            name: jnp.abs(block["modulation"]["code"]["kernel"]).max()
            for name, block in gradient.items()
            if "modulation" in block
        }

    owners = {}
    for section in range(5):
        for name, size in code_gradients(section).items():
            if size > 0:
                assert name not in owners, f"{name} reads two sections"
                owners[name] = section
    assert owners == expected == section_of_block((1, 2), 1, 8, resample)


def test_zeroing_a_section_changes_only_the_blocks_that_own_it_and_those_after():
    denoiser, variables, x_t, t, z = make(multipliers=(1, 2), num_blocks=1, attention_levels=())
    cut = np.cumsum(section_sizes(z.shape[1], 5))

    @jax.jit
    def outputs(z):
        _, captured = denoiser.apply(
            variables, x_t, t, z, capture_intermediates=True, mutable=["intermediates"]
        )
        return {
            name: value["__call__"][0]
            for name, value in captured["intermediates"].items()
            if isinstance(value, dict) and "block" in name
        }

    full = outputs(z)
    no_stem_section = outputs(z.at[:, : cut[0]].set(0.0))
    changed = {name for name in full if not np.array_equal(full[name], no_stem_section[name])}
    assert changed == {"up_8x8_block1"}  # section 0 belongs to the stem's skip, popped last
    no_mid_section = outputs(z.at[:, cut[3] :].set(0.0))
    same = {name for name in full if np.array_equal(full[name], no_mid_section[name])}
    assert same == {"down_8x8_block0", "down_4x4_block0"}


@pytest.mark.parametrize(
    ("multipliers", "num_blocks", "sections"),
    [((1,), 1, 3), ((1, 2), 2, 7), ((1, 2, 2, 2), 2, 13), ((1, 1, 2, 3, 4), 3, 21)],
)
@pytest.mark.parametrize("extra", [0, 1, 6])
def test_every_geometry_has_m_plus_1_sections_at_any_size_of_z(
    multipliers, num_blocks, sections, extra
):
    assert num_sections(multipliers, num_blocks) == sections
    z_size = sections + extra
    denoiser = Denoiser(
        **(TINY | dict(multipliers=multipliers, num_blocks=num_blocks, attention_levels=()))
    )
    x_t = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    z = jax.ShapeDtypeStruct((1, z_size), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    params = jax.eval_shape(denoiser.init, jax.random.key(0), x_t, t, z)["params"]
    inputs = [
        block["modulation"]["code"]["kernel"].shape[0]
        for block in params.values()
        if "modulation" in block
    ]
    sizes = section_sizes(z_size, sections)
    assert len(inputs) == len(multipliers) * (2 * num_blocks + 1) + 2
    assert set(inputs) <= set(sizes)
    output = jax.eval_shape(denoiser.apply, {"params": params}, x_t, t, z)
    assert output.shape == x_t.shape


def test_the_modulation_is_the_only_way_in_for_z():
    denoiser, variables, x_t, t, z = make(multipliers=(1, 2), num_blocks=1, attention_levels=())

    @jax.jit
    def sensitivity(params):
        return jax.grad(lambda z: jnp.square(denoiser.apply(params, x_t, t, z)).sum())(z)

    def close(path, leaf):
        return leaf * 0 if "code" in [key.key for key in path] else leaf

    assert np.abs(sensitivity(variables)).min() > 0
    closed = jax.tree_util.tree_map_with_path(close, variables)
    np.testing.assert_array_equal(sensitivity(closed), 0)


def test_a_block_keeps_unit_variance_only_with_the_rescaling():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 32))
    time = jnp.zeros((4, 16))

    def variance(rescale):
        block = ModulatedBlock(32, dropout=0.0, rescale=rescale, zero_init=False)
        params = block.init(jax.random.key(1), x, time, None, False)
        return float(block.apply(params, x, time, None, False).var())

    # The branch adds about half a unit (SiLU halves a unit normal's power twice over): over sqrt 2
    # the sum is half of what it is without.
    assert variance(False) == pytest.approx(2 * variance(True), rel=1e-4)
    assert 0.5 < variance(True) < 1.05


def test_patches_are_channels_and_come_back():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    patches = to_patches(x, 2)
    assert patches.shape == (2, 4, 4, 12)
    np.testing.assert_array_equal(patches[0, 1, 2, :6], x[0, 2, 4:6].ravel())
    np.testing.assert_array_equal(from_patches(patches, 2), x)
    denoiser = Denoiser(width=8, multipliers=(1, 2), num_blocks=1, head_size=8, patch=2)
    t, z = jnp.full((2,), 0.5), jnp.ones((2, 10))
    out, variables = denoiser.init_with_output(jax.random.key(0), x, t, z)
    assert out.shape == x.shape and "down_4x4_block0" in variables["params"]
    with pytest.raises(ValueError, match="patches of 2 need a height and width that 4 divides"):
        denoiser.init(jax.random.key(0), x[:, :6], t, z)


def test_zero_init_predicts_nothing_at_first():
    denoiser, variables, x_t, t, z = make(multipliers=(1, 2), num_blocks=1, zero_init=True)
    np.testing.assert_array_equal(denoiser.apply(variables, x_t, t, z), 0)


def test_sizes_that_do_not_halve_are_refused_in_words():
    denoiser = Denoiser(**(TINY | dict(multipliers=(1, 2, 2))))
    with pytest.raises(ValueError, match="3 levels .* 4 divides, not 6x6"):
        jax.eval_shape(
            denoiser.init,
            jax.random.key(0),
            jnp.zeros((1, 6, 6, 3)),
            jnp.zeros(1),
            jnp.zeros((1, 20)),
        )


def test_bfloat16_activations_keep_float32_weights_and_output():
    denoiser = Denoiser(**(TINY | dict(multipliers=(1, 2), num_blocks=1, dtype=jnp.bfloat16)))
    x_t, t, z = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), jnp.zeros((1, 9))
    variables = jax.eval_shape(denoiser.init, jax.random.key(0), x_t, t, z)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    captured = jax.eval_shape(
        lambda variables: denoiser.apply(
            variables, x_t, t, z, capture_intermediates=True, mutable=["intermediates"]
        ),
        variables,
    )
    output, features = captured[0], captured[1]["intermediates"]
    assert output.dtype == jnp.float32
    assert features["down_8x8_block0"]["__call__"][0].dtype == jnp.bfloat16
    assert features["down_8x8_block0"]["norm0"]["__call__"][0].dtype == jnp.float32


@pytest.mark.parametrize(
    "fields, published",
    [
        (dict(multipliers=(1, 2, 2, 2), num_blocks=2), 35_746_307),
        (dict(multipliers=(2, 2, 2), num_blocks=4, resample="residual"), 56_524_291),
    ],
    ids=["ddpm", "ddpmpp"],
)
def test_ddaes_networks_have_the_published_number_of_parameters(fields, published):
    denoiser = Denoiser(
        width=128, attention_levels=(1,), head_size=256, time_route="added", rescale=False, **fields
    )
    shapes = jax.eval_shape(
        denoiser.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1), None
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == published


def test_added_time_enters_before_the_norm_and_a_code_still_modulates():
    denoiser, variables, x_t, t, z = make(multipliers=(1, 2), num_blocks=1, time_route="added")
    block = variables["params"]["down_8x8_block0"]
    assert set(block) >= {"time", "modulation"} and "time" not in block["modulation"]
    assert block["modulation"]["scale"].shape == (8,)
    out = denoiser.apply(variables, x_t, t, z)
    assert not np.allclose(out, denoiser.apply(variables, x_t, 1 - t, z))
    assert not np.allclose(out, denoiser.apply(variables, x_t, t, 2 * z))


def test_the_fused_kernel_of_a_gpu_is_plain_attention_elsewhere():
    fields = dict(attention_levels=(0,), head_size=8, multipliers=(1,), num_blocks=1)
    fields |= dict(dtype=jnp.bfloat16)
    plain, variables, *inputs = make(**fields)
    fused, *_ = make(**fields, attention_kernel="cudnn")
    expected, found = (
        np.asarray(jax.jit(model.apply)(variables, *inputs)) for model in (plain, fused)
    )
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(found, expected)


def test_a_located_denoiser_is_told_nothing_as_it_is_told_of_the_source_itself():
    denoiser, variables, x_t, t, z = make(multipliers=(1, 2), num_blocks=1, located=True)
    apply = jax.jit(lambda rays: denoiser.apply(variables, x_t, t, z, rays=rays))
    places = own_places(x_t)
    np.testing.assert_allclose(apply(places), apply(None), rtol=0, atol=1e-6)
    # Elsewhere is another prediction, and which of both pictures is elsewhere matters to it alone.
    moved = apply(places.at[1].add(0.5))
    np.testing.assert_allclose(moved[0], apply(None)[0], rtol=0, atol=1e-6)
    assert jnp.abs(moved[1] - apply(None)[1]).max() > 1e-3
