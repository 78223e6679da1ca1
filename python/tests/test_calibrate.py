"""`vaplan.calibrate` against a search over all thresholds."""

import numpy as np
import pytest

import vaplan


@pytest.fixture
def sample():
    generator = np.random.default_rng(8)
    truth = generator.random((12, 6, 3)) < 0.4
    scores = truth * 0.4 + generator.random((12, 6, 3))
    weak = truth.any(1)
    return scores, weak, truth


def f_score(scores, weak, truth, threshold):
    labels = (scores > threshold) & weak[:, None, :]
    nothing = np.zeros_like(labels)
    return vaplan.evaluate(nothing, labels, nothing, truth)["segment"]["visual"]


def test_no_other_threshold_is_better(sample):
    found = vaplan.calibrate(*sample, folds=4)
    best = max(f_score(*sample, threshold) for threshold in [-1, *np.unique(sample[0])])
    assert found.in_sample["visual"] == pytest.approx(best)
    assert f_score(*sample, found.threshold) == pytest.approx(best)
    assert 0 < found.held_out["visual"] <= 100


def test_thresholds_per_class_are_at_least_as_good(sample):
    one, each = vaplan.calibrate(*sample), vaplan.calibrate(*sample, per_class=True)
    assert each.threshold.shape == (3,)
    assert each.in_sample["visual"] >= one.in_sample["visual"]
    assert f_score(*sample, each.threshold) == pytest.approx(each.in_sample["visual"])


def test_both_modalities_have_a_threshold_each(sample):
    scores, weak, truth = sample
    given = {"audio": scores[:, ::-1], "visual": scores}, weak, {"audio": truth[:, ::-1], "visual": truth}
    found = vaplan.calibrate(*given, metric="type-av")
    assert set(found.threshold) == {"audio", "visual"} and "type_av" in found.in_sample
    own = vaplan.calibrate(*given)
    assert own.threshold["visual"] == vaplan.calibrate(*sample).threshold


def test_held_out_is_the_score_with_thresholds_of_the_other_folds(sample):
    scores, weak, truth = sample
    labels = np.zeros_like(truth)
    for fold in range(4):
        own = np.arange(len(scores)) % 4 == fold
        threshold = vaplan.calibrate(scores[~own], weak[~own], truth[~own], folds=2).threshold
        labels[own] = (scores[own] > threshold) & weak[own][:, None]
    nothing = np.zeros_like(labels)
    expected = vaplan.evaluate(nothing, labels, nothing, truth)["segment"]["visual"]
    assert vaplan.calibrate(*sample, folds=4).held_out["visual"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": np.zeros((12, 6))}, ValueError, "scores has shape (12, 6), expected (N, T, C)"),
        ({"scores": "x"}, TypeError, "scores is of type str, expected an array"),
        ({"truth": np.zeros((12, 6, 2))}, ValueError, "truth has shape (12, 6, 2), expected (12, 6, 3), the shape of scores"),
        ({"truth": np.full((12, 6, 3), 2)}, ValueError, "truth[0, 0, 0] is 2, expected 0 or 1"),
        ({"weak": np.zeros((12, 2))}, ValueError, "weak has shape (12, 2), expected (12, 3): videos, classes of scores"),
        ({"weak": np.full((12, 3), 0.5)}, ValueError, "weak[0, 0] is 0.5, expected 0 or 1"),
        ({"weak": {"v": np.zeros(3)}}, TypeError, "weak is a dict and scores is an array, expected two arrays or two dicts"),
        ({"folds": "5"}, ValueError, "folds is '5', expected a whole number from 2 to 12, the number of videos"),
        ({"folds": True}, ValueError, "folds is True, expected a whole number from 2 to 12, the number of videos"),
        ({"scores": {"audio": np.zeros((1, 2, 3))}}, ValueError, "truth has other keys than scores, expected a dict with 'audio'"),
        ({"scores": {}}, ValueError, "scores is an empty dict, expected at least one video"),
    ],
)
def test_a_bad_argument_is_named(sample, change, error, message):
    with pytest.raises(error) as raised:
        vaplan.calibrate(**{**dict(zip(("scores", "weak", "truth"), sample)), **change})
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds is 1, expected a whole number from 2 to 12, the number of videos"),
        ({"folds": 13}, "folds is 13, expected a whole number from 2 to 12, the number of videos"),
        ({"metric": "type-av"}, "metric is 'type-av', which needs scores of both modalities, expected 'own'"),
        ({"metric": "x"}, "metric is 'x', expected one of 'own', 'audio-visual', 'type-av', 'event-av'"),
    ],
)
def test_a_bad_option_is_named(sample, options, message):
    with pytest.raises(ValueError) as raised:
        vaplan.calibrate(*sample, **options)
    assert str(raised.value) == message


def test_a_bad_value_is_named(sample):
    scores, weak, truth = sample
    scores[3, 2, 1] = np.inf
    with pytest.raises(ValueError, match=r"^scores\[3, 2, 1\] is inf, expected a finite number$"):
        vaplan.calibrate(scores, weak, truth)
