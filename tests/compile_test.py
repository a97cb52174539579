import math
import pathlib
from functools import partial
from types import SimpleNamespace

import pytest

from soda_jax import compile as compile_loop
from soda_jax import experiment, hlo
from soda_jax.config_schema import load
from soda_jax.exit_codes import UsageError
from soda_jax.gpu_hosts import CARDS, gpu_host
from soda_jax.tpu_slices import CHIPS, Slice, tpu_slice

HLO = """
  %all-reduce.1 = f32[512,512]{1,0:T(8,128)} all-reduce(%fusion), channel_id=1, to_apply=%add
  %all-reduce.2 = (f32[8]{0}, bf16[4,2]{1,0}) all-reduce(%a, %b), channel_id=2, to_apply=%add
  %ar = f32[16]{0} all-reduce-start(%c), channel_id=3, to_apply=%add
  %ard = f32[16]{0} all-reduce-done(%ar)
  %ag = (f32[4]{0}, f32[32]{0}) all-gather-start(%d), channel_id=4
  %agd = f32[32]{0} all-gather-done(%ag)
  %x = f32[] add(%all-reduce.1, %y)
"""


def test_collectives_are_counted_once_each_with_their_bytes():
    found = hlo.collectives(HLO)
    assert found == {
        "all-reduce": (3, 512 * 512 * 4 + 8 * 4 + 8 * 2 + 16 * 4),
        "all-gather": (1, 32 * 4),
    }


IN_A_LOOP = """HloModule step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %s = f32[] add(%x, %y)
}

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %k.1 = f32[8] fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"1000000"}
  %all-reduce.3 = f32[8]{0} all-reduce(%k.1), replica_groups={{0,1}}, to_apply=%add
}

%cond.1 (p: (s32[], f32[8])) -> pred[] {
  ROOT %c = pred[] compare(%p, %p), direction=LT
}

ENTRY %main.9 (a: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"4"}}
  %all-reduce.4 = f32[2]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %k.2 = f32[8] fusion(%w), kind=kLoop, backend_config={"estimated_cycles":"1000000"}
}
"""  # noqa: E501


@pytest.mark.parametrize("known", [True, False], ids=["said", "compared with"])
def test_what_a_loop_does_counts_as_often_as_it_runs_and_nothing_else_does(known):
    text = IN_A_LOOP
    if not known:  # as a TPU's compiler has it
        text = text.replace(', backend_config={"known_trip_count":{"n":"4"}}', "").replace(
            "ROOT %c", "%n = s32[]{:T(128)} constant(4)\n  ROOT %c"
        )
    where = Slice("v5e:1x1", CHIPS["v5e"], [None])
    seconds = compile_loop.computing_seconds(text, where)
    assert seconds == pytest.approx(5e6 / CHIPS["v5e"].clock)
    assert hlo.collectives(text) == {"all-reduce": (5, 4 * 8 * 4 + 2 * 4)}


@pytest.mark.parametrize("groups", ["{{0,1,2,3}}", "[1,4]<=[4]"])
def test_of_a_reduce_scatter_all_that_goes_in_is_sent_and_of_a_permute_its_result(groups):
    found = hlo.collectives(f"""
  %rs = f32[256]{{0}} reduce-scatter(%a), replica_groups={groups}, to_apply=%add
  %cp = (f32[1024]{{0}}, f32[1024]{{0}}, u32[], u32[]) collective-permute-start(%b)
""")
    assert found == {"reduce-scatter": (1, 4096), "collective-permute": (1, 4096)}


def test_operations_are_those_of_the_step_not_of_how_it_is_run():
    """Whatever is computed again to save memory, or in parts."""
    file = str(pathlib.Path(__file__).parents[1] / "configs" / "smoke.py")
    small = (
        "--config.model.denoiser.multipliers=(1,)",
        "--config.model.denoiser.attention_levels=()",
    )
    counts = {
        experiment.flops_per_image(experiment.build(load(file, [*small, *words])), "tpu")
        for words in ((), ("--config.train.remat=True", "--config.optimizer.accumulate=2"))
    }
    assert len(counts) == 1


