"""Initial weights of a landmark net: random, ImageNet, or a trained net, perhaps of other landmarks."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nets import Trainable, net_row
from nets.heads.remap import Origins
from pipnet.errors import UserError
from pipnet.files import write_csv
from pipnet.geometry import box_of, crop_box, similarity, to_crop, transform
from pipnet.layout import Layout
from utils.settings.config import Defaults, load_protocol
from utils.settings.extras import extra
from utils.train import checkpoint
from utils.train.imagenet import load_imagenet

ALIKE = 1.25  # ratio of face sizes in two kinds of crops; beyond it, a net of one kind is a poor start for the other
FRAME = 10000  # px, side of an imagined image in which no crop reaches the edge
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
    words: for the log; rows: (tensor, shape, origin) of each tensor; none without a file.
    """

    words: str
    rows: list[tuple[str, str, str]] = []

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
    edited = new.name == old.name and (new.count, new.flip_index) != (
        old.count,
        old.flip_index,
    )  # two layouts of one name

    def names(layout: Layout, landmark: int) -> set[tuple[str, int]]:
        own = {(layout.stored, layout.selected[landmark])}
        if edited:
            own.discard((new.name, landmark))
        return own | {(name, same[landmark]) for name, same in layout.same_as.items() if landmark in same}

    places = {name: landmark for landmark in range(old.count) for name in names(old, landmark)}
    found = {
        landmark: places[name]
        for landmark in range(new.count)
        for name in sorted(names(new, landmark))
        if name in places
    }
    return found if len(set(found.values())) == len(found) else {}


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
    tensors, known = checkpoint.load_weights(file)
    foreign = None if checkpoint.are_our_names(tensors) else extra("systems").renamed(tensors, net, meanface)
    stored, own = foreign.tensors if foreign else tensors, net.state_dict()
    if hasattr(net.backbone, "own_names"):
        stored = net.backbone.own_names(stored)
    if foreign:
        _check_meanface(file, stored, net, meanface, foreign.needs_meanface)
    held = checkpoint.structure(tensors, known, defaults).get("net")
    held = _check_backbone(file, tensors, held, stored, net, bool(known))
    words, head = "", {}
    if known:
        head, words = _Remap(net, file, layout, meanface, warn, defaults.protocols).head(stored, known)
        if head is not None:
            stored = {name: tensor for name, tensor in stored.items() if not name.startswith(PER_LANDMARK)} | head
        if (size := known["net"].get("input_size")) != net.spec["input_size"]:
            warn(
                f"{file} was trained at {size} px, this net has {net.spec['input_size']} px; --input-size {size} is better"
            )
    fitting = {name: tensor for name, tensor in stored.items() if name in own and own[name].shape == tensor.shape}
    if not any(
        torch.is_floating_point(tensor)
        for name, tensor in fitting.items()
        if not name.startswith(("head.", "refiner.", "visibility.", "face."))
    ):
        raise UserError(f"{file} holds no tensor that fits {net.spec['net']}; give a checkpoint of the same backbone")
    net.load_state_dict(fitting, strict=False)
    rows = [(name, _shape(tensor), _origin(name, tensor, stored, head or {})) for name, tensor in own.items()]
    left = {name: tensor for name, tensor in stored.items() if name not in own}
    rows += [(name, _shape(tensor), "left out: this net has no such tensor") for name, tensor in left.items()]
    if foreign:
        rows += [(name, _shape(tensors[name]), "left out: the classifier") for name in foreign.left_out]
    listed = "; ".join(filter(None, (_listed(rows, "new"), _listed(rows, "left out"))))
    title = {"system": foreign.title} if foreign and foreign.title else {}
    about = checkpoint.in_words(tensors, {"net": {"net": held}, **title})
    return InitialWeights(
        f"{len(fitting)} of {len(own)} tensors of {file}, {about}{f' ({listed})' if listed else ''}{words}", rows
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


def _check_backbone(file: Path, tensors: dict, held: str | None, stored: dict, net: Trainable, ours: bool) -> str:
    """Return the name of the net in a file, or that of `net` if the file does not tell.
    UserError if `net` is another net.

    Without this check a net could start from a smaller or larger one, because most of their tensors fit. held: the name
    that the file tells. ours: whether it is our checkpoint. stored: the file's tensors under the names of `net`. The
    file of a plain backbone may hold more parts, such as a classifier, but no further tensors of a part that `net` has
    too.
    """
    own, there = (
        {name: tensor.shape for name, tensor in state.items() if name.startswith("backbone.")}
        for state in (net.state_dict(), stored)
    )
    wanted = net.spec["net"]
    if held is None:
        plain = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
        held = (backbone_in(plain, sum(BACKBONES.values(), ())) or (wanted, None))[0]
    parts = {name.split(".")[1] for name in own}
    if held != wanted and there and own != there:
        raise UserError(
            f"{file} holds {held}, this is {wanted}: give --net {held}, or a checkpoint of the same backbone"
        )
    if foreign := [] if ours else [name for name in sorted(there.keys() - own.keys()) if name.split(".")[1] in parts]:
        raise UserError(
            f"{file} holds more than {wanted} has ({checkpoint.first_three(foreign)}), so another net; give a "
            "checkpoint of the same backbone"
        )
    return held


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

    needed: the file of that mean face in words; empty if the head needs none.
    """
    own = net.state_dict().get("head.output.weight")
    starts = own is not None and "head.output.weight" in stored and stored["head.output.weight"].shape == own.shape
    if needed and starts and np.array_equal(net.spec["meanface"], meanface):
        raise UserError(
            f"{file} gives landmarks as offsets from a mean face that it does not hold; give that with --meanface: "
            f"{needed}"
        )


class _Remap(NamedTuple):
    """A net that starts from the file of a net with other landmarks."""

    net: Trainable
    file: Path
    layout: Layout
    meanface: np.ndarray
    warn: Callable[[str], None]
    protocols: dict[str, Any]

    def head(self, stored: dict, known: dict) -> tuple[dict | None, str]:
        """Return (tensors of the head and refiner for the net's landmarks, words for the log).

        The tensors are None if those of the file fit as they are, and {} if none of them can be used.
        """
        try:
            spec, old, layout = known["net"], Layout.from_dict(known["layout"]), self.layout
            same = shared_landmarks(layout, old)
            if spec["head"] != self.net.spec["head"] or not same:
                why = (
                    "its head is another"
                    if same
                    else f"layout {layout.name} shares no landmark with {old.name} (same_as)"
                )
                return {}, f"; the backbone only: {why}"
            alike = layout.count == old.count and spec.get("neighbor_index") == self.net.spec.get("neighbor_index")
            if alike and same == {i: i for i in range(old.count)}:
                return None, ""
            trained_on = np.reshape(known["meanface"], (-1, 2)) if "meanface" in known else None
            if trained_on is not None and len(same) > 1:
                self._compare_sizes(trained_on[list(same.values())], list(same))
            origins = nearest_origins(same, self.meanface, trained_on)
            rows = {name.removeprefix("head."): tensor for name, tensor in stored.items() if name.startswith("head.")}
            remapped = self.net.head.remapped(rows, spec, self.net.spec, origins, self.meanface)
            made = {f"head.{name}": tensor for name, tensor in remapped.items()}
            made |= {name: stored[name][origins.landmark] for name in PER_LANDMARK[1:] if name in stored}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f"{self.file} does not describe a net that can be started from ({type(error).__name__} {error})"
            ) from None
        rest = layout.count - len(same)
        words = f"; {len(same)} of {layout.count} landmarks mapped"
        return made, words + (f", {rest} from their nearest" if rest else "")

    def _compare_sizes(self, old: np.ndarray, shared: list[int]) -> None:
        """Warn if faces have another size in the crops of the file's net, and name the protocol that gives them the
        same size.

        old (M, 2): mean places of the shared landmarks in those crops, in [0, 1]; shared (M,): the same landmarks in
        this net.
        """

        def scale_of(meanface: np.ndarray) -> float:
            """Return the size of the shared landmarks on a mean face, as a multiple of that in the file's net."""
            return float(np.sqrt(np.linalg.det(similarity(old, meanface[shared])[:, :2])))

        def alike(meanface: np.ndarray) -> float:
            """Return the ratio of the face sizes, the larger by the smaller."""
            return float(np.exp(abs(np.log(scale_of(meanface)))))

        scale = scale_of(self.meanface)
        if 1 / ALIKE < scale < ALIKE:
            return
        box = box_of(self.meanface) * FRAME
        cut = {
            name: crop_box(box, load_protocol(self.protocols, name), FRAME, FRAME) / FRAME
            for name in ("square", "inner")
        }
        fits = {name: alike(to_crop(self.meanface, crop)) for name, crop in cut.items()}
        best = min(fits, key=fits.__getitem__)
        which = f"--protocol {best}" if fits[best] < ALIKE else f"neither --protocol {' nor '.join(fits)}"
        self.warn(
            f"faces are {scale:.2f} times as large in these crops as in those of {self.file}: {which} makes them alike"
        )
