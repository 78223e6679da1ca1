"""AVE's HDF5 features as npy files."""

import h5py
import numpy as np
import pytest

import vaplan.h5

NAMES = ["aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"]


@pytest.fixture
def ave(tmp_path):
    lines = ["Category&VideoID&Quality&StartTime&EndTime", *(f"Bark&{name}&good&0&10" for name in NAMES)]
    (tmp_path / "Annotations.txt").write_text("\n".join(lines) + "\n")
    visual = np.random.default_rng(1).random((3, 10, 2, 2, 5), dtype=np.float32)
    audio = np.random.default_rng(2).random((3, 10, 4))
    for name, values in (("visual", visual), ("audio", audio)):
        with h5py.File(tmp_path / f"{name}_feature.h5", "w") as file:
            file["avadataset"] = values
    return tmp_path, visual, audio


def test_each_video_has_its_rows_and_places_are_averaged(ave, capsys):
    folder, visual, audio = ave
    for name, expected in (("visual", visual.mean(axis=(2, 3))), ("audio", audio)):
        words = [folder / f"{name}_feature.h5", folder / "Annotations.txt", folder / name]
        assert vaplan.h5.main([str(word) for word in words]) == 0
        for nth, video in enumerate(NAMES):
            found = np.load(folder / name / f"{video}.npy")
            assert found.dtype == np.float32 and found.shape == expected[nth].shape
            np.testing.assert_allclose(found, expected[nth], rtol=1e-6)
    assert capsys.readouterr().out.startswith("3 videos in ")


def test_what_does_not_fit_is_named(ave, capsys):
    folder, _, audio = ave
    features, annotations = folder / "audio_feature.h5", folder / "Annotations.txt"
    with pytest.raises(ValueError, match="has no data set 'x', expected one of"):
        vaplan.h5.convert(features, annotations, folder / "out", dataset="x")
    text = annotations.read_text()
    annotations.write_text(text + "Bark&ddddddddddd&good&0&10\n")
    with pytest.raises(ValueError, match="has 3 videos, and .* 4, expected equally many"):
        vaplan.h5.convert(features, annotations, folder / "out")
    annotations.write_text(text.replace(NAMES[2], NAMES[0]))
    assert vaplan.h5.convert(features, annotations, folder / "out") == (2, [NAMES[0]])
    annotations.write_text("Bark&x\n")
    assert vaplan.h5.main([str(features), str(annotations), str(folder / "out")]) == 2
    assert "line 1: 'Bark&x', expected Category&VideoID" in capsys.readouterr().err
    annotations.write_text(text)
    with h5py.File(features, "w") as file:
        file["avadataset"] = audio[0]
    with pytest.raises(ValueError, match=r"has shape \(10, 4\), expected \(N, T, ..., D\)"):
        vaplan.h5.convert(features, folder / "Annotations.txt", folder / "out")
