"""Published files as they are, by `main.py --test --exp FILE`: `python benchmarks/published.py`.

The variables FACES_300W and FACES68 name the faces, OTHERS the folder of the files (others.py lists them). What is missing is
skipped with a message.
"""
from others import file_of, mean_face
from photographs import require
from record import ROOT, save
from runs import pose_and_states, run

from pipnet.files import read_csv
from utils.train.run_folder import find_run

RFB, FACEBOXES = ("rfb320", "version-RFB-320.onnx"), ("faceboxes", "FaceBoxesV2.pth")
DPR = ("dpr_98_points_global_reinit.pth.tar", "dpr_98_points_global_regress.pth.tar")
NETS = {"Peppa's Slim, `.pth`": (("slim_160_latest.pth",), RFB), "Peppa's Slim, `.onnx`": (("slim_160_latest.onnx",), RFB),
        "DPR, global stage": (DPR, FACEBOXES)}


def measure(names: tuple[str, ...], detector: tuple[str, str]) -> dict[str, dict]:
    """Return {test set: {box: NME %}} of the net in these files, in the labels' boxes and in those of a detector.

    `states` of a set is what the log says of pose and states in the labels' boxes, if the net has them.
    """
    exp = ",".join(map(str, [*map(file_of, names), *([mean_face()] if names == DPR else [])]))
    run("--test", "--exp", exp, "--test-data", "300W", "FACES68", "--allow-partial", "--box", "true", "detector", "--detector",
        detector[0], "--detector-weights", str(file_of(detector[1])))
    found: dict[str, dict] = {"300W": {}, "FACES68": {}}
    folder = find_run(exp, ROOT / "weights", False).folder
    for name, words in zip(found, pose_and_states(folder)[-4::2], strict=False):  # of each set: both boxes
        found[name]["states"] = words
    for row in read_csv(folder / "report" / "scores.csv"):
        if row["test set"][:1] != " ":  # not a subset
            name = "300W" if row["test set"].startswith("300w") else "FACES68"
            found[name]["detector" if "detector" in row["model"] else "true"] = row["NME %"]
    return found


if __name__ == "__main__":
    require("300W", "FACES68")
    figures = {}
    for title, (names, detector) in NETS.items():
        try:
            figures[title] = {"detector": detector[0], **measure(names, detector)}
        except FileNotFoundError as error:
            print(f"{title} skipped: {error}")
    save("published", "python benchmarks/published.py", 0, {"nets": figures})
