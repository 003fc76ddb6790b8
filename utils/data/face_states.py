"""Pose and states that landmarks tell: solvePnP and distances of the lids, where a data set does not say; and balanced samples.

Thresholds are those that Peppa's Slim is trained with. Its landmarks are in its 160 px crop, half as large again as the box of
the landmarks; distances are in heights and widths of that box here.
"""
import cv2
import numpy as np

from nets.stages.auxiliary import STATES
from pipnet.errors import UserError
from pipnet.geometry import box_of
from pipnet.layout import Layout
from pipnet.pose import LEAST, MODEL, pose_points
from utils.data.dataset import Faces
from utils.test.evaluate import Result

EYE, MOUTH_CLOSED, MOUTH_OPEN, MOUTH_WIDE = 0.02, 0.03, 0.15, 0.12  # of the box's height
EYES_CLOSE = 0.5  # of the box's width: outer corners nearer than this
# upper and lower landmark of each pair on the left and right eye's lids and the inner lips; the outer corners of the eyes
LIDS = {
    "68": ([(37, 41), (38, 40)], [(43, 47), (44, 46)], [(61, 67), (62, 66), (63, 65)], (36, 45)),
    "98": ([(61, 67), (63, 65)], [(69, 75), (71, 73)], [(89, 95), (90, 94), (91, 93)], (60, 72)),
}
# of a face that is, beside the face itself; Slim's
COPIES = {"any eye closed": 10, "one eye closed": 40, "eyes close together": 20, "mouth open": 20, "mouth wide open": 50}


class Distances:
    """Of faces' landmarks (M, N, 2) of a layout, in heights (lids, lips) and widths (eyes) of their box; NaN where unknown."""

    def __init__(self, landmarks: np.ndarray, layout: Layout):
        if layout.stored not in LIDS or layout.selected != tuple(range(layout.count)) or layout.count != int(layout.stored):
            raise UserError(f"layout {layout.name} does not say where lids and lips are; states (--eyes, --mouth, --balance) "
                            f"need layout {' or '.join(LIDS)}")
        left, right, lips, corners = LIDS[layout.stored]
        box = box_of(landmarks)
        self.width, self.height = (box[:, 2:] - box[:, :2]).T
        self.left, self.right, self.lips = (np.stack([self._between(landmarks, *pair) / self.height for pair in pairs], 1)
                                            for pairs in (left, right, lips))
        self.eyes = self._between(landmarks, *corners) / self.width

    @staticmethod
    def _between(landmarks: np.ndarray, one: int, other: int) -> np.ndarray:
        return np.linalg.norm(landmarks[:, one] - landmarks[:, other], axis=1)


def states_of(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """(M, 4) float32 of nets.multi.STATES, 0 or 1, NaN where a landmark is unknown. landmarks (M, N, 2) in px of the picture.

    UserError for a layout without lids or lips.
    """
    at = Distances(landmarks, layout)
    values = [at.left.min(1) < EYE, at.right.min(1) < EYE, at.lips.min(1) < MOUTH_CLOSED, at.lips[:, 1] > MOUTH_WIDE]
    known = [np.isfinite(part).all(1) for part in (at.left, at.right, at.lips, at.lips)]
    return np.where(known, values, np.nan).T.astype(np.float32)


def poses_of(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """(M, 3) float32 pitch, yaw, roll in radians as 300W-LP has them, NaN where too few landmarks are known.

    landmarks (M, N, 2) in px of the picture. solvePnP on the points of pipnet/app/pose.py seen by a camera straight ahead and ten
    face heights away, so that a face's place in its picture says nothing. UserError for a layout without these points.
    """
    points, found = pose_points(layout), np.full((len(landmarks), 3), np.nan, np.float32)
    seen = np.stack([landmarks[:, list(ids)].mean(1) for _, ids in points], 1)
    model = MODEL[[row for row, _ in points]] * (-1, -1, -1)  # x to the right, y down, z away from the camera
    upright = np.diag([1.0, -1, -1])  # and y up, z towards it, as in 300W-LP
    for face, marks in enumerate(seen):
        known = np.isfinite(marks).all(1)
        if known.sum() < LEAST:
            continue
        centred = marks[known] - marks[known].mean(0)
        far = 10 * max(np.ptp(centred, axis=0).max(), 1e-6)
        camera = np.array([(far, 0, 0), (0, far, 0), (0, 0, 1)])
        solved, rotation, _ = cv2.solvePnP(model[known], centred, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        turn = upright @ cv2.Rodrigues(rotation)[0] @ upright
        if solved:
            pitch, roll = np.arctan2(turn[1, 2], turn[2, 2]), np.arctan2(turn[0, 1], turn[0, 0])
            found[face] = pitch, -np.arcsin(np.clip(turn[0, 2], -1, 1)), roll
    return found


def complete(faces: Faces, layout: Layout, outputs: list[str]) -> Faces:
    """Faces with the labels that `outputs` (pose, states) train: those of the set, and what landmarks tell where it is silent."""
    if "pose" in outputs:
        told = poses_of(faces.landmarks, layout)
        faces.pose = told if faces.pose is None else np.where(np.isnan(faces.pose), told, faces.pose)
    if "states" in outputs:
        told = states_of(faces.landmarks, layout)
        for name in set(STATES) & set(faces.state_names):
            stored, place = faces.states[:, faces.state_names.index(name)], STATES.index(name)
            told[:, place] = np.where(np.isnan(stored), told[:, place], stored)
        faces.states, faces.state_names = told, list(STATES)
    return faces


def balanced(faces: Faces, layout: Layout) -> Faces:
    """Faces with copies of those that are rare (COPIES), as Slim is trained; each copy is augmented in its own way."""
    at, states = Distances(faces.landmarks, layout), states_of(faces.landmarks, layout)
    with np.errstate(invalid="ignore"):
        is_so = {"any eye closed": states[:, :2].max(1) == 1, "one eye closed": states[:, :2].sum(1) == 1,
                 "eyes close together": at.eyes < EYES_CLOSE, "mouth open": at.lips[:, 1] > MOUTH_OPEN,
                 "mouth wide open": states[:, 3] == 1}
    copies = 1 + sum(COPIES[name] * mask.astype(int) for name, mask in is_so.items())
    return faces.only(np.repeat(np.arange(len(faces)), copies))


def agreement(result: Result, faces: Faces) -> str:
    """A line on the pose and states that a net says of faces that have them by `complete`; empty where it says none."""
    words = []
    if result.pose is not None:
        apart = np.degrees(np.abs((result.pose - faces.pose + np.pi) % (2 * np.pi) - np.pi))
        pitch, yaw, roll = np.nanmean(apart, 0)
        words.append(f"pose off by {np.nanmean(apart):.1f} degrees (pitch {pitch:.1f}, yaw {yaw:.1f}, roll {roll:.1f})")
    if result.states is not None:
        for place, name in enumerate(STATES):
            truth, said = faces.states[:, place], result.states[:, place]
            hit, miss = said[truth == 1] > 0.5, said[truth == 0] <= 0.5
            counts = f"found {hit.sum()} of {len(hit)}, wrongly {len(miss) - miss.sum()} of {len(miss)}"
            words.append(f"{name.replace('_', ' ')} {counts}")
    return "; ".join(words)
