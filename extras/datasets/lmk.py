"""LMK: 300W and WFLW as the IRNet fork distributes them (LMK.zip), which is also the output of its own preparation.

images/{train,test}/ hold crops: the landmarks' box times 1.1, without keeping its aspect. train.txt and test.txt have a
line per face: the path of the crop on its author's machine, then 68 times `x y` in [0, 1] of the crop. indices.txt is
the mean face.
"""

from contextlib import suppress

from extras.datasets.archive import Archive
from extras.datasets.naming import photograph
from extras.datasets.w300 import PARTS
from extras.shared.lists import numbers
from pipnet.errors import UserError
from pipnet.images import read_image
from utils.data.table import BESIDE

COUNT = 68
SUBSETS = {part.replace("/", "_"): row.subset for part, row in PARTS.items()}  # {first words of a crop's name: subset}


def parse_lmk(archive: Archive) -> None:
    """Add train, test in px of the crops, which are the images here. A crop without a name of 300W is WFLW's.

    The fork divides 1-based, truncated coordinates by the sides of a crop that begins at a whole pixel counted from 0.
    On average these are continuous px, so nothing is shifted.
    """
    for split in archive.splits:
        for where, line in archive.lines(f"{split}.txt"):
            with archive.checked():
                words = line.rsplit(maxsplit=2 * COUNT)
                if len(words) != 2 * COUNT + 1:
                    raise UserError(
                        f"{where}: {len(words)} words where the path of a crop and {2 * COUNT} coordinates belong"
                    )
                name = words[0].replace("\\", "/").split("/")[-1]
                image = archive.file(f"images/{split}/{name}", where)
                points, size = numbers(words[1:], where).reshape(COUNT, 2), (256, 256)  # as the release is
                with suppress(UserError):  # preparation leaves a damaged image out
                    size = read_image(image).shape[1::-1]
                subset = next((subset for part, subset in SUBSETS.items() if name.startswith(f"{part}_")), None)
                identity = photograph(image.stem) if subset else image.stem
                archive.add(split, image, BESIDE.join([split, subset or "wflw"]), identity, points * size, where)
