"""The loss of the method: HAN's basic loss, and the richness of pseudo labels."""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from ._pooling import ParserOutputs

#: Smallest distance of a probability from 0 and 1 in a loss.
_CLAMP = 1e-7
TARGETS = ("pseudo", "smoothed", "weak")
RICHNESS_CLASSES = ("all", "weak")


class Loss(NamedTuple):
    """The loss of a batch."""

    total: Tensor
    """The weighted sum of the terms."""
    terms: dict[str, Tensor]
    """Each term without its weight; a term of weight 0 is left out."""


class RichnessLoss(nn.Module):
    """Basic loss, richness terms and segment term, as ``vaplan train`` computes them.

    Args:
        targets: targets of the probabilities of a modality. ``pseudo``: 1 if any segment has the pseudo label (grade C,
            LEAP). ``smoothed``: the weak label y, for visual 0.9 y + 0.05 (grade C, HAN). ``weak``: y.
        richness: weight of the richness terms (grade D), default 0.5.
        segment: weight of the segment term (grade C, LEAP), default 0.
        richness_classes: classes of the category richness (grade D). ``all``, the default: all C classes. ``weak``: the classes
            of the weak label.

    Source: docs/method.md, PLE. The richness terms are those of VAPLAN (arXiv 2406.00919), which describes them in words;
    the formula is ours (grade D).

    >>> import torch
    >>> half = torch.full((1, 2, 1), 0.5)
    >>> outputs = ParserOutputs(half, half, half[:, 0], half[:, 0], half[:, 0])
    >>> loss = RichnessLoss()(outputs, torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.ones(1, 1))
    >>> round(loss.terms["video"].item(), 4)
    0.6931
    """

    def __init__(
        self, targets: str = "pseudo", richness: float = 0.5, segment: float = 0.0, richness_classes: str = "all"
    ) -> None:
        super().__init__()
        for argument, value, known in (
            ("targets", targets, TARGETS),
            ("richness_classes", richness_classes, RICHNESS_CLASSES),
        ):
            if value not in known:
                raise ValueError(f"{argument} is {value!r}, expected one of {', '.join(map(repr, known))}")
        for name, weight in (("richness", richness), ("segment", segment)):
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"{name} is {weight}, expected a finite number of at least 0")
        self.targets, self.richness, self.segment = targets, float(richness), float(segment)
        self.richness_classes = richness_classes

    def forward(
        self,
        outputs: ParserOutputs,
        audio_labels: Tensor,
        visual_labels: Tensor,
        weak: Tensor,
        within: Optional[Tensor] = None,
    ) -> Loss:
        """The loss of a batch of B videos of at most T segments.

        Args:
            outputs: of :class:`HAN`, or of another network in the same form.
            audio_labels: ``(B, T, C)``, 0 or 1; 0 past the end of a video.
            visual_labels: as ``audio_labels``.
            weak: ``(B, C)``, 0 or 1.
            within: ``(B, T)``, 1 within a video and 0 past its end; ``None`` if every video has T segments.
        """
        dtype = outputs.video.dtype
        labels = [audio_labels.to(dtype), visual_labels.to(dtype)]
        weak = weak.to(dtype)
        if within is not None:
            within = within.to(dtype)
        audio, visual = self._modality_targets(labels, weak)
        terms = {
            "video": _mean(outputs.video, weak),
            "audio": _mean(outputs.audio, audio),
            "visual": _mean(outputs.visual, visual),
        }
        total = terms["video"] + terms["audio"] + terms["visual"]
        segments = {"audio": outputs.segment_audio, "visual": outputs.segment_visual}
        for (modality, probability), own in zip(segments.items(), labels):
            if self.richness:
                classes = weak if self.richness_classes == "weak" else torch.ones_like(weak)
                category = _category_richness(probability, own, classes, within)
                segment = _segment_richness(probability, own, within)
                terms[f"category_richness_{modality}"], terms[f"segment_richness_{modality}"] = category, segment
                total = total + self.richness * (category + segment)
            if self.segment:
                each = None if within is None else within.unsqueeze(-1)
                terms[f"segment_{modality}"] = _masked(probability, own, each)
                total = total + self.segment * terms[f"segment_{modality}"]
        return Loss(total, terms)

    def _modality_targets(self, labels: list[Tensor], weak: Tensor) -> tuple[Tensor, Tensor]:
        if self.targets == "pseudo":
            return labels[0].amax(1), labels[1].amax(1)
        return weak, 0.9 * weak + 0.05 if self.targets == "smoothed" else weak


def _category_richness(probability: Tensor, labels: Tensor, classes: Tensor, within: Optional[Tensor]) -> Tensor:
    """BCE of sum_c y P / n and sum_c Y / n, per segment, where y is 1 for the classes that count and n their number, at least 1."""
    count = classes.sum(-1, keepdim=True).clamp_min(1.0)  # (B, 1)
    predicted = (probability * classes.unsqueeze(1)).sum(-1) / count  # (B, T)
    return _masked(predicted, labels.sum(-1) / count, within)


def _segment_richness(probability: Tensor, labels: Tensor, within: Optional[Tensor]) -> Tensor:
    """BCE of sum_t P / T and sum_t Y / T, per class."""
    if within is None:
        return _mean(probability.mean(1), labels.mean(1))
    each = within.unsqueeze(-1)  # (B, T, 1)
    length = each.sum(1)  # (B, 1)
    return _mean((probability * each).sum(1) / length, (labels * each).sum(1) / length)


def _mean(probability: Tensor, target: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy(probability.clamp(_CLAMP, 1 - _CLAMP), target)


def _masked(probability: Tensor, target: Tensor, within: Optional[Tensor]) -> Tensor:
    """The mean BCE over the segments within the videos."""
    if within is None:
        return _mean(probability, target)
    each = nn.functional.binary_cross_entropy(probability.clamp(_CLAMP, 1 - _CLAMP), target, reduction="none")
    within = within.expand_as(each)
    return torch.sum(each * within) / within.sum()
