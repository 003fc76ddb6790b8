"""Nets of other authors: readers of their files, their published augmentation, the local stage of DPR."""

from pathlib import Path

# (the file with the mean face that weights do not hold, and the folder of that file)
PIPNET_MEANFACE = "meanface.txt", "data/<set> of github.com/jhb86253817/PIPNet"
DPR_MEANFACE = "mean_98_face.npy", "data of github.com/shaoxiaohu/Face_Alignment_DPR"


def mean_faces(file: Path) -> list[Path]:
    """Return the files beside published weights that may hold their mean face."""
    return [path for name, _ in (DPR_MEANFACE, PIPNET_MEANFACE) if (path := file.with_name(name)).is_file()]
