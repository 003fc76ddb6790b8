"""The ONNX file of a landmark net, with all metadata that inference needs."""

import math
from pathlib import Path
from typing import Any

from nets import Trainable
from pipnet.card import LandmarkCard
from pipnet.geometry import Protocol
from utils.export.files import export_onnx
from utils.settings.rules import NO_NET
from utils.train.make_net import trained_states
from utils.train.run_folder import Run


def write_landmark_net(
    run: Run,
    net: Trainable,
    stored: dict[str, Any],
    protocol: Protocol,
    index: tuple[int, ...] | None = None,
    boxed: str = "the landmarks",
) -> None:
    """Write the run's ONNX file, which gives the landmarks of one layout.

    stored: the values of the checkpoint, in that layout. index: its landmarks among all of a net of several layouts;
    None: all. boxed: in words, what the box of a face lies around.
    """
    args = stored["args"]
    card = {
        **run.source,
        **{key: stored[key] for key in ("layout", "layouts", "epoch", "face_limit") if key in stored},
        "protocol": protocol._asdict(),
        **{key: stored["net"][key] for key in ("net", "head")},
        **{
            key: stored[key] if math.isfinite(stored[key]) else None  # JSON has no NaN
            for key in ("val_nme", "val_false")
            if key in stored
        },
        "meanface": stored.get("meanface"),
        "input_size": net.spec["input_size"],
        "input_margin": net.input_margin,
        "channels": "BGR, uint8, not normalised",
        "box": f"tight box of {boxed}, or the rectangle that the data set gives",
        "frame": "[0, 1] of the nominal crop",
        "states": trained_states(stored),
        "norm": args["norm"],
        "train_data": [Path(name).name for name in args["train_data"] or ()],
        "val": args["val"],
    }
    if args.get("weights", "none") not in NO_NET:
        card["weights"] = "/".join(Path(args["weights"]).parts[-2:])
    LandmarkCard.read({**card, "outputs": {}}, run.onnx)  # nothing is written that cannot be opened
    export_onnx(net, run.onnx, card, index)
