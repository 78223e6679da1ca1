"""HAN in plain PyTorch, trained with a plain loop, as a researcher would write it.

    train.py published|pooled VISUAL AUDIO CLIPS BATCH THREADS DROPOUT OUT

The network is that of YapengTian/AVVP-ECCV20 (`nets/net_audiovisual.py`), the loss that of docs/method.md, the optimizer
torch.optim.Adam. OUT is what bench/src/bin/train_steps.rs left: initial weights, order, labels. `published`: each step
reads its videos' npy files, and the 8 frames of a segment are averaged in the network, as there. `pooled`: all features
are in memory before the first step, the frames averaged already: the same graph as ours. Prints one JSON object.
"""

import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class Layer(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, 1, dropout=dropout)
        self.cm_attn = nn.MultiheadAttention(width, 1, dropout=dropout)
        self.linear1, self.linear2 = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, own, other):
        own, other = own.permute(1, 0, 2), other.permute(1, 0, 2)
        cross = self.cm_attn(own, other, other)[0]
        same = self.self_attn(own, own, own)[0]
        own = self.norm1(own + self.dropout(cross) + self.dropout(same))
        inner = self.linear2(self.dropout(F.relu(self.linear1(own))))
        return self.norm2(own + self.dropout(inner)).permute(1, 0, 2)


class Encoder(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.layers = nn.ModuleList([Layer(width, dropout)])
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, audio, visual):
        layer = self.layers[0]
        return layer(audio, visual), layer(visual, audio)


class Han(nn.Module):
    def __init__(self, shapes, dropout, width=512, classes=25):
        super().__init__()
        self.fc_prob = nn.Linear(width, classes)
        self.fc_frame_att = nn.Linear(width, classes)
        self.fc_av_att = nn.Linear(width, classes)
        self.fc_a, self.fc_v, self.fc_st = (nn.Linear(size, width) for size in shapes)
        self.fc_fusion = nn.Linear(2 * width, width)
        self.hat_encoder = Encoder(width, dropout)

    def forward(self, audio, visual, clips):
        audio = self.fc_a(audio)
        visual = self.fc_v(visual)
        if visual.shape[1] != audio.shape[1]:  # 8 frames a segment
            visual = F.avg_pool1d(visual.permute(0, 2, 1), 8).permute(0, 2, 1)
        visual = self.fc_fusion(torch.cat((visual, self.fc_st(clips)), -1))
        audio, visual = self.hat_encoder(audio, visual)
        x = torch.stack((audio, visual), 2)  # [B, T, 2, H]
        probability = torch.sigmoid(self.fc_prob(x))
        over_time = torch.softmax(self.fc_frame_att(x), 1)
        over_modalities = torch.softmax(self.fc_av_att(x), 2)
        video = (over_time * over_modalities * probability).sum((1, 2))
        modalities = (over_time * probability).sum(1)
        return probability, video, modalities[:, 0], modalities[:, 1]


def bce(probability, target):
    return F.binary_cross_entropy(probability.clamp(1e-7, 1 - 1e-7), target)


def loss_of(outputs, labels, weak):
    probability, video, audio, visual = outputs
    loss = bce(video, weak)
    count = weak.sum(-1, keepdim=True).clamp(min=1)
    for m, pooled in enumerate((audio, visual)):
        p, label = probability[:, :, m], labels[m]
        loss = loss + bce(pooled, label.amax(1))
        category = bce((p * weak[:, None]).sum(-1) / count, label.sum(-1) / count)
        segment = bce(p.mean(1), label.mean(1))
        loss = loss + 0.5 * (category + segment)
    return loss


def main():
    mode, visual, audio, clips, batch, threads, dropout, out = sys.argv[1:]
    batch = int(batch)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    with open(os.path.join(out, "order.txt")) as file:
        names = [line[:11] for line in file.read().split("\n")]
    targets = load_file(os.path.join(out, "targets.safetensors"))

    def read(name):
        rows = [np.load(os.path.join(folder, f"{name}.npy")) for folder in (audio, visual, clips)]
        if mode == "pooled":
            rows[1] = rows[1].reshape(10, 8, -1).mean(1)
        return rows

    def stack(videos):
        return [torch.from_numpy(np.stack(rows)) for rows in zip(*videos)]

    first = read(names[0])
    han = Han([first[0].shape[1], first[1].shape[1], first[2].shape[1]], float(dropout))
    han.load_state_dict(load_file(os.path.join(out, "initial.safetensors")))
    han.train()
    adam = torch.optim.Adam(han.parameters(), 3e-4)
    ready = [read(name) for name in names] if mode == "pooled" else None
    losses, seconds = [], []
    for start in range(0, len(names), batch):
        began = time.perf_counter()
        part = slice(start, start + batch)
        videos = ready[part] if ready else [read(name) for name in names[part]]
        outputs = han(*stack(videos))
        loss = loss_of(outputs, (targets["audio"][part], targets["visual"][part]), targets["weak"][part])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"torch": torch.__version__, "losses": losses, "seconds": seconds}))


if __name__ == "__main__":
    main()
