"""A few trials of each fault; `python -m tests.faults.card` makes all of them."""

import os
import re

import pytest

from tests.faults import corrupted, killed, mutated, poisoned


@pytest.fixture(scope="module", autouse=True)
def every_run_compiles_the_same(compilation_cache):
    """Once, where no other test reads it: what is killed may leave half a program there.

    The library that strikes is loaded by every process of a run, and does nothing unasked.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTS_CACHE", f"{compilation_cache}/faults")
        one_device = re.sub(r"--\S*device_count=\d+", "", os.environ["XLA_FLAGS"])
        patch.setenv("FAULTS_XLA_FLAGS", one_device)
        if library := killed.shim():
            patch.setenv("LD_PRELOAD", str(library))
        yield


def check(result, at_least):
    assert not result.failures, "\n".join(result.failures)
    assert result.trials >= at_least


def test_a_step_that_is_nan_changes_nothing(tmp_path):
    check(poisoned.poisoned(5, 1, tmp_path), 5)


def test_configs_are_refused_or_built():
    check(mutated.mutated_configs(60, 1), 60)


def test_files_are_read_or_refused(tmp_path):
    check(mutated.mutated_files(2000, 1, tmp_path), 2000)


def test_killed_at_random_it_ends_in_the_same_bits(tmp_path):
    check(killed.random_kills(2, 1, tmp_path, num_steps=30), 2)


def test_sigterm_saves_and_ends_with_75(tmp_path):
    check(killed.random_terms(2, 1, tmp_path), 2)


@pytest.mark.parametrize("how", [pytest.param("kill", marks=pytest.mark.slow), "enospc"])
def test_struck_in_the_middle_of_a_save(tmp_path, how):
    if "LD_PRELOAD" not in os.environ:
        pytest.skip("needs a C compiler")
    check(killed.struck(how, 80, tmp_path, offset=1 if how == "enospc" else 50), 1)


def test_a_changed_byte_never_becomes_a_weight(tmp_path):
    check(corrupted.corruptions(150, 1, tmp_path), 150)


@pytest.mark.slow
def test_one_of_two_hosts_dies_or_is_asked_to_stop(tmp_path):
    from tests.faults import hosts

    check(hosts.host_kills(1, 1, tmp_path), 1)
    check(hosts.host_terms(2, 1, tmp_path), 2)
