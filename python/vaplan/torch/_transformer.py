"""The temporal transformer: self-attention within each modality, and cross-attention between the two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional, Union, cast

import torch
from torch import Tensor, nn

from . import _checkpoint
from ._pooling import ParserOutputs, check_clips, mean_of_frames, pooled


class _Layer(nn.Module):
    """One layer of one modality. The norms come first in each part."""

    def __init__(self, hidden: int, feedforward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(hidden, feedforward)
        self.linear2 = nn.Linear(feedforward, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.norm3 = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def within(self, own: Tensor, padding: Optional[Tensor]) -> Tensor:
        x = self.norm1(own)
        attended = self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        out: Tensor = own + self.dropout(attended)
        return out

    def between(self, own: Tensor, normed: Tensor, other: Tensor, padding: Optional[Tensor]) -> Tensor:
        attended = self.cross_attn(normed, other, other, key_padding_mask=padding, need_weights=False)[0]
        x = own + self.dropout(attended)
        inner = self.dropout(nn.functional.gelu(self.linear1(self.norm3(x))))
        out: Tensor = x + self.dropout(self.linear2(inner))
        return out


class _Stream(nn.Module):
    """The parameters of one modality."""

    def __init__(self, width: int, hidden: int, feedforward: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.input = nn.Linear(width, hidden)
        self.input_norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(_Layer(hidden, feedforward, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def typed_layers(self) -> list[_Layer]:
        return cast("list[_Layer]", list(self.layers))


def _positions(time: int, hidden: int) -> Tensor:
    column = torch.arange(0, hidden, 2, dtype=torch.float64)
    angle = torch.arange(time, dtype=torch.float64)[:, None] / 10000 ** (column / hidden)
    return torch.stack([angle.sin(), angle.cos()], -1).reshape(time, hidden).float()


class TemporalTransformer(nn.Module):
    """Network ``transformer`` of ``vaplan train``, with the same parameter names.

    Args:
        audio: width of the audio features (CLAP: 512).
        visual: width of the visual features (CLIP: 768).
        clips: width of the clip features, or ``None`` if there are none.
        classes: C.
        hidden, feedforward, layers, heads, dropout: sizes. ``hidden`` must be even, and a multiple of ``heads``.

    Sources: five layers of self-attention are those of UWAV (arXiv 2505.09615, grade C), attention to the other modality and
    attentive pooling those of HAN (grade C). The rest is our own definition (grade D).

    >>> import torch
    >>> network = TemporalTransformer(audio=4, visual=6, classes=3, hidden=8, feedforward=8).eval()
    >>> network(torch.zeros(2, 10, 4), torch.zeros(2, 10, 6)).segment_audio.shape
    torch.Size([2, 10, 3])
    """

    def __init__(
        self,
        audio: int = 512,
        visual: int = 768,
        clips: Optional[int] = None,
        classes: int = 25,
        *,
        hidden: int = 256,
        feedforward: int = 512,
        layers: int = 5,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of the hidden size {hidden}")
        if hidden % 2:
            raise ValueError(f"hidden is {hidden}, expected an even number")
        self.heads, self.hidden = heads, hidden
        self.audio = _Stream(audio, hidden, feedforward, layers, heads, dropout)
        self.visual = _Stream(visual, hidden, feedforward, layers, heads, dropout)
        if clips is not None:
            self.clips = nn.ModuleDict({"input": nn.Linear(clips, hidden)})
            self.fusion = nn.Linear(2 * hidden, hidden)
        self.prob = nn.Linear(hidden, classes)
        self.segment_attention = nn.Linear(hidden, classes)
        self.modality_attention = nn.Linear(hidden, classes)

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        clips: Optional[Tensor] = None,
        padding: Optional[Tensor] = None,
    ) -> ParserOutputs:
        """The probabilities of a batch.

        Args:
            audio: ``(B, T, Da)``.
            visual: ``(B, T, Dv)``, or ``(B, F T, Dv)`` with F frames per segment, whose mean is taken.
            clips: ``(B, T, Ds)``, if the network has clip features.
            padding: ``(B, T)`` bool, true past the end of a video.
        """
        check_clips(clips, hasattr(self, "fusion"))
        v = self.visual.input(mean_of_frames(visual, audio))
        if clips is not None:
            v = self.fusion(torch.cat([v, self.clips["input"](clips)], -1))
        position = _positions(audio.shape[1], self.hidden).to(v)
        a = self.audio.input_norm(self.audio.input(audio)) + position
        v = self.visual.input_norm(v) + position
        for of_audio, of_visual in zip(self.audio.typed_layers(), self.visual.typed_layers()):
            a, v = of_audio.within(a, padding), of_visual.within(v, padding)
            normed_a, normed_v = of_audio.norm2(a), of_visual.norm2(v)
            a, v = (
                of_audio.between(a, normed_a, normed_v, padding),
                of_visual.between(v, normed_v, normed_a, padding),
            )
        a, v = self.audio.norm(a), self.visual.norm(v)
        return pooled(a, v, padding, self.prob, self.segment_attention, self.modality_attention)

    @classmethod
    def from_checkpoint(cls, source: Union[str, os.PathLike[str], Mapping[str, Any]]) -> TemporalTransformer:
        """Makes the network of a checkpoint of ``vaplan train`` with ``network = "transformer"``.

        Raises:
            ValueError: the checkpoint is of another network.
        """
        tensors, metadata = _checkpoint.read(source)
        try:
            hidden, audio = tensors["audio.input.weight"].shape
            layers = 0
            while f"audio.layers.{layers}.linear1.weight" in tensors:
                layers += 1
            network = cls(
                audio,
                tensors["visual.input.weight"].shape[1],
                tensors["clips.input.weight"].shape[1] if "clips.input.weight" in tensors else None,
                tensors["prob.weight"].shape[0],
                hidden=hidden,
                feedforward=tensors["audio.layers.0.linear1.weight"].shape[0],
                layers=layers,
                heads=int(metadata.get("heads", 1)),
            )
            _checkpoint.load(network, tensors)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the checkpoint is not of the transformer: {error}") from error
        return network

    def save_checkpoint(self, path: Union[str, os.PathLike[str]]) -> None:
        """Writes a ``.safetensors`` file that ``vaplan predict`` and :meth:`from_checkpoint` read."""
        _checkpoint.write(path, self.state_dict(), {"heads": str(self.heads), "network": "transformer"})
