"""The section `detector` of args.yaml."""

from dataclasses import dataclass

from utils.settings.keys import key, section

SIDES = (lambda sides: len(sides) == 2 and 1 <= sides[0] <= sides[1], "the least and the largest side in px")
FACTORS = (lambda factors: factors and min(factors) > 0, "factors above 0")


@dataclass(frozen=True)
class DetectSettings:
    """Keys of a face detector, which only --task detect reads."""

    partial_events: list[str] = key(
        "[events] of WIDER folders whose photographs show faces without a box; only the surroundings of boxes train background",
        change="test",
    )
    crops: int = key("training crops of input_size px per epoch", 1)
    mosaic: float = key(
        "probability that a crop consists of four parts; a part of 256 px or more may again consist of four", 0, 1
    )
    parts: float = key(
        "probability that a part shows the inside of a face, an eye or a cheek, which is background", 0, 1
    )
    pasted: int = key("maximum number of landmark-set faces pasted into a crop", 0)
    touching: float = key("probability that a pasted face touches another face, cheek to cheek", 0, 1)
    face_sides: list[float] = key("px of the crop, range of face sizes, log-uniform", valid=SIDES)
    scales: list[float] = key(
        "test photographs are resized by each of these; 2 finds smaller faces", valid=FACTORS, change="test"
    )


SECTION = section(DetectSettings, "face detection", "detect")
