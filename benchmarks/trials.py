"""What a change of the recipe is worth: pretrains and probes each trial, one command, a table out.

    python benchmarks/trials.py --folder=runs/trials --config=configs/cifar10.py:cpu \
        --trial=base --trial='muon: optimizer.method=muon' --seeds 0 1 --config.train.num_steps=800

A trial is a name and the fields that it changes, with commas between them (a tuple in brackets).
Words of --config change all trials. Trials that a folder already holds aren't run again.

The accuracy is that of the linear probe's own validation: a tenth of the training split, which
chooses its L2. What the probe reaches on the test split stays in the run's folder.
"""

import json
import pathlib
import re
import subprocess
import sys
import time

import figures

from soda_jax.config_schema import differences, load, recall

COLUMNS = ("seed", "pictures", "minutes", "z", "pooled", "loss", "null z", "shuffled z", "rank")
TABLE = "| {:<28} |" + " {:>10} |" * len(COLUMNS)


def main() -> None:
    parser = figures.parser(__doc__, config="configs/cifar10.py:cpu", folder="runs/trials")
    parser.add_argument("--trial", action="append", required=True, dest="trials")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments, words = figures.parse(parser)
    rows = []
    print(TABLE.format("trial", *COLUMNS), flush=True)
    print("|" + "---|" * (len(COLUMNS) + 1), flush=True)
    for trial in arguments.trials:
        name, _, changes = (part.strip() for part in trial.partition(":"))
        fields = re.findall(r"[^,\s(]+=(?:\([^)]*\)|[^,])*", changes)
        overrides = words + [f"--config.{field.strip()}" for field in fields]
        for seed in arguments.seeds:
            workdir = pathlib.Path(arguments.folder) / f"{name.replace(' ', '_')}-{seed}"
            found = measure(workdir, arguments.config, [*overrides, f"--config.seed={seed}"])
            rows.append({"trial": name, "changes": fields, "seed": seed} | found)
            cells = [cell(rows[-1].get(column)) for column in COLUMNS]
            print(TABLE.format(name, *cells), flush=True)
            figures.write(rows, arguments.json)


def measure(workdir: pathlib.Path, config: str, overrides: list[str]) -> dict:
    """One trial: pictures seen, minutes of training, accuracies in percent, losses."""
    kept = workdir / "trial.json"
    if kept.exists():
        # Its words don't tell: what a preset stands for changes.
        if other := differences(recall(str(workdir)), load(config, overrides)):
            sys.exit(f"{workdir} is of another config ({'; '.join(other)}); choose another name")
        return json.loads(kept.read_text())
    begin = time.monotonic()
    run("pretrain", f"--config={config}", f"--workdir={workdir}", *overrides)
    minutes = (time.monotonic() - begin) / 60
    run(
        "probe",
        f"--workdir={workdir}",
        "--config.probe.baselines=False",
        "--config.probe.protocols=('lbfgs',)",
        "--config.probe.labels_per_class=()",
    )
    (table,) = (workdir / "probe").glob("*.json")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    last = {key: value for line in lines for key, value in line.items()}
    saved = json.loads((workdir / "config.json").read_text())
    found = {
        "pictures": last["step"] * saved["train"]["batch_size"],
        "minutes": minutes,
        "loss": last.get("loss_with_code/z"),
        "null z": last.get("loss_with_code/null"),
        "shuffled z": last.get("loss_with_code/shuffled"),
        "rank": last.get("effective_rank"),
    }
    for row in json.loads(table.read_text()):
        found[row["representation"]] = 100 * max(row["protocol"]["validation_accuracies"])
    kept.write_text(json.dumps(found))
    return found


def run(*words: str) -> None:
    """`python -m soda_jax WORDS`; what it says is shown only where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "soda_jax", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")


def cell(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value < 1 else f"{value:.2f}"


if __name__ == "__main__":
    main()
