"""Users' own sets, each face with its picture of 160 x 120 px, in every format."""

import json
from functools import partial

import numpy as np
from archives import header, picture

from extras.shared.pts import write_pts

FIVE = np.array([(60.0, 40), (100, 42), (80, 60), (65, 80), (95, 81)])  # eyes, nose, corners of the mouth
NAMES = ["eyes_1", "eyes_2", "nose", "lips_1", "lips_2"]
TABLES = {
    "csv": "labels.csv",
    "coco": "labels.json",
    "cvat": "annotations.xml",
    "label-studio": "project.json",
}  # {format: its file of labels; "points" has a .pts for each picture}


def write_set(kind, root, faces, size=(160, 120), files=(), names=(), box=None, table=""):
    """Write faces (N, 2) and their pictures in a format, and return `root`.

    size: of the pictures in px, as the labels state it. files: names of the pictures, by default 0.jpg, 1.jpg, ...
    names: of the points. box: bbox of all faces, or of each, in COCO. table: name of the file of labels.
    """
    files = files or [f"{i}.jpg" for i in range(len(faces))]
    for file, face in zip(files, faces, strict=True):
        place = picture(root / file)
        if kind == "points":
            write_pts(place.with_suffix(".pts"), face)
    if kind == "csv":
        rows = [
            ",".join([file, *("" if np.isnan(value) else str(value) for value in face.ravel())])
            for file, face in zip(files, faces, strict=True)
        ]
        text = "\n".join([header(len(faces[0])), *rows])
    if kind == "coco":
        text = json.dumps(coco_of(faces, size, files, names, box))
    if kind == "cvat":
        rows = [
            f'<image name="{file}" width="{size[0]}" height="{size[1]}"><points label="face" points="'
            f'{";".join(f"{x:.2f},{y:.2f}" for x, y in face)}"/></image>'
            for file, face in zip(files, faces, strict=True)
        ]
        text = f"<annotations>{''.join(rows)}</annotations>"
    if kind == "label-studio":
        tasks = [
            {
                "data": {"img": f"/data/local-files/?d={file}"},
                "annotations": [{"result": points_of(face, names or NAMES, size)}],
            }
            for file, face in zip(files, faces, strict=True)
        ]
        text = json.dumps(tasks)
    if kind != "points":
        (root / (table or TABLES[kind])).write_text(text)
    return root


def coco_of(faces, size, files, names, box) -> dict:
    images = [
        {"id": i, "file_name": file, "width": size[0], "height": size[1]} for i, file in enumerate(dict.fromkeys(files))
    ]
    marked = [np.column_stack([face, np.full(len(face), 2)]).ravel().tolist() for face in faces]
    rows = [{"id": i, "image_id": i, "category_id": 1, "keypoints": values} for i, values in enumerate(marked)]
    for i, row in enumerate(rows if box else ()):
        row["bbox"] = box[i] if np.ndim(box) > 1 else box
    return {
        "images": images,
        "annotations": rows,
        "categories": [{"id": 1, "name": "face", "keypoints": list(names)}],
    }


def points_of(face, names, size=(160, 120)) -> list[dict]:
    """Key points of Label Studio: % of a picture of 160 x 120 px, and the size that is stated."""
    return [
        {
            "original_width": size[0],
            "original_height": size[1],
            "value": {"x": x / 1.6, "y": y / 1.2, "keypointlabels": [name]},
        }
        for (x, y), name in zip(face, names, strict=True)
    ]


write_pairs, write_rows, write_coco, write_cvat, write_studio = (
    partial(write_set, kind) for kind in ("points", *TABLES)
)
