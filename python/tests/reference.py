"""The method in plain numpy, written from docs/method.md and not from the code of the library."""

import numpy as np


def _f(tp, fp, fn):
    return 2 * tp / (2 * tp + fp + fn)


def _runs(row):
    padded = np.concatenate([[0], row.astype(int), [0]])
    edges = np.diff(padded)
    return list(zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)))


def _segment_counts(pred, true):
    return (pred & true).sum(), (pred & ~true).sum(), (~pred & true).sum()


def _event_counts(pred, true):
    def matched(events, others):
        def fits(event, other):
            shared = min(event[1], other[1]) - max(event[0], other[0])
            union = max(event[1], other[1]) - min(event[0], other[0])
            # Two events that do not touch share nothing, whatever lies between them.
            both = (event[1] - event[0]) + (other[1] - other[0]) - max(shared, 0)
            return shared > 0 and shared >= 0.5 * both and union > 0

        return sum(any(fits(event, other) for other in others) for event in events)

    pred, true = _runs(pred), _runs(true)
    tp = matched(pred, true)
    return tp, len(pred) - tp, len(true) - matched(true, pred)


def _video(audio_pred, visual_pred, audio_true, visual_true, counts):
    kinds = [
        (audio_pred, audio_true),
        (visual_pred, visual_true),
        (audio_pred & visual_pred, audio_true & visual_true),
    ]
    per_kind = [[counts(pred[:, c], true[:, c]) for c in range(pred.shape[1])] for pred, true in kinds]
    per_kind.append([tuple(np.add(a, v)) for a, v in zip(per_kind[0], per_kind[1])])
    scores = []
    for classes in per_kind:
        own = [_f(*count) for count in classes if sum(count) > 0]
        scores.append(np.mean(own) if own else 1.0)
    return scores


def evaluate(audio_pred, visual_pred, audio_true, visual_true):
    """F-scores of bool arrays (N, T, C)."""
    report = {}
    for level, counts in (("segment", _segment_counts), ("event", _event_counts)):
        videos = [_video(*own, counts) for own in zip(audio_pred, visual_pred, audio_true, visual_true)]
        audio, visual, both, event = 100 * np.mean(videos, axis=0)
        report[level] = {
            "audio": audio,
            "visual": visual,
            "audio_visual": both,
            "type_av": (audio + visual + both) / 3,
            "event_av": event,
        }
    return report


def generate(cosine, weak, rule, threshold, scale):
    """PLG on arrays (N, T, C) and (N, C)."""
    scores = scale * cosine.astype(np.float64)
    limit = np.asarray(threshold, np.float64)
    if rule == "softmax":
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        limit = limit / cosine.shape[-1]
    return (scores > limit) & (weak[:, None, :] == 1)


def denoise(probability, labels, weak, k, alpha, guard):
    """PLD on arrays (N, T, C) and (N, C): labels, losses, flips."""
    p = np.clip(probability.astype(np.float32).astype(np.float64), 1e-7, 1 - 1e-7)
    losses = np.where(labels, -np.log(p), -np.log(1 - p))
    base = np.sort(losses, axis=1)[:, :k].mean(axis=1, keepdims=True)
    far = np.abs(probability.astype(np.float32).astype(np.float64) - labels) > guard
    flips = (losses > alpha * base) & far & (weak[:, None, :] == 1)
    return labels ^ flips, losses, flips
