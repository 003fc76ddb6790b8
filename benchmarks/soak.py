"""The demo for a long time: memory, frames and files. `python benchmarks/soak.py [video] [pictures] [SHARE]`

video: a rendered clip of 20 minutes; pictures: a folder of 10,000. SHARE, such as 0.01: of these lengths. memory_growth_mb is how
far the process grows beyond the most that it had in its first tenth; at most 50 MB are allowed.
"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from record import ROOT, chosen, save

RATE, FRAMES, SIZE, PICTURES = 25, 20 * 60 * 25, (320, 240), 10_000
DIFFERENT = 50    # pictures; the others are links to these
ALLOWED = 50      # MB
BETWEEN = 0.25    # s between two looks at the memory


def face(angle: float) -> np.ndarray:
    """Return a picture (240, 320, 3) of a face that moves about as `angle` grows."""
    image = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    scale = 0.9 * SIZE[1] / min(image.shape[:2])
    middle = SIZE[0] / 2 + 30 * np.sin(angle), SIZE[1] / 2 + 8 * np.sin(2.3 * angle)
    shift = np.array(middle) - scale * np.array(image.shape[1::-1]) / 2
    matrix = np.array([(scale, 0, shift[0]), (0, scale, shift[1])])
    return cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def memory(process: int) -> float:
    """Return a process's resident memory in MB, 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)
    except OSError:
        return 0.0


def watched(flags: list[str], lines: Path, count: int) -> dict:
    """Run the demo. Return its seconds, its memory, and how many lines of JSON it wrote for `count` frames."""
    command = [sys.executable, str(ROOT / "demo.py"), *flags, "--json", str(lines), "--threads", "1", "--upright"]
    begun, looks = time.monotonic(), []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        time.sleep(BETWEEN)
        done = lines.stat().st_size if lines.is_file() else 0
        looks.append((done, memory(process.pid)))
    if process.returncode:
        sys.exit(process.stderr.read())
    seconds, rows = time.monotonic() - begun, [json.loads(line) for line in lines.read_text().splitlines()]
    looks = [(done, used) for done, used in looks if used and done] or [(0, 0)]  # it may end before the first look
    early = [used for done, used in looks if done <= 0.1 * looks[-1][0]] or [looks[0][1]]
    growth = max(used for _, used in looks) - max(early)
    return {"frames": count, "lines": len(rows), "in_order": [row["frame"] for row in rows] == list(range(count)),
            "with_a_face": sum(bool(row["faces"]) for row in rows), "seconds": round(seconds, 1),
            "memory_mb": round(max(early), 1), "memory_growth_mb": round(growth, 1), "flat": growth <= ALLOWED}


def video(place: Path, share: float) -> dict:
    """Return the figures of a clip that is tracked, drawn and saved."""
    count, code = max(round(FRAMES * share), 1), cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(place / "in.mp4"), code, RATE, SIZE)
    for index in range(count):
        writer.write(face(index / RATE))
    writer.release()
    found = watched(["--source", str(place / "in.mp4"), "--save", str(place / "out.mp4"), "--pose", "--drowsiness"],
                    place / "out.jsonl", count)
    saved, read = cv2.VideoCapture(str(place / "out.mp4")), 0
    while saved.grab():
        read += 1
    return {**found, "saved_frames": read, "playable": read == count}


def pictures(place: Path, share: float) -> dict:
    """Return the figures of a folder of pictures whose drawn copies are saved."""
    count, source = max(round(PICTURES * share), 1), place / "in"
    source.mkdir()
    for index in range(count):
        if index < DIFFERENT:
            cv2.imwrite(str(source / f"{index:06d}.jpg"), face(index))
        else:
            os.link(source / f"{index % DIFFERENT:06d}.jpg", source / f"{index:06d}.jpg")
    found = watched(["--source", str(source), "--save", str(place / "out")], place / "out.jsonl", count)
    return {**found, "saved_pictures": len(list((place / "out").iterdir()))}


MEASURES = {"video": video, "pictures": pictures}


def measure(names: list[str], share: float) -> dict:
    """Return {name: figures} of the measures."""
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = MEASURES[name](Path(folder), share)
    return found


if __name__ == "__main__":
    shares = [word for word in sys.argv[1:] if word[0].isdigit()]
    names = chosen(MEASURES, [word for word in sys.argv[1:] if word not in shares])
    save("soak", " ".join(["python benchmarks/soak.py", *sys.argv[1:]]), 0, measure(names, float(shares[0]) if shares else 1.0))
