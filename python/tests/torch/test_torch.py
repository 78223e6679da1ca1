"""`vaplan.torch`, with the installed package torch. `make pytorch` runs these tests."""

import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import vaplan
from vaplan._arrays import numeric
from vaplan.torch import HAN, ParserOutputs, RichnessLoss, SegmentDataset, TemporalTransformer, _checkpoint, collate

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def golden(shared):
    """Network, inputs, targets, expected tensors and numbers of the public PyTorch code."""
    folder = shared / "golden/han"
    network = HAN.from_checkpoint(folder / "weights.safetensors").eval()
    inputs, _ = _checkpoint.read(folder / "inputs.safetensors")
    expected, _ = _checkpoint.read(folder / "expected.safetensors")
    return network, inputs, expected, json.loads((folder / "expected.json").read_text())


def forward(network, inputs):
    return network(inputs["audio"], inputs["visual"], inputs["visual_st"])


def loss_of(loss, outputs, inputs):
    return loss(outputs, inputs["pseudo_audio"], inputs["pseudo_visual"], inputs["video_label"])


def test_outputs_are_those_of_the_public_network(golden):
    network, inputs, expected, _ = golden
    with torch.no_grad():
        outputs = forward(network, inputs)
    pairs = {
        "segment_prob": torch.stack([outputs.segment_audio, outputs.segment_visual], 2),
        "video_prob": outputs.video,
        "audio_prob": outputs.audio,
        "visual_prob": outputs.visual,
    }
    for name, found in pairs.items():
        assert (found - expected[name]).abs().max() < 1e-5, name


def test_losses_and_gradients_are_those_of_the_public_code(golden):
    network, inputs, _, numbers = golden
    outputs = forward(network, inputs)
    loss = loss_of(RichnessLoss(richness_classes="weak"), outputs, inputs)
    wanted = numbers["losses"]
    basic = sum(loss.terms[name] for name in ("video", "audio", "visual")).item()
    assert basic == pytest.approx(wanted["basic_pseudo"], abs=1e-5)
    assert loss.total.item() == pytest.approx(wanted["total"], abs=1e-5)
    for name in wanted:
        if name in loss.terms:
            assert loss.terms[name].item() == pytest.approx(wanted[name], abs=1e-5), name
    smoothed = loss_of(RichnessLoss("smoothed", richness=0), outputs, inputs)
    assert smoothed.total.item() == pytest.approx(wanted["basic_smoothed"], abs=1e-5)
    network.zero_grad()
    loss.total.backward()
    for name, norm in numbers["grad_norms"].items():
        found = network.get_parameter(name).grad.norm().item()
        assert found == pytest.approx(norm, rel=1e-4, abs=1e-6), name


def test_five_steps_of_adam_have_the_losses_of_the_public_code(golden, shared):
    _, inputs, _, numbers = golden
    network = HAN.from_checkpoint(shared / "golden/han/weights.safetensors").eval()
    adam = torch.optim.Adam(network.parameters(), lr=numbers["adam"]["lr"])
    for wanted in numbers["adam"]["total_loss"]:
        loss = loss_of(RichnessLoss(richness_classes="weak"), forward(network, inputs), inputs).total
        assert loss.item() == pytest.approx(wanted, rel=1e-4)
        adam.zero_grad()
        loss.backward()
        adam.step()


def test_category_richness_of_all_classes_sees_classes_outside_the_weak_label():
    labels = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    weak = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    half = torch.full((1, 4), 0.5)

    def category(classes, probability):
        segments = torch.tensor([[probability]])
        outputs = ParserOutputs(segments, segments, half, half, half)
        terms = RichnessLoss(richness_classes=classes)(outputs, labels, labels, weak).terms
        return terms["category_richness_audio"].item()

    right, wrong = [0.8, 0.1, 0.0, 0.0], [0.8, 0.9, 0.0, 0.0]
    assert category("weak", right) == category("weak", wrong) == pytest.approx(-math.log(0.8))
    # The number of labels is 1 of 4 classes, and the sums of the probabilities are 0.9 and 1.7.
    bce = lambda p: -0.25 * math.log(p) - 0.75 * math.log(1 - p)
    assert category("all", right) == pytest.approx(bce(0.225), abs=1e-6)
    assert category("all", wrong) == pytest.approx(bce(0.425), abs=1e-6)
    with pytest.raises(ValueError, match="richness_classes is 'none', expected one of 'all', 'weak'"):
        RichnessLoss(richness_classes="none")


