"""The section `tools` of args.yaml."""

from dataclasses import dataclass

from utils.settings.keys import key, section


@dataclass(frozen=True)
class ToolSettings:
    """Keys of the commands beside the main job."""

    folds: int = key(
        "--audit: number of folds; the labels of each fold are compared with a net that was trained on the others",
        2,
    )


SECTION = section(ToolSettings, "audit", "landmarks")
