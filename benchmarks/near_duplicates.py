"""Photographs that stand in two splits: `python benchmarks/near_duplicates.py [FOLDER ...]` (without: data/300w, data/faces68).

Each face is turned onto the mean face by its landmarks and hashed by the signs of the lowest frequencies of its cosine transform,
each against its median over all faces, so that what all faces share does not count. Two faces are suspects when their hashes
differ in no more bits than the same photograph does after another annotation, another encoding and other light. The closest
pairs are drawn; whether they are one photograph is for a person to see.
"""
import sys
from pathlib import Path

import cv2
import numpy as np
from record import ROOT, save

from nets.convert.transplant import similarity
from pipnet.draw import sheet, tile
from pipnet.errors import UserError
from pipnet.geometry import opencv_matrix
from pipnet.images import write_image
from utils.config import defaults, load_layout
from utils.data.dataset import Faces
from utils.data.prepared_set import SPLITS, load_split

FOLDERS = [ROOT / "data" / "300w", ROOT / "data" / "faces68"]  # whose figures are kept
SIDE, SHARE = 64, 0.6        # px of the aligned face; its landmarks' root mean square radius as a share of half of that
BITS = 16                    # frequencies a side but for the mean: 255 bits
DRAWN, COLUMNS, SHOWN = 256, 6, 36
SHIFT, QUALITY = 0.02, 30    # of the same photograph: landmarks by 2 % of the crop (about 4 % of the eyes' distance), JPEG