def test_padding_does_not_change_a_video(golden):
    network, inputs, _, _ = golden
    short = {name: inputs[name][:2, :6] for name in ("audio", "visual_st")}
    frames = inputs["visual"].view(4, 10, 8, 2048).mean(2)[:2]
    labels, weak = inputs["pseudo_audio"][:2, :6], inputs["video_label"][:2]
    padding = torch.zeros(2, 10, dtype=torch.bool)
    padding[:, 6:] = True
    with torch.no_grad():
        alone = network(short["audio"], frames[:, :6], short["visual_st"])
        padded = network(inputs["audio"][:2], frames, inputs["visual_st"][:2], padding)
    assert (padded.segment_visual[:, :6] - alone.segment_visual).abs().max() < 1e-5
    assert (padded.video - alone.video).abs().max() < 1e-5
    longer = torch.nn.functional.pad(labels, (0, 0, 0, 4))
    options = {"segment": 0.3}
    full = RichnessLoss(**options)(padded, longer, longer, weak, ~padding)
    assert full.total.item() == pytest.approx(RichnessLoss(**options)(alone, labels, labels, weak).total.item(), abs=1e-5)


def test_checkpoints_come_back_from_every_form(golden, tmp_path):
    network, inputs, _, _ = golden
    network.save_checkpoint(tmp_path / "own.safetensors")
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "parallel.pt")
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "wrapped.pt")
    wanted = forward(network, inputs).video
    for source in (tmp_path / "own.safetensors", tmp_path / "parallel.pt", tmp_path / "wrapped.pt", network.state_dict()):
        assert torch.equal(forward(HAN.from_checkpoint(source).eval(), inputs).video, wanted)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "own.safetensors").read_bytes()[:1000])
    for bad in (tmp_path / "cut.safetensors", {"x": torch.zeros(1)}):
        with pytest.raises(ValueError):
            HAN.from_checkpoint(bad)


def in_bf16(path, tensors):
    """Writes a safetensors file whose values are the upper halves of float32."""
    header, parts, end = {}, [], 0
    for name, value in tensors.items():
        halves = (value.numpy().view(np.uint32) >> 16).astype(np.uint16)
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [end, end + halves.nbytes]}
        end += halves.nbytes
        parts.append(halves.tobytes())
    text = json.dumps(header).encode()
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def test_checkpoints_of_wrapped_networks_are_read_as_the_program_reads_them(tmp_path):
    network = HAN(4, 5, None, 3, hidden=8, feedforward=8)
    state = network.state_dict()
    extra = {"criterion.weight": torch.ones(2), "steps": torch.tensor(3)}
    forms = {}
    for prefix in ("module.", "_orig_mod.", "model.", "net.", "network.", "module._orig_mod.", "model.module.", "student.", "a.b.0."):
        wrapped = {f"{prefix}{name}": value for name, value in state.items()}
        forms[prefix] = wrapped
        forms[f"{prefix} and others"] = {**wrapped, **extra}
    forms["others"] = {**state, **extra}
    for holder in ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"):
        forms[holder] = {holder: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    for nth, (form, given) in enumerate(forms.items()):
        # The first bytes tell the format, not the name.
        torch.save(given, tmp_path / f"{nth}.safetensors")
        for source in (given, tmp_path / f"{nth}.safetensors"):
            read = HAN.from_checkpoint(source).state_dict()
            assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state), form
    in_bf16(tmp_path / "half.pt", state)
    read = HAN.from_checkpoint(tmp_path / "half.pt").state_dict()
    # The lower half of a value is less than 2^-7 of it.
    assert all(((read[name] - state[name]).abs() <= state[name].abs() / 128).all() for name in state)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "0.safetensors").read_bytes()[:200])
    with pytest.raises(ValueError, match="cut.pt cannot be read as a state dict of PyTorch: "):
        HAN.from_checkpoint(tmp_path / "cut.pt")
    with pytest.raises(ValueError, match="the checkpoint has no tensors, expected a dict of tensors, or one under 'state_dict'"):
        HAN.from_checkpoint({"epoch": 3})
    with pytest.raises(TypeError, match="the checkpoint is of type int, expected a path or a dict of tensors"):
        HAN.from_checkpoint(3)


