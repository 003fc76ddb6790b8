"""The README's pictures, into assets/: `python benchmarks/pictures.py [faces] [astronaut] [head]`, without names all of them.

faces: synthetic test faces with what the net of `benchmarks/runs.py default` finds on them. astronaut: what demo.py finds in
NASA's portrait of Eileen Collins, which is in the public domain; ASTRONAUT names the file, `data/astronaut.png` of scikit-image.
head: a rendered head that turns, talks and blinks, tracked by demo.py, as a GIF. What has no source is skipped, saying so.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from record import ROOT

from pipnet.app.sources import Video
from pipnet.draw import group_colours
from utils.config import defaults, load_layout
from utils.data import sets
from utils.data.dataset import Faces, collate
from utils.data.synthetic import face
from utils.data.synthetic.head import lid_height
from utils.test import report
from utils.test.evaluate import torch_predictor
from utils.train import run_folder as run

ASSETS = ROOT / "assets"
NET, ASTRONAUT = ROOT / "weights" / "bench_default" / "best.pt", Path(os.environ.get("ASTRONAUT", "../shared/astronaut.png"))
ROWS, COLUMNS, SIZE = 3, 8, 144
PERSON, SIDE, FRAMES, RATE, COLOURS = 4, 256, 40, 12, 128  # the head: which one of seed 0, px, frames, frames/s, of the palette
BESIDE, GREY = 180, (44, 40, 36)  # px to the left of it, where demo.py's panel lies, and their colour


def faces() -> None:
    """faces.jpg."""
    net, layout, _ = run.unpack(NET)
    found_in = Faces([(sets.prepare(sets.SYNTHETIC, defaults()), "test")], layout, net.spec["input_size"], 1.0)
    chosen = range(0, len(found_in), len(found_in) // (ROWS * COLUMNS))[:ROWS * COLUMNS]
    found = torch_predictor(net, torch.device("cpu"))(collate([found_in[i] for i in chosen]).images).landmarks.numpy()
    pairs = zip(chosen, found, strict=True)
    tiles = [report.tile(found_in[i][0], [(landmarks, report.TRUTH)], layout, SIZE) for i, landmarks in pairs]
    report.write_image(ASSETS / "faces.jpg", report.sheet(tiles, COLUMNS))


def demo(source: Path, save: Path, *flags: str) -> None:
    """The documented command."""
    subprocess.run([sys.executable, "demo.py", "--source", str(source), "--save", str(save), *flags], cwd=ROOT, check=True)


def astronaut() -> None:
    """astronaut.jpg."""
    demo(ASTRONAUT.resolve(), ASSETS / "astronaut.jpg")


def head() -> None:
    """head.gif."""
    with tempfile.TemporaryDirectory() as folder:
        clip, drawn = Path(folder, "head.avi"), Path(folder, "drawn.avi")
        writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (BESIDE + SIDE, SIDE))
        for image in talking():
            writer.write(cv2.copyMakeBorder(image, 0, 0, BESIDE, 0, cv2.BORDER_CONSTANT, value=GREY))
        writer.release()
        demo(clip, drawn, "--pose")
        images = [frame.image[..., ::-1] for frame in Video(str(drawn))]
    lines = np.array(group_colours(load_layout(defaults().tables["layouts"], "68")), np.uint8)[:, ::-1]
    samples = [*images[::10], np.resize(lines, (SIDE // 8, BESIDE + SIDE, 3))]  # thin lines keep their colours
    palette = Image.fromarray(np.concatenate(samples)).quantize(COLOURS)
    frames = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    frames[0].save(ASSETS / "head.gif", save_all=True, append_images=frames[1:], duration=1000 // RATE, loop=0)


def talking() -> list[np.ndarray]:
    """FRAMES pictures (SIDE, SIDE, 3) of one person; the last goes over into the first."""
    sampled, images = face.sample_pose, []
    try:
        for turn in 2 * np.pi * np.arange(FRAMES) / FRAMES:
            angles = np.radians([28 * np.sin(turn), -17 + 6 * np.cos(2 * turn), 5 * np.sin(turn + 1)])
            jaw = 0.12 * max(np.sin(3 * turn), 0) * (np.cos(turn) > 0)
            lids = np.array([lid_height(float(np.clip(abs(turn - 4.4) / 0.25, 0, 1)), 0.8)] * 2, np.float32)

            def pose(rng, hard, angles=angles, jaw=jaw, lids=lids):
                return sampled(rng, hard)._replace(angles=tuple(angles), jaw=float(jaw), lids=lids)

            face.sample_pose = pose
            images.append(face.draw(np.random.default_rng([0, PERSON]), SIDE, False).image)
    finally:
        face.sample_pose = sampled
    return images


PICTURES = {"faces": (faces, NET), "astronaut": (astronaut, ASTRONAUT), "head": (head, None)}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PICTURES)
    if unknown := [name for name in wanted if name not in PICTURES]:
        sys.exit(f"no picture {unknown[0]} (there are: {', '.join(PICTURES)})")
    for name in wanted:
        make, source = PICTURES[name]
        if source and not source.is_file():
            print(f"{name} skipped: no {source}")
        else:
            make()
