"""What the networks share: the frames of a segment, and attentive pooling over segments and modalities (MMIL)."""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn


class ParserOutputs(NamedTuple):
    """Probabilities of a batch of B videos, T segments and C classes."""

    segment_audio: Tensor
    """``(B, T, C)``"""
    segment_visual: Tensor
    """``(B, T, C)``"""
    audio: Tensor
    """``(B, C)``, of the audio of the video"""
    visual: Tensor
    """``(B, C)``, of the picture of the video"""
    video: Tensor
    """``(B, C)``, of the video"""


def mean_of_frames(visual: Tensor, audio: Tensor) -> Tensor:
    """The mean over the frames of each segment, ``(B, F T, Dv)`` to ``(B, T, Dv)``. It commutes with a linear map."""
    batch, time = audio.shape[:2]
    if visual.shape[1] % time:
        raise ValueError(f"visual has {visual.shape[1]} frames, expected a multiple of the {time} segments of audio")
    return visual.reshape(batch, time, -1, visual.shape[-1]).mean(2)


def check_clips(clips: Optional[Tensor], has_clips: bool) -> None:
    """Refuses clip features of a network without them, and the other way round."""
    if has_clips != (clips is not None):
        raise ValueError("clips are given and the network has none" if clips is not None else "clips are missing")


def pooled(
    audio: Tensor,
    visual: Tensor,
    padding: Optional[Tensor],
    prob: nn.Module,
    segment_attention: nn.Module,
    modality_attention: nn.Module,
) -> ParserOutputs:
    """The probabilities of hidden rows ``(B, T, H)`` of both modalities."""
    x = torch.stack([audio, visual])  # (2, B, T, H)
    probability = prob(x).sigmoid()  # (2, B, T, C)
    over_time = segment_attention(x)
    if padding is not None:
        over_time = over_time.masked_fill(padding[None, :, :, None], float("-inf"))
    by_segment = over_time.softmax(2) * probability
    modalities = by_segment.sum(2)  # (2, B, C)
    video = (by_segment * modality_attention(x).softmax(0)).sum((0, 2))  # (B, C)
    return ParserOutputs(probability[0], probability[1], modalities[0], modalities[1], video)
