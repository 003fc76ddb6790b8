"""Menpo 2D (Zafeiriou et al., CVPRW 2017; Deng et al., IJCV 2019): images with a .pts beside each.

Semi-frontal faces have 68 landmarks, profile faces 39; one folder of the release holds both.
"""

from extras.datasets.archive import Archive, Missing
from extras.datasets.points import images_and_points
from extras.shared.pts import read_pts
from pipnet.errors import UserError

LATER = {68: 5658, 39: 1906}  # training faces of the benchmark's second release


def parse_menpo(archive: Archive) -> None:
    """Add train, test of the faces with 68 or 39 landmarks. A folder with "test" in its name holds test faces."""
    images, annotated = images_and_points(archive.root, archive.root, recursive=True)
    for stem, path in sorted(annotated.items()):
        with archive.checked():
            values = read_pts(path)
            if len(values) not in LATER:
                raise UserError(f"{path}: {len(values)} points where 68 or 39 belong")
            if len(values) != archive.count:
                continue
            if stem not in images:
                raise Missing(path)
            name = path.relative_to(archive.root)
            split = "test" if any("test" in part.lower() for part in name.parts[:-1]) else "train"
            archive.add(split, images[stem][0], split, name.with_suffix("").as_posix(), values)
    later = LATER[archive.count or 0]
    if archive.columns.get("split", []).count("train") == later:
        archive.expected = archive.expected | {"train": later}
