"""Filter gradients that oneDNN gets wrong on a CPU, or writes beyond their memory."""

import copy

import pytest
import torch
from torch import nn

from extras.detector.faceboxes import FaceBoxesV2
from nets import net_row
from nets.onednn import patch_convolutions


@pytest.mark.parametrize("groups", (1, 48))
@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, (1, 1)), (7, 4, (3, 3)), (3, 2, (1, 9)), (5, 1, (6, 1))])
def test_gradients_of_filters_over_few_cells_are_those_of_float32(groups, kernel, stride, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(48, 48, kernel, stride, kernel // 2, groups=groups)
    exact = copy.deepcopy(conv)
    patch_convolutions(conv)
    assert isinstance(conv, nn.Conv2d) and conv.state_dict().keys() == exact.state_dict().keys()
    x = torch.randn(4, 48, *size)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    blocks = [
        torch.full((conv.weight.numel(),), torch.nan, dtype=kind)
        for kind in (torch.float32, torch.bfloat16)
        for _ in range(8)
    ]  # a gradient that is not written shows what was in its memory
    del blocks
    out.float().square().sum().backward()
    exact(x).square().sum().backward()
    assert torch.equal(conv.weight.grad, exact.weight.grad)


@pytest.mark.parametrize(
    ("make", "size"),
    [(FaceBoxesV2, 64), (net_row("dpr").build, 64), (net_row("mobilenetv3_small").build, 32)],
    ids=("detector", "dpr", "mobilenet"),
)
def test_only_convolutions_over_few_cells_leave_bf16(make, size):
    torch.manual_seed(0)
    net, kinds = make().train(), set()
    patch_convolutions(net)
    copied = copy.deepcopy(net)  # as for inference
    assert copied.state_dict().keys() == net.state_dict().keys()

    def note(conv, inputs, output):
        few = any(
            side < max(stride, kernel // 2)
            for side, kernel, stride in zip(inputs[0].shape[-2:], conv.kernel_size, conv.stride, strict=True)
        )
        kinds.add(few)
        assert output.dtype == (torch.float32 if few else torch.bfloat16)

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    faces = torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        net(faces if isinstance(net, FaceBoxesV2) else faces.permute(0, 3, 1, 2) / 255)
    assert kinds == {True, False}


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_1x1_filters_that_skip_cells_of_few_channels_stay_within_their_memory(kind):
    """oneDNN writes their gradients beyond it, and a training ends in `corrupted size vs. prev_size`."""
    plain = nn.Conv2d(3, 48, 1, 2).to(memory_format=torch.channels_last)
    conv = copy.deepcopy(plain)
    patch_convolutions(conv)
    x = torch.rand(2, 3, 96, 96).to(memory_format=torch.channels_last)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16)
    with autocast, torch.profiler.profile(record_shapes=True) as seen:
        out = conv(x)
        out.float().square().mean().backward()
    assert out.dtype == kind and torch.allclose(out.float(), plain(x), atol=0.02)
    shapes = [event.input_shapes[1] for event in seen.events() if event.name == "aten::convolution_backward"]
    assert shapes == [[2, 3, 48, 48]]  # without a stride


def test_a_careful_net_compiles_as_one_graph():
    conv = nn.Conv2d(8, 8, 3, 2, 1)
    patch_convolutions(conv)
    with torch.autocast("cpu", torch.bfloat16):
        whole = torch.compile(conv, backend="aot_eager", fullgraph=True)
        assert (
            whole(torch.rand(2, 8, 1, 1)).dtype == torch.float32
            and whole(torch.rand(2, 8, 8, 8)).dtype == torch.bfloat16
        )
