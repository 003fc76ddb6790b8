"""Changes of pixels.py for a whole batch, made by a few large operations of torch on the device of the batch.

`orders` decides on the host which operation changes which rows. `to_device` copies all numbers of a batch to the device
at once. `apply_changes` runs there. Nothing is copied back, so the host never waits. Grey levels are float32 with an
offset of 0.5 until the end, so that truncating them rounds them.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, pad
from torch.utils._pytree import tree_flatten, tree_unflatten

from utils.data.changes import Change, covers
from utils.data.pixels import STILL, UNDISTORTED, warps

HALF, WHITE = 0.5, 255.5
MODES = {
    cv2.INTER_NEAREST: "nearest",
    cv2.INTER_LINEAR: "bilinear",
    cv2.INTER_CUBIC: "bicubic",
    cv2.INTER_LANCZOS4: "lanczos",
}
FAR = 1 << 15  # px, beyond all pictures
PLACES = 768  # offsets along an axis at which noise is cut out of a larger picture of noise


# ------------------------------------------------------------------------------------------------------------ the host
def compile_changes(made: Sequence[Change]) -> list[tuple]:
    """Return the operations for `apply_changes`: (function, rows that it changes or None for all, its arguments for these
    rows).
    """
    done: list[tuple] = [(torch.add, None, [HALF])]

    def add(act: Callable, acts: np.ndarray, *numbers: np.ndarray, most: float = 0.5) -> None:
        if acts.any():  # if it changes more than the share `most` of the rows, it runs on all: some numbers are neutral
            rows = None if acts.mean() > most else np.flatnonzero(acts)
            done.append((act, rows, [array if rows is None else array[rows] for array in numbers]))

    for change in made:
        if change.source is not None:
            done.insert(0, (filled_outside, None, [np.clip(change.source, 0, FAR).round(), change.fill]))
        done.append((warp, None, [change.seen, change.side, change.fill, _groups(change)]))
        if change.hsv is not None:
            still = np.zeros((len(change.hsv), 1, 1))
            add(hue_saturation_value, (change.hsv != 1).any(1), change.hsv[..., None, None], still, most=1)
        if change.distort is not None:
            add(distort, (change.distort != UNDISTORTED).any(1), change.distort[..., None, None, None], most=1)
        if change.light is not None:
            depth, light = change.light[:, 0], change.light[:, 1]
            first = depth @ (0.5, 0.5, 1)  # the depth in the middle of the first px
            add(darken, (light != 1).any(1), np.column_stack([depth[:, :2], first]), light[..., None, None] - 1)
        if change.gamma is not None:
            add(power, change.gamma != 1, change.gamma[:, None, None, None])
        if change.colour is not None:
            linear, offset = change.colour[..., :3], change.colour[..., 3:]
            offset = offset + HALF - HALF * linear.sum(2, keepdims=True)
            add(colour, np.any(change.colour != np.eye(3, 4), (1, 2)), linear, offset)
        if change.blur is not None:
            blurs = change.blur > 0.1
            add(blur, blurs, _taps(np.where(blurs, change.blur, 1e-9), change.side))
        if change.grain is not None:
            sigma, grain, seed = change.grain.T
            matrix = np.ceil(change.side / grain)[:, None, None] / change.side * np.eye(2, 3)
            matrix[..., 2] = np.stack([seed % PLACES, seed // PLACES % PLACES], 1)
            add(noise, sigma > 0, in_grid(matrix, change.side + PLACES), sigma[:, None, None, None])
        if change.jitter is not None:
            reach, seed = change.jitter.T
            matrix = np.tile(np.eye(2, 3), (len(seed), 1, 1))
            matrix[..., 2] = np.stack([seed % PLACES, seed // PLACES % PLACES], 1)
            add(uniform_noise, reach > 0, in_grid(matrix, change.side + PLACES), reach[:, None, None, None])
        if change.box is not None and change.shade is not None:
            low, extent = np.split(change.box, 2, 1)
            add(cover, np.all(extent > 0, 1), np.concatenate([low, low + extent], 1), change.shade, most=0)
        if change.shape is not None and change.shade is not None and change.texture is not None:
            texture = change.texture[:, None, None, None]
            add(cover_shape, covers(change.shape), change.shape, change.shade, texture, most=0)
    last = sum(act in (cover, cover_shape) for act, *_ in done[-2:])
    done.insert(len(done) - last, (finish, None, []))  # covering is faster on bytes than on floats
    return done


def _groups(change: Change) -> list[tuple]:
    """Return (rows or None for all, interpolation, affines for `grid`) for each interpolation that warps some crops."""
    (whole, flags), made = warps(change), []
    linear = np.linalg.inv(whole[..., :2])
    back = in_grid(np.concatenate([linear, -linear @ whole[..., 2:]], 2), change.seen)
    for flag in sorted({*flags.tolist()} - {STILL}):
        rows = None if (flags == flag).all() else np.flatnonzero(flags == flag)
        made.append((rows, MODES[flag], back if rows is None else back[rows]))
    return made


def _taps(sigma: np.ndarray, side: int) -> np.ndarray:
    """Return Gaussian filters (B, 3, K), truncated as OpenCV does. sigma (B,): in px; side: of the picture, in px."""
    reach = np.minimum((np.rint(6 * sigma + 1).astype(int) | 1) // 2, side - 1)[:, None]
    tap = np.arange(-reach.max(initial=0), reach.max(initial=0) + 1)
    taps = np.exp(-0.5 * (tap / sigma[:, None]) ** 2) * (np.abs(tap) <= reach)
    return np.repeat((taps / taps.sum(1, keepdims=True))[:, None], 3, 1)


def in_grid(matrix: np.ndarray, side: int) -> np.ndarray:
    """Return maps (B, 2, 3) from px to px of a picture of `side` px as maps from indices of px to [-1, 1] of that
    picture.
    """
    scaled = matrix * (2 / side)
    scaled[..., 2] += scaled[..., :2].sum(-1) / 2 - 1
    return scaled


def to_device(tree: Any, device: torch.device) -> Any:
    """Return nested lists and tuples with tensors on the device in place of arrays, by one copy.
    float64 becomes float32.
    """
    leaves, form = tree_flatten(tree)
    arrays = [
        (place, np.ascontiguousarray(leaf, np.float32 if leaf.dtype == np.float64 else None))
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, np.ndarray)
    ]
    sizes = [-(-array.nbytes // 16) * 16 for _, array in arrays]
    packed = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for part, (_, array) in zip(packed.split(sizes), arrays, strict=True):
        part.numpy()[: array.nbytes] = array.reshape(-1).view(np.uint8)
    for part, (place, array) in zip(packed.to(device, non_blocking=True).split(sizes), arrays, strict=True):
        leaves[place] = part[: array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
    return tree_unflatten(leaves, form)


# ---------------------------------------------------------------------------------------------------------- the device
def apply_changes(crops: Tensor, orders: list) -> Tensor:
    """Return crops (B, S, S, 3) uint8 BGR, changed by uploaded `orders`. The given crops stay as they are."""
    x = crops.permute(0, 3, 1, 2)
    for act, rows, numbers in orders:
        x = act(x, *numbers) if rows is None else x.index_copy_(0, rows, act(x.index_select(0, rows), *numbers))
    return x.permute(0, 2, 3, 1)


def finish(x: Tensor) -> Tensor:
    """Return rounded bytes, in memory as (B, H, W, 3)."""
    return x.new_empty((len(x), *x.shape[2:], 3), dtype=torch.uint8).permute(0, 3, 1, 2).copy_(x)


def in_rectangles(boxes: Tensor, side: int) -> Tensor:
    """Return which px (B, 1, side, side) lie in rectangles x1, y1, x2, y2 (B, 4)."""
    place, (low, high) = torch.arange(side, device=boxes.device), boxes.view(-1, 2, 2, 1).unbind(1)
    within = (place >= low) & (place < high)
    return (within[:, 1, :, None] & within[:, 0, None])[:, None]


def filled_outside(x: Tensor, boxes: Tensor, level: int) -> Tensor:
    """Return bytes (B, 3, S, S) that have the grey `level` outside rectangles (B, 4)."""
    return torch.where(in_rectangles(boxes, x.shape[2]), x, level)


def cover(x: Tensor, boxes: Tensor, shade: Tensor) -> Tensor:
    """Return bytes or levels (B, 3, S, S) with rectangles (B, 4) in the colours `shade` (B, 3)."""
    return torch.where(in_rectangles(boxes, x.shape[2]), (shade[..., None, None] + HALF).to(x.dtype), x)


def cover_shape(x: Tensor, shape: Tensor, shade: Tensor, texture: Tensor) -> Tensor:
    """Return bytes or levels (B, 3, S, S) with a shape (B, 3, 3) in the colours `shade` (B, 3) and a texture
    (B, 1, 1, 1), see `Change`.
    """
    place, (a, b, c), (d, e, f) = (
        torch.arange(x.shape[2], device=x.device) + HALF,
        *(shape[:, row, :, None, None].unbind(1) for row in (0, 1)),
    )
    across, down = place[None, None], place[None, :, None]
    power = shape[:, 2, :1, None]
    inside = (a * across + b * down + c).abs() ** power + (d * across + e * down + f).abs() ** power <= 1
    rounding = 0 if x.is_floating_point() else HALF
    paint = (1 - texture) * (shade[..., None, None] + HALF - rounding) + texture * x.flip(2) + rounding
    return torch.where(inside[:, None], paint.to(x.dtype), x)


def middle(x: Tensor, side: int) -> Tensor:
    """Return the middle (B, 3, side, side) of square pictures, a view."""
    edge = (x.shape[2] - side) // 2
    return x[:, :, edge : edge + side, edge : edge + side]


def warp(x: Tensor, seen: int, side: int, fill: int, groups: list) -> Tensor:
    """Return the warped middles of `seen` px as pictures of `side` px; groups: see `_groups`."""
    x, level = middle(x, seen), fill + HALF if fill else 0.0
    out = middle(x, side) if not groups or groups[0][0] is None else middle(x, side).clone()
    for rows, mode, matrix in groups:
        some, places = x if rows is None else x.index_select(0, rows), grid(matrix, side)
        some = some - level if level else some  # what lies outside is 0
        some = lanczos(some, places) if mode == "lanczos" else grid_sample(some, places, mode, align_corners=False)
        some = some.add_(level) if level else some
        some = some.clamp_(HALF, WHITE) if mode in ("bicubic", "lanczos") else some
        out = some if rows is None else out.index_copy_(0, rows, some)
    return out


def grid(matrix: Tensor, side: int) -> Tensor:
    """Return (B, side, side, 2), for each px of the result its place in [-1, 1] of the source; matrix: see `in_grid`."""
    place = torch.arange(side, device=matrix.device, dtype=torch.float32)[:, None]
    across, down = place * matrix[:, None, :, 0], torch.addcmul(matrix[:, None, :, 2], place, matrix[:, None, :, 1])
    return across[:, None] + down[:, :, None]


def lanczos(x: Tensor, places: Tensor) -> Tensor:
    """Return pictures (B, 3, side, side) interpolated from 8 x 8 px, as OpenCV does; places: see `grid`."""
    side, tap = x.shape[2], torch.arange(-3, 5, device=x.device)[:, None]
    out: Any = 0
    places = (places + 1) * (side / 2) - HALF
    away = (places - places.floor())[..., None, :] - tap
    weight = torch.sinc(away) * torch.sinc(away / 4)
    weight, places = weight / weight.sum(-2, keepdim=True), (places.floor()[..., None, :] + tap + HALF) * (2 / side) - 1
    for row in range(8):
        spots = torch.stack([places[..., 0], places[..., row : row + 1, 1].expand_as(places[..., 0])], -1).flatten(2, 3)
        found = grid_sample(x, spots, "nearest", align_corners=False).unflatten(3, (-1, 8))
        out = out + (found * (weight[..., 0] * weight[..., row : row + 1, 1])[:, None]).sum(-1)
    return out


def distort(x: Tensor, numbers: Tensor) -> Tensor:
    """Return levels after changes of contrast about the mean, brightness, hue and saturation (B, 4, 1, 1, 1), which are
    rounded down.
    """
    contrast, brightness, shift, saturation = numbers.unbind(1)
    x = x.floor()
    mean = x.mean((2, 3), keepdim=True)
    x = torch.addcmul(mean, x - mean, contrast).clamp(0, 255).floor()
    x = (x + brightness).clamp(0, 255).floor()
    same = torch.ones_like(saturation)
    return hue_saturation_value(x, torch.cat([same, saturation, same], 1), shift[:, 0])


def hue_saturation_value(x: Tensor, factors: Tensor, shift: Tensor) -> Tensor:
    """Return levels whose hue, saturation and value are multiplied by factors (B, 3, 1, 1) and rounded as OpenCV does.
    shift (B, 1, 1): added to the hue, in its steps of two degrees.
    """
    blue, green, red = x.floor().unbind(1)
    value, low = torch.maximum(torch.maximum(blue, green), red), torch.minimum(torch.minimum(blue, green), red)
    chroma = value - low
    hue = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    )
    hue = (30 * hue / chroma.clamp(min=1)).round().remainder(180)
    hue = (hue * factors[:, 0] + shift).remainder(180).floor()  # in steps of two degrees
    saturation = ((255 * chroma / value.clamp(min=1)).round() * factors[:, 1]).clamp(max=255).floor()
    value = (value * factors[:, 2]).clamp(max=255).floor()
    turn = (hue[:, None] / 30 + torch.arange(1, 6, 2, device=x.device)[:, None, None]).remainder(6)
    return value[:, None] * (1 - torch.minimum(turn, 4 - turn).clamp(0, 1) * saturation[:, None] / 255) + HALF


def darken(x: Tensor, depth: Tensor, less: Tensor) -> Tensor:
    """Return levels in a shadow. depth (B, 3): affine of the indices of px; less (B, 3, 1, 1): change of the light in
    it.
    """
    place = torch.arange(x.shape[2], device=x.device)
    across, down = depth[:, :1] * place + depth[:, 2:], depth[:, 1:2] * place
    share = (across[:, None] + down[:, :, None]).clamp_(0, 1)[:, None]
    return x.sub_(HALF).mul_(1 + share * less).add_(HALF)


def power(x: Tensor, gamma: Tensor) -> Tensor:
    """Return levels whose share of white is raised to a power (B, 1, 1, 1)."""
    return x.sub_(HALF).div_(255).clamp_(0, 1).pow_(gamma).mul_(255).add_(HALF)


def colour(x: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Return levels after affine maps (B, 3, 3), (B, 3, 1) of their colours."""
    # on a GPU a third of the time of a product
    out = torch.addcmul(offset[..., None], x[:, :1], linear[..., 0, None, None])
    for channel in (1, 2):
        out.addcmul_(x[:, channel : channel + 1], linear[..., channel, None, None])
    return out.clamp_(HALF, WHITE)