def test_tensors_are_arguments_without_a_copy(store):
    labels = [torch.from_numpy(store.labels("test", modality).values) for modality in ("audio", "visual")]
    expected = vaplan.evaluate(*(own.numpy() for own in labels), *(own.numpy() for own in labels))
    assert vaplan.evaluate(*labels, *labels) == expected
    scores = torch.rand(2, 3, 4)
    for tensor in (*labels, scores, scores.double()):
        assert np.shares_memory(numeric(tensor, "x"), tensor.numpy())
    assert vaplan.generate(scores, torch.ones(2, 4)).shape == (2, 3, 4)
    with pytest.raises(TypeError, match="^cosine cannot be read as an array: "):
        vaplan.generate(scores.requires_grad_(), torch.ones(2, 4))


@pytest.fixture
def data(made, own):
    features = {name: made / "features" / name for name in ("audio", "visual")}
    return own, features


def test_workers_give_every_video_and_see_new_labels(data):
    store, features = data
    dataset = SegmentDataset(store, features, split="train")
    loader = DataLoader(
        dataset, batch_size=7, shuffle=True, num_workers=2, collate_fn=collate, persistent_workers=True
    )

    def labels():
        found = {}
        for batch in loader:
            assert batch["audio"].shape[1:] == (10, 32) and batch["within"].all()
            found.update(zip(batch["name"], batch["visual_labels"].numpy()))
        return np.stack([found[name] for name in sorted(found)])

    assert (labels() == store.labels("train").values).all()
    store.relabel(thresholds={"visual": 1.05})
    assert (labels() != store.labels("train").values).any(), "a version does not change by itself"
    assert dataset.refresh() == store.version == 2
    assert (labels() == store.labels("train").values).all()
    weak = np.stack([dataset[n]["weak"].numpy() for n in range(len(dataset))])
    assert (weak == store.weak_labels("train").values).all()
    store.relabel(weak={dataset.names[0]: None})
    with pytest.raises(ValueError, match="version 3 has other videos, lengths or classes than version 2"):
        dataset.refresh()
    assert SegmentDataset(store, features, version=1).version == 1


def test_missing_features_name_the_video(data, tmp_path):
    store, features = data
    with pytest.raises(FileNotFoundError, match="expected a folder of npy files"):
        SegmentDataset(store, {"audio": tmp_path / "nothing"})
    with pytest.raises(ValueError, match="features\\['audio'\\] has no video"):
        SegmentDataset(store, {"audio": {}})[0]
    dataset = SegmentDataset(store, {"audio": lambda name: np.zeros((1, 10, 4)), "frames": lambda name: np.zeros((80, 3))})
    assert dataset[0]["audio"].shape == (10, 4) and dataset[0]["frames"].shape == (80, 3)
    with pytest.raises(ValueError, match="have shape \\(7, 4\\), expected \\(10, D\\)"):
        SegmentDataset(store, {"audio": lambda name: np.zeros((7, 4))})[0]


