"""Initial weights of a landmark net: random, ImageNet, or a trained net, perhaps of other landmarks."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nets import Trainable, net_row
from nets.heads.remap import Origins
from pipnet.errors import UserError
from pipnet.geometry import similarity, transform
from pipnet.layout import Layout
from utils.settings import rooms
from utils.settings.config import Defaults
from utils.settings.csv_files import write_csv
from utils.settings.union import layout_of
from utils.train import checkpoint, weight_files
from utils.train.imagenet import load_imagenet

ALIKE = 1.25  # ratio of face sizes in two kinds of crops; beyond it, a net of one kind is a poor start for the other
BACKBONES = {  # by their names in the file alone, see `backbone_in`
    "pipnet": ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv2", "mobilenetv3_large"),
    "irnet": ("irnet18", "irnet50", "irnet100"),
}
PER_LANDMARK = (  # parameters with rows for landmarks
    "head.",
    "refiner.identity",
    "refiner.move",
    "visibility.identity",
    "visibility.read",
    "visibility.bias",
)


class InitialWeights(NamedTuple):
    """The origin of a net's weights.
    words: for the log; rows: (tensor, shape, origin) of each tensor; none without a file; doubt: that the head of a
    trained net is of no use, for the log at the start and at the end.
    """

    words: str
    rows: list[tuple[str, str, str]] = []
    doubt: str = ""

    def write(self, file: Path) -> None:
        """Write the rows as CSV, if there are any."""
        if self.rows:
            write_csv(file, ["tensor", "shape", "what"], self.rows)


RANDOM = InitialWeights("random weights")


def initialise(
    net: Trainable, source: str, layout: Layout, meanface: np.ndarray, warn: Callable[[str], None], defaults: Defaults
) -> InitialWeights:
    """Initialise `net` from `source`: imagenet, none, or the file of our or a published checkpoint.
    Return what was loaded.

    layout and meanface (N, 2), in [0, 1] of the crop, are those of the training faces.
    """
    if source == "none":
        return RANDOM
    if source != "imagenet":
        return start_from(net, Path(source), layout, meanface, warn, defaults)
    try:
        load_imagenet(net.backbone, net_row(net.spec["net"]))
    except OSError as error:
        warn(f"{error}; training starts from random weights")
        return RANDOM
    return InitialWeights("ImageNet weights")


def shared_landmarks(new: Layout, old: Layout) -> dict[int, int]:
    """Return {landmark of `new`: the same landmark of `old`}, by a common stored layout or by `same_as` in one of them."""
    # two layouts of one name, the second of which was edited
    edited = new.name == old.name and (new.count, new.flip_index) != (old.count, old.flip_index)

    def names(layout: Layout, landmark: int) -> set[tuple[str, int]]:
        own = {(layout.stored, layout.selected[landmark])}
        if edited:
            own.discard((new.name, landmark))
        return own | {(name, same[landmark]) for name, same in layout.same_as.items() if landmark in same}

    by_name = {name: landmark for landmark in range(old.count) for name in names(old, landmark)}
    shared = {
        landmark: by_name[name]
        for landmark in range(new.count)
        for name in sorted(names(new, landmark))
        if name in by_name
    }
    return shared if len(set(shared.values())) == len(shared) else {}


def nearest_origins(shared: dict[int, int], meanface: np.ndarray, old_meanface: np.ndarray | None = None) -> Origins:
    """Return old landmarks for all landmarks of `meanface` (N, 2): the same one if {new: old} `shared` has it, else the
    nearest.

    Nearest among all old landmarks if their meanface (N', 2) is known and two or more are shared, else among the shared
    ones.
    """
    places = {}
    new, old = list(shared), list(shared.values())
    if old_meanface is not None and len(np.unique(old_meanface[old], axis=0)) > 1:
        places = dict(enumerate(transform(old_meanface, similarity(old_meanface[old], meanface[new]))))
    places |= {shared[landmark]: meanface[landmark] for landmark in shared}
    known, where = list(places), np.array(list(places.values()))
    nearest = np.linalg.norm(meanface[:, None] - where, axis=-1).argmin(1)
    source = [shared.get(landmark, known[nearest[landmark]]) for landmark in range(len(meanface))]
    return Origins(source, np.array([places[landmark] for landmark in source]))


def start_from(
    net: Trainable, file: Path, layout: Layout, meanface: np.ndarray, warn: Callable[[str], None], defaults: Defaults
) -> InitialWeights:
    """Start `net` from our checkpoint, a published one, or that of a plain ImageNet net. Return what was loaded.

    layout and meanface (N, 2), in [0, 1] of the crop, are those of `net`. If the checkpoint has a layout, the landmarks
    that both layouts share keep their rows of the head. Other tensors are loaded if name and shape are the same.
    """
    tensors, known = weight_files.load_weights(file)
    foreign = None if weight_files.are_our_names(tensors) else rooms.systems.renamed(tensors, net, meanface)
    stored = foreign.tensors if foreign else tensors
    if hasattr(net.backbone, "own_names"):
        stored = net.backbone.own_names(stored)
    own = net.state_dict()
    if foreign and foreign.needs_meanface:
        _check_meanface(file, stored, net, meanface, foreign.needs_meanface)
    name = checkpoint.structure(tensors, known, defaults).get("net") or _named_backbone(tensors) or net.spec["net"]
    _check_backbone(file, name, stored, net, bool(known))
    words, doubt, mapped = "", "", dict[str, Tensor]()
    if known:
        if (size := known["net"].get("input_size")) != net.spec["input_size"]:
            warn(
                f"{file} was trained at {size} px, this net has {net.spec['input_size']} px; --input-size {size} is better"
            )
        try:
            start = _mapped_head(net, layout, meanface, stored, known)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f"{file} does not describe a net that can be started from ({type(error).__name__} {error})"
            ) from None
        if start:
            mapped, words, scale = start
            random = f"the head begins with random weights, not with those of {file}{words}"
            doubt = "" if mapped else f"{random}; a short training is not enough for it: --freeze norms --epochs 60"
            stored = {name: tensor for name, tensor in stored.items() if not name.startswith(PER_LANDMARK)} | mapped
            if not 1 / ALIKE < scale < ALIKE:
                warn(
                    f"faces are {scale:.2f} times as large in these crops as in those of {file}; give the --protocol whose "
                    f"scale_x and scale_y are {scale:.2f} times those of this one (square has 1.2, inner 2.0), or add such a "
                    "row below protocols in args.yaml"
                )
    fitting = {name: tensor for name, tensor in stored.items() if name in own and own[name].shape == tensor.shape}
    if not any(
        tensor.is_floating_point()
        for name, tensor in fitting.items()
        if not name.startswith(("head.", "refiner.", "visibility.", "face."))
    ):
        raise UserError(f"{file} holds no tensor that fits {net.spec['net']}; give a checkpoint of the same backbone")
    net.load_state_dict(fitting, strict=False)
    rows = [(name, _shape(tensor), _origin(name, tensor, stored, mapped)) for name, tensor in own.items()]
    left = {name: tensor for name, tensor in stored.items() if name not in own}
    rows += [(name, _shape(tensor), "left out: this net has no such tensor") for name, tensor in left.items()]
    if foreign:
        rows += [(name, _shape(tensors[name]), "left out: the classifier") for name in foreign.left_out]
    listed = "; ".join(filter(None, (_listed(rows, "new"), _listed(rows, "left out"))))
    title = {"system": foreign.title} if foreign and foreign.title else {}
    about = checkpoint.in_words(tensors, {"net": {"net": name}, **title})
    return InitialWeights(
        f"{len(fitting)} of {len(own)} tensors of {file}, {about}{f' ({listed})' if listed else ''}{words}", rows, doubt
    )


@cache
def shapes_of(net: str, act: str | None) -> dict[str, torch.Size]:
    """Return the tensors of a backbone."""
    with torch.device("meta"):  # only shapes are needed
        made = net_row(net).build(act=act) if act else net_row(net).build()
    return {name: tensor.shape for name, tensor in made.state_dict().items()}


def backbone_in(state: dict[str, Tensor], names: Iterable[str]) -> tuple[str, str | None] | None:
    """Return (net, activation) of the largest of the backbones `names` whose tensors are all in `state`, None without
    one.

    The activation is None for the usual one. A net may hold all tensors of a smaller one, as resnet34 those of
    resnet18.
    """
    choices = [(name, act) for name in names for act in (None, *net_row(name).acts[1:])]
    there = [
        choice
        for choice in choices
        if all(key in state and state[key].shape == shape for key, shape in shapes_of(*choice).items())
    ]
    return max(there, key=lambda choice: len(shapes_of(*choice)), default=None)


def _named_backbone(tensors: dict[str, Tensor]) -> str | None:
    """Return the published backbone that a file holds, None if it is none of them."""
    plain = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    found = backbone_in(plain, sum(BACKBONES.values(), ()))
    return found and found[0]


def _check_backbone(file: Path, name: str, stored: dict[str, Tensor], net: Trainable, ours: bool) -> None:
    """Raise UserError if a file holds another backbone than `net`: most tensors of a smaller or larger one would fit.

    name: of the file's backbone. stored: the file's tensors under the names of `net`. ours: whether it is our
    checkpoint. The file of a plain backbone may hold more parts, such as a classifier, but no further tensors of a part
    that `net` has too.
    """
    wanted = net.spec["net"]
    own = {name: tensor.shape for name, tensor in net.state_dict().items() if name.startswith("backbone.")}
    there = {name: tensor.shape for name, tensor in stored.items() if name.startswith("backbone.")}
    if name != wanted and there and own != there:
        raise UserError(
            f"{file} holds {name}, this is {wanted}: give --net {name}, or a checkpoint of the same backbone"
        )
    parts = {name.split(".")[1] for name in own}
    more = [name for name in sorted(there.keys() - own.keys()) if name.split(".")[1] in parts]
    if more and not ours:
        raise UserError(
            f"{file} holds more than {wanted} has ({weight_files.first_three(more)}), so another net; give a checkpoint of "
            "the same backbone"
        )


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "1"


def _origin(name: str, tensor: torch.Tensor, stored: dict, head: dict) -> str:
    """Return the origin of a tensor of the net in words. head: the tensors that were mapped from other landmarks."""
    if name not in stored:
        return "new: not in the file"
    if stored[name].shape != tensor.shape:
        return f"new: {_shape(stored[name])} in the file"
    return "mapped" if name in head else "loaded"


def _listed(rows: list[tuple[str, str, str]], origin: str) -> str:
    """Return 'new: a, b, c, d ...': the origin and the first four tensors that have it; '' if there are none."""
    names = sorted(name for name, _, what in rows if what.startswith(origin))
    return f"{origin}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else ""


def _check_meanface(file: Path, stored: dict, net: Trainable, meanface: np.ndarray, needed: str) -> None:
    """Raise UserError if the file's head gives offsets from its own mean face, but `net` has that of the training
    faces.

    needed: the file of that mean face in words.
    """
    own, start = (state.get("head.output.weight") for state in (net.state_dict(), stored))
    starts = own is not None and start is not None and start.shape == own.shape
    if starts and np.array_equal(net.spec["meanface"], meanface):
        raise UserError(
            f"{file} gives landmarks as offsets from a mean face that it does not hold; give that with --meanface: "
            f"{needed}"
        )


def _mapped_head(
    net: Trainable, layout: Layout, meanface: np.ndarray, stored: dict, known: dict
) -> tuple[dict[str, Tensor], str, float] | None:
    """Return tensors of head and refiner for the landmarks of `net`, words for the log, and the size of faces in the
    crops of `net` as a multiple of that in the crops of the file's net.

    None if the file's tensors fit as they are; no tensors if none can be used. stored, known: tensors and values of the
    file, which is our checkpoint.
    """
    spec, old = known["net"], layout_of(known["layout"])
    same = shared_landmarks(layout, old)
    if not same:
        return {}, f"; the backbone only: layout {layout.name} shares no landmark with {old.stored} (same_as)", 1.0
    if spec["head"] != net.spec["head"]:
        return {}, "; the backbone only: its head is another", 1.0
    alike = layout.count == old.count and spec.get("neighbor_index") == net.spec.get("neighbor_index")
    if alike and same == {i: i for i in range(old.count)}:
        return None
    old_meanface = np.reshape(known["meanface"], (-1, 2)) if "meanface" in known else None
    scale = 1.0
    if old_meanface is not None and len(same) > 1:
        linear = similarity(old_meanface[list(same.values())], meanface[list(same)])[:, :2]
        scale = float(np.sqrt(np.linalg.det(linear)))
    origins = nearest_origins(same, meanface, old_meanface)
    rows = {name.removeprefix("head."): tensor for name, tensor in stored.items() if name.startswith("head.")}
    remapped = net.head.remapped(rows, spec, net.spec, origins, meanface)
    mapped = {f"head.{name}": tensor for name, tensor in remapped.items()}
    mapped |= {name: stored[name][origins.landmark] for name in PER_LANDMARK[1:] if name in stored}
    rest = layout.count - len(same)
    nearest = f", {rest} from their nearest" if rest else ""
    return mapped, f"; {len(same)} of {layout.count} landmarks mapped{nearest}", scale
