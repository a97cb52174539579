"""Forms of the denoiser's attention on a TPU that isn't there, by its compiler's own estimate.

    python benchmarks/tpu_attention.py --topology=v5e:1x1 [--batch_size=512]

One block of `configs/cifar10.py:full_plain` at 16x16: the projection to q, k and v, four heads of
64, forward and backward, in bfloat16 with a float32 softmax. Cycles of a loop's body count as often
as it runs.
"""

from collections.abc import Callable

import figures
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from soda_jax.array_types import Array
from soda_jax.compile import computing_seconds
from soda_jax.tpu_slices import tpu_slice

TOKENS, CHANNELS = 256, 256


def attention(q: Array, k: Array, v: Array) -> Array:
    return jax.nn.dot_product_attention(q, k, v)


def half_scores(q: Array, k: Array, v: Array) -> Array:
    """Scores are written down in bfloat16."""
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    shares = jax.nn.softmax(scores.astype(jnp.float32)).astype(q.dtype)
    return jnp.einsum("bnts,bsnh->btnh", shares, v)


def in_slabs(count: int) -> Callable[[Array, Array, Array], Array]:
    """Slabs of pictures one after another, whose scores are made again in the backward pass."""

    def attend(*heads: Array) -> Array:
        slabs = tuple(x.reshape(count, -1, *x.shape[1:]) for x in heads)
        out = jax.lax.map(lambda slab: jax.checkpoint(attention)(*slab), slabs)
        return out.reshape(heads[0].shape)

    return attend


def main() -> None:
    arguments, _ = figures.parse(figures.parser(__doc__, topology="v5e:1x1", batch_size="512"))
    where, b = tpu_slice(arguments.topology), int(arguments.batch_size)
    whole = NamedSharding(Mesh(np.array(where.devices[:1]), ("data",)), PartitionSpec())
    rows = []
    for name, form, head_size in (
        ("as it is", attention, 64),
        ("heads of 128", attention, 128),
        ("bfloat16 scores", half_scores, 64),
        ("scores made again backward", jax.checkpoint(attention), 64),
        *((f"{b // n} pictures at a time", in_slabs(n), 64) for n in (8, 16, 32, 64)),
    ):

        def loss(x, kernel, form=form, head_size=head_size):
            heads = (x @ kernel).reshape(b, TOKENS, 3, -1, head_size)
            return jnp.square(form(*jnp.moveaxis(heads, 2, 0)).astype(jnp.float32)).sum()

        x, kernel = (
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=whole)
            for shape in ((b, TOKENS, CHANNELS), (CHANNELS, 3 * CHANNELS))
        )
        program = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile()
        milliseconds = 1e3 * computing_seconds(program.as_text(), where)
        memory = program.memory_analysis().temp_size_in_bytes / 2**20
        rows.append({"form": name, "ms": milliseconds, "temporary MiB": memory})
        print(f"| {name} | {milliseconds:.2f} | {memory:.0f} |", flush=True)
    figures.write(rows, arguments.json)


if __name__ == "__main__":
    main()
