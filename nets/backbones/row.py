"""What the registry knows of a backbone, and how its ImageNet weights are fetched."""

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB of [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class Row(NamedTuple):
    """One backbone of the registry.

    build(**options) makes the module: `channels` is {stride: channels}, `forward` turns x (B, 3, H, W) into
    {stride: (B, C, H/stride, W/stride)}, strides 2 or 4 to 32.
    mean, std: RGB, of images in [0, 1]; they belong to the weights.
    imagenet: where `--weights imagenet` finds weights: the address of a state dict, `timm:<name>`, or None.
    note: one line for --list-nets, with the published NME (%, interocular).
    acts: the activations that build(act=...) offers.
    order: of the channels, RGB or BGR.
    input_margin: what is seen / the nominal crop, where the net re-initialises (spatial_transformer.py).
    published(state, meanface): a published state dict under our names; None: those of PIPNet, IRNet and torchvision.
    input_size: px, side of the input that the published figure is of.
    """

    build: Callable[..., nn.Module]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    imagenet: str | None = None
    note: str = ""
    acts: tuple[str, ...] = ()
    order: str = "RGB"
    input_margin: float = 1.25
    published: Callable[[dict[str, Tensor], np.ndarray], dict[str, Tensor]] | None = None
    input_size: int = 256


def load_imagenet(backbone: nn.Module, row: Row) -> None:
    """Fill `backbone` (built by `row`) with ImageNet weights, from the local cache or the network.

    Raises OSError with one line that says what is missing: no such weights, no network (noticed within seconds), a damaged file.
    """
    if row.imagenet is None:
        name = getattr(backbone, "name", type(backbone).__name__)
        raise OSError(f"no ImageNet weights are published for {name}; give a file with --weights FILE")
    if row.imagenet.startswith("timm:"):
        backbone.load_pretrained()
        return
    state = fetch_state(row.imagenet)
    names = backbone.state_dict().keys()
    try:  # strict but for the classifier, which no backbone here has
        backbone.load_state_dict({name: tensor for name, tensor in state.items() if name in names})
    except RuntimeError as error:
        raise OSError(f"{row.imagenet} does not fit {type(backbone).__name__}: {first_line(error)}") from error


def fetch_state(url: str) -> dict[str, Tensor]:
    """State dict behind `url`, from torch.hub's cache if it is there. Raises OSError with one line."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not cached.is_file():
        require_reachable(url, f"or put {cached.name} into {cached.parent}")
    with network_timeout():
        try:
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except Exception as error:  # a refused or broken transfer, a wrong checksum, a damaged or foreign file
            reason = first_line(error)
            raise OSError(f"ImageNet weights {url} cannot be loaded ({reason}); remove {cached} if it is there") from error


def require_reachable(url: str, remedy: str, seconds: float = 5.0) -> None:
    """Raise OSError with one line unless the host of `url` answers within `seconds`; any HTTP status is an answer.

    The request goes through urllib, so that proxies count; in a thread, since no socket timeout bounds the look-up of a name.
    """
    failure: list[str] = ["no answer"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            failure.clear()
        except urllib.error.HTTPError:
            failure.clear()
        except OSError as error:
            failure[0] = first_line(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        host = urlparse(url).hostname
        raise OSError(f"ImageNet weights: {host} cannot be reached ({failure[0]}); connect to the network, {remedy}")


@contextlib.contextmanager
def network_timeout(seconds: float = 20.0) -> Iterator[None]:
    """Bound the silence of a connection: the download functions set no timeout of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def first_line(error: object) -> str:
    """The first line of an error's text, its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
