"""Head pose and eye and mouth states computed from landmarks, for sets without such labels, and copies of rare faces.

The limits are shares of the landmarks' box, so that a state does not depend on the size of the picture. Peppa's Slim
has the same limits for eyes and open mouths. Its limits for closed and wide open mouths are 3.2 and 12.8 px of the raw
picture, whatever the size of the face. Ours are the values at which its published net switches; by them, half of all
mouths are wide open. COPY_WIDE is larger, because copies are for rare faces: 12.8 px of a 160 px crop, whose side is
1.5 times that of the box.
"""

from collections.abc import Callable
from functools import reduce

import numpy as np

from nets.registry import STATES
from pipnet.errors import UserError
from pipnet.layout import Layout
from pipnet.pose import far_poses, pose_points
from utils.data.batches import OUTPUTS
from utils.data.faces import Faces, chunks
from utils.settings.union import members_of

EYE, MOUTH_CLOSED, MOUTH_WIDE = 0.02, 0.006, 0.034  # of the states: distance of lids or lips, share of the box's height
COPY_OPEN, COPY_WIDE = 0.15, 0.12  # of the copies: distance of the lips, share of the box's height
EYES_CLOSE = 0.5  # distance of the eyes' outer corners, share of the box's width
# by layout: (upper, lower) landmarks of the left eye, of the right eye and of the inner lips; the outer corners of the
# eyes
LIDS = {
    "68": ([(37, 41), (38, 40)], [(43, 47), (44, 46)], [(61, 67), (62, 66), (63, 65)], (36, 45)),
    "98": ([(61, 67), (63, 65)], [(69, 75), (71, 73)], [(89, 95), (90, 94), (91, 93)], (60, 72)),
}
# extra copies of a face in the training of Slim
COPIES = {
    "any eye closed": 10,
    "one eye closed": 40,
    "eyes close together": 20,
    "mouth open": 20,
    "mouth wide open": 50,
}


class Distances:
    """Distances within landmarks (M, N, 2); NaN where unknown.

    left, right (M, 2): of the lids of an eye; lips (M, 3): of the inner lips; all as shares of the box's height
    eyes (M,): of the outer corners of the eyes, as a share of the box's width
    """

    def __init__(self, landmarks: np.ndarray, layout: Layout):
        members = [member for member in members_of(layout).values() if _whole(member.layout)]
        stored = next((name for name in LIDS if name in [member.layout.stored for member in members]), None)
        if not stored:
            raise UserError(
                f"layout {layout.name} does not say where lids and lips are; states (--eyes, --mouth, --balance) "
                f"need layout {' or '.join(LIDS)}"
            )
        parts = [landmarks[:, list(member.index)] for member in members if member.layout.stored == stored]
        # a set's own points are in one of them
        landmarks = reduce(lambda one, other: np.where(np.isnan(one), other, one), parts)
        left, right, lips, corners = LIDS[stored]
        width, height = (np.fmax.reduce(landmarks, 1) - np.fmin.reduce(landmarks, 1)).T

        def between(one: int, other: int) -> np.ndarray:
            return np.linalg.norm(landmarks[:, one] - landmarks[:, other], axis=1)

        self.left, self.right, self.lips = (
            np.stack([between(*pair) / height for pair in pairs], 1) for pairs in (left, right, lips)
        )
        self.eyes = between(*corners) / width


def _whole(layout: Layout) -> bool:
    return layout.stored in LIDS and layout.selected == tuple(range(int(layout.stored)))


def states_of(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """Return STATES (M, 4) float32 of landmarks (M, N, 2) in image px: 0, 1, or NaN where a landmark is unknown.

    Raise UserError for a layout without lids and lips.
    """
    at = Distances(landmarks, layout)
    values = [at.left.min(1) < EYE, at.right.min(1) < EYE, at.lips.min(1) < MOUTH_CLOSED, at.lips[:, 1] > MOUTH_WIDE]
    known = [np.isfinite(part).all(1) for part in (at.left, at.right, at.lips, at.lips)]
    return np.where(known, values, np.nan).T.astype(np.float32)


def poses_of(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """Return pitch, yaw, roll (M, 3) float32 in radians, see `head_pose`, of landmarks (M, N, 2) in image px; NaN where
    too few are known. Raise UserError for a layout without its points.
    """
    return far_poses(landmarks, pose_points(layout)).astype(np.float32)


def complete(faces: Faces, layout: Layout, outputs: list[str]) -> Faces:
    """Return the faces with labels for `outputs` (pose, states, visible). A pose or states that the set lacks are computed
    from landmarks.
    """
    if "pose" in outputs:
        pose = _of_all(poses_of, faces, layout)
        if "pose" in faces:
            stored = faces["pose"]
            pose = np.where(np.isnan(stored), pose, stored)
        faces = faces.with_columns(pose=pose)
    if "states" in outputs:
        states = _of_all(states_of, faces, layout)
        if "states" in faces:
            stored = faces["states"]
            for column, name in enumerate(faces.facts["states"]):
                if name in STATES:
                    place = STATES.index(name)
                    states[:, place] = np.where(np.isnan(stored[:, column]), states[:, place], stored[:, column])
        faces = faces.with_columns(states=states).with_facts(states=list(STATES))
    return faces.with_facts(outputs=[name for name in OUTPUTS if name in outputs])


def _of_all(function: Callable, faces: Faces, layout: Layout) -> np.ndarray:
    """Return function(landmarks, layout) of all faces, computed chunk by chunk."""
    parts = (faces.only(rows)["landmarks"] for rows in chunks(len(faces)))
    return np.concatenate([function(landmarks, layout) for landmarks in parts])


def balanced(faces: Faces, layout: Layout) -> Faces:
    """Return the faces with extra COPIES of rare ones, as Slim was trained. Each copy is augmented differently."""
    return faces.only(np.repeat(np.arange(len(faces)), _of_all(_copies, faces, layout)))


def _copies(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """Return how often each face is used in an epoch (M,)."""
    at, states = Distances(landmarks, layout), states_of(landmarks, layout)
    with np.errstate(invalid="ignore"):
        is_so = {
            "any eye closed": states[:, :2].max(1) == 1,
            "one eye closed": states[:, :2].sum(1) == 1,
            "eyes close together": at.eyes < EYES_CLOSE,
            "mouth open": at.lips[:, 1] > COPY_OPEN,
            "mouth wide open": at.lips[:, 1] > COPY_WIDE,
        }
    return 1 + sum(COPIES[name] * mask.astype(int) for name, mask in is_so.items())
