"""Images on disk and in memory: (H, W, 3) uint8 BGR."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pipnet.bounds import END, check_picture, check_size, jpeg_parts
from pipnet.errors import Unreadable, UserError, one_line, printable
from pipnet.files import read_bytes, unreadable, walk_shown, write_atomic
from pipnet.heif import heif_kind, upright

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has setLogLevel and getLogLevel at its top
SILENT = 0
BEGINNING = 256  # bytes of a file that tell its kind
ROWS = 256  # that are laid on white at a time
BLUR, BLUR_REACH = 1.2, 4  # px, deviation and reach of the blur that removes noise
NOISY = 6.0  # grey levels, deviation of the noise from which it is removed
SECOND = np.array([1, -2, 1], np.float32)  # filter of the second difference
BRIGHT, DARKEST = 0.4, 0.01  # grey level, of 1, to which the mean of a dark image is raised; least mean that counts
# largest / least mean of the channels from which light is coloured; most gain of a channel
TINTED, MOST_GAIN = 1.5, 12.0
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")  # of pictures that any OpenCV reads
# of pictures that OpenCV, or some version of it, does not read: a message names them, so that they are not overlooked
DEPTHS = (8, 10, 12)  # bits of a pixel that a 16-bit picture may hold
SHALLOW = b"\xff\xd8", b"BM", b"GIF8", b"RIFF"  # beginnings of files that hold 8
MOST_DARK = 16  # largest value of 8 bits that a value of 12 bits gets as the upper bits of 16, perhaps rounded
# fmt: off
OTHERS = (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jfif", ".gif", ".tga", ".psd", ".xcf", ".svg", ".exr",
          ".hdr", ".pcx", ".ico", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp", ".wmv", ".flv", ".ogv")
# fmt: on


def picture_files(folder: Path) -> list[Path]:
    """Return the picture files in a folder and its subfolders, see `in_order`. Hidden files and folders of systems are
    left out; of the latter, and of videos beside pictures, a warning says so.

    A file is a picture by its content or by its name, so a damaged one is listed, and reading it says what is wrong.
    """
    found: list[Path] = []
    left: list[str] = []
    videos: list[str] = []
    for base, _, names in walk_shown(folder, left):
        found += filter(is_picture, [Path(base, name) for name in names])
        videos += [os.path.join(base, name) for name in names if name.lower().endswith(VIDEOS)]
    for files, why in (
        (left, "a folder of the system, whose pictures are left out"),
        (videos if found else (), "a video among pictures, left out; a video is read where it is named itself"),
    ):
        if files:
            more = f" and {len(files) - 1} more" * (len(files) > 1)
            logging.getLogger("pipnet").warning(f"{printable(files[0])}{more}: {why}")
    return in_order(found)


def in_order(files: Iterable[Path]) -> list[Path]:
    """Return paths in natural order: face2 before face10."""
    return sorted(
        files,
        key=lambda path: [
            (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.as_posix().lower())
        ],
    )


def is_picture(file: Path) -> bool:
    """Return whether a regular file is a picture by its name or its content."""
    if not file.is_file():
        return False
    if file.suffix.lower() in (*SUFFIXES, *OTHERS):
        return True
    if not os.access(file, os.R_OK):
        return False
    with open(file, "rb") as content:
        beginning = content.read(BEGINNING)
        content.seek(0)
        return bool(heif_kind(beginning)) or cv2.haveImageReader(f"/dev/fd/{content.fileno()}")  # see `opencv_path`


def opencv_path(file: Path | str) -> str:
    """Return a path for OpenCV. UserError for one that is not UTF-8, with which OpenCV would end the process."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise UserError(f"{file}: OpenCV cannot open it, because its path is not UTF-8; rename it") from None
    return str(file)


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image (H, W, 3) resized by a factor, without aliasing, in a third of the time of cv2.INTER_AREA."""
    while factor < 0.5:  # each px becomes the mean of four
        image, factor = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR), 2 * factor
    # pass the factor: a target size would be rounded, and boxes that are found in the result off by that
    return image if factor == 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)


def enhanced(image: np.ndarray) -> np.ndarray:
    """Return the image (H, W, 3) uint8, enhanced so that a face can be found in it.

    If its light is coloured, gains make the means of the channels equal. A dark image is brightened by a gamma curve,
    and blurred if it then is noisy.
    """
    means = np.maximum(image.mean((0, 1)), 1)
    gains = np.minimum(means.max() / means, MOST_GAIN) if means.max() > TINTED * means.min() else np.ones(3)
    gamma = np.log(BRIGHT) / np.log(np.clip((gains * means).mean() / 255, DARKEST, BRIGHT))
    levels = np.minimum(np.arange(256)[:, None] * gains / 255, 1)
    curve = (255 * levels**gamma).round().astype(np.uint8)[None]
    bright = cv2.LUT(image, curve)
    if noise_of(bright) < NOISY:  # the blur would hide small faces
        return bright
    return cv2.LUT(cv2.GaussianBlur(image, (2 * BLUR_REACH + 1,) * 2, BLUR), curve)


def noise_of(image: np.ndarray) -> float:
    """Return the standard deviation of the noise in an image (H, W, 3), in grey levels of 256; 0 for an image below 3
    px.

    The green channel is measured by Immerkaer's "Fast Noise Variance Estimation", 1996: its filter leaves little but
    noise.
    """
    filtered = cv2.sepFilter2D(image[..., 1], cv2.CV_16S, SECOND, SECOND)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(filtered).mean()) if filtered.size else 0.0


class PillowImage(Protocol):
    """A picture of Pillow, which inference does not need."""

    def convert(self, mode: str) -> Any:
        """Return the picture in another mode."""

    def getbands(self) -> tuple[str, ...]:
        """Return the names of the channels."""


Image = np.ndarray | str | Path | PillowImage  # what `as_bgr` takes


class Bgr(np.ndarray):
    """An image (H, W, 3) uint8 BGR that `as_bgr` has returned."""


def as_bgr(image: Any, rgb: bool = False) -> Bgr:
    """Return the image (H, W, 3) uint8 BGR of a uint8 array, a file's name or a picture of Pillow.

    An array is BGR, or RGB with `rgb`, with or without alpha, or grey (H, W) or (H, W, 1). A picture of Pillow gives
    the same as its file. Transparent pixels become white. UserError for anything else.
    """
    if isinstance(image, Bgr):
        return image
    if isinstance(image, (str, Path)):
        return read_image(Path(image)).view(Bgr)
    if hasattr(image, "convert") and hasattr(image, "getbands"):  # Pillow, which inference does not need
        return _of_pillow(image).view(Bgr)
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or not image.size
        or (image.ndim == 3 and image.shape[2] not in (1, 3, 4))
    ):
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image must be uint8 (H, W, 3) BGR, grey, a file's name or a picture of Pillow, not {kind}")
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    colours = cv2.cvtColor(image[..., :3], cv2.COLOR_RGB2BGR) if rgb and image.shape[2] > 1 else image[..., :3]
    return (colours if image.shape[2] == 3 else _on_white(colours, image[..., 3:])).view(Bgr)


def _of_pillow(image: Any) -> np.ndarray:
    """Return the image (H, W, 3) uint8 BGR of a picture of Pillow, as `read_image` returns it for the picture's file."""
    from PIL import Image, ImageFile, ImageOps

    check_size("the picture of Pillow", *image.size)
    try:
        # not for pictures that the program has made: it decides on their orientation
        if isinstance(image, ImageFile.ImageFile):
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits, perhaps in 32
            return cv2.cvtColor(_eight_bits(np.asarray(image).clip(0, 2**16 - 1)), cv2.COLOR_GRAY2BGR)
        clear = "transparency" in image.info or image.mode[-1] in "Aa"
        pixels = np.asarray(image.convert("RGBA" if clear else "RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"the picture of Pillow cannot be read ({one_line(error)}); give another one") from None
    colours = cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2BGR)
    return _on_white(colours, pixels[..., 3:]) if clear else colours


def _on_white(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the image (H, W, 3) uint8 on white. alpha (H, W, 1) has 8 or 16 bits."""
    whole = np.empty_like(image)
    for top in range(0, len(image), ROWS):  # floats of a whole picture would take 16 bytes a pixel
        opaque = alpha[top : top + ROWS] / np.float32(np.iinfo(alpha.dtype).max)
        whole[top : top + ROWS] = np.round(image[top : top + ROWS] * opaque + 255 * (1 - opaque))
    return whole


def read_image(
    file: Path, remedy: str = "fetch it again, or save it as JPEG or PNG", data: bytes | None = None
) -> np.ndarray:
    """Return the upright image (H, W, 3) uint8 BGR of a file: its EXIF tag, or the properties of an AVIF, say how it is
    turned.

    16-bit images become 8-bit, see `_eight_bits`, grey and CMYK become BGR, transparent pixels become white. data: the
    content, if it has been read. Unreadable if the system does not let it be read, UserError for a file that is missing,
    damaged or truncated; for the last two, `remedy` says what to do.
    """
    try:
        data = read_bytes(file) if data is None else data
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise unreadable(file, error) from None
    jpeg, png = data.startswith(b"\xff\xd8"), data.startswith(b"\x89PNG")
    # OpenCV fills the missing rest of a truncated file with grey and reports nothing, so look for the end marker
    if (
        jpeg
        and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
        and all(marker != END for marker, _ in jpeg_parts(data))
    ) or (png and b"IEND" not in data):
        raise UserError(f"{file}: the image is cut short; {remedy}")
    try:
        check_picture(file, data)
        image = _decode(data)
    except MemoryError:
        raise Unreadable(f"{file}: there is not enough memory for an image of this size; give a smaller one") from None
    if image is None and ((kind := heif_kind(data)) or file.suffix.lower() in OTHERS):
        kind = kind or file.suffix[1:].upper()
        raise UserError(
            f"{file}: OpenCV {cv2.__version__} does not read this {kind} picture, or it is damaged; convert it to "
            ".jpg or .png"
        )
    if image is None:
        raise UserError(f"{file}: not a readable image; {remedy}")
    return image


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Return 16-bit pixels, which are changed, as uint8. Cameras with 10 or 12 bits write their values as they are, so
    that the upper bits of no pixel are used; these bits are left out.
    """
    most = int(pixels.max())
    bits = next((bits for bits in DEPTHS if most < 1 << bits), 16)
    pixels >>= bits - 8
    return pixels.astype(np.uint8)


def _is_shallow(data: bytes) -> bool:
    """Return whether a file is of a kind that holds 8 bits a channel."""
    return data.startswith(SHALLOW) or (data[:4] == b"\x89PNG" and data[24] <= 8)


def _decode(data: bytes) -> np.ndarray | None:
    """Return the image of a file's contents, None if it is damaged."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is not None and len(data) > 24 and not _is_shallow(data) and image.max() <= MOST_DARK:
            deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
            image = _eight_bits(deep) if deep is not None and deep.dtype == np.uint16 else image
            del deep  # memory
        png = data[:4] == b"\x89PNG" and (data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data[: data.find(b"IDAT")])
        may = png or data[8:12] == b"WEBP"  # formats that may have alpha
        whole: Any = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if may and image is not None else None
        )
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        return None
    if image is None:
        return None
    if heif_kind(data):
        image = upright(image, data)
    if whole is not None and whole.ndim == 3 and whole.shape[2] == 4:
        # IMREAD_UNCHANGED alone gives alpha, but does not turn the picture as its EXIF tag says
        turns = (np.rot90(side, quarters) for side in (whole, whole[:, ::-1]) for quarters in range(4))
        alpha = next(
            (
                turn[..., 3:]
                for turn in turns
                if turn.shape[:2] == image.shape[:2] and (turn.dtype != np.uint8 or (turn[..., :3] == image).all())
            ),
            None,
        )
        image = image if alpha is None else _on_white(image, alpha)
    return image


def write_image(file: Path, image: np.ndarray) -> None:
    """Write an image atomically, in the format of the suffix of `file`. UserError if that format cannot hold this size."""
    fits, data = cv2.imencode(file.suffix, image)
    if not fits:
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{file}: a {file.suffix} cannot hold {size} px; give a name that ends in .png")
    write_atomic(file, lambda path: path.write_bytes(data.tobytes()))
