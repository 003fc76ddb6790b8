"""A net with a faster stem: `python weights/making/make.py early_stem NET.pt OUT.pt`.

NET.pt has the backbone timm:resnet10t. OUT.pt is the same net with the backbone `resnet10t_early`, whose stem has
learnt to give what the stem of NET.pt gives, in squares of photographs at any size, roll and light. All other weights
are those of NET.pt. A training with NET.pt as teacher, stage `landmarks_early`, then fits the whole net to its new
stem.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from photographs import require
from torch import Tensor, nn
from tqdm import trange

import extras  # noqa: F401 fills the tables of the core
from nets import build_net
from nets.trainable import Trainable
from pipnet.errors import UserError
from pipnet.images import picture_files, read_image
from utils.train import checkpoint

BACKBONE = "resnet10t_early"
WORDS = ("300W", "FACES68", "UNLABELLED")
SQUARES, LEAST, SIDE = 4, 80, 208  # of each photograph; px of the smallest one; px to which they are resized
STEPS, BATCH, CROP, RATE = 2000, 48, 96, 0.004  # of the training; CROP: px


def squares() -> np.ndarray:
    """Return random squares (M, SIDE, SIDE, 3) of all photographs but those of test sets."""
    rng, found = np.random.default_rng(1), []
    for file in [
        file for place in require(*WORDS) for file in picture_files(place) if not {"test", "testset"} & {*file.parts}
    ]:
        try:
            image = read_image(file)
        except UserError:  # a damaged picture
            continue
        height, width = image.shape[:2]
        longest = min(height, width)
        for side in np.exp(rng.uniform(np.log(min(LEAST, longest)), np.log(longest), SQUARES)).astype(int):
            y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
            found.append(
                cv2.resize(
                    image[y : y + side, x : x + side],
                    (SIDE, SIDE),
                    interpolation=cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR,
                )
            )
    return np.stack(found)


def changed(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a crop (CROP, CROP, 3) of a square, turned, resized, in another light, some blurred, grey or grainy."""
    turn = cv2.getRotationMatrix2D((0, 0), np.degrees(rng.normal(0, 0.35)), 1 / rng.uniform(0.75, 1.35))
    turn[:, 2] = rng.uniform(CROP / 2, SIDE - CROP / 2, 2) - turn[:, :2].sum(1) * CROP / 2
    border = cv2.BORDER_CONSTANT if rng.random() < 0.3 else cv2.BORDER_REFLECT
    crop = cv2.warpAffine(square, turn, (CROP, CROP), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)
    crop = crop[:, :: rng.choice([-1, 1])].astype(np.float32)
    if rng.random() < 0.15:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 4))
    crop = 255 * (crop / 255) ** np.exp(rng.normal(0, 0.35))
    crop = (crop - 128) * rng.uniform(0.5, 1.4) + 128 + rng.normal(0, 25)
    if rng.random() < 0.5:
        crop = crop * rng.uniform(0.8, 1.2, 3)
    if rng.random() < 0.1:
        crop = np.repeat(crop.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.2:
        crop = crop + rng.normal(0, rng.uniform(2, 25), crop.shape)
    return np.clip(np.rint(crop), 0, 255).astype(np.uint8)


def stem_of(net: Trainable, images: Tensor) -> Tensor:
    """Return what the stem of a net gives for images (B, S, S, 3): (B, C, S/4, S/4)."""
    backbone = net.backbone.net
    return backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(net.preprocess(images)))))


def start(model: dict[str, Tensor], spec: dict) -> Trainable:
    """Return a net with the early stem and the weights of another one. Filters of the stem that both have are equal."""
    net = build_net({**spec, "net": BACKBONE})
    state = net.state_dict()
    for name, tensor in model.items():
        if state[name].shape == tensor.shape:
            state[name] = tensor
        else:  # the second convolution is wider, and the third reads more channels
            state[name][tuple(map(slice, tensor.shape))] = tensor
    net.load_state_dict(state)
    return net


def main(file: str, out: str) -> None:
    """Write the checkpoint `out`."""
    torch.manual_seed(0)
    stored, rng = checkpoint.load(Path(file)), np.random.default_rng(0)
    teacher, net, known = build_net(stored["net"]), start(stored["model"], stored["net"]), squares()
    teacher.load_state_dict(stored["model"])
    for one in (teacher, net):
        one.to(memory_format=torch.channels_last)
    stem: list[nn.Parameter] = [*net.backbone.net.conv1.parameters(), *net.backbone.net.bn1.parameters()]
    optimizer = torch.optim.AdamW(stem, RATE, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.05)
    teacher.eval()
    net.train()
    scale = None
    for _ in (bar := trange(STEPS)):
        images = torch.from_numpy(np.stack([changed(known[rng.integers(len(known))], rng) for _ in range(BATCH)]))
        with torch.no_grad():
            wanted = stem_of(teacher, images)
        scale = wanted.var((0, 2, 3), keepdim=True) + 1e-4 if scale is None else scale
        loss = ((stem_of(net, images) - wanted).square() / scale).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stem, 5)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    checkpoint.save(
        Path(out),
        {
            **stored,
            "net": {**stored["net"], "net": BACKBONE},
            "model": net.state_dict(),
            "args": {**stored["args"], "net": BACKBONE},
        },
    )
    print(f"{out}: {file} with a stem of {BACKBONE} that misses {loss.item():.3f} of the variance of the old one")
