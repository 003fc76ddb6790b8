"""Photographs that occur in two splits: `python benchmarks/near_duplicates.py [FOLDER ...]` (default: data/300w, data/faces68).

Each face is aligned to the mean face by its landmarks and hashed: the signs of the lowest frequencies of its cosine transform,
each relative to its median over all faces, so what all faces share does not count. Two faces are suspects if their hashes differ
in no more bits than those of one photograph after another annotation, encoding and light. The closest pairs are drawn. Whether
they show one photograph is for a person to judge.
"""
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from record import ROOT, save

from pipnet.draw import sheet, tile
from pipnet.errors import UserError
from pipnet.geometry import mirrored, opencv_matrix, similarity
from pipnet.images import write_image
from utils.config import read_defaults
from utils.faces.prepared_set import SPLITS, PreparedSet, Split, load_splits

FOLDERS = [ROOT / "data" / "300w", ROOT / "data" / "faces68"]  # their figures are kept
SIDE, SHARE = 64, 0.6        # px of the aligned face; its landmarks' root mean square radius / half of that
BITS = 16                    # frequencies per axis, without the mean: 255 bits
DRAWN, COLUMNS, SHOWN = 256, 6, 36
SHIFT, QUALITY = 0.02, 30    # of an altered photograph: landmarks by 2 % of the crop (4 % of the interocular distance); JPEG


def aligned(picture: np.ndarray, landmarks: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the picture (S, S, 3) in gray, (SIDE, SIDE) float32, moved so that its landmarks (N, 2) lie on `mean`."""
    known = np.isfinite(landmarks).all(1)
    matrix = similarity(landmarks[known], mean[known])
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    blurred = cv2.GaussianBlur(picture, (0, 0), max(0.4 / scale, 0.3))
    moved = cv2.warpAffine(blurred, opencv_matrix(matrix), (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    return cv2.cvtColor(moved, cv2.COLOR_BGR2GRAY).astype(np.float32)


def frequencies(gray: np.ndarray) -> np.ndarray:
    """Return the lowest frequencies (BITS^2 - 1,) without the mean, of unit length, so light and contrast do not count."""
    values = cv2.dct(gray)[:BITS, :BITS].ravel()[1:]
    return values / (np.linalg.norm(values) + 1e-9)


def altered(picture: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the photograph as another set might hold it: smaller, brighter, strongly compressed, annotated by someone else."""
    small = cv2.resize(picture, (96, 96), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.convertScaleAbs(small, alpha=0.8, beta=25), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    moved = landmarks + (rng.normal(0, SHIFT, landmarks.shape) + rng.normal(0, SHIFT / 2, 2)) * DRAWN
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), picture.shape[1::-1], interpolation=cv2.INTER_CUBIC), moved


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the number of differing bits (A, B) of hashes (A, bits) and (B, bits) of +-1."""
    return ((a.shape[1] - a.astype(np.float32) @ b.T.astype(np.float32)) / 2).astype(np.int16)


class Group:
    """Faces of one split. hashes: the frequencies (M, bits) of plain, mirrored and altered faces, signs after `binarise`."""

    def __init__(self, split: Split, mean: np.ndarray, layout):
        self.name, self.order = f"{split.set.folder.name}/{split.name}", SPLITS.index(split.name)
        self.faces, found = load_splits([split], layout, DRAWN, 0), []
        for index in range(len(self.faces)):
            picture, points = self.faces.crops[index], self.faces.nominal(index) * DRAWN + self.faces.crops.border
            gray = aligned(picture, points, mean)
            other = aligned(*altered(picture, points, np.random.default_rng(index)), mean)
            found.append([frequencies(image) for image in (gray, np.ascontiguousarray(gray[:, ::-1]), other)])
        self.plain, self.mirrored, self.altered = np.moveaxis(np.array(found), 1, 0)

    def binarise(self, median: np.ndarray) -> None:
        """Replace the frequencies by whether they are above the median: +1 or -1."""
        for key in ("plain", "mirrored", "altered"):
            setattr(self, key, np.where(getattr(self, key) > median, 1, -1).astype(np.int8))

    def drawn(self, index: int, layout) -> np.ndarray:
        """Return a face with the beginning of its file's name."""
        return tile(self.faces.crops.plain(index), [], layout, 144, Path(self.faces["file"][index]).name[:18])


