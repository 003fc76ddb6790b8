"""Images on disk and in memory: (H, W, 3) uint8 BGR."""
from pathlib import Path

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.files import read_bytes, write_atomic


def check_image(image: np.ndarray) -> None:
    """UserError unless `image` is a non-empty uint8 array (H, W, 3)."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image must be uint8 (H, W, 3) BGR, not {kind}; cv2.imread returns such an array")


def read_image(file: Path, remedy: str = "fetch it again") -> np.ndarray:
    """Image (H, W, 3) uint8 BGR of a file, rotated by its EXIF tag.

    16-bit images become 8-bit, grey and CMYK become BGR, transparent pixels become white. UserError for a file that is missing,
    unreadable or truncated; `remedy` says what to do about the latter two.
    """
    try:
        data = read_bytes(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    jpeg, png = data.startswith(b"\xff\xd8"), data.startswith(b"\x89PNG")
    # OpenCV fills the missing rest of a truncated file with grey and reports nothing, so look for the end marker
    if jpeg and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or png and b"IEND" not in data:
        raise UserError(f"{file}: the image is cut short; {remedy}")
    image = _decode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{file}: not a readable image; {remedy}")
    if png and data[25:26] in (b"\x04", b"\x06") or data[8:12] == b"WEBP":  # formats that may have an alpha channel
        whole = _decode(data, cv2.IMREAD_UNCHANGED)
        if whole.ndim == 3 and whole.shape[2] == 4 and whole.shape[:2] == image.shape[:2]:
            alpha = whole[..., 3:] / np.float32(np.iinfo(whole.dtype).max)
            image = np.round(image * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return image


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def write_image(file: Path, image: np.ndarray) -> None:
    """Write an image atomically; the suffix of `file` chooses the format. UserError where the format cannot hold this size."""
    fits, data = cv2.imencode(file.suffix, image)
    if not fits:
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{file}: a {file.suffix} cannot hold {size} px; give a name that ends in .png")
    write_atomic(file, lambda path: path.write_bytes(data.tobytes()))
