"""Encoding side by side: bare onnxruntime on ready tensors, `vaplan encode` from files, transformers + PyTorch from files.

    python -m venv v && v/bin/pip install -r bench/compare/encode-requirements.txt
    v/bin/python bench/compare/encode.py --bins target/release [--images 320] [--clips 80] [--rounds 3] [--work DIR]

Models have the full size of ViT-B/32 and HTSAT (clap-htsat-unfused), with random weights. Pictures are JPEG of LLP's 320 by
240, sound is 16-bit stereo wav of 44.1 kHz; a clip is one second, which CLAP repeats to ten. All use as many threads as there
are cores. Takes turns `--rounds` times and prints the best of each. Then the peak memory of `encode` over 1,000 and
10,000 pictures, by a small model.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

BATCH = 32
SEGMENTS = 10


def models(work):
    """Exports the models, as the public exports have them."""
    import torch
    from transformers import ClapAudioModelWithProjection, ClapConfig, CLIPConfig, CLIPVisionModelWithProjection

    class Embeds(torch.nn.Module):
        def __init__(self, model, name):
            super().__init__()
            self.model, self.name = model, name

        def forward(self, values):
            return getattr(self.model(values), self.name)

    small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8)
    made = {}
    for folder, build, given, name, shape in [
        ("clip", lambda: CLIPVisionModelWithProjection(CLIPConfig().vision_config), "pixel_values", "image_embeds", (3, 224, 224)),
        ("small", lambda: CLIPVisionModelWithProjection(CLIPConfig(vision_config=small, projection_dim=32).vision_config),
         "pixel_values", "image_embeds", (3, 64, 64)),
        ("clap", lambda: ClapAudioModelWithProjection(ClapConfig().audio_config), "input_features", "audio_embeds", (1, 1001, 64)),
    ]:
        torch.manual_seed(7)
        model = build()
        with torch.no_grad():
            # With biases of 0, as they begin, silence would have no embedding at all.
            for name_of, values in model.named_parameters():
                if name_of.endswith("bias"):
                    values.normal_(0, 0.1)
        to = f"{work}/{folder}"
        file = "audio_model.onnx" if folder == "clap" else "vision_model.onnx"
        if not os.path.exists(f"{to}/vaplan.toml"):
            os.makedirs(to, exist_ok=True)
            torch.onnx.export(Embeds(model.eval(), name), (torch.randn(2, *shape),), f"{to}/{file}", input_names=[given],
                              output_names=[name], dynamic_axes={given: {0: "batch"}, name: {0: "batch"}},
                              opset_version=17, dynamo=False)
            size = "[image]\nsize = 64\n" if folder == "small" else ""
            # No text is encoded: any file will do.
            open(f"{to}/vaplan.toml", "w").write(f'text = "{file}"\ntokenizer = "{file}"\n{size}')
        made[folder] = (model.eval(), f"{to}/{file}", shape)
    return made


def media(work, images, clips):
    """Folders of JPEG frames, one a second, and wavs of ten seconds."""
    import numpy as np
    import soundfile
    from PIL import Image

    random = np.random.default_rng(7)
    for video in range(-(-images // SEGMENTS)):
        folder = f"{work}/frames/video{video:04}"
        if not os.path.exists(folder):
            os.makedirs(folder)
            for frame in range(SEGMENTS):
                smooth = Image.fromarray(random.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize((320, 240), Image.BICUBIC)
                grain = np.asarray(smooth, dtype=np.int16) + random.integers(-12, 13, (240, 320, 3))
                Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(f"{folder}/{frame:06}.jpg", quality=90)
    os.makedirs(f"{work}/sound", exist_ok=True)
    for video in range(-(-clips // SEGMENTS)):
        path = f"{work}/sound/video{video:04}.wav"
        if not os.path.exists(path):
            soundfile.write(path, random.normal(0, 0.1, (441_000, 2)), 44_100, subtype="PCM_16")


def bare(path, shape, count, threads):
    """Seconds of onnxruntime on tensors that lie ready."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    ready = np.random.default_rng(7).normal(size=(BATCH, *shape)).astype(np.float32)
    session.run(None, {name: ready[:1]})
    start = time.perf_counter()
    for first in range(0, count, BATCH):
        session.run(None, {name: ready[:min(BATCH, count - first)]})
    return time.perf_counter() - start


