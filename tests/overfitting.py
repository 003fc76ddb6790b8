"""Overfitting of a few faces, which shows that a net can learn."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn

from extras.synthetic import render
from nets import Labels, NetOptions, Trainable
from pipnet.geometry import box_of, crop_box, cut, to_crop
from utils.settings.config import load_protocol, read_defaults
from utils.train.make_net import new_net

RATE = 3e-3  # peak learning rate


@cache
def memorable(count: int, size: int, margin: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `count` synthetic faces: crops (M, S, S, 3) uint8 BGR with that margin, landmarks (M, 68, 2) in the crop."""
    protocol, images, landmarks = load_protocol(read_defaults().protocols, "square"), [], []
    for index in range(count):
        face = render(0, index, 2 * size)
        crop = crop_box(box_of(face.landmarks), protocol, 2 * size, 2 * size)
        images.append(cut(face.image, crop, size, margin))
        landmarks.append(to_crop(face.landmarks, crop))
    return torch.from_numpy(np.stack(images)), torch.tensor(np.stack(landmarks), dtype=torch.float32)


def teach(net: Trainable, images: torch.Tensor, landmarks: torch.Tensor, batches: Sequence) -> None:
    """Take a step on each of `batches` (indices of faces).
    images (M, S, S, 3) with the net's margin, landmarks (M, N, 2).

    In the last third batch norm uses its running statistics, as in inference: those of a small batch would differ too
    much.
    """
    optimizer, weights = torch.optim.AdamW(net.parameters()), {"cls": 10.0, "reg": 1.0, "sigma": 0.5, "alignment": 1.0}
    net.train()
    for step, chosen in enumerate(batches):
        if step == 2 * len(batches) // 3:
            for module in net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 10) * (1.01 + np.cos(np.pi * step / len(batches))) / 2
        labels = Labels.pack(landmarks[chosen])
        sums, counts = net.loss(images[chosen], labels), net.denominators(labels)
        optimizer.zero_grad()
        sum(total / counts[term] * weights[net.terms[term]] for term, total in sums.items()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()


def judge(net: Trainable, face: torch.Tensor, images: torch.Tensor, landmarks: torch.Tensor) -> tuple[float, float]:
    """Return (NME in % of the mean face (N, 2), NME in % of the net) on these faces with 68 landmarks."""
    with torch.inference_mode():
        found = net.eval().predict(images).landmarks
    norm = (landmarks[:, 36] - landmarks[:, 45]).norm(dim=-1)
    return tuple(float(((points - landmarks).norm(dim=-1).mean(1) / norm).mean() * 100) for points in (face, found))


def overfit(
    name: str, head: str, size: int, steps: int, stride: int | None = None, stages: dict | None = None, **options
) -> tuple[float, float, Trainable]:
    """Return (NME in % of the mean face, of the net, the net) after `steps` steps on 16 faces, measured on these faces.

    stages: further fields of nets.NetOptions.
    """
    face = memorable(16, size)[1].mean(0)
    torch.manual_seed(0)
    net = new_net(NetOptions(name, head, stride, size, head_options=options, **stages or {}), face.numpy())
    images, landmarks = memorable(16, size, net.input_margin)
    teach(net, images, landmarks, [slice(None)] * steps)
    return *judge(net, face, images, landmarks), net