def test_npz_files_are_features_and_bad_files_are_named(data, tmp_path):
    store, features = data
    folder = tmp_path / "npz"
    folder.mkdir()
    for path in features["audio"].glob("*.npy"):
        np.savez(folder / f"{path.stem}.npz", np.load(path)[np.newaxis])
    own = SegmentDataset(store, {"audio": folder})
    wanted = SegmentDataset(store, {"audio": features["audio"]})
    assert all(torch.equal(own[nth]["audio"], wanted[nth]["audio"]) for nth in range(len(own)))
    name = own.names[0]
    np.savez(folder / f"{name[:11]}.npz", np.zeros(1), np.zeros(1))
    with pytest.raises(ValueError, match="npz' has 2 arrays, expected one"):
        own[0]
    (folder / f"{name[:11]}.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="^features\\['audio'\\]: '.*npz' cannot be read: "):
        own[0]


def test_videos_of_unequal_length_are_padded_by_collate(tmp_path):
    lengths = {"a_0_10": 3, "b_0_10": 10, "c_0_10": 7}
    features = {name: np.random.default_rng(length).normal(size=(length, 4)) for name, length in lengths.items()}
    weak = {name: ["Dog"] for name in lengths}
    inputs = {"visual": features, "audio": features, "visual_text": np.eye(2, 4), "audio_text": np.eye(2, 4)}
    store = vaplan.label(tmp_path / "store", {"classes": ["Dog", "Cat"], "train": weak}, **inputs).store
    dataset = SegmentDataset(store, {"audio": features}, split="train")
    assert dataset.lengths == list(lengths.values())
    with warnings.catch_warnings():
        # Without a GPU, torch tells that it pins no memory.
        warnings.simplefilter("ignore")
        [batch] = DataLoader(dataset, batch_size=3, collate_fn=collate, pin_memory=True)
    labels = store.labels("train", "visual")
    assert batch["name"] == labels.names
    assert batch["within"].sum(1).tolist() == list(lengths.values())
    assert (batch["visual_labels"].numpy() == labels.values).all()
    assert batch["audio"].shape == (3, 10, 4) and not batch["audio"][~batch["within"]].any()
    assert batch["audio"].is_pinned() == torch.cuda.is_available()


def test_a_training_loop_with_pld_ends_in_the_labels_of_relabel_epoch_by_epoch(data, tmp_path):
    store, features = data
    shutil.copytree(store.path, tmp_path / "twin")
    twin = vaplan.open(tmp_path / "twin")
    dataset = SegmentDataset(store, features, split="train")
    torch.manual_seed(1)
    network = HAN(32, 32, None, len(dataset.classes), hidden=32, feedforward=32)
    adam, loss_function = torch.optim.Adam(network.parameters(), lr=3e-3), RichnessLoss()
    flipped = 0
    with store.session() as session:
        for epoch in range(1, 7):
            network.train()
            for batch in DataLoader(dataset, batch_size=8, shuffle=True, collate_fn=collate):
                outputs = network(batch["audio"], batch["visual"])
                loss = loss_function(outputs, batch["audio_labels"], batch["visual_labels"], batch["weak"], batch["within"])
                adam.zero_grad()
                loss.total.backward()
                adam.step()
            network.eval()
            everything = collate([dataset[n] for n in range(len(dataset))])
            with torch.no_grad():
                outputs: ParserOutputs = network(everything["audio"], everything["visual"])
            predictions = {
                "epoch": epoch,
                "names": everything["name"],
                "audio": outputs.segment_audio,
                "visual": outputs.segment_visual,
            }
            change = session.apply(predictions=predictions, denoise={"alpha": 2, "guard": 0.3})
            flipped += change.changes.num_rows
            for modality, values in (("audio", outputs.segment_audio), ("visual", outputs.segment_visual)):
                (tmp_path / f"{epoch}/{modality}").mkdir(parents=True)
                for name, own in zip(everything["name"], values):
                    np.save(tmp_path / f"{epoch}/{modality}/{name}.npy", own.numpy())
            words = ["relabel", "--store", twin.path, "--predictions", tmp_path / str(epoch), "--epoch", epoch]
            words += ["--alpha", 2, "--guard", 0.3]
            assert vaplan._native.run(["vaplan", "--quiet", *map(str, words)]) == 0
            dataset.refresh()
    assert flipped > 0
    rows = [sorted(map(repr, own.refresh().table("labels").to_pylist())) for own in (store, twin)]
    assert rows[0] == rows[1]


def test_the_transformer_has_the_golden_outputs_and_its_checkpoint_is_read_again(tmp_path):
    golden = json.loads((Path(__file__).parents[3] / "tests/golden/transformer/golden.json").read_text())

    def tensor(value):
        return torch.tensor(value["values"]).reshape(value["shape"])

    network = TemporalTransformer(4, 5, 3, 3, hidden=8, feedforward=12, layers=2, heads=2).eval()
    network.load_state_dict({name: tensor(value) for name, value in golden["weights"].items()})
    inputs = [tensor(golden["inputs"][name]) for name in ("audio", "visual", "clips")]
    padding = torch.tensor(golden["padding"]).bool()
    path = tmp_path / "transformer.safetensors"
    network.save_checkpoint(path)
    for own in (network, TemporalTransformer.from_checkpoint(path).eval()):
        with torch.no_grad():
            outputs = own(*inputs, padding)
        for name, value in golden["outputs"].items():
            difference = (getattr(outputs, name) - tensor(value)).abs()
            if difference.dim() == 3:
                difference = difference[~padding]
            assert difference.max() < 2e-6, name
    with pytest.raises(ValueError, match="not of HAN"):
        HAN.from_checkpoint(path)
    with pytest.raises(ValueError, match="hidden is 9, expected an even number"):
        TemporalTransformer(hidden=9, heads=3)
