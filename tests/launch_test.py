"""Launch scripts against stubs of the commands of a cluster, which write down their calls."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RUN = ("--config=configs/smoke.py", "--workdir=/runs/a b")
POD = {"NAME": "soda", "ZONE": "us-west4-a", "TYPE": "v5litepod-8"}
GKE = {
    "NAME": "soda", "IMAGE": "registry/soda:1", "TPU": "tpu-v5-lite-podslice", "TOPOLOGY": "4x4",
    "HOSTS": "4", "CHIPS": "4", "CLAIM": "runs",
}  # fmt: skip


@pytest.fixture
def launch(tmp_path):
    """launch(script, words, environment, **stubs): name -> what the stub does, in bash."""

    def run(script, words=RUN, environment=None, **stubs):
        folder = tmp_path / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, body in stubs.items():
            stub = folder / name.replace("_", "-")
            stub.write_text(f'#!/bin/bash\necho "{name} $*" >>"{tmp_path}/calls"\n{body}\n')
            stub.chmod(0o755)
        (tmp_path / "calls").write_text("")
        found = subprocess.run(
            ["bash", str(ROOT / "launch" / script), *words],
            env={"PATH": f"{folder}:/usr/bin:/bin", "WAIT": "0", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return found, (tmp_path / "calls").read_text()

    return run


@pytest.mark.parametrize(
    ("script", "environment"),
    [("gpu.sh", {}), ("slurm.sbatch", {}), ("tpu_pod.sh", POD), ("gke.sh", GKE)],
)
def test_a_dry_run_prints_and_calls_nothing(launch, script, environment):
    gpus = "echo 'GPU 0'; echo 'GPU 1'"
    found, calls = launch(
        script, ("--dry_run", *RUN), environment, nvidia_smi=gpus, gcloud="", kubectl="", srun=""
    )
    assert found.returncode == 0, found.stderr
    assert "soda_jax" in found.stdout and "configs/smoke.py" in found.stdout
    assert "gcloud " not in calls and "kubectl" not in calls and "srun" not in calls
    assert "--dry_run" not in found.stdout
    if script != "gpu.sh":
        assert "distributed=auto" in found.stdout


@pytest.mark.parametrize(
    ("script", "words", "environment", "said"),
    [
        ("gpu.sh", RUN[:1], {}, "--workdir=... is missing"),
        ("gpu.sh", RUN, {"GPUS": "8"}, "GPUS=8, but this machine has 2"),
        ("gpu.sh", RUN, {"CUDA": "11"}, "CUDA=11: 12 or 13"),
        ("gpu.sh", RUN, {"THEN": "probe pretrain"}, "THEN: 'pretrain' is none of probe"),
        ("slurm.sbatch", RUN, {}, "this is for sbatch"),
        (
            "slurm.sbatch",
            ("--dry_run", *RUN),
            {"GPUS": "16", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"},
            "GPUS=16, but 2 nodes of 4 have 8",
        ),
        ("tpu_pod.sh", RUN, {"NAME": "soda"}, "ZONE is not set"),
        ("tpu_pod.sh", RUN, {"NAME": "soda", "ZONE": "z"}, "TYPE is not set"),
        ("tpu_pod.sh", RUN, POD | {"TYPE": "v9-8"}, "TYPE=v9-8: one of v4-N"),
        ("tpu_pod.sh", (RUN[0], "--workdir=runs/a"), POD, "--workdir=runs/a: must be the absolute"),
        (
            "gke.sh",
            (RUN[0], "--workdir=/mnt/a"),
            GKE,
            "--workdir=/mnt/a: only what lies under /runs",
        ),
        ("gke.sh", RUN, GKE | {"CLAIM": ""}, "CLAIM is not set"),
        ("gke.sh", RUN, GKE | {"HOSTS": "2"}, "are 8 chips, but 4x4 are 16"),
        ("gke.sh", RUN, GKE | {"TOPOLOGY": "4x"}, "CHIPS=4 each are 16 chips, but 4x are 4"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said(launch, script, words, environment, said):
    found, _ = launch(script, words, environment, nvidia_smi="echo a; echo b", gcloud="exit 1")
    assert found.returncode == 1 and said in found.stderr, found.stderr
    assert "error:" in found.stderr


@pytest.fixture
def python(tmp_path):
    """A Python that makes environments of itself, and writes down what it runs of soda_jax."""
    stub = tmp_path / "python"
    stub.write_text(f"""#!/bin/bash
    case "$*" in
      *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
      *"-m soda_jax"*)
        echo "$3" "${{@: -1}}" >>{tmp_path}/calls
        [[ $3 != pretrain ]] || exit $PRETRAIN_ENDS ;;
    esac""")
    stub.chmod(0o755)
    return str(stub)


def test_an_environment_is_made_anew_where_another_is_wanted(tmp_path, python):
    (tmp_path / "setup.py").touch()
    made = []
    for what in (".", ".[cuda13]", ".[cuda13]", ".[cuda12]"):
        script = f"source {ROOT}/launch/environment.sh; make_environment .venv '{what}'"
        found = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHON": python},
            capture_output=True,
            text=True,
        )
        assert (found.returncode, found.stdout) == (0, ".venv/bin/python\n"), found.stderr
        made.append("making .venv" in found.stderr)
    assert made == [True, True, False, True]


@pytest.mark.parametrize(
    ("code", "done"), [(0, ["pretrain", "probe", "report"]), (65, ["pretrain"])]
)
def test_a_run_that_has_ended_is_probed_and_reported(tmp_path, python, code, done):
    """In a copy of the scripts, so that the environment is made there."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "setup.py").touch()
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/bash\necho GPU 0\n")
    smi.chmod(0o755)
    then = {"THEN": "probe report", "PRETRAIN_ENDS": str(code)}
    found = subprocess.run(
        ["bash", str(tmp_path / "launch" / "gpu.sh"), *RUN],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": python, **then},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == code, found.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"{command} --workdir=/runs/a b" for command in done]


def test_a_slice_is_made_checked_and_started_on_every_worker(launch, tmp_path):
    """describe finds nothing until create was called."""
    gcloud = f"""
    case "$*" in
      *describe*) [ -f {tmp_path}/made ] && echo READY ;;
      *create*) touch {tmp_path}/made ;;
    esac"""
    found, calls = launch("tpu_pod.sh", RUN, POD, gcloud=gcloud)
    assert found.returncode == 0, found.stderr
    order = [calls.index(word) for word in ("create soda", "scp", "uv venv", "== 8", "pretrain")]
    assert order == sorted(order)
    assert "--accelerator-type=v5litepod-8" in calls and "--version=v2-alpha-tpuv5-lite" in calls
    assert r"--workdir=/runs/a\ b" in calls and calls.count("--worker=all") == 4
    cache = {"JAX_COMPILATION_CACHE_DIR": "/runs/x la"}
    found, calls = launch("tpu_pod.sh", RUN, POD | cache, gcloud=gcloud)
    assert "create" not in calls and "taking soda" in found.stderr
    start = calls[calls.index("set -o pipefail") : calls.index("-m soda_jax pretrain")]
    assert r"export JAX_COMPILATION_CACHE_DIR=/runs/x\ la" in start


def test_a_slice_that_is_taken_away_is_made_again_and_the_run_goes_on(launch, tmp_path):
    gcloud = f"""
    case "$*" in
      *describe*) cat {tmp_path}/state 2>/dev/null ;;
      *delete*) rm {tmp_path}/state ;;
      *create*) echo READY >{tmp_path}/state ;;
      *pretrain*) [ -f {tmp_path}/once ] || {{
        touch {tmp_path}/once; echo PREEMPTED >{tmp_path}/state; exit 1; }} ;;
    esac"""
    found, calls = launch("tpu_pod.sh", RUN, POD, gcloud=gcloud)
    assert found.returncode == 0, found.stderr
    assert calls.count("create soda") == 2 and calls.count("delete soda") == 1
    assert calls.count("pretrain") == 2
    # On a slice that stands, a run that fails isn't started again.
    failing = "case $* in *describe*) echo READY ;; *pretrain*) exit 1 ;; esac"
    found, calls = launch("tpu_pod.sh", RUN, POD, gcloud=failing)
    assert found.returncode == 1 and calls.count("pretrain") == 1


@pytest.mark.parametrize(("code", "starts"), [(0, 1), (78, 1), (75, 3), (137, 3), (130, 1)])
def test_again_is_for_what_the_machine_ended(tmp_path, code, starts):
    script = f"""
    source {ROOT}/launch/environment.sh
    run() {{ echo start; return {code}; }}
    again 2 run"""
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert found.returncode == code and found.stdout.count("start") == starts


def test_a_request_that_came_to_nothing_is_made_anew(launch, tmp_path):
    """A request is taken away with its slice, and outlives it; one that waits is waited for."""
    queued = POD | {"QUEUED": "1"}
    gcloud = f"""
    case "$*" in
      *queued-resources*describe*) cat {tmp_path}/request 2>/dev/null ;;
      *describe*) cat {tmp_path}/state 2>/dev/null ;;
      *queued-resources*delete*--force*) rm {tmp_path}/request; rm -f {tmp_path}/state ;;
      *queued-resources*create*)
        [ ! -f {tmp_path}/request ] || exit 1
        echo ACTIVE >{tmp_path}/request; echo READY >{tmp_path}/state ;;
    esac"""
    for state, request in (("PREEMPTED", "SUSPENDED"), ("", "FAILED"), ("", "SUSPENDED")):
        (tmp_path / "state").write_text(state)
        (tmp_path / "request").write_text(request)
        found, calls = launch("tpu_pod.sh", RUN, queued, gcloud=gcloud)
        assert found.returncode == 0, found.stderr
        assert calls.count("delete soda") == calls.count("create soda") == 1
        assert calls.count("pretrain") == 1
    (tmp_path / "state").write_text("")
    (tmp_path / "request").write_text("WAITING_FOR_RESOURCES")
    late = f'[[ "$*" != *describe* ]] || echo "$$" >>{tmp_path}/asked\n' + gcloud.replace(
        f"*describe*) cat {tmp_path}/state",
        f"*describe*) [ $(wc -l <{tmp_path}/asked) -lt 5 ] || echo READY >{tmp_path}/state; "
        f"cat {tmp_path}/state",
    )
    found, calls = launch("tpu_pod.sh", RUN, queued, gcloud=late)
    assert found.returncode == 0, found.stderr
    assert "waiting for soda (WAITING_FOR_RESOURCES)" in found.stderr
    assert "create soda" not in calls and calls.count("pretrain") == 1


def test_a_stopped_slice_is_started_and_a_run_is_stopped_by_name(launch, tmp_path):
    (tmp_path / "state").write_text("STOPPED")
    gcloud = f"""
    case "$*" in
      *describe*) cat {tmp_path}/state ;;
      *" start "*) echo READY >{tmp_path}/state ;;
    esac"""
    found, calls = launch("tpu_pod.sh", RUN, POD, gcloud=gcloud)
    assert found.returncode == 0, found.stderr
    assert "tpu-vm start soda" in calls and "delete" not in calls and "create" not in calls
    found, calls = launch("tpu_pod.sh", ("--stop",), POD, gcloud=gcloud)
    assert found.returncode == 0 and "pkill -TERM" in calls and "delete" not in calls


@pytest.mark.parametrize(
    ("ends", "srun_ends", "restarts", "requeued"),
    [
        (0, 0, 0, False),
        (75, 75, 0, True),
        (75, 75, 3, False),  # often enough
        (78, 143, 0, False),  # the others were ended by a signal, of which srun tells
        (137, 137, 0, True),
    ],
)
def test_a_job_is_queued_again_for_what_the_machines_ended(
    tmp_path, python, ends, srun_ends, restarts, requeued
):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "setup.py").touch()
    stubs = {
        "srun": f'while [[ $1 == --* ]]; do shift; done; "$@"; exit {srun_ends}',
        "scontrol": f'echo "$*" >>{tmp_path}/calls',
    }
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    counted = {"SLURM_RESTART_COUNT": str(restarts), "SLURM_SUBMIT_DIR": str(tmp_path)}
    found = subprocess.run(
        ["bash", str(tmp_path / "launch" / "slurm.sbatch"), *RUN],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": python, "PRETRAIN_ENDS": str(ends)}
        | slurm
        | counted,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == ends, found.stderr
    calls = (tmp_path / "calls").read_text()
    assert ("requeue 7" in calls) == requeued and "pretrain --workdir=/runs/a b" in calls
    assert not list(tmp_path.glob(".slurm-*"))


def test_the_job_set_holds_the_words_as_they_were_given(launch):
    yaml = pytest.importorskip("yaml")
    words = ("--dry_run", *RUN, '--config.name="x"')
    found, _ = launch("gke.sh", words, GKE)
    job = yaml.safe_load(found.stdout)
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert pod["parallelism"] == pod["completions"] == 4
    (container,) = pod["template"]["spec"]["containers"]
    assert container["args"] == [*RUN, '--config.name="x"']
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/runs/xla"} in container["env"]
    # What JobSet isn't told to fail it starts again.
    (fails,), (stays,) = job["spec"]["failurePolicy"]["rules"], pod["podFailurePolicy"]["rules"]
    assert fails == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert stays["action"] == "FailJob" and not {74, 75} & set(stays["onExitCodes"]["values"])


def test_shellcheck_is_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck isn't installed")
    scripts = [*(ROOT / "launch").glob("*.sh"), ROOT / "launch" / "slurm.sbatch"]
    found = subprocess.run(
        ["shellcheck", "-x", *map(str, scripts)], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout
