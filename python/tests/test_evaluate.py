"""`vaplan.evaluate` against golden numbers of the public evaluator, and against plain numpy."""

import json
import threading
import time

import numpy as np
import pytest
import reference

import vaplan

LEVELS = ("segment", "event")
PREDICTIONS = ("video_label_repeated", "nothing", "truth_in_label", "noisy", "noisy_unfiltered")


def close(found, expected):
    for level in LEVELS:
        assert found[level].keys() == expected[level].keys()
        for name, value in expected[level].items():
            assert found[level][name] == pytest.approx(value, abs=1e-9), (level, name)


def random_bits(seed, shape, share=0.3):
    return np.random.default_rng(seed).random(shape) < share


@pytest.fixture
def four():
    return [random_bits(seed, (7, 10, 4)) for seed in range(4)]


def truth(shared, split):
    """Names, and truth (2, N, 10, 25) of the videos of a split, read in the plainest way."""
    names = (shared / f"golden/eval/{split}_videos.txt").read_text().split()
    classes = (shared / "golden/eval/classes.txt").read_text().splitlines()
    bits = np.zeros((2, len(names), 10, 25), bool)
    place = {name: nth for nth, name in enumerate(names)}
    for modality, kind in enumerate(("audio", "visual")):
        for line in (shared / f"llp/AVVP_eval_{kind}.csv").read_text().splitlines()[1:]:
            name, onset, offset, label = line.strip().split("\t")
            if name in place:
                bits[modality, place[name], int(onset) : int(offset), classes.index(label)] = True
    return names, bits


def golden(shared, split, name):
    packed = np.load(shared / f"golden/eval/{split}_{name}.npy")
    return np.unpackbits(packed, axis=-1)[..., :25].transpose(1, 0, 2, 3)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("split", ["val", "test"])
def test_golden_predictions_have_the_public_scores(shared, split, name):
    expected = json.loads((shared / "golden/expected.json").read_text())["metric"][f"{split}_{name}"]
    names, true = truth(shared, split)
    pred = golden(shared, split, name)
    close(vaplan.evaluate(*pred, *true), expected)
    by_name = {kind: dict(zip(names, pred[nth])) for nth, kind in enumerate(("audio", "visual"))}
    found = vaplan.evaluate_llp(by_name, shared / "llp", split)
    close(found, expected)
    assert found["videos"] == len(names) and found["missing"] == []


@pytest.mark.parametrize("shape", [(5, 10, 25), (3, 1, 1), (2, 70, 3), (4, 130, 2)])
def test_random_labels_have_the_scores_of_plain_numpy(shape):
    for seed in range(5):
        arrays = [random_bits(10 * seed + nth, shape, 0.1 + 0.2 * nth) for nth in range(4)]
        close(vaplan.evaluate(*arrays), reference.evaluate(*arrays))


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i2"])
def test_every_numeric_type_gives_the_same_scores(four, dtype):
    assert vaplan.evaluate(*[own.astype(dtype) for own in four]) == vaplan.evaluate(*four)


def test_views_in_any_order_give_the_same_scores(four):
    flipped = [own[::-1, ::-1].transpose(2, 0, 1).copy().transpose(1, 2, 0)[::-1, ::-1] for own in four]
    assert not flipped[0].flags.c_contiguous
    assert vaplan.evaluate(*flipped) == vaplan.evaluate(*four)
    frozen = [own.copy() for own in four]
    for own in frozen:
        own.flags.writeable = False
    assert vaplan.evaluate(*frozen) == vaplan.evaluate(*four)


def test_dicts_of_videos_of_any_length_are_taken_by_name(four):
    lengths = [10, 3, 7, 1, 10, 5, 2]
    dicts = [{f"v{n}": own[n, : lengths[n]] for n in range(7)} for own in four]
    dicts[2] = dict(reversed(dicts[2].items()))
    videos = [reference.evaluate(*[own[n : n + 1, : lengths[n]] for own in four]) for n in range(7)]
    mean = {
        level: {name: np.mean([video[level][name] for video in videos]) for name in videos[0][level]} for level in LEVELS
    }
    close(vaplan.evaluate(*dicts), mean)


def test_protocols_make_labels_of_probabilities():
    generator = np.random.default_rng(1)
    audio, visual = generator.random((2, 6, 10, 5)).astype(np.float32)
    true = [random_bits(seed, (6, 10, 5)) for seed in (5, 6)]
    whole, of_audio, of_visual = generator.random((3, 6, 5))
    audio[0, 0, 0], whole[0, 0] = 0.5, 0.5

    def fused(part, over):
        return (part >= 0.5) & (over[:, None, :] >= 0.5)

    cases = [
        ({"protocol": "segment"}, [audio >= 0.5, visual >= 0.5]),
        ({"protocol": "fused", "video_prob": whole}, [fused(audio, whole), fused(visual, whole)]),
        (
            {"protocol": "own", "audio_prob": of_audio, "visual_prob": of_visual},
            [fused(audio, of_audio), fused(visual, of_visual)],
        ),
    ]
    for options, expected in cases:
        assert vaplan.evaluate(audio, visual, *true, **options) == vaplan.evaluate(*expected, *true)


def test_level_and_classes_are_chosen(four):
    assert list(vaplan.evaluate(*four, level="event")) == ["event"]
    found = vaplan.evaluate(*four, per_class=True)["per_class"]
    pred, _, true, _ = four
    counts = [(pred & true).sum((0, 1)), (pred & ~true).sum((0, 1)), (~pred & true).sum((0, 1))]
    assert found["audio"] == pytest.approx(100 * 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]))
    empty = [np.zeros((1, 2, 1), bool)] * 4
    assert np.isnan(vaplan.evaluate(*empty, per_class=True)["per_class"]["visual"][0])


class OnGpu:
    """An object that says that its memory is on a CUDA device."""

    device = "cuda:0"

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        raise AssertionError("must not be asked")


class Failing:
    """An object whose own code fails."""

    def __array__(self, *arguments, **options):
        raise KeyError("own")


class Pinned:
    """Memory of the processor that is pinned for CUDA, as `tensor.pin_memory()` makes it."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (3, 0)

    def __dlpack__(self, **_):
        raise AssertionError("must not be asked")

    def __array__(self, *arguments, **options):
        return np.asarray(self.array)


class OnlyDlpack:
    """An array that has the DLPack protocol and no other."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


def test_contiguous_arguments_cross_without_a_copy(four):
    from vaplan._arrays import numeric, videos

    for dtype in (bool, np.uint8, np.int64, np.float32, np.float64):
        argument = np.ascontiguousarray(four[0], dtype=dtype)
        address = argument.__array_interface__["data"][0]
        assert numeric(argument, "audio_pred").__array_interface__["data"][0] == address
        # The flat rows that the native function gets are the memory of the caller.
        assert videos(argument, "audio_pred").rows.__array_interface__["data"][0] == address
    copied = videos(four[0].transpose(0, 2, 1), "audio_pred").rows
    assert not np.shares_memory(copied, four[0]), "another order is copied once"


def test_an_object_with_dlpack_only_is_read(four):
    numbers = [own.astype(np.float32) for own in four]
    assert vaplan.evaluate(*map(OnlyDlpack, numbers)) == vaplan.evaluate(*four)


def changed(array, place, value):
    array = array.astype(float)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        (0, lambda a: changed(a, (3, 2, 1), np.nan), ValueError, "audio_pred[3, 2, 1] is nan, expected 0 or 1"),
        (1, lambda a: changed(a, (0, 9, 3), 2), ValueError, "visual_pred[0, 9, 3] is 2, expected 0 or 1"),
        (2, lambda a: changed(a, (6, 0, 0), -np.inf), ValueError, "audio_true[6, 0, 0] is -inf, expected 0 or 1"),
        (3, lambda a: changed(a, (1, 1, 1), 0.5), ValueError, "visual_true[1, 1, 1] is 0.5, expected 0 or 1"),
        (0, lambda a: a[0], ValueError, "audio_pred has shape (10, 4), expected (N, T, C): videos, segments, classes"),
        (0, lambda a: a[:0], ValueError, "audio_pred has shape (0, 10, 4), expected at least one video and one class"),
        (0, lambda a: a[..., :0], ValueError, "audio_pred has shape (7, 10, 0), expected at least one video and one class"),
        (3, lambda a: a[:, :9], ValueError, "visual_true has shape (7, 9, 4), expected (7, 10, 4), the shape of audio_pred"),
        (1, lambda a: a.astype(object), TypeError, "visual_pred has type object, expected bool, integers, float16"),
        (1, lambda a: a.astype(str), TypeError, "visual_pred has type <U5, expected bool, integers, float16"),
        (1, lambda a: a.astype(complex), TypeError, "visual_pred has type complex128, expected bool, integers"),
        (1, lambda a: a.astype(np.longdouble), TypeError, "visual_pred has type float128, expected bool, integers"),
        (1, lambda a: a.astype("M8[s]"), TypeError, "visual_pred has type datetime64[s], expected bool, integers"),
        (0, lambda a: None, TypeError, "audio_pred is of type NoneType, expected an array"),
        (0, lambda a: 3, ValueError, "audio_pred has shape (), expected (N, T, C)"),
        (0, lambda a: "text", TypeError, "audio_pred is of type str, expected an array"),
        (0, lambda a: [[[0], [1, 2]]], ValueError, "audio_pred is no array: "),
        (0, lambda a: OnGpu(), TypeError, "audio_pred is on device cuda:0, expected memory of the processor"),
        (0, lambda a: Failing(), TypeError, "audio_pred cannot be read as an array: 'own'"),
        (2, lambda a: np.ma.masked_array(a), TypeError, "audio_true is a masked array, expected an array without a mask"),
        (2, lambda a: {"v": a[0]}, TypeError, "audio_true and audio_pred differ in form, expected two arrays or two dicts"),
        (0, lambda a: {}, ValueError, "audio_pred is an empty dict, expected at least one video"),
        (0, lambda a: {1: a[0]}, TypeError, "audio_pred has the key 1, expected the name of a video as text"),
        (0, lambda a: np.broadcast_to(True, (10**12, 10, 4)), MemoryError, "audio_pred has shape (1000000000000, 10, 4)"),
    ],
)
def test_a_bad_argument_is_named(four, argument, value, error, message):
    four[argument] = value(four[argument])
    with pytest.raises(error) as raised:
        vaplan.evaluate(*four)
    assert str(raised.value).startswith(message)


def test_a_bad_value_of_a_dict_is_named_by_video(four):
    dicts = [{"a": own[0, :3], "b": own[1].astype(float)} for own in four]
    dicts[1]["b"][4, 2] = 7
    with pytest.raises(ValueError, match=r"^visual_pred\['b'\]\[4, 2\] is 7, expected 0 or 1$"):
        vaplan.evaluate(*dicts)
    dicts[1]["b"][4, 2] = 0
    dicts[2]["c"] = dicts[2].pop("a")
    with pytest.raises(ValueError, match="^audio_true has no video 'a', which audio_pred has$"):
        vaplan.evaluate(*dicts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "both "}, "level is 'both ', expected one of 'both', 'segment', 'event'"),
        ({"protocol": "han"}, "protocol is 'han', expected one of 'labels', 'segment', 'fused', 'own'"),
        ({"protocol": "fused"}, "video_prob is missing, and protocol 'fused' needs video_prob"),
        ({"video_prob": np.ones((7, 4))}, "video_prob is given, and protocol 'labels' needs none of them"),
        (
            {"protocol": "fused", "video_prob": np.ones((7, 3))},
            "video_prob has shape (7, 3), expected (7, 4): videos, classes of audio_pred",
        ),
        (
            {"protocol": "fused", "video_prob": np.full((7, 4), 1.5)},
            "video_prob[0, 0] is 1.5, expected a number from 0 to 1",
        ),
    ],
)
def test_a_bad_option_is_named(four, options, message):
    with pytest.raises(ValueError) as raised:
        vaplan.evaluate(*four, **options)
    assert str(raised.value) == message


def test_llp_predictions_may_lack_videos_and_have_others(shared):
    names, _ = truth(shared, "test")
    others, _ = truth(shared, "val")
    labels = np.zeros((10, 25), bool)
    pred = {name: labels for name in [*names[:-1], others[0]]}
    found = vaplan.evaluate_llp({"audio": pred, "visual": pred}, shared / "llp", "test", level="segment")
    assert found["missing"] == [names[-1]]
    with pytest.raises(ValueError, match="predictions, video \"nobody\": no annotated video has this name"):
        vaplan.evaluate_llp({"audio": {"nobody": labels}, "visual": {"nobody": labels}}, shared / "llp")
    with pytest.raises(OSError, match="no-such-folder"):
        vaplan.evaluate_llp({"audio": pred, "visual": pred}, "no-such-folder")
    with pytest.raises(ValueError, match="split is `dev`, expected `train`, `val` or `test`"):
        vaplan.evaluate_llp({"audio": pred, "visual": pred}, shared / "llp", "dev")


def test_many_videos_are_scored_as_in_parts_and_the_first_wrong_value_is_named():
    """More videos than one thread and one block of memory take."""
    generator = np.random.default_rng(11)
    arrays = [(generator.random((9_000, 3, 4)) < share).astype(np.uint8) for share in (0.2, 0.3, 0.25, 0.3)]
    whole = vaplan.evaluate(*arrays)
    parts = [vaplan.evaluate(*(own[first : first + 100] for own in arrays)) for first in range(0, 9_000, 100)]
    for level in ("segment", "event"):
        for name, score in whole[level].items():
            assert score == pytest.approx(np.mean([part[level][name] for part in parts]), abs=1e-9), name
    probability = arrays[0] * 0.6
    fused = vaplan.evaluate(probability, *arrays[1:], protocol="segment")
    assert fused == whole
    for video, argument in ((8_999, 3), (4_500, 1), (4_500, 0), (300, 2)):
        arrays[argument][video, 2, 3] = 7
        name = ("audio_pred", "visual_pred", "audio_true", "visual_true")[argument]
        with pytest.raises(ValueError, match=f"^{name}\\[{video}, 2, 3\\] is 7, expected 0 or 1$"):
            vaplan.evaluate(*arrays)


def test_pinned_memory_is_memory_of_the_processor(four):
    assert vaplan.evaluate(*map(Pinned, four)) == vaplan.evaluate(*four)


def test_other_threads_run_while_a_function_computes():
    """A thread that holds the GIL would let no other thread run between the quarters of its time."""
    videos = 40_000
    labels = np.random.default_rng(1).random((videos * 10, 8)) < 0.5
    lengths = np.full(videos, 10, np.int64)
    stop, ticks = threading.Event(), []

    def tick():
        last = 0.0
        while not stop.is_set():
            now = time.perf_counter()
            if now - last > 1e-3:
                ticks.append(now)
                last = now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        begin = time.perf_counter()
        vaplan._native.evaluate((labels, labels), (labels, labels), lengths, "labels", None)
        end = time.perf_counter()
    finally:
        stop.set()
        thread.join()
    quarter = (end - begin) / 4
    assert any(begin + quarter < tick < end - quarter for tick in ticks), (end - begin, len(ticks))