def test_kernels_take_the_cycles_that_the_compiler_expects():
    kernel = '%k = f32[8] fusion(%a), kind=kLoop, backend_config={"estimated_cycles":"1500000000"}'
    one = Slice("v5e:1x1", CHIPS["v5e"], [None])
    seconds = compile_loop.computing_seconds(f"{kernel}\n{HLO}\n{kernel}", one)
    assert seconds == pytest.approx(2.0, rel=0.01)  # 1.5 GHz
    # A chip that does nothing else multiplies as fast as it is said to.
    for chip, (units, side) in {"v4": (8, 128), "v5p": (8, 128), "v6e": (4, 256)}.items():
        assert CHIPS[chip].clock * units * 2 * side**2 == pytest.approx(CHIPS[chip].flops)


def test_a_ring_sends_what_is_reduced_twice():
    slice_of_four = Slice("v5e:2x2", CHIPS["v5e"], [None] * 4)
    rate = CHIPS["v5e"].interconnect
    collectives = {"all-reduce": (1, 1000), "all-gather": (1, 400)}
    seconds = compile_loop.communication_seconds(collectives, slice_of_four)
    assert seconds == pytest.approx((2 * 1000 + 400) * 3 / 4 / rate)
    alone = Slice("v5e:1x1", CHIPS["v5e"], [None])
    assert compile_loop.communication_seconds(collectives, alone) == 0


def test_a_row_says_how_fast_a_slice_is_and_what_talking_costs_it(monkeypatch):
    config = load(str(pathlib.Path(__file__).parents[1] / "configs" / "smoke.py"))

    def compile_step(config, where):
        return compile_loop.Compiled(
            slice=where,
            batch=config.train.batch_size,
            memory=2**30,
            flops=1e12,
            compute=1.0,
            collectives={},
            communication=0.25 * (len(where.devices) > 1),
            compilation=1.0,
        )

    def devices(name):
        return Slice(name, CHIPS["v5e"], [None] * math.prod(map(int, name[4:].split("x"))))

    monkeypatch.setattr(compile_loop, "compile_step", compile_step)
    monkeypatch.setattr(compile_loop, "tpu_slice", devices)
    header, _, alone, four = compile_loop.compile_for(config, ["v5e:1x1", "v5e:2x2"]).splitlines()
    header, alone, four = ([c.strip() for c in x.split("|")] for x in (header, alone, four))
    alone, four = (dict(zip(header, row, strict=True)) for row in (alone, four))
    # 16 pictures in 1 s alone; on four chips in 1.25 s.
    assert (alone["images/s"], alone["efficiency"]) == ("16", "100%")
    assert (four["images/s"], four["efficiency"]) == ("13", "80%")


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e-256", "v5e:2x", "16x16"])
def test_a_slice_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(UsageError, match="such as v5e:16x16.*v4, v5e, v5p, v6e"):
        tpu_slice(name)


def test_what_is_neither_a_tpu_nor_a_gpu_is_refused_with_all_there_are():
    with pytest.raises(
        UsageError, match="rtx4090:1: there are v4, v5e, v5p, v6e, a100, h100, h200"
    ):
        compile_loop.machine("rtx4090:1")


@pytest.mark.parametrize("name", ["h200", "h200:0", "rtx:1", "h200:2x2"])
def test_a_card_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(UsageError, match="such as h200:1 or a100:8.*a100, h100, h200"):
        gpu_host(name)


def test_what_a_gpu_does_not_say_is_left_empty_and_what_does_not_fit_is_refused(monkeypatch):
    config = load(str(pathlib.Path(__file__).parents[1] / "configs" / "smoke.py"))
    where = Slice("h200:1", CARDS["h200"].chip, [None])

    def program(config, where, size=2**30):
        found = SimpleNamespace(
            argument_size_in_bytes=size,
            output_size_in_bytes=size,
            alias_size_in_bytes=size,
            temp_size_in_bytes=2 * size,
        )
        return SimpleNamespace(memory_analysis=lambda: found, as_text=lambda: HLO)

    monkeypatch.setattr(compile_loop, "program", program)
    cells = compile_loop.row(compile_loop.compile_step(config, where)).split(" | ")
    assert cells[1:5] == ["h200:1", "1", "3.00", "131"] and "all-reduce" in cells[6]
    assert [cells[i] for i in (5, 7, 9, 10, 11)] == [""] * 5
    monkeypatch.setattr(compile_loop, "program", partial(program, size=2**36))
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED: h200:1: 192.0 GiB.*has 131.3 GiB"):
        compile_loop.compile_step(config, where)
