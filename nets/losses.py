"""Loss functions that several heads share: error forms, predicted error scales, weights for hard landmarks.

Errors are absolute, in cells of the feature map. Heads without cells use eighths of the crop: as large as a cell of
stride 32 at 256 px.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nets.labels import Labels
from nets.outside import code_of


def l1(error: Tensor) -> Tensor:
    """Return the error itself (PIPNet, section 3.2)."""
    return error


def l2(error: Tensor) -> Tensor:
    """Return the squared error."""
    return error.square()


def wing(error: Tensor) -> Tensor:
    """Return the Wing loss (Feng et al., CVPR 2018) of an error in eighths of the crop, with Slim's w = 10 and epsilon
    = 2.

    Slim measures errors in [0, 1] of the crop, so only the logarithmic part is used, which is almost linear there.
    """
    share = error / 8
    return torch.where(share < 10, 10 * torch.log1p(share / 2), share - 10 + 10 * math.log(6))


ERROR_FORMS = {"l1": l1, "l2": l2, "wing": wing}  # by the names in registry.ERRORS


def error_form(name: str) -> Callable[[Tensor], Tensor]:
    """Return a row of ERROR_FORMS, or a form from outside of the checkout. ValueError if there is none of that name."""
    form = ERROR_FORMS.get(name) or code_of("losses", name)
    if not callable(form):
        raise ValueError(f"no form of the regression error is named '{name}'")
    return form


def bounded(log_scale: Tensor) -> Tensor:
    """Return predicted log scales, clamped to a range whose exponentials are finite."""
    return log_scale.clamp(-8, 4)


def laplace_loss(weight: Tensor, errors: Tensor, log_scale: Tensor) -> Tensor:
    """Return the weighted sum of Laplace likelihood losses; errors (..., 2) of x and y, weight and log_scale (...).

    The negative log-likelihood is multiplied by the detached scale. Without this factor easy landmarks dominate,
    because their gradients are divided by small scales. The only minimum of the loss is at the mean error. The errors
    get no gradient.
    """
    scale = log_scale.exp()
    with torch.no_grad():
        factor, mean = weight * scale, errors.mean(-1)
    return (factor * (mean / scale + log_scale)).sum()


def hard_landmark_weights(labels: Labels, found: Tensor, power: float) -> Labels:
    """Return labels in which a landmark's weight is multiplied by (its error in `found` (B, N, 2) / the face's mean) **
    power.

    The weights of a face keep their sum. After the landmark-weighted loss of DPR (Shao et al., TPAMI 2021).
    """
    weight = labels.weight
    error = (found - labels.landmarks.detach()).norm(dim=-1).clamp(min=1e-6).pow(power)
    mean = (weight * error).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1e-6)
    return labels.replace(weight=weight * error / mean.clamp(min=1e-6**power))