def aligned(picture: np.ndarray, landmarks: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32 gray: the picture (S, S, 3) turned, scaled and moved so that its landmarks (N, 2) lie on `mean`."""
    known = np.isfinite(landmarks).all(1)
    turn, shift = similarity(landmarks[known], mean[known])
    matrix = opencv_matrix(np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]))
    blurred = cv2.GaussianBlur(picture, (0, 0), max(0.4 / abs(turn), 0.3))
    gray = cv2.cvtColor(cv2.warpAffine(blurred, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), cv2.COLOR_BGR2GRAY)
    return gray.astype(np.float32)


def frequencies(gray: np.ndarray) -> np.ndarray:
    """(BITS^2 - 1,) lowest frequencies but for the mean, of unit length, so that light and contrast do not count."""
    values = cv2.dct(gray)[:BITS, :BITS].ravel()[1:]
    return values / (np.linalg.norm(values) + 1e-9)


def altered(picture: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same photograph as another set might hold it: smaller, lighter, coarser, and annotated by another hand."""
    small = cv2.resize(picture, (96, 96), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.convertScaleAbs(small, alpha=0.8, beta=25), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    size = len(picture)
    moved = landmarks + (rng.normal(0, SHIFT, landmarks.shape) + rng.normal(0, SHIFT / 2, 2)) * DRAWN
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (size, size), interpolation=cv2.INTER_CUBIC), moved


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differing bits of hashes (A, bits) and (B, bits) of +-1, (A, B)."""
    return ((a.shape[1] - a.astype(np.float32) @ b.T.astype(np.float32)) / 2).astype(np.int16)


class Group:
    """The faces of one split of one set, in px of the stored crop: plain, mirrored and altered frequencies."""

    def __init__(self, folder: Path, split: str, mean: np.ndarray, layout):
        self.name, self.faces = f"{folder.name}/{split}", Faces([(folder, split)], layout, DRAWN, 0)
        plain, mirrored, other = [], [], []
        for index in range(len(self.faces)):
            picture, points = self.faces.picture(index), self.faces.nominal[index] * DRAWN + self.faces.border
            gray = aligned(picture, points, mean)
            plain.append(frequencies(gray))
            mirrored.append(frequencies(np.ascontiguousarray(gray[:, ::-1])))
            other.append(frequencies(aligned(*altered(picture, points, np.random.default_rng(index)), mean)))
        self.plain, self.mirrored, self.altered = (np.array(values) for values in (plain, mirrored, other))


def mean_face(folders: list[Path], layout) -> np.ndarray:
    """(N, 2) px in the aligned face, symmetric, so that a mirrored face lies on it as well."""
    nominal = np.concatenate([Faces([(folder, "train")], layout, DRAWN, 0).nominal for folder in folders])
    mean = np.nanmean(nominal, 0)
    mean = (mean + (mean * (-1, 1) + (1, 0))[list(layout.flip_index)]) / 2 - mean.mean(0)
    return SIDE / 2 + (mean - mean.mean(0)) / np.sqrt((mean**2).sum(1).mean()) * SHARE * SIDE / 2


def main(folders: list[Path]) -> None:
    layout = load_layout(defaults().tables["layouts"], "68")
    mean = mean_face(folders, layout)
    splits = [(folder, split) for folder in folders for split in SPLITS if (folder / f"{split}.tsv").is_file()]
    groups = [Group(*split, mean, layout) for split in splits if len(load_split(*split).files)]
    if len({SPLITS.index(group.name.split("/")[1]) for group in groups}) < 2:
        raise UserError("all faces are of one split; what is looked for stands in two")
    median = np.median(np.concatenate([group.plain for group in groups]), 0)
    plain, mirrored, other = ([np.where(getattr(group, key) > median, 1, -1).astype(np.int8) for group in groups]
                              for key in ("plain", "mirrored", "altered"))
    same = np.concatenate([(a != b).sum(1) for a, b in zip(plain, other, strict=True)])
    limit = int(np.percentile(same, 99))
    counts, found, all_distances = [], [], np.zeros(plain[0].shape[1] + 1, np.int64)
    for a, one in enumerate(groups):
        for b, two in enumerate(groups):
            if SPLITS.index(one.name.split("/")[1]) >= SPLITS.index(two.name.split("/")[1]):
                continue  # each pair once, the earlier split first
            straight = distances(plain[a], plain[b])
            all_distances += np.bincount(straight.ravel(), minlength=len(all_distances))
            nearest = np.minimum(straight, distances(mirrored[a], plain[b]))
            near = np.argwhere(nearest <= max(limit, np.sort(nearest, None)[:41][-1]))
            found += [(int(nearest[i, j]), a, b, int(i), int(j)) for i, j in near]
            counts.append({"one": one.name, "other": two.name, "pairs": int(nearest.size), "closest": int(nearest.min()),
                           "suspects": int((nearest <= limit).sum()),
                           "faces": len({int(j) for i, j in near if nearest[i, j] <= limit})})
            print(counts[-1])
    found.sort()
    tiles, pairs = [], []
    for distance, a, b, i, j in found[:SHOWN * 4]:
        names = [groups[a].faces.names[i], groups[b].faces.names[j]]
        if distance <= limit or len(tiles) < SHOWN:
            pairs.append({"bits": distance, "one": f"{groups[a].name} {names[0]}", "other": f"{groups[b].name} {names[1]}"})
        if len(tiles) < SHOWN:
            two = [tile(groups[g].faces[k][0], [], layout, 144, Path(name).name[:18])
                   for g, k, name in zip((a, b), (i, j), names, strict=True)]
            pair = np.pad(np.concatenate(two, 1), ((20, 4), (4, 4), (0, 0)))
            cv2.putText(pair, f"{distance} bits  {groups[a].name}  {groups[b].name}", (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.38,
                        (255, 255, 255), 1, cv2.LINE_AA)
            tiles.append(pair)
    place = ROOT / "weights" / "near_duplicates"
    place.mkdir(exist_ok=True)
    write_image(place / "pairs.jpg", sheet(tiles, COLUMNS))
    shares = np.cumsum(all_distances) / all_distances.sum()
    print(*(f"{pair['bits']}  {pair['one']}  {pair['other']}" for pair in pairs), f"pictures: {place / 'pairs.jpg'}", sep="\n")
    if folders != FOLDERS:
        return
    save("near_duplicates", "python benchmarks/near_duplicates.py", 0, {
        "bits": plain[0].shape[1], "limit": limit,
        "same_photograph": {f"{at} %": float(np.percentile(same, at)) for at in (50, 90, 99)},
        "different_splits": {f"{share:g}": int(np.searchsorted(shares, share)) for share in (1e-6, 1e-4, 0.01, 0.5)},
        "splits": counts, "closest": pairs[:SHOWN]})


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]] or FOLDERS
    absent = [str(folder) for folder in named if not (folder / "meta.yaml").is_file()]
    if absent:
        sys.exit(f"skipped: no prepared set at {', '.join(absent)}")
    try:
        main(named)
    except UserError as error:
        sys.exit(f"error: {error}")
