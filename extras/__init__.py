"""Rooms beside the core. Importing this package fills `utils.settings.rooms` with what the rooms that are there add.

A room is a folder, which can be deleted. Nothing is imported from it until it is used. `shared` is no room: it holds what
several rooms use.
"""

from utils.settings.rooms import ROOMS, shared

PLACES = {  # {room: MODULE:NAME, or MODULE, of all that the core calls}
    "datasets": (
        "extras.datasets:DATASETS",
        "extras.datasets:add",
        "extras.datasets:archive_of",
        "extras.datasets:infer",
        "extras.datasets:read_set",
        "extras.datasets:read_within",
        "extras.datasets:unpack",
    ),
    "detector": (
        "extras.detector.settings:SECTION",
        "extras.detector.faults:faults",
        "extras.detector.detect",
        "extras.detector:open_detector",
    ),
    "gpu": ("extras.gpu.feed:DeviceLoader", "extras.gpu.graph:Graph"),
    "heads": ("extras.heads:HEADS",),
    "report": (
        "extras.report.report:show_case",
        "extras.report.compare:compare",
        "extras.report.page:write_report_page",
    ),
    "runtimes": ("extras.runtimes:write", "extras.runtimes.page:check_page", "extras.runtimes.page:export_page"),
    "semi": (
        "extras.semi.settings:SECTION",
        "extras.semi.faults:faults",
        "extras.semi.unlabelled:background_splits",
        "extras.semi.rounds:show_labels",
        "extras.semi.rounds:train_semi",
    ),
    "synthetic": (
        "extras.synthetic:DATASETS",
        "extras.synthetic:VERSION",
        "extras.synthetic:generate",
        "extras.synthetic:is_rendered",
        "extras.synthetic:read_set",
    ),
    "systems": (
        "extras.systems.local_parts:LocalParts",
        "extras.systems.steps:in_steps",
        "extras.systems.published:checkpoint_values",
        "extras.systems.published:graph_values",
        "extras.systems:mean_faces",
        "extras.systems.published:open_graph",
        "extras.systems.published:renamed",
        "extras.systems.published:settings_in",
    ),
    "tools": (
        "extras.tools.settings:SECTION",
        "extras.tools.modes",
        "extras.tools.faults:faults",
        "extras.tools.audit:audit",
        "extras.tools.predict:run_prediction",
        "extras.tools.predict:target_of",
        "extras.tools.same_as:fitting_crops",
        "extras.tools.same_as:with_same_landmarks",
        "extras.tools.show:show_sets",
        "extras.tools.sweep:sweep",
        "extras.tools.zoo:list_nets",
    ),
}

for name, places in PLACES.items():
    ROOMS[name].fill(places)
shared.fill(["extras.shared.backgrounds:background"])
