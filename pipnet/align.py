"""Upright chips of faces, as nets for recognition take them."""
import numpy as np

from pipnet.errors import UserError
from pipnet.geometry import similarity
from pipnet.layout import Layout

# eyes, tip of the nose, corners of the mouth, those on the image's left first, in px of 112 x 112 (pixel centres are integers):
# Deng et al., "ArcFace", CVPR 2019, after SphereFace
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) + 0.5
# {stored layout: the landmarks whose means are those five points}
FIVE = {
    "68": (range(36, 42), range(42, 48), [30], [48], [54]),
    "98": (range(60, 68), range(68, 76), [54], [76], [82]),
    "106": (range(66, 74), range(75, 83), [54], [84], [90]),
    "29": ([16], [17], [20], [22], [23]),
    "19": ([7], [10], [13], [15], [17]),
    "5": ([0], [1], [2], [3], [4]),
}


def five_points(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """(5, 2) eyes, nose, corners of the mouth of landmarks (N, 2), same frame. UserError for a layout that lacks them."""
    places = {stored: place for place, stored in enumerate(layout.selected)}
    if layout.stored in FIVE:
        groups = [[places[i] for i in group if i in places] for group in FIVE[layout.stored]]
    else:  # one's own points, where they are the same as those of a known layout
        known = next((name for name in FIVE if name in layout.same_as), None)
        back = {there: here for here, there in layout.same_as.get(known, {}).items()}
        groups = [[back[i] for i in group if i in back] for group in FIVE.get(known, [[]])]
    if not all(groups):
        raise UserError(f"layout {layout.name} has no eyes, tip of the nose and corners of the mouth (or does not say so, by "
                        "same_as) to align a face by")
    return np.array([landmarks[group].mean(0) for group in groups])


def chip_matrix(landmarks: np.ndarray, layout: Layout, size: int) -> np.ndarray:
    """(2, 3) map from the px of landmarks (N, 2) to those of an aligned chip of size x size px, both continuous."""
    return similarity(five_points(landmarks, layout), TEMPLATE * (size / 112))
