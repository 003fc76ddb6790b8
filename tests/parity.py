"""Numbers that follow from formulas alone, for tests/test_parity.py: every published net as we load it, and the steps
around it.

Weights and landmarks come from `noise`, an integer hash of a name and an index, so nothing of another project is
needed. Each function of CASES returns {name: array}. Arrays named `grey...` are means of blocks of a picture in grey
levels.
"""

import zlib
from itertools import pairwise

import numpy as np
import torch
from conftest import DEFAULTS, LAYOUTS, settings, to_published

from extras.detector import faceboxes
from extras.detector.mtcnn import MTCNN, nms_of_smaller
from extras.systems.convert.dpr import PARTS, from_dpr
from extras.systems.convert.peppa import from_peppa
from extras.systems.convert.published import from_published
from nets import HEADS, Labels, NetOptions, Trainable, build_net, make_spec
from nets.heads.pip import PIPMaps, merge_index
from pipnet.detections import suppress
from pipnet.geometry import crop_box, cut, to_crop
from utils.evaluate import metric
from utils.settings.config import load_protocol
from utils.train.make_net import make_net
from utils.train.weight_files import unwrapped

SAMPLES = 12  # values that are stored of a large tensor


def noise(name: str, *shape: int) -> np.ndarray:
    """Return float64 numbers in [-1, 1), the same on every machine."""
    x = np.arange(np.prod(shape, dtype=int), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(
        zlib.crc32(name.encode())
    )
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return (x ^ (x >> np.uint32(15))).reshape(shape) / 2.0**31 - 1


def weights(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Return weights by name, scaled by the inputs of each layer."""
    state = {}
    for name, shape in shapes.items():
        a = noise(name, *shape)
        if len(shape) > 1:
            a = a * np.sqrt(3 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            a = 1 + 0.1 * a**2
        else:
            a = 0.1 * a + name.endswith("weight")
        state[name] = torch.tensor(0) if name.endswith("num_batches_tracked") else torch.from_numpy(a).float()
    return state


def shapes_of(module: torch.nn.Module, prefix: str = "") -> dict[str, torch.Size]:
    return {prefix + name: tensor.shape for name, tensor in module.state_dict().items()}


def face(count: int) -> np.ndarray:
    """Return a mean face (N, 2) in [0, 1]."""
    return 0.5 + 0.35 * noise("face", count, 2)


def picture(height: int, width: int) -> np.ndarray:
    """Return uint8 BGR (height, width, 3): waves of several lengths."""
    y, x, c = np.mgrid[:height, :width, :3]
    waves = np.sin(x / 7 + c) + np.sin(y / 11 - c) + np.sin((x + y) / 23 + 2 * c) + np.sin((x - 2 * y) / 41)
    return np.round(127.5 + 30 * waves).astype(np.uint8)


def blocks(image: np.ndarray, count: int = 8) -> np.ndarray:
    """Return means (count, count, 3) of blocks of a picture, whose size need not be a multiple."""
    edges = np.linspace(0, len(image), count + 1).round().astype(int)
    return np.array([[image[a:b, c:d].mean((0, 1)) for c, d in pairwise(edges)] for a, b in pairwise(edges)])


def told(tensor: torch.Tensor) -> np.ndarray:
    """Return mean, standard deviation and SAMPLES values of a tensor."""
    flat = tensor.detach().double().flatten().numpy()
    return np.array([flat.mean(), flat.std(), *flat[np.linspace(0, len(flat) - 1, SAMPLES).astype(int)]])


def outputs(net: Trainable, size: int) -> dict[str, np.ndarray]:
    """Return what the stages of a plain net and its prediction give for the formula picture."""
    images = torch.from_numpy(picture(size, size))[None]
    net.eval()
    with torch.inference_mode():
        x = net.preprocess(images)
        found = {"input": told(x), **{f"stride{stride}": told(part) for stride, part in net.backbone(x).items()}}
        found |= {f"map_{name}": told(part) for name, part in net.maps(images).items()}
        prediction = net.predict(images)
    return found | {name: part.numpy() for name, part in prediction._asdict().items() if part is not None}


# ---------------------------------------------------------------------------------------------------------------- nets
def pip(name: str, system: str = "pipnet", stride: int = 32) -> dict[str, np.ndarray]:
    """PIPNet or its fork at 128 px: weights under the published names, loaded as those."""
    net = build_net(make_spec(NetOptions(name, input_size=128, stride=stride), face(68)))
    published = {f"module.{name}": tensor.shape for name, tensor in to_published(net.state_dict(), system).items()}
    net.load_state_dict(from_published(unwrapped(weights(published))))
    return outputs(net, 128)


def slim() -> dict[str, np.ndarray]:
    chosen = settings("slim")
    net = make_net(chosen.net, chosen.loss, LAYOUTS.load("68"), face(68))
    state = weights({**shapes_of(net.backbone), "fc.weight": torch.Size((143, 448)), "fc.bias": torch.Size((143,))})
    net.load_state_dict(from_peppa(state, face(68)))
    return outputs(net, 160)


def dpr() -> dict[str, np.ndarray]:
    """DPR: global stage (GSR) and local stage, each net's output close to the identity or to the mean face."""
    chosen, layout = settings("dpr"), LAYOUTS.load("98")
    net = make_net(chosen.net, chosen.loss, layout, face(98)).eval()
    shapes = {**shapes_of(net.net.transformer), **shapes_of(net.net.net.backbone)}
    shapes |= shapes_of(net.net.net.neck.layers, "pts_net.")
    shapes |= {"pts_net.4.weight": torch.Size((196, 256)), "pts_net.4.bias": torch.Size((196,))}
    for ours, (theirs, _) in PARTS.items():
        shapes |= shapes_of(net.places[ours], f"{theirs}_net.")
    state = weights(shapes)
    for last, shrink in {"fc_loc.2": 0.1, **{f"{theirs}_net.4": 1e-4 for theirs, _ in PARTS.values()}}.items():
        state[f"{last}.weight"] *= shrink
        state[f"{last}.bias"] = state[f"{last}.bias"] + torch.eye(2, 3).flatten()
    regressors = {f"regressors.{name}": tensor for name, tensor in weights(shapes_of(net.regressors)).items()}
    net.load_state_dict({**from_dpr(state, face(98)), **regressors})
    images = torch.from_numpy(picture(320, 320))[None]
    with torch.inference_mode():
        inner, theta = net.net.inner(images)
        found = {"theta": theta, "inner": inner.landmarks, "gsr": net.net.predict(images).landmarks}
        found["all"] = net.predict(images).landmarks
        found |= {f"place_{name}": place(inner.landmarks) for name, place in net.places.items()}
    return {name: part.numpy() for name, part in found.items()}


def find_boxes() -> dict[str, np.ndarray]:
    """FaceBoxesV2: raw outputs, then decoding and suppression of formula offsets."""
    net, images = faceboxes.FaceBoxesV2().eval(), torch.from_numpy(picture(256, 320))[None]
    net.load_state_dict(unwrapped(weights(shapes_of(net, "module."))))
    with torch.inference_mode():
        offsets, logits = net(images)
    anchor = faceboxes.anchors(256, 320)
    boxes = faceboxes.decode(torch.from_numpy(noise("offsets", len(anchor), 4)).float(), anchor)
    scores = torch.from_numpy(noise("scores", len(anchor)) / 2 + 0.5).float()
    kept, best = faceboxes.best_boxes(boxes, scores, 0.6, 0.3)
    order = scores.argsort(descending=True)[:200]
    return {
        "offsets": told(offsets),
        "logits": told(logits),
        "anchors": told(anchor),
        "boxes": kept.numpy(),
        "scores": best.numpy(),
        "rfb320": np.array(suppress(boxes[order].numpy(), 0.3)),
        "mtcnn": nms_of_smaller(boxes, scores, 0.7).numpy()[:100],
    }


def mtcnn() -> dict[str, np.ndarray]:
    net = MTCNN().eval()
    net.load_state_dict(weights(shapes_of(net)))
    found = {}
    with torch.inference_mode():
        for name, size in (("pnet", 40), ("rnet", 24), ("onet", 48)):
            x = (torch.from_numpy(picture(size, size)).permute(2, 0, 1)[None].float() - 127.5) / 128
            found |= {f"{name}{index}": told(output) for index, output in enumerate(net.get_submodule(name)(x))}
    return found


# --------------------------------------------------------------------------------------------------------------- steps
def pip_head() -> dict[str, np.ndarray]:
    """The head of PIPNet: neighbors, merge, targets, loss, decoding."""
    spec = make_spec(NetOptions("resnet18"), face(68))
    head, grid = HEADS["pip"].load()(512, spec), (8, 8)
    sizes = {"score": 68, "offset_x": 68, "offset_y": 68, "neighbor_x": 680, "neighbor_y": 680}
    maps = PIPMaps(**{name: torch.from_numpy(noise(name, 2, count, *grid)).float() for name, count in sizes.items()})
    labels = Labels.pack(torch.from_numpy(0.5 + 0.6 * noise("labels", 2, 68, 2)).float())  # some lie outside
    targets, found = head.encode(labels, grid), head.decode(maps)
    terms = {f"loss_{name}": term.numpy() for name, term in head.loss(maps, targets).items()}
    return {
        "neighbors": np.array(spec["neighbor_index"]),
        "merge": merge_index(spec["neighbor_index"]).numpy(),
        **terms,
        "cell": targets.cell.numpy(),
        "offset": targets.place[:, :, 0].numpy(),
        "neighbor": told(targets.place[:, :, 1:]),
        "landmarks": found.landmarks.numpy(),
        "score": found.score.numpy(),
        "flipped": labels.flip(LAYOUTS.load("68")).landmarks.numpy(),
    }


def crops() -> dict[str, np.ndarray]:
    """Crops by every protocol of args.yaml, of boxes inside the picture and across its edges."""
    image, found = picture(120, 160), {}
    for name in DEFAULTS.protocols:
        protocol = load_protocol(DEFAULTS.protocols, name)
        for place, box in enumerate(((40.3, 30.8, 100.2, 95.5), (-8.6, 5.2, 60.7, 70.4), (90.5, 60.1, 170.9, 118.6))):
            crop = crop_box(np.array(box), protocol, 160, 120)
            found |= {
                f"{name}_{place}": crop,
                f"points_{name}_{place}": to_crop(20 + 80 * face(5), crop),
                f"grey_{name}_{place}": blocks(cut(image, crop, 64, 1.25, protocol.border), 5),
            }
    return found


def errors() -> dict[str, np.ndarray]:
    """NME in every norm, failure rate and area under the curve."""
    truth, layout = 100 * (face(68) + 0.05 * noise("truth", 40, 68, 2)), LAYOUTS.load("68")
    found = truth + noise("found", 40, 68, 2) * np.linspace(0.5, 9, 40)[:, None, None]
    result = {
        kind: metric.nme(metric.point_errors(found, truth), metric.norms(truth, layout, kind)) for kind in metric.NORMS
    }
    scores = metric.summary(result["interocular"], (10.0, 8.0))
    return {**result, "mean": np.array(scores.nme), "failures": np.array(scores.fr), "area": np.array(scores.auc)}


CASES = {
    "resnet18": lambda: pip("resnet18"),
    "resnet18_16": lambda: pip("resnet18", stride=16),
    "resnet50": lambda: pip("resnet50"),
    "mobilenetv2": lambda: pip("mobilenetv2"),
    "mobilenetv3_large": lambda: pip("mobilenetv3_large"),
    "irnet18": lambda: pip("irnet18", "irnet"),
    "slim": slim,
    "dpr": dpr,
    "faceboxes": find_boxes,
    "mtcnn": mtcnn,
    "pip_head": pip_head,
    "crops": crops,
    "errors": errors,
}
