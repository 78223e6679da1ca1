"""HAN, the hybrid attention network for audio-visual video parsing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from . import _checkpoint
from ._pooling import ParserOutputs, check_clips, mean_of_frames, pooled


class _Layer(nn.Module):
    """One layer: attention to the own and to the other modality, then two linear maps."""

    def __init__(self, hidden: int, feedforward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.cm_attn = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(hidden, feedforward)
        self.linear2 = nn.Linear(feedforward, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, own: Tensor, other: Tensor, padding: Optional[Tensor]) -> Tensor:
        cross = self.cm_attn(own, other, other, key_padding_mask=padding, need_weights=False)[0]
        inner = self.self_attn(own, own, own, key_padding_mask=padding, need_weights=False)[0]
        x: Tensor = self.norm1(own + self.dropout(cross) + self.dropout(inner))
        inner = self.dropout(self.linear2(self.dropout(self.linear1(x).relu())))
        out: Tensor = self.norm2(x + inner)
        return out


class _Encoder(nn.Module):
    def __init__(self, layers: int, hidden: int, feedforward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(hidden, feedforward, heads, dropout) for _ in range(layers))
        # MMIL_Net has these two norms and never uses them. They are here so that checkpoints can be exchanged.
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)

    def forward(self, audio: Tensor, visual: Tensor, padding: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            audio, visual = layer(audio, visual, padding), layer(visual, audio, padding)
        return audio, visual


class HAN(nn.Module):
    """HAN with the parameter names of ``MMIL_Net``, so that checkpoints exchange with ``vaplan train`` and with the public
    code.

    Args:
        audio: width of the audio features (LLP: 128, VGGish).
        visual: width of the visual features (LLP: 2048, ResNet-152).
        clips: width of the clip features (LLP: 512, R(2+1)D), or ``None`` if there are none.
        classes: C.
        hidden, feedforward, layers, heads, dropout: sizes; the defaults are those published for LLP.

    Source (grade C): ``MMIL_Net``, ``Encoder`` and ``HANLayer`` in ``nets/net_audiovisual.py`` of
    YapengTian/AVVP-ECCV20. A second layer takes the output of the first; in the source every layer takes the input of the
    first layer.

    >>> import torch
    >>> network = HAN(audio=4, visual=6, clips=None, classes=3, hidden=8, feedforward=8).eval()
    >>> network(torch.zeros(2, 10, 4), torch.zeros(2, 80, 6)).segment_audio.shape
    torch.Size([2, 10, 3])
    """

    def __init__(
        self,
        audio: int = 128,
        visual: int = 2048,
        clips: Optional[int] = 512,
        classes: int = 25,
        *,
        hidden: int = 512,
        feedforward: int = 512,
        layers: int = 1,
        heads: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of the hidden size {hidden}")
        self.heads = heads
        self.fc_prob = nn.Linear(hidden, classes)
        self.fc_frame_att = nn.Linear(hidden, classes)
        self.fc_av_att = nn.Linear(hidden, classes)
        self.fc_a = nn.Linear(audio, hidden)
        self.fc_v = nn.Linear(visual, hidden)
        if clips is not None:
            self.fc_st = nn.Linear(clips, hidden)
            self.fc_fusion = nn.Linear(2 * hidden, hidden)
        self.hat_encoder = _Encoder(layers, hidden, feedforward, heads, dropout)

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
        check_clips(clips, hasattr(self, "fc_st"))
        a, v = self.fc_a(audio), self.fc_v(mean_of_frames(visual, audio))
        if clips is not None:
            v = self.fc_fusion(torch.cat([v, self.fc_st(clips)], -1))
        a, v = self.hat_encoder(a, v, padding)
        return pooled(a, v, padding, self.fc_prob, self.fc_frame_att, self.fc_av_att)

    @classmethod
    def from_checkpoint(cls, source: Union[str, os.PathLike[str], Mapping[str, Any]]) -> HAN:
        """Makes the network of a checkpoint: ``.safetensors`` of ``vaplan train``, a state dict of PyTorch, or a dict of
        tensors. Prefixes of wrapped modules such as ``module.`` and ``_orig_mod.``, and a dict around the state dict, are removed;
        tensors beside the network are ignored. ``vaplan predict`` does the same. Pickles with code are refused.

        Raises:
            ValueError: the checkpoint is of another network.
        """
        tensors, metadata = _checkpoint.read(source)
        try:
            hidden, audio = tensors["fc_a.weight"].shape
            layers = 0
            while f"hat_encoder.layers.{layers}.linear1.weight" in tensors:
                layers += 1
            network = cls(
                audio,
                tensors["fc_v.weight"].shape[1],
                tensors["fc_st.weight"].shape[1] if "fc_st.weight" in tensors else None,
                tensors["fc_prob.weight"].shape[0],
                hidden=hidden,
                feedforward=tensors["hat_encoder.layers.0.linear1.weight"].shape[0],
                layers=layers,
                heads=int(metadata.get("heads", 1)),
            )
            # Some programs leave out the norms that are never used.
            _checkpoint.load(network, tensors, unused="hat_encoder.norm")
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the checkpoint is not of HAN: {error}") from error
        return network

    def save_checkpoint(self, path: Union[str, os.PathLike[str]]) -> None:
        """Writes a ``.safetensors`` file that ``vaplan predict`` and :meth:`from_checkpoint` read."""
        _checkpoint.write(path, self.state_dict(), {"heads": str(self.heads), "network": "han"})
