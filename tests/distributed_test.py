import jax
import pytest

from soda_jax import distributed
from soda_jax.exit_codes import UsageError


def test_how_processes_meet():
    by_hand = distributed.parse("10.0.0.1:1234,4,3")
    assert by_hand["coordinator_address"] == "10.0.0.1:1234"
    assert (by_hand["num_processes"], by_hand["process_id"]) == (4, 3)
    assert set(distributed.parse("auto")) == {"initialization_timeout"}
    assert distributed.parse("mpi4py")["cluster_detection_method"] == "mpi4py"


@pytest.mark.parametrize("how", ["", "slurn", "host,2,0", "host:1,2", "host:1,two,0"])
def test_a_word_that_is_none_of_them_is_refused_with_what_is_allowed(how):
    with pytest.raises(UsageError, match="auto .* mpi4py, or ADDRESS:PORT,COUNT,NUMBER"):
        distributed.parse(how)


def test_numbers_begin_at_0():
    with pytest.raises(UsageError, match="the numbers 0 to 1, not 2"):
        distributed.parse("host:1,2,2")


def test_where_nothing_tells_who_the_others_are_it_is_said(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UsageError, match="coordinator_address should be defined.*ADDRESS:PORT"):
        distributed.join("auto")