def mean_face(sets: list[PreparedSet], layout) -> np.ndarray:
    """Return the mean face (N, 2) in px of the aligned face, symmetric, so that mirrored faces are aligned to it as well."""
    nominal = np.concatenate([load_splits([Split(one, "train")], layout, DRAWN, 0).nominal() for one in sets])
    mean = np.nanmean(nominal, 0)
    mean = (mean + mirrored(mean, layout.flip_index, 1)) / 2 - mean.mean(0)
    return SIDE / 2 + (mean - mean.mean(0)) / np.sqrt((mean**2).sum(1).mean()) * SHARE * SIDE / 2


def pair_tile(distance: int, one: Group, two: Group, faces: tuple[int, int], layout) -> np.ndarray:
    """Return two faces side by side under a line of text."""
    pair = np.concatenate([group.drawn(index, layout) for group, index in zip((one, two), faces, strict=True)], 1)
    pair = np.pad(pair, ((20, 4), (4, 4), (0, 0)))
    text = f"{distance} bits  {one.name}  {two.name}"
    return cv2.putText(pair, text, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)


def main(folders: list[Path]) -> None:
    layouts = read_defaults().layouts
    sets, layout = [PreparedSet(folder, layouts) for folder in folders], layouts.load("68")
    mean = mean_face(sets, layout)
    splits = [Split(one, name) for one in sets for name in one.splits]
    groups = [Group(split, mean, layout) for split in splits if len(split.set.read(split.name))]
    if len({group.order for group in groups}) < 2:
        raise UserError("all faces are in one split; duplicates are searched between two")
    median = np.median(np.concatenate([group.plain for group in groups]), 0)
    for group in groups:
        group.binarise(median)
    same = np.concatenate([(group.plain != group.altered).sum(1) for group in groups])
    limit, bits = int(np.percentile(same, 99)), len(median)
    counts, found, histogram = [], [], np.zeros(bits + 1, np.int64)
    for one, two in product(groups, groups):
        if one.order >= two.order:
            continue  # each pair once, the earlier split first
        straight = distances(one.plain, two.plain)
        histogram += np.bincount(straight.ravel(), minlength=len(histogram))
        nearest = np.minimum(straight, distances(one.mirrored, two.plain))
        near = np.argwhere(nearest <= max(limit, np.sort(nearest, None)[:41][-1]))
        found += [(int(nearest[i, j]), groups.index(one), groups.index(two), int(i), int(j)) for i, j in near]
        counts.append({"one": one.name, "other": two.name, "pairs": int(nearest.size), "closest": int(nearest.min()),
                       "suspects": int((nearest <= limit).sum()), "faces": int((nearest <= limit).any(0).sum())})
        print(counts[-1])
    tiles, pairs = [], []
    for distance, a, b, i, j in sorted(found)[:SHOWN * 4]:
        one, two = groups[a], groups[b]
        if distance <= limit or len(tiles) < SHOWN:
            names = [f"{group.name} {group.faces['file'][row]}" for group, row in ((one, i), (two, j))]
            pairs.append({"bits": distance, "one": names[0], "other": names[1]})
        if len(tiles) < SHOWN:
            tiles.append(pair_tile(distance, one, two, (i, j), layout))
    file = ROOT / "weights" / "near_duplicates" / "pairs.jpg"
    file.parent.mkdir(exist_ok=True)
    write_image(file, sheet(tiles, COLUMNS))
    print(*(f"{pair['bits']}  {pair['one']}  {pair['other']}" for pair in pairs), f"pictures: {file}", sep="\n")
    if folders == FOLDERS:
        shares = np.cumsum(histogram) / histogram.sum()
        save("near_duplicates", "python benchmarks/near_duplicates.py", 0, {
            "bits": bits, "limit": limit, "same_photograph": {f"{at} %": float(np.percentile(same, at)) for at in (50, 90, 99)},
            "different_splits": {f"{share:g}": int(np.searchsorted(shares, share)) for share in (1e-6, 1e-4, 0.01, 0.5)},
            "splits": counts, "closest": pairs[:SHOWN]})


if __name__ == "__main__":
    try:
        main([Path(name) for name in sys.argv[1:]] or FOLDERS)
    except UserError as error:
        sys.exit(f"error: {error}")
