"""How few network evaluations draw the same picture: one command, a table out.

    python benchmarks/sampling.py --workdir=runs/digits [--guidance_scale=0.3]

The same codes and the same noise under each sampler, spacing and number of steps; beside it the
distance to the converged solution, DPM-Solver++ with --converged steps, in dB of PSNR over all
pictures, and pictures a second. Under guidance an evaluation is one pass of twice the pictures.
Pictures are uint8, rounded after sampling.
"""

import time

import figures
import jax
import numpy as np

import soda_jax
from soda_jax import experiment

# (sampler, spacing)
SOLVERS = (
    ("ddim", "t"),
    ("ddim", "log_snr"),
    ("heun", "log_snr"),
    ("dpm_solver", "log_snr"),
    ("dpm_solver", "rho"),
    ("ddim", "balanced"),
    ("dpm_solver", "balanced"),
)


def decibels(pictures: np.ndarray, reference: np.ndarray) -> float:
    error = np.square(pictures.astype(np.float64) - reference).mean()
    return 10 * np.log10(255**2 / max(error, 1e-9))


def evaluations_of(sampler: str, steps: int) -> int:
    return 2 * steps - 1 if sampler == "heun" else steps


def benchmark(workdir: str, count: int, evaluations: list[int], converged: int, scale: float):
    model = soda_jax.load(workdir)
    source = experiment.open_data(model.parts, "test")
    z = model.encode(source.images(np.arange(count)))
    options = {"eta": 0.0, "guidance_scale": scale}
    reference = model.decode(
        z, sampler="dpm_solver", spacing="balanced", num_steps=converged, **options
    ).astype(np.float64)
    rows = [("ddim", "t", converged)]
    for sampler, spacing in SOLVERS:
        steps = [number // 2 if sampler == "heun" else number for number in evaluations]
        rows += [(sampler, spacing, number) for number in steps]
    for sampler, spacing, steps in rows:
        options |= {"sampler": sampler, "spacing": spacing, "num_steps": steps}
        pictures = model.decode(z, **options)  # and compiles
        begin = time.perf_counter()
        model.decode(z, **options)
        seconds = time.perf_counter() - begin
        number = evaluations_of(sampler, steps)
        yield sampler, spacing, number, decibels(pictures, reference), count / seconds


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num_images", type=int, default=64)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[6, 8, 12, 25, 50, 100])
    parser.add_argument("--converged", type=int, default=1000)
    parser.add_argument("--guidance_scale", type=float, default=0.0)
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; {arguments.workdir}\n")
    print("| sampler | spacing | evaluations | dB to the converged | pictures/s |")
    print("|---|---|---|---|---|")
    rows = []
    for row in benchmark(
        arguments.workdir,
        arguments.num_images,
        arguments.evaluations,
        arguments.converged,
        arguments.guidance_scale,
    ):
        rows.append(row)
        print("| {} | {} | {} | {:.1f} | {:.1f} |".format(*row), flush=True)
    figures.write(rows, arguments.json)


if __name__ == "__main__":
    main()
