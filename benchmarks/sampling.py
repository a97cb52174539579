"""How few network evaluations draw the same picture: one command, a table out.

    python benchmarks/sampling.py --workdir=runs/digits [--guidance_scale=0.3]

The same codes and the same noise under each sampler, spacing and number of steps; beside it the
distance to the converged solution, UniPC with --converged steps, in dB of PSNR over all
pictures, and pictures a second. Under guidance an evaluation is one pass of twice the pictures, and
a second table says what is left of it where only the t of an interval are guided, with as many
evaluations as the longest row above: the cosine between the code that was given and the code of the
picture that came out. Pictures are uint8, rounded after sampling.
"""

import statistics
import time
from collections.abc import Iterator

import figures
import jax
import numpy as np

import soda_jax
from soda_jax import experiment
from soda_jax.pretrained import Pretrained

# (sampler, spacing)
SOLVERS = (
    ("ddim", "t"),
    ("ddim", "log_snr"),
    ("heun", "log_snr"),
    ("dpm_solver", "log_snr"),
    ("dpm_solver", "rho"),
    ("ddim", "balanced"),
    ("dpm_solver", "balanced"),
    ("unipc", "log_snr"),
    ("unipc", "balanced"),
)
BEST = {
    "sampler": "unipc",
    "spacing": "balanced",
    "eta": 0.0,
    "guidance_interval": (0.0, 1.0),
}
CALLS = 5  # of which the median counts
# of t; the last guides nothing
INTERVALS = ((0.0, 1.0), (0.0, 0.75), (0.25, 1.0), (0.0, 0.5), (0.25, 0.75), (0.5, 1.0), (0.0, 0.0))


def decibels(pictures: np.ndarray, reference: np.ndarray) -> float:
    error = np.square(pictures.astype(np.float64) - reference).mean()
    return 10 * np.log10(255**2 / max(error, 1e-9))


def evaluations_of(sampler: str, steps: int) -> int:
    return 2 * steps - 1 if sampler == "heun" else steps


def timed(model: Pretrained, z: np.ndarray, options: dict) -> tuple[np.ndarray, float]:
    """Pictures, and how many are drawn in a second once the sampler is compiled."""
    pictures = model.decode(z, **options)
    seconds = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        model.decode(z, **options)
        seconds.append(time.perf_counter() - begin)
    return pictures, len(z) / statistics.median(seconds)


def solvers(
    model: Pretrained,
    z: np.ndarray,
    reference: np.ndarray,
    evaluations: list[int],
    converged: int,
    scale: float,
) -> Iterator[tuple]:
    rows = [("ddim", "t", converged)]
    for sampler, spacing in SOLVERS:
        steps = [number // 2 if sampler == "heun" else number for number in evaluations]
        rows += [(sampler, spacing, number) for number in steps]
    for sampler, spacing, steps in rows:
        options = BEST | {"sampler": sampler, "spacing": spacing, "num_steps": steps}
        pictures, rate = timed(model, z, options | {"guidance_scale": scale})
        number = evaluations_of(sampler, steps)
        yield sampler, spacing, number, decibels(pictures, reference), rate


def guidance(
    model: Pretrained, z: np.ndarray, reference: np.ndarray, steps: int, scale: float
) -> Iterator[tuple]:
    def normalised(codes: np.ndarray) -> np.ndarray:
        return codes / np.linalg.norm(codes, axis=1, keepdims=True)

    for low, high in INTERVALS:
        guided = {"guidance_scale": scale, "guidance_interval": (low, high)}
        pictures, rate = timed(model, z, BEST | guided | {"num_steps": steps})
        cosine = (normalised(z) * normalised(model.encode(pictures))).sum(1).mean()
        yield low, high, decibels(pictures, reference), cosine, rate


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num_images", type=int, default=64)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[6, 8, 12, 25, 50, 100])
    parser.add_argument("--converged", type=int, default=1000)
    parser.add_argument("--guidance_scale", type=float, default=0.0)
    arguments = parser.parse_args()
    model = soda_jax.load(arguments.workdir)
    source = experiment.open_data(model.parts, "test")
    z = model.encode(source.images(np.arange(arguments.num_images)))
    converged, scale = arguments.converged, arguments.guidance_scale
    reference = model.decode(z, **BEST, num_steps=converged, guidance_scale=scale)
    reference = reference.astype(np.float64)

    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; {arguments.workdir}\n")
    print("| sampler | spacing | evaluations | dB to the converged | pictures/s |")
    print("|---|---|---|---|---|")
    rows = []
    for row in solvers(model, z, reference, arguments.evaluations, converged, scale):
        rows.append(row)
        print("| {} | {} | {} | {:.1f} | {:.1f} |".format(*row), flush=True)
    if scale:
        steps = max(arguments.evaluations)
        print(f"\nguidance {scale:g} on an interval of t, {steps} evaluations\n")
        print("| from | to | dB to the converged | cosine with z | pictures/s |")
        print("|---|---|---|---|---|")
        for row in guidance(model, z, reference, steps, scale):
            rows.append(row)
            print("| {:g} | {:g} | {:.1f} | {:.4f} | {:.1f} |".format(*row), flush=True)
    figures.write(rows, arguments.json)


if __name__ == "__main__":
    main()