def transformers(work, model, kind, count, threads):
    """Seconds of the usual pipeline, from files to embeddings."""
    import librosa
    import torch
    from PIL import Image
    from transformers import ClapFeatureExtractor, CLIPImageProcessor

    torch.set_num_threads(threads)
    embeddings = []
    start = time.perf_counter()
    with torch.inference_mode():
        if kind == "clip":
            processor = CLIPImageProcessor()
            paths = [f"{work}/frames/video{at // SEGMENTS:04}/{at % SEGMENTS:06}.jpg" for at in range(count)]
            for first in range(0, count, BATCH):
                pictures = [Image.open(path).convert("RGB") for path in paths[first:first + BATCH]]
                embeddings.append(model(**processor(images=pictures, return_tensors="pt")).image_embeds)
        else:
            extractor = ClapFeatureExtractor(feature_size=64, sampling_rate=48_000, hop_length=480, max_length_s=10,
                                             fft_window_size=1024, frequency_min=50, frequency_max=14_000,
                                             truncation="rand_trunc", padding="repeatpad")
            pieces = []
            for video in range(-(-count // SEGMENTS)):
                wave, _ = librosa.load(f"{work}/sound/video{video:04}.wav", sr=48_000, mono=True)
                pieces += [wave[at * 48_000:(at + 1) * 48_000] for at in range(SEGMENTS)]
            pieces = pieces[:count]
            for first in range(0, count, BATCH):
                features = extractor(pieces[first:first + BATCH], sampling_rate=48_000, return_tensors="pt")
                embeddings.append(model(input_features=features["input_features"]).audio_embeds)
    seconds = time.perf_counter() - start
    assert sum(len(part) for part in embeddings) == count
    return seconds


def encode(vaplan, work, flag, model, media, expected, *more):
    """Seconds and peak MiB of the whole command, the models' opening included, and seconds without."""
    out = f"{work}/out"
    shutil.rmtree(out, ignore_errors=True)
    command = [vaplan, "encode", "--log-format", "json", "--media", media, f"--{flag}", model, "--out", out, "--frame-rate", "1",
               "--batch", str(BATCH), *more]
    environment = os.environ | {"VAPLAN_LOG": "vaplan=debug"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    opened = None
    for line in process.stderr:
        if opened is None and b'"models opened"' in line:
            opened = time.perf_counter()
    said = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    end = time.perf_counter()
    if os.waitstatus_to_exitcode(status) != 0 or f"encoded {expected} segments" not in said:
        sys.exit(f"{' '.join(command)}: {said}")
    return end - start, usage.ru_maxrss / 1024, end - opened


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--images", type=int, default=320)
    options.add_argument("--clips", type=int, default=80)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--work")
    options.add_argument("--one", help=argparse.SUPPRESS)
    options = options.parse_args()
    missing = [name for name in ("torch", "transformers", "onnxruntime", "onnx", "librosa", "PIL", "soundfile")
               if importlib.util.find_spec(name) is None]
    if missing:
        print(f"LEFT OUT: this Python has no {', '.join(missing)}: see bench/compare/encode-requirements.txt")
        return
    # Videos are whole.
    options.images, options.clips = (-(-count // SEGMENTS) * SEGMENTS for count in (options.images, options.clips))
    vaplan, threads = f"{options.bins}/vaplan", len(os.sched_getaffinity(0))
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    made = models(work)
    media(work, options.images, options.clips)
    if options.one:
        # A process of its own, so that neither library's threads are in the other's way.
        kind, side, count = options.one.split(",")
        model, path, shape = made[kind]
        seconds = bare(path, shape, int(count), threads) if side == "bare" else transformers(work, model, kind, int(count), threads)
        print(f"seconds {seconds}")
        return

    def other(kind, side, count):
        command = [sys.executable, __file__, *sys.argv[1:], "--work", work, "--one", f"{kind},{side},{count}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(re.search(r"seconds (\S+)", done.stdout)[1])

    print(f"{threads} threads, batches of {BATCH}, best of {options.rounds}")
    for kind, what, folder, count in [("clip", "images", "frames", options.images), ("clap", "clips", "sound", options.clips)]:
        best = {}
        for _ in range(options.rounds):
            whole, peak, running = encode(vaplan, work, kind, f"{work}/{kind}", f"{work}/{folder}", count)
            for name, seconds in [("bare", other(kind, "bare", count)), ("transformers", other(kind, "transformers", count)),
                                  ("whole", whole), ("vaplan", running)]:
                best[name] = min(best.get(name, seconds), seconds)
        print(f"{kind}: {what} per second: bare onnxruntime {count / best['bare']:.2f}, vaplan {count / best['vaplan']:.2f} "
              f"({count / best['whole']:.2f} with opening the model; {peak:.0f} MiB), transformers {count / best['transformers']:.2f}")
        print(f"      vaplan / bare {best['bare'] / best['vaplan']:.3f}, vaplan / transformers {best['transformers'] / best['vaplan']:.2f}")

    for count in (1_000, 10_000):
        folder = f"{work}/many{count}"
        for video in range(count // SEGMENTS):
            # Links to the same folders would be the same content, encoded once: each has a length of its own.
            os.makedirs(f"{folder}/{video:05}", exist_ok=True)
            for frame in range(SEGMENTS):
                to = f"{folder}/{video:05}/{frame:06}.jpg"
                if not os.path.exists(to):
                    with open(f"{work}/frames/video{video % 8:04}/{frame:06}.jpg", "rb") as file:
                        open(to, "wb").write(file.read() + video.to_bytes(4, "big"))
        peak = encode(vaplan, work, "clip", f"{work}/small", folder, count)[1]
        print(f"peak memory of {count} pictures: {peak:.0f} MiB")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
