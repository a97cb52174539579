"""Our train step beside a PyTorch twin of the same networks: one run, one card, one table.

    python benchmarks/versus_torch.py --batch_size=256
    python benchmarks/versus_torch.py --batch_size=16 --dtype=float32 --num_steps=1    # a CPU

Ours and PyTorch's take turns, `--rounds` times, each in a process of its own; the medians are
compared; PyTorch's fastest variant is what counts. PyTorch may live in another environment
(--torch_python).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import figures

HERE = pathlib.Path(__file__).parent
VARIANTS = {
    "eager": (),
    "channels_last": ("--channels_last",),
    "compile": ("--compile",),
    "channels_last, compile": ("--channels_last", "--compile"),
    "channels_last, CUDA graphs": ("--channels_last", "--compile=reduce-overhead"),
}


def measure(words: list[str], folder: str) -> dict | None:
    """What a benchmark writes; None where it ends with an error, which is shown."""
    path = pathlib.Path(folder, "figures.json")
    path.unlink(missing_ok=True)
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": card}
    environment["JAX_COMPILATION_CACHE_DIR"] = folder  # the second round compiles nothing
    done = subprocess.run(
        [*words, f"--json={path}"],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{' '.join(words)}: {done.stderr[-1000:]}", file=sys.stderr)
        return None
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--num_steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--json", help="also write every round's figures here")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="with semicolons between")
    arguments = parser.parse_args()
    variants = [name.strip() for name in arguments.variants.split(";") if name.strip()]
    if unknown := [name for name in variants if name not in VARIANTS]:
        parser.error(f"--variants: no {unknown[0]!r}; there are {'; '.join(VARIANTS)}")
    shared = [f"--num_steps={arguments.num_steps}", "--repeats=1"]
    ours = [sys.executable, str(HERE / "train_step.py"), *shared]
    ours += ["--config=configs/cifar10.py:full_plain"]
    ours += [f"--config.train.batch_size={arguments.batch_size}"]
    ours += [f"--config.model.dtype={arguments.dtype}"]
    twin = [arguments.torch_python, str(HERE / "torch_twin.py"), *shared]
    twin += [f"--batch_size={arguments.batch_size}", f"--dtype={arguments.dtype}"]
    commands = {"soda_jax": ours}
    for name in variants:
        commands[f"PyTorch, {name}"] = [*twin, *VARIANTS[name]]

    found = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for name, words in commands.items():
                if (one := measure(words, folder)) is not None:
                    found[name].append(one)
                    print(f"{name}: {one['step_milliseconds']:.0f} ms", file=sys.stderr)
    print(table(found))
    figures.write(found, arguments.json)


def table(found: dict[str, list[dict]]) -> str:
    """Markdown: the median step of each, and how much faster ours is.

    Raises:
      SystemExit: there is nothing to compare, or the networks aren't of one size.
    """
    if not found["soda_jax"] or not any(found[name] for name in found if name != "soda_jax"):
        raise SystemExit("ours, or every variant of PyTorch, ended with an error: no table")
    sizes = {one["parameters"] for ones in found.values() for one in ones}
    if len(sizes) > 1:
        raise SystemExit(f"the networks differ: {sorted(sizes)} parameters")
    steps = {
        name: statistics.median(one["step_milliseconds"] for one in ones)
        for name, ones in found.items()
        if ones
    }
    lines = [
        "| | version | parameters | ms a step | fastest, slowest | images/s | MiB "
        "| PyTorch's time over ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, step in steps.items():
        one = found[name][0]
        version = f"torch {one['torch']}" if "torch" in one else f"jax {one['jax']}"
        memory = f"{one['peak_mebibytes']:.0f}" if one["peak_mebibytes"] else ""
        speed, ratio = 1e3 * one["batch_size"] / step, step / steps["soda_jax"]
        each = sorted(one["step_milliseconds"] for one in found[name])
        lines.append(
            f"| {name} | {version} | {one['parameters']:,} | {step:.0f} | {each[0]:.0f}, "
            f"{each[-1]:.0f} | {speed:.1f} | {memory} | {ratio:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