def blur(x: Tensor, taps: Tensor) -> Tensor:
    """Return levels after filters (B, 3, K) along both axes. Pictures are mirrored at their edges."""
    count, some = taps.shape[0] * 3, pad(x, [taps.shape[2] // 2] * 4, "reflect").flatten(0, 1)[None]
    some = conv2d(some, taps.reshape(count, 1, 1, -1), groups=count)
    return conv2d(some, taps.reshape(count, 1, -1, 1), groups=count).view(x.shape)


def noise(x: Tensor, matrix: Tensor, sigma: Tensor) -> Tensor:
    """Return levels with noise of sigma (B, 1, 1, 1).
    matrix: affines (B, 2, 3) that cut it out of a larger picture of noise.
    """
    whole = _noise(x.shape[2] + PLACES, x.device).expand(len(x), -1, -1, -1)
    return torch.addcmul(x, grid_sample(whole, grid(matrix, x.shape[2]), align_corners=False), sigma).clamp_(
        HALF, WHITE
    )


def uniform_noise(x: Tensor, matrix: Tensor, reach: Tensor) -> Tensor:
    """Return levels with noise uniform in +- reach (B, 1, 1, 1), rounded down; matrix: see `noise`."""
    whole = _noise(x.shape[2] + PLACES, x.device).expand(len(x), -1, -1, -1)
    drawn = grid_sample(whole, grid(matrix, x.shape[2]), align_corners=False)
    return x.add((torch.erf(drawn / 2**0.5) * reach).floor()).clamp_(HALF, WHITE)


@cache
def _noise(side: int, device: torch.device) -> Tensor:
    """Return a picture (3, side, side) of Gaussian noise, the same on all devices."""
    return torch.randn((3, side, side), generator=torch.Generator().manual_seed(0)).to(device)
