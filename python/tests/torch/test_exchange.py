"""Checkpoints between the program `vaplan` and `vaplan.torch`: the same outputs in both directions.

The program is started as users start it, by `python -m vaplan`, and loads the libtorch of the installed package torch.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vaplan.torch import HAN, SegmentDataset, TemporalTransformer, collate

NETWORKS = {"han": HAN, "transformer": TemporalTransformer}
SIZES = {"hidden": 16, "feedforward": 24, "layers": 2, "heads": 2}


def command(*words):
    """Runs the program with no other libtorch than that of the package."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "VAPLAN_TORCH")}
    words = [sys.executable, "-m", "vaplan", "--quiet", *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def assert_same(network, checkpoint, store, features):
    """`vaplan predict` and the network give the same probabilities of segments and of whole videos."""
    paths = [word for modality, folder in features.items() for word in (f"--{modality}", folder)]
    command("predict", "--checkpoint", checkpoint, "--store", store.path, "--threads", 1, *paths)
    epoch = store.refresh().sql("SELECT max(epoch) AS epoch FROM video_predictions").to_pylist()[0]["epoch"]
    data = SegmentDataset(store, features, split=None)
    batch = collate([data[nth] for nth in range(len(data))])
    with torch.no_grad():
        outputs = network.eval()(batch["audio"], batch["visual"])
    for modality, found in (("audio", outputs.segment_audio), ("visual", outputs.segment_visual)):
        expected = store.predictions(epoch, None, modality)
        assert expected.names == batch["name"]
        assert np.abs(expected.values - found.numpy()).max() < 1e-5, modality
        assert found.std() > 1e-3, "the outputs of the videos differ"
    rows = store.table("video_predictions", where=f"epoch = {epoch}").to_pylist()
    by_name = {row["video"]: row for row in rows}
    for column, found in (("probability", outputs.video), ("audio", outputs.audio), ("visual", outputs.visual)):
        expected = np.array([by_name[name][column] for name in batch["name"]])
        assert np.abs(expected - found.numpy()).max() < 1e-5, column


@pytest.fixture
def features(made):
    return {modality: made / "features" / modality for modality in ("audio", "visual")}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trained_checkpoint_of_the_program_is_the_same_network_in_torch(
    name, program_in_the_wheel, own, features, tmp_path
):
    settings = tmp_path / "train.toml"
    lines = [f'network = "{name}"', "epochs = 2", *(f"{key} = {value}" for key, value in SIZES.items())]
    settings.write_text("\n".join(lines) + "\n")
    paths = [word for modality, folder in features.items() for word in (f"--{modality}", folder)]
    command("train", "--store", own.path, "--config", settings, "--threads", 1, *paths)
    checkpoint = Path(own.path) / "_vaplan" / "train" / "best.safetensors"
    network = NETWORKS[name].from_checkpoint(checkpoint)
    assert (network.heads, len(own.labels().classes)) == (2, 25)
    assert_same(network, checkpoint, own, features)
    # Back again: what `vaplan.torch` writes is the same network for the program.
    network.save_checkpoint(tmp_path / "back.safetensors")
    assert_same(network, tmp_path / "back.safetensors", own, features)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_torch_made_predicts_the_same_in_the_program(name, program_in_the_wheel, own, features, tmp_path):
    torch.manual_seed(5)
    network = NETWORKS[name](32, 32, None, 25, **SIZES)
    with torch.no_grad():
        for parameter in network.parameters():
            # Biases and norms get values, too, so that each parameter has an effect.
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_checkpoint(tmp_path / "own.safetensors")
    assert_same(network, tmp_path / "own.safetensors", own, features)
