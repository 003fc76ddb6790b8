"""Menpo 2D (Zafeiriou et al., CVPRW 2017; Deng et al., IJCV 2019): images with a .pts beside each, of 68 landmarks for
semi-frontal and 39 for profile faces, all in one folder of the release."""

from pathlib import Path

from pipnet.errors import UserError
from utils.data.parsers.points import listed
from utils.data.parsers.pts import read_pts
from utils.data.parsers.records import Splits, complain, record, whole

MENPO = {68: {"train": 6679, "test": 5335}, 39: {"train": 2300, "test": 1946}}
LATER = {68: 5658, 39: 1906}  # training faces of the benchmark's second release


def parse_menpo(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0) -> Splits:
    """{train, test} of the faces with `count` landmarks, 68 or 39; what lies below a folder with "test" in its name is the test.
    """
    root = Path(data_dir)
    images, annotated = listed(root, root, recursive=True)
    splits: Splits = {"train": [], "test": []}
    faults, absent = [], []
    for stem, path in sorted(annotated.items()):
        try:
            values = read_pts(path)
            if len(values) not in MENPO:
                raise UserError(f"{path}: {len(values)} points where 68 or 39 belong")
            if len(values) != count:
                continue
            if stem not in images:
                absent.append(path)
                continue
            name = path.relative_to(root)
            split = "test" if any("test" in part.lower() for part in name.parts[:-1]) else "train"
            splits[split].append(record(images[stem][0], split, name.with_suffix("").as_posix(), values, origin))
        except UserError as error:
            faults.append(str(error))
    complain(faults)
    expected = MENPO[count] | ({"train": LATER[count]} if len(splits["train"]) == LATER[count] else {})
    whole(root, f"Menpo's faces of {count} landmarks", expected, splits, absent, allow_partial)
    return splits

