#!/usr/bin/env python3
"""Makes the built-in annotation sets, six CSV files in LLP's format each: `sample/` for examples and tests, and `demo/`.

The files share only the names of the classes with LLP: videos, labels and events are made up. The files are checked in, and a new
run of this script writes the same bytes.

The files contain two oddities of LLP's own files on purpose, because readers must accept them: an event with onset equal to offset,
and a label that occurs twice in a list.
"""

import random
from pathlib import Path

SEED = 20240611
SETS = {
    "sample": {"train": 40, "val_pd": 16, "test_pd": 24},
    # Large enough that a parser trained on it shows the gain of each step of the method.
    "demo": {"train": 1200, "val_pd": 300, "test_pd": 300},
}
# Speech occurs with all classes. Each other class belongs to one or more scenes.
SCENES = [
    ["Singing", "Acoustic_guitar", "Clapping", "Cheering"],
    ["Violin_fiddle", "Cello", "Accordion", "Clapping"],
    ["Banjo", "Acoustic_guitar", "Singing"],
    ["Car", "Motorcycle", "Helicopter", "Fire_alarm"],
    ["Lawn_mower", "Chainsaw", "Dog", "Chicken_rooster"],
    ["Dog", "Cat", "Vacuum_cleaner", "Telephone_bell_ringing"],
    ["Baby_laughter", "Baby_cry_infant_cry", "Telephone_bell_ringing"],
    ["Frying_(food)", "Blender"],
    ["Basketball_bounce", "Cheering", "Clapping"],
]


def name(number, rng):
    """An 11-character id that nobody takes for a real one, and where the ten seconds lie."""
    start = rng.choice([0, 0, 10, 20, 30, 60, 120])
    if number == 7:
        return "-demo_00007_101.8_111.8"
    return f"demo{number:07d}_{start}_{start + 10}"


def labels(number, rng):
    scene = SCENES[number % len(SCENES)]
    classes = rng.sample(scene, rng.choice([1, 1, 2]))
    if rng.random() < 0.5:
        classes.insert(rng.randrange(len(classes) + 1), "Speech")
    return classes


def runs(rng, whole):
    if rng.random() < whole:
        return [(0, 10)]
    borders = sorted(rng.sample(range(11), 2 if rng.random() < 0.8 else 4))
    return list(zip(borders[::2], borders[1::2]))


def main():
    for name, splits in SETS.items():
        make(Path(__file__).parent / name, splits)


def make(folder, splits):
    rng = random.Random(SEED)
    rows = {split: [] for split in splits}
    dense = {"audio": [], "visual": []}
    number = 0
    for split, count in splits.items():
        for _ in range(count):
            number += 1
            video, classes = name(number, rng), labels(number, rng)
            twice = classes + classes[-1:] if number == 31 else classes
            rows[split].append((video, ",".join(twice)))
            if split == "train":
                continue
            for label in classes:
                # A voice is often off camera; what makes a noise is mostly in the picture.
                seen = rng.random() < (0.3 if label == "Speech" else 0.85)
                heard = not seen or rng.random() < 0.93
                audio = runs(rng, 0.4)
                visual = audio if rng.random() < 0.3 else runs(rng, 0.6)
                for modality, there, track in (("audio", heard, audio), ("visual", seen, visual)):
                    if there:
                        dense[modality] += [(video, onset, offset, label) for onset, offset in track]
            if number == splits["train"] + 10:
                dense["audio"].append((video, 6, 6, classes[0]))
    for split, videos in rows.items():
        write(folder / f"demo_{split}.csv", ("filename", "event_labels"), videos)
    write(folder / "demo_dataset_full.csv", ("filename", "event_labels"), sum(rows.values(), []))
    for modality, events in dense.items():
        write(folder / f"demo_eval_{modality}.csv", ("filename", "onset", "offset", "event_labels"), events)


def write(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in (header, *rows):
            file.write("\t".join(map(str, row)) + "\n")


main()
