"""Opens files of events with each format's own package, and prints their events as JSON.

python open_events.py FORMAT FILE...

Prints a list with one object per file: {"events": [[modality, class, onset, offset], ...]} in seconds, sorted.
FiftyOne itself has 1.2 GB, so that only `make fiftyone` installs it. Here its samples are read as load.py reads them, and each
detection is checked against the documented fields.
"""

import csv
import html
import json
import sys
from pathlib import Path


def elan(path):
    import pympi
    from lxml import etree

    grammar = etree.XMLSchema(etree.parse(Path(__file__).with_name("eaf.xsd")))
    grammar.assertValid(etree.parse(path))
    document = pympi.Elan.Eaf(path)
    events = []
    for tier in document.get_tier_names():
        modality, _, name = tier.partition("/")
        for onset, offset, value in document.get_annotation_data_for_tier(tier):
            assert value == name, (tier, value)
            events.append([modality, value, onset / 1000, offset / 1000])
    return events


def webvtt(path):
    import webvtt

    def seconds(clock):
        hours, minutes, rest = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(rest)

    events = []
    for cue in webvtt.read(path):
        modality, _, name = html.unescape(cue.raw_text).partition(": ")
        events.append([modality, name, seconds(cue.start), seconds(cue.end)])
    return events


def textgrid(path):
    from praatio import textgrid

    grid = textgrid.openTextgrid(path, includeEmptyIntervals=False)
    events = []
    for tier in grid.tierNames:
        modality, _, name = tier.partition("/")
        for interval in grid.getTier(tier).entries:
            assert interval.label == name, (tier, interval)
            events.append([modality, name, interval.start, interval.end])
    return events


def audacity(path):
    # Audacity's own format has no package: it is lines of onset, offset and text.
    events = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        onset, offset, text = line.split("\t")
        modality, _, name = text.partition(": ")
        events.append([modality, name, float(onset), float(offset)])
    return events


def events_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [
            [row["modality"], row["class"], float(row["start_seconds"]), float(row["end_seconds"])]
            for row in csv.DictReader(file)
        ]


def label_studio(path):
    from label_studio_sdk.label_interface import LabelInterface

    folder = Path(path).parent
    interface = LabelInterface((folder / "config.xml").read_text(encoding="utf-8"))
    interface.validate()
    events = []
    for task in json.loads(Path(path).read_text(encoding="utf-8")):
        # With `predictions` in the task, this version of the package calls its own check without an argument.
        assert interface.validate_task({"data": task["data"]}), task
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction), prediction
            for region in prediction["result"]:
                value = region["value"]
                if region["type"] == "labels":
                    events.append(["audio", value["labels"][0], value["start"], value["end"]])
                else:
                    rate = task["data"]["frame_rate"]
                    [span] = value["ranges"]
                    events.append(["visual", value["timelinelabels"][0], (span["start"] - 1) / rate, span["end"] / rate])
    return events


def fiftyone(path):
    events = []
    for sample in json.loads(Path(path).read_text(encoding="utf-8")):
        assert isinstance(sample["filepath"], str) and isinstance(sample["tags"], list), sample
        for modality in ("audio", "visual"):
            for detection in sample[modality]:
                assert sorted(detection) == ["label", "seconds", "support"], detection
                first, last = detection["support"]
                assert 1 <= first <= last, detection
                onset, offset = detection["seconds"]
                assert [(first - 1) / sample["frame_rate"], last / sample["frame_rate"]] == [onset, offset], detection
                events.append([modality, detection["label"], onset, offset])
    return events


READERS = {
    "elan": elan,
    "webvtt": webvtt,
    "textgrid": textgrid,
    "audacity": audacity,
    "csv": events_csv,
    "label-studio": label_studio,
    "fiftyone": fiftyone,
}

if __name__ == "__main__":
    reader = READERS[sys.argv[1]]
    json.dump([{"events": sorted(reader(path))} for path in sys.argv[2:]], sys.stdout)
