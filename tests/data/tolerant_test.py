import numpy as np
import pytest

from soda_jax.data import pipeline
from soda_jax.data.tolerant import Tolerant

UNREADABLE = (3, 4, 9)


class Damaged:
    """Ten pictures, each of its own number."""

    image_shape = (2, 2, 1)

    def __len__(self):
        return 10

    def images(self, indices):
        for index in indices:
            if index in UNREADABLE:
                raise ValueError(f"picture {index}: damaged")
        return np.broadcast_to(
            np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), 2, 2, 1)
        )


def batches(start_step: int, count: int, most: int = 3) -> np.ndarray:
    with pipeline.host_batches(
        Tolerant(Damaged(), most),
        lambda array: array,
        order=lambda step: pipeline.batch_indices(0, step, 4, 10),
        batch_size=4,
        start_step=start_step,
    ) as found:
        return np.stack([next(found)[:, 0, 0, 0] for _ in range(count)])


def test_the_next_readable_one_takes_its_place(capsys):
    tolerant = Tolerant(Damaged(), 3)
    assert tolerant.images(np.array([2, 3, 4, 9]))[:, 0, 0, 0].tolist() == [2, 5, 5, 0]
    tolerant.images(np.array([3, 3]))
    assert capsys.readouterr().err.count("left out: picture 3: damaged") == 1


def test_one_too_many_is_raised_as_it_is():
    tolerant = Tolerant(Damaged(), 2)
    tolerant.images(np.array([3]))  # and so 4
    with pytest.raises(ValueError, match="picture 9: damaged"):
        tolerant.images(np.array([9]))
    with pytest.raises(ValueError, match="damaged"):
        batches(0, 5, most=0)


def test_a_resumed_run_sees_the_same_batches():
    np.testing.assert_array_equal(batches(0, 10)[4:], batches(4, 6))
