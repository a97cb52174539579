import json

import numpy as np
import pytest

from soda_jax.evaluation.few_shot import SINGLE_LABEL_L2, few_label_indices, few_label_probe

LABELS = np.random.default_rng(0).integers(0, 4, 300)
CENTRES = np.random.default_rng(1).normal(size=(4, 12))
FEATURES = (CENTRES[LABELS] + np.random.default_rng(2).normal(size=(300, 12))).astype(np.float32)
DATA = (FEATURES[:200], LABELS[:200], FEATURES[200:], LABELS[200:])


def test_draws_are_stratified_distinct_and_repeatable():
    indices = few_label_indices(LABELS, 7, draw=0)
    assert np.bincount(LABELS[indices]).tolist() == [7, 7, 7, 7]
    assert len(np.unique(indices)) == 28
    np.testing.assert_array_equal(indices, few_label_indices(LABELS, 7, draw=0))
    assert not np.array_equal(indices, few_label_indices(LABELS, 7, draw=1))
    assert not np.array_equal(indices, few_label_indices(LABELS, 7, draw=0, seed=1))


def test_more_labels_contain_fewer():
    assert set(few_label_indices(LABELS, 3, draw=2)) < set(few_label_indices(LABELS, 7, draw=2))


def test_every_example_of_a_class_is_as_likely():
    labels = np.zeros(10, int)
    counts = np.bincount(
        np.concatenate([few_label_indices(labels, 3, draw) for draw in range(1000)]), minlength=10
    )
    assert np.all(np.abs(counts - 300) < 4 * np.sqrt(1000 * 0.3 * 0.7))


def test_only_the_drawn_labels_are_used():
    """Everything outside the draws may be garbage: the scores don't move."""
    result = few_label_probe(*DATA, num_classes=4, labels_per_class=5, draws=2)
    used = np.concatenate([few_label_indices(DATA[1], 5, draw) for draw in range(2)])
    garbage = np.full_like(DATA[0], 1e6)
    garbage[used] = DATA[0][used]
    again = few_label_probe(garbage, *DATA[1:], num_classes=4, labels_per_class=5, draws=2)
    assert again == result


def test_scores_protocol_and_no_choice_by_the_test_set():
    mean, std, protocol = few_label_probe(*DATA, num_classes=4, labels_per_class=5, draws=3)
    assert mean == pytest.approx(np.mean(protocol["accuracies"]))
    assert std == pytest.approx(np.std(protocol["accuracies"], ddof=1))
    assert mean > 0.6
    assert json.loads(json.dumps(protocol)) == protocol

    permuted = np.random.default_rng(0).permutation(DATA[3])
    other = few_label_probe(*DATA[:3], permuted, num_classes=4, labels_per_class=5, draws=3)
    assert other.mean < 0.5
    assert {**other.protocol, "accuracies": protocol["accuracies"]} == protocol


def test_cross_validation_compares_on_examples_that_were_not_fitted():
    """Labels without meaning: fitted examples would be right, held-out ones are at chance."""
    labels = np.random.default_rng(4).permutation(DATA[1])
    result = few_label_probe(DATA[0], labels, *DATA[2:], num_classes=4, labels_per_class=5, draws=5)
    # A best of 7 on 20 examples, so somewhat above 1 in 4.
    assert np.mean(result.protocol["validation_accuracies"]) < 0.5


def test_cross_validation_chooses_a_strong_l2_where_noise_abounds():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(300, 150)).astype(np.float32)
    x = np.concatenate([FEATURES, noise], axis=1)
    data = (x[:200], LABELS[:200], x[200:], LABELS[200:])
    chosen = few_label_probe(
        *data, num_classes=4, labels_per_class=20, draws=1, l2_values=[1e-5, 1.0]
    )
    assert chosen.protocol["l2"] == [1.0]


def test_one_label_a_class_uses_the_fixed_l2():
    result = few_label_probe(*DATA, num_classes=4, labels_per_class=1, draws=1)
    assert result.protocol["l2"] == [SINGLE_LABEL_L2]
    assert result.std == 0
    assert result.mean > 0.3


def test_too_many_labels_are_refused_in_words():
    with pytest.raises(ValueError, match="labels_per_class=500 is too many: class"):
        few_label_indices(LABELS, 500, draw=0)
    with pytest.raises(ValueError, match="at least 1, but is 0"):
        few_label_indices(LABELS, 0, draw=0)
    with pytest.raises(ValueError, match="train_y holds the class 0 alone"):
        few_label_probe(DATA[0], 0 * DATA[1], *DATA[2:], num_classes=4, labels_per_class=5)
