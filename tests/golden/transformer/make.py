#!/usr/bin/env python3
"""Writes golden values of network `transformer` with PyTorch's own modules: weights, inputs, outputs and gradients.

The network is built here from `torch.nn.MultiheadAttention`, `LayerNorm` and `Linear`, independent of the Rust code and of
`vaplan.torch`. Video 1 has 3 of 4 segments. Needs torch; the numbers were written with torch 2.13 on a CPU. Run from any
folder.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).parent
HIDDEN, FEEDFORWARD, LAYERS, HEADS, CLASSES = 8, 12, 2, 2, 3
WIDTHS = {"audio": 4, "visual": 5, "clips": 3}
BATCH, TIME = 2, 4


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(HIDDEN, HEADS, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(HIDDEN, HEADS, batch_first=True)
        self.linear1 = nn.Linear(HIDDEN, FEEDFORWARD)
        self.linear2 = nn.Linear(FEEDFORWARD, HIDDEN)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(HIDDEN) for _ in range(3))


class Stream(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.input = nn.Linear(width, HIDDEN)
        self.input_norm = nn.LayerNorm(HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(HIDDEN)


class Clips(nn.Module):
    def __init__(self):
        super().__init__()
        self.input = nn.Linear(WIDTHS["clips"], HIDDEN)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.audio, self.visual = Stream(WIDTHS["audio"]), Stream(WIDTHS["visual"])
        self.clips, self.fusion = Clips(), nn.Linear(2 * HIDDEN, HIDDEN)
        self.prob, self.segment_attention, self.modality_attention = (nn.Linear(HIDDEN, CLASSES) for _ in range(3))

    def forward(self, audio, visual, clips, padding):
        position = torch.zeros(TIME, HIDDEN)
        for t in range(TIME):
            for i in range(HIDDEN // 2):
                angle = t / 10000 ** (2 * i / HIDDEN)
                position[t, 2 * i], position[t, 2 * i + 1] = math.sin(angle), math.cos(angle)
        a = self.audio.input(audio)
        v = self.fusion(torch.cat([self.visual.input(visual), self.clips.input(clips)], -1))
        a, v = self.audio.input_norm(a) + position, self.visual.input_norm(v) + position
        for la, lv in zip(self.audio.layers, self.visual.layers):

            def attend(module, query, key):
                return module(query, key, key, key_padding_mask=padding, need_weights=False)[0]

            na, nv = la.norm1(a), lv.norm1(v)
            a, v = a + attend(la.self_attn, na, na), v + attend(lv.self_attn, nv, nv)
            na, nv = la.norm2(a), lv.norm2(v)
            a, v = a + attend(la.cross_attn, na, nv), v + attend(lv.cross_attn, nv, na)
            a = a + la.linear2(F.gelu(la.linear1(la.norm3(a))))
            v = v + lv.linear2(F.gelu(lv.linear1(lv.norm3(v))))
        x = torch.stack([self.audio.norm(a), self.visual.norm(v)])
        probability = self.prob(x).sigmoid()
        over_time = self.segment_attention(x).masked_fill(padding[None, :, :, None], -math.inf).softmax(2)
        pooled = over_time * probability
        video = (pooled * self.modality_attention(x).softmax(0)).sum((0, 2))
        return probability[0], probability[1], pooled[0].sum(1), pooled[1].sum(1), video


def main():
    torch.manual_seed(17)
    network = Network().double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Norms and zero biases get values, too, so that each parameter has an effect.
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.float().double()
    inputs = {name: torch.randn(BATCH, TIME, width).double() for name, width in WIDTHS.items()}
    padding = torch.zeros(BATCH, TIME, dtype=torch.bool)
    padding[1, 3] = True
    outputs = network(*inputs.values(), padding)
    names = ["segment_audio", "segment_visual", "audio", "visual", "video"]
    # Any function that depends on each output will do for the gradients.
    within = (~padding).double()[..., None]
    scalar = sum((output * within if output.dim() == 3 else output).pow(2).sum() * (at + 1) for at, output in enumerate(outputs))
    scalar.backward()
    flat = lambda x: {"shape": list(x.shape), "values": [float(f"{value:.9g}") for value in x.detach().flatten().tolist()]}
    golden = {
        "weights": {name: flat(parameter) for name, parameter in network.named_parameters()},
        "inputs": {name: flat(value) for name, value in inputs.items()},
        "padding": padding.int().tolist(),
        "outputs": {name: flat(output) for name, output in zip(names, outputs)},
        "scalar": float(f"{scalar.item():.9g}"),
        "gradient_norms": {name: float(f"{p.grad.norm().item():.9g}") for name, p in network.named_parameters()},
    }
    (HERE / "golden.json").write_text(json.dumps(golden, indent=0, separators=(",", ":")).replace(",\n", ",") + "\n")


main()
