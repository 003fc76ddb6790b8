"""ImageNet weights of a backbone, from the local cache or the network.

torch.hub and the Hugging Face hub download and cache. Without a network they hang or retry for a minute and then raise
errors of many types, so this file checks the connection first and turns every failure into one line.
"""

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from nets.backbones.row import Row
from nets.backbones.timm_net import TimmNet, first_line, pretrained_cfg


def load_imagenet(backbone: nn.Module, row: Row) -> None:
    """Load ImageNet weights into `backbone`, which `row` has built.

    Raises OSError with one line about the cause: no such weights, no network (noticed within seconds), or a damaged
    file.
    """
    if row.imagenet is None:
        name = getattr(backbone, "name", type(backbone).__name__)
        raise OSError(f"no ImageNet weights are published for {name}; give a file with --weights FILE")
    if isinstance(backbone, TimmNet):
        _load_timm(backbone)
        return
    cached = _cached_file(row.imagenet)
    with _one_line(f"{row.imagenet} cannot be loaded", f"; remove {cached} if it is there"):
        state = torch.hub.load_state_dict_from_url(row.imagenet, map_location="cpu", check_hash=True, weights_only=True)
    names = backbone.state_dict().keys()
    with _one_line(f"{row.imagenet} does not fit {type(backbone).__name__}"):  # strict, apart from the classifier
        backbone.load_state_dict({name: tensor for name, tensor in state.items() if name in names})


def _load_timm(backbone: TimmNet) -> None:
    """Load timm's pretrained weights through a second net, because timm renames tensors while it loads them."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    cfg, overlay = pretrained_cfg(backbone.name), dict[str, Any]()
    if not cfg.has_weights:
        raise OSError(
            f"timm has no pretrained weights for {backbone.name}; name a tag that has them, or use --weights none"
        )
    if cfg.hf_hub_id and not cfg.custom_load:
        repository, _, revision = cfg.hf_hub_id.partition("@")
        for name in ("pytorch_model.bin", "model.safetensors"):
            file = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(file, str):
                overlay["file"] = file
    if cfg.hf_hub_id and not overlay:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        _require_reachable(endpoint, "or set HF_HOME to a folder that holds them")
    elif cfg.url and not overlay:
        _cached_file(str(cfg.url))
    with _one_line(f"of timm:{backbone.name} cannot be loaded"):
        source = timm.create_model(
            backbone.name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay, **backbone.options
        )
        backbone.net.load_state_dict(source.state_dict())


def _cached_file(url: str) -> Path:
    """Return the file in torch.hub's cache for `url`.
    Raises OSError with one line if it is missing and cannot be fetched.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not cached.is_file():
        _require_reachable(url, f"or put {cached.name} into {cached.parent}")
    return cached


def _require_reachable(url: str, remedy: str, seconds: float = 5.0) -> None:
    """Raise OSError with one line unless the host of `url` answers within `seconds`; any HTTP status is an answer.

    urllib respects proxies. It runs in a thread, because no socket timeout limits the look-up of a name.
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


@contextmanager
def _one_line(what: str, remedy: str = "", seconds: float = 20.0) -> Iterator[None]:
    """Turn any error into an OSError with one line, and limit the silence of a connection to `seconds`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    except Exception as error:  # a broken transfer, a wrong checksum, a foreign file, an error of the hub's own kind
        raise OSError(f"ImageNet weights {what} ({first_line(error)}){remedy}") from error
    finally:
        socket.setdefaulttimeout(before)
