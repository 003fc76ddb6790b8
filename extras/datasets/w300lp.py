"""300W-LP (Zhu et al., CVPR 2016): 68 landmarks and head pose of faces that a 3-D model has turned.

Folders AFW, HELEN, IBUG, LFPW and the mirrored AFW_Flip, ..., with NAME.jpg of 450 x 450 px and NAME.mat; and
landmarks/.
"""

from extras.datasets.archive import Archive
from extras.datasets.mat import read_mat, values
from extras.datasets.naming import photograph
from extras.shared.lists import path_inside
from pipnet.geometry import mirrored

COUNT = 68
SIDE = 450


def parse_300wlp(archive: Archive) -> None:
    """Add train with pose (pitch, yaw, roll) and the landmarks of landmarks/, or pt2d of the .mat without that folder.

    All faces made from one photograph, mirrored ones too, are one identity. A mirrored face's pose is that of its own
    .mat. The set contains 300W's test photographs (IBUG, the test parts of HELEN and LFPW).
    """
    root, flip_index = archive.root, archive.layouts.load("68").flip_index
    redrawn = (root / "landmarks").is_dir()
    for part in archive.expected:
        plain = part.removesuffix("_Flip")
        for mat in sorted((root / part).glob("[!.]*.mat")):
            with archive.checked():
                image = archive.file(f"{part}/{mat.stem}.jpg", str(mat))
                points, pose = read_mat(path_inside(root, f"{part}/{mat.name}", str(mat)), "pt2d", "Pose_Para")
                # as in 300W, with the jaw along the visible edge; a mirrored face has no file of its own there
                if redrawn:
                    file = path_inside(root, f"landmarks/{plain}/{mat.stem}_pts.mat", str(root / part))
                    points = values(read_mat(file, "pts_2d")[0], (COUNT, 2), f"{file}: pts_2d")
                    points = points if part == plain else mirrored(points, flip_index, SIDE)
                else:
                    points = values(points, (2, COUNT), f"{mat}: pt2d").T
                pose = values(pose, (1, 7), f"{mat}: Pose_Para")[0, :3]
                archive.add(
                    "train", image, part, f"{plain}/{photograph(mat.stem, numbers=2)}", points, str(mat), pose=pose
                )
