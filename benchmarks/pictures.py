"""Pictures of the documentation, into assets/: `python benchmarks/pictures.py [faces] [head] [tools] [failures]`,
without names all.

faces: synthetic test faces with the landmarks that the net of `benchmarks/experiments.py runs default` finds. head: a
rendered head that turns, talks and blinks, tracked by demo.py, as a GIF. tools: error against time of the tools that
`measure.py others` measured. failures: of each kind of rendered face that `landmarks` finds badly, the one of 24 people
with the largest error. assets/README.md has the command of astronaut.jpg.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from measures.kinds import KINDS
from measures.traits import OPEN, SHUT, TURNS, drawn, error
from photographs import found_in_box, without_detector
from PIL import Image
from record import ROOT, chosen, result

from extras.report.plot import Style, chart
from extras.synthetic import render
from extras.synthetic.head import both_lids
from pipnet.app.sources import Video
from pipnet.draw import FOUND, TRUTH, group_colours, sheet, tile
from pipnet.files import write_text
from pipnet.geometry import box_of, transform
from pipnet.images import write_image
from pipnet.landmarker import Landmarker
from utils.data.batches import plain
from utils.data.prepared_set import SYNTHETIC, Split, load_splits
from utils.data.sets import Sets
from utils.evaluate.evaluate import torch_predictor
from utils.settings.config import make_settings, read_defaults
from utils.train import checkpoint

ASSETS, NET = ROOT / "assets", ROOT / "weights" / "bench_default" / "best.pt"
ROWS, COLUMNS, SIZE = 3, 8, 144
PERSON, SIDE, FRAMES, RATE, COLOURS = 4, 256, 40, 12, 128  # the head: who, px, frames, frames/s, colours of the palette
PEOPLE, LARGE = 24, 256  # of whom the one with the largest error is shown, px of its tile
BESIDE, GREY = 180, (44, 40, 36)  # width in px and colour of the area on the left, for demo.py's panel


def faces() -> str | None:
    """Write faces.jpg."""
    if not NET.is_file():
        return f"no {NET}; `python benchmarks/experiments.py runs default` trains it"
    defaults = read_defaults()
    net, layout, _ = checkpoint.unpack(NET)
    synthetic = Sets(make_settings({}, defaults), defaults).prepare(SYNTHETIC)
    found_in = load_splits([Split(synthetic, "test")], layout, net.spec["input_size"], 1.0)
    chosen = range(0, len(found_in), len(found_in) // (ROWS * COLUMNS))[: ROWS * COLUMNS]
    found = torch_predictor(net, torch.device("cpu"))(plain(found_in, np.array(chosen)).images).landmarks.numpy()
    tiles = [
        tile(found_in.crops.plain(i), [(points, TRUTH)], layout, SIZE) for i, points in zip(chosen, found, strict=True)
    ]
    write_image(ASSETS / "faces.jpg", sheet(tiles, COLUMNS))


def talking(turn: float) -> dict:
    """Return the pose of the head at an angle of its round, from 0 to 2 pi; it ends as it begins."""
    jaw = 0.12 * max(np.sin(3 * turn), 0) if np.cos(turn) > 0 else 0.0
    lids = both_lids(float(np.clip(abs(turn - 4.4) / 0.25, 0, 1)), 0.8)
    angles = np.radians([28 * np.sin(turn), -17 + 6 * np.cos(2 * turn), 5 * np.sin(turn + 1)])
    return {"angles": tuple(angles), "jaw": float(jaw), "lids": lids}


def head() -> None:
    """Write head.gif."""
    with tempfile.TemporaryDirectory() as folder:
        clip, drawn = Path(folder, "head.avi"), Path(folder, "drawn.avi")
        writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (BESIDE + SIDE, SIDE))
        for turn in 2 * np.pi * np.arange(FRAMES) / FRAMES:
            one = render(0, PERSON, SIDE, **talking(turn))
            writer.write(cv2.copyMakeBorder(one.image, 0, 0, BESIDE, 0, cv2.BORDER_CONSTANT, value=GREY))
        writer.release()
        command = [sys.executable, "demo.py", "--source", str(clip), "--save", str(drawn), "--pose"]
        subprocess.run(command, cwd=ROOT, check=True)
        images = [frame.image[..., ::-1] for frame in Video(str(drawn))]
    lines = np.array(group_colours(read_defaults().layouts.load("68")), np.uint8)[:, ::-1]
    samples = [*images[::10], np.resize(lines, (SIDE // 8, BESIDE + SIDE, 3))]  # so thin lines keep their colours
    palette = Image.fromarray(np.concatenate(samples)).quantize(COLOURS)
    frames = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    frames[0].save(ASSETS / "head.gif", save_all=True, append_images=frames[1:], duration=1000 // RATE, loop=0)


def tools() -> None:
    """Write tools.svg from the photographs that no tool has seen."""
    points = {
        row["tool"].replace("`", ""): ([float(row["ms a picture"].split("/")[-1])], [float(row["aligned, FACES68"])])
        for row in result("others")["rows"]
    }
    write_text(
        ASSETS / "tools.svg", chart(points, "ms a picture, one core", "aligned NME %, FACES68", Style(dots=True))
    )


def worst(landmarker: Landmarker, pose: dict, kind: str) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rendered person in a pose with the largest error: error in %, picture, true and found landmarks."""
    people = []
    for index in range(PEOPLE):
        face = drawn(index, **pose)
        image, truth = KINDS[kind](face.image, face.landmarks, np.random.default_rng(index))
        landmarks = found_in_box(landmarker, image, truth)
        people.append((error(landmarker.layout, landmarks, truth), image, truth, landmarks))
    return max(people, key=lambda person: person[0])


def failures() -> None:
    """Write failures.jpg."""
    landmarker, tiles = without_detector("landmarks", threads=1), []
    cases = [(f"yaw {yaw}°", {"yaw": yaw}, "as taken") for yaw in TURNS[-2:]] + [
        ("shut eyes", {"yaw": 0, **SHUT}, "as taken")
    ]
    cases += [(kind, {"yaw": 0, **OPEN}, kind) for kind in ("dark, noisy", "blurred", "a third hidden")]
    for name, pose, kind in cases:
        off, image, truth, landmarks = worst(landmarker, pose, kind)
        left, top, right, bottom = box_of(truth)
        zoom = LARGE / (1.4 * max(right - left, bottom - top))
        middle = np.array([left + right, top + bottom]) / 2
        to_tile = np.column_stack([zoom * np.eye(2), LARGE / 2 - zoom * middle])
        pair = [(transform(truth, to_tile) / LARGE, TRUTH), (transform(landmarks, to_tile) / LARGE, FOUND)]
        crop = cv2.warpAffine(image, to_tile, (LARGE, LARGE))
        tiles.append(tile(crop, pair, landmarker.layout, LARGE, f"{name}: {off:.0f} %"))
    write_image(ASSETS / "failures.jpg", sheet(tiles, 3))


PICTURES = {"faces": faces, "head": head, "tools": tools, "failures": failures}

if __name__ == "__main__":
    for name in chosen(PICTURES, sys.argv[1:]):
        if why := PICTURES[name]():
            print(f"{name} skipped: {why}")
