"""Users' own sets, each face with its picture of 160 x 120 px, in every format."""

import json

import numpy as np
from archives import header, picture

from utils.data.pts import write_pts

FIVE = np.array([(60.0, 40), (100, 42), (80, 60), (65, 80), (95, 81)])  # eyes, nose, corners of the mouth
NAMES = ["eyes_1", "eyes_2", "nose", "lips_1", "lips_2"]


def write_coco(root, faces, size=(160, 120), names=(), box=None, file="labels.json", first=0):
    """Faces (N, 2) and their pictures of 160 x 120 px, with the size that the JSON states.
    box: bbox of all faces, or of each.
    """
    images = [
        {"id": i, "file_name": f"{first + i}.jpg", "width": size[0], "height": size[1]} for i in range(len(faces))
    ]
    marked = [np.column_stack([face, np.full(len(face), 2)]).ravel().tolist() for face in faces]
    rows = [{"id": i, "image_id": i, "category_id": 1, "keypoints": values} for i, values in enumerate(marked)]
    for i, row in enumerate(rows if box else ()):
        row["bbox"] = box[i] if np.ndim(box) > 1 else box
    for image in images:
        picture((root / file).parent / image["file_name"])
    categories = [{"id": 1, "name": "face", "keypoints": list(names)}]
    (root / file).write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return root


def write_cvat(root, faces, size=(160, 120)):
    shapes = [";".join(f"{x:.2f},{y:.2f}" for x, y in face) for face in faces]
    rows = [
        f'<image id="{i}" name="{picture(root / f"{i}.jpg").name}" width="{size[0]}" height="{size[1]}">'
        f'<points label="face" points="{shape}"/></image>'
        for i, shape in enumerate(shapes)
    ]
    (root / "annotations.xml").write_text(f"<annotations>{''.join(rows)}</annotations>")
    return root


def points_of(face, names, size=(160, 120)) -> list[dict]:
    return [
        {
            "original_width": size[0],
            "original_height": size[1],
            "value": {"x": x / 1.6, "y": y / 1.2, "keypointlabels": [name]},
        }
        for (x, y), name in zip(face, names, strict=True)
    ]


def write_studio(root, faces, size=(160, 120), names=NAMES, files=None):
    """The key points of a picture of 160 x 120 px in %, as that of the stated size has them.
    files: names in the export.
    """
    for i in range(len(faces)):
        picture(root / f"{i}.jpg")
    tasks = [
        {
            "data": {"img": f"/data/upload/1/1a2b3c4d-{files[i] if files else f'{i}.jpg'}"},
            "annotations": [{"result": points_of(face, names, size)}],
        }
        for i, face in enumerate(faces)
    ]
    (root / "project.json").write_text(json.dumps(tasks))
    return root


def write_rows(root, faces):
    for i in range(len(faces)):
        picture(root / f"{i}.jpg")
    rows = [
        ",".join([f"{i}.jpg", *("" if np.isnan(value) else str(value) for value in face.ravel())])
        for i, face in enumerate(faces)
    ]
    (root / "labels.csv").write_text("\n".join([header(len(faces[0])), *rows]))
    return root


def write_pairs(root, faces):
    for i, face in enumerate(faces):
        write_pts(picture(root / f"{i}.jpg").with_suffix(".pts"), face)
    return root
