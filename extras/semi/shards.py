"""Unlabelled faces in tar shards, as webdataset writes them.

Each picture is a crop of a face with its margin, as in a prepared set. A table on disk says where each picture lies,
and pictures are read one by one. So memory does not grow with their number.
"""

import hashlib
import tarfile
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from pipnet.errors import UserError, printable
from pipnet.files import own_folder, write_atomic
from pipnet.geometry import border_px
from pipnet.images import SUFFIXES, read_image
from utils.data.disk import MOST_BYTES
from utils.data.faces import Column, Crops, Faces


def shard_files(name: str) -> list[Path]:
    """Return the tar files that a name of --unlabelled means: itself, or those in the folder."""
    path = Path(name)
    return (
        sorted(path.glob("*.tar"))
        if path.is_dir()
        else [path.resolve()]
        if path.suffix == ".tar" and path.is_file()
        else []
    )


class Shards:
    """The pictures in tar files, in the order of the files.
    UserError for a file that is no tar, and if there is no picture.

    folder: where the table is stored. size: side of the nominal crop, px. margin: stored crop / nominal crop.
    input_margin: input of the net / nominal crop.
    """

    def __init__(self, files: list[Path], folder: Path, size: int, margin: float, input_margin: float):
        self.files, self.size = files, size
        self.border, self.input_border = border_px(size, margin), border_px(size, input_margin)
        state = repr([(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]])
        self.checksum = hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()
        place = folder / f"shards-{self.checksum[:16]}.table"
        if not place.is_file():
            own_folder(folder.parent, folder.name)
            write_atomic(place, self._scan)
        if not place.stat().st_size:
            raise UserError(f"no picture in {files[0]}{' and other shards' if len(files) > 1 else ''}")
        self.table = np.memmap(place, np.int64, "r").reshape(-1, 3)  # number of the file, first byte, number of bytes

    def _scan(self, place: Path) -> None:
        with open(place, "wb") as table:
            for number, file in enumerate(self.files):
                try:
                    with tarfile.open(file, "r:") as tar:
                        for member in tar:
                            if member.isfile() and member.name.lower().endswith(SUFFIXES):
                                if member.sparse is not None or member.size > MOST_BYTES:
                                    raise UserError(
                                        f"{file}: {printable(member.name)} has {member.size} bytes, or holes, so it "
                                        "is no picture of a face; make the shard again"
                                    )
                                table.write(np.array([number, member.offset_data, member.size], np.int64).tobytes())
                            vars(tar)["members"].clear()  # tarfile keeps all of them otherwise
                except tarfile.TarError as error:
                    raise UserError(f"{file} is no tar file that is whole and not compressed ({error})") from None

    def __len__(self) -> int:
        return len(self.table)

    def faces(self) -> Faces:
        """Return the pictures as faces without labels. Their column file names the shard and the byte, for errors."""
        crops = Crops(self.picture, self.encoded, len(self), self.size, self.border, self.input_border)
        return Faces({"file": Column(len(self), self.locations)}, crops, {})

    def locations(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the shard and first byte of some pictures, as text."""
        return np.array(
            [f"{self.files[number]} at byte {first}" for number, first, _ in self.table[rows].tolist()], object
        )

    def encoded(self, index: int) -> bytes:
        """Return the stored bytes of a picture."""
        number, first, count = self.table[index].tolist()
        with open(self.files[number], "rb") as file:
            file.seek(first)
            return file.read(count)

    def picture(self, index: int) -> np.ndarray:
        """Return a picture (S, S, 3) uint8 BGR, resized to the nominal crop and its border.

        A damaged one is replaced by the next.
        """
        side = self.size + 2 * self.border
        for place in range(index, index + len(self)):
            with suppress(UserError):
                image = read_image(self.files[0], data=self.encoded(place % len(self)))
                return cv2.resize(
                    image, (side, side), interpolation=cv2.INTER_AREA if len(image) > side else cv2.INTER_LINEAR
                )
        raise UserError(f"all pictures of {self.files[0]} are damaged; make the shards again")
