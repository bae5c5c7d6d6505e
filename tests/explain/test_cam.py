"""Class activation maps against captum, against the formula by hooks, and on a net that is right for one reason."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from tests.explain.nets import REGISTRY, Corner, registered, twisted
from torch import nn

from striate.errors import UsageError
from striate.explain import cam
from striate.explain.cam import class_maps, default_layer, raw_class_maps
from striate.explain.features import list_layers
from striate.models import create_model

TARGETS = [3, 7]


def has_maps(net: nn.Module, pictures: torch.Tensor) -> bool:
    return any(layer.has_maps and max(layer.shape[1:]) > 1 for layer in list_layers(net, pictures))


@pytest.mark.parametrize("name", REGISTRY)
def test_grad_cam_is_captums_and_layer_cam_the_formula(name: str) -> None:
    net, pictures = registered(name)
    if not has_maps(net, pictures):
        with pytest.raises(UsageError, match="has no layer with a map") as caught:
            class_maps(net, pictures, TARGETS)
        assert "occlusion" in caught.value.fix
        return
    layers = list_layers(net, pictures)
    last = default_layer(net, layers)
    # captum and the hooks below see a module's every run as one, and a map that is overwritten too late.
    first_runs = [
        layer.name for layer in layers if layer.has_maps and f"{layer.name}#2" not in {o.name for o in layers}
    ]
    for layer in {first_runs[0], last} & set(first_runs):
        plain = copy.deepcopy(net)
        for module in plain.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        module = plain.get_submodule(layer)
        theirs = LayerGradCam(plain, module).attribute(pictures, target=torch.tensor(TARGETS))
        ours = raw_class_maps(net, pictures, TARGETS, layer)
        np.testing.assert_allclose(ours, theirs[:, 0].detach().numpy(), rtol=1e-4, atol=1e-4)
        wanted = layer_cam_by_hooks(plain, module, pictures)
        np.testing.assert_allclose(
            raw_class_maps(net, pictures, TARGETS, layer, "layer-cam"), wanted, rtol=1e-4, atol=1e-4
        )
    shown = class_maps(net, pictures, TARGETS)
    assert shown.shape == (2, *pictures.shape[2:]) and shown.dtype == np.float32
    assert shown.min() >= 0 and shown.max() <= 1


def layer_cam_by_hooks(net: nn.Module, module: nn.Module, pictures: torch.Tensor) -> np.ndarray:
    """LayerCAM's formula, Jiang et al. 2021, equations 4 to 6 without the last ReLU."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = module.register_forward_hook(keep)
    net(pictures)[range(2), TARGETS].sum().backward()
    handle.remove()
    assert kept[0].grad is not None
    return (kept[0].grad.relu() * kept[0]).sum(1).detach().numpy()


def test_layers_that_run_again_and_are_overwritten_have_their_own_maps() -> None:
    net, pictures = twisted()
    grad, maps = {}, {}
    for name in ("relu", "relu#2", "relu#3", "block.norm"):
        maps[name] = raw_class_maps(net, pictures, 1, name)
        grad[name] = maps[name].shape
    assert grad["relu"] == (3, 12, 14) and grad["relu#2"] == grad["relu#3"] == (3, 4, 5)
    assert not np.allclose(maps["relu#2"], maps["relu#3"])


@pytest.mark.parametrize("method", cam.METHODS)
def test_a_map_lights_the_corner_that_the_net_reads(method: str) -> None:
    pictures = torch.rand(2, 1, 16, 16)
    for target, (rows, columns) in enumerate([(slice(0, 8), slice(0, 8)), (slice(8, 16), slice(8, 16))]):
        shown = class_maps(Corner(), pictures, target, "light", "layer-cam")
        inside = shown[:, rows, columns].sum((1, 2)) / shown.sum((1, 2))
        assert (inside > 0.999).all()
    # Grad-CAM weighs whole channels, which makes it blind to places that the layers behind it choose.
    lamp = torch.zeros(1, 1, 16, 16)
    lamp[:, :, 10:14, 9:13] = 1
    shown = class_maps(Corner(), lamp, 1, "light", method)[0]
    y, x = np.unravel_index(shown.argmax(), shown.shape)
    assert 10 <= y < 14 and 9 <= x < 13 and shown[:8, :8].max() == 0 and shown.max() == 1


def test_each_picture_has_its_own_map_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pictures = registered("lenet5")
    pictures = torch.cat([pictures] * 3)
    together = class_maps(net, pictures, [0, 1, 2, 3, 4, 5])
    monkeypatch.setattr("striate.explain.looking.PIXELS_AT_A_TIME", 2 * 28 * 28)
    np.testing.assert_allclose(class_maps(net, pictures, [0, 1, 2, 3, 4, 5]), together, atol=1e-5)
    for number in range(6):
        alone = class_maps(net, pictures[number].numpy()[None], number)
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5)


def test_the_net_and_its_gradients_are_left_alone() -> None:
    net, pictures = twisted()
    net.train()
    before = copy.deepcopy(net)
    with torch.inference_mode():
        inside = class_maps(net, pictures.clone(), 0)
    assert np.array_equal(inside, class_maps(net, pictures, 0))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(own, old) for own, old in zip(net.state_dict().values(), before.state_dict().values()))
    assert net.training and net.block.norm.training


def test_what_makes_no_sense_is_refused() -> None:
    net, pictures = twisted()
    for words, arguments in {
        "there is no class number 4": ([0, 4, 1],),
        "there is no class number -1": (-1,),
        "2 targets do not fit 3 pictures": ([0, 1],),
        "unknown layer 'conv9'": (0, "conv9"),
        "layer head has no maps": (0, "head"),
        "unknown class activation map 'gradcam'": (0, None, "gradcam"),
    }.items():
        with pytest.raises(UsageError, match=words):
            class_maps(net, pictures, *arguments)
    with pytest.raises(UsageError, match="a batch has shape"):
        class_maps(net, pictures[0], 0)


def test_a_layer_that_the_answer_does_not_hang_on_is_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.used(x)
            self.idle(x)
            return x.mean((2, 3))

    with pytest.raises(UsageError, match="does not hang on layer idle"):
        class_maps(Idle(), torch.rand(1, 1, 8, 8), 0, "idle")
    assert class_maps(Idle(), torch.rand(1, 1, 8, 8), 0, "used").shape == (1, 8, 8)


def test_a_class_for_which_nothing_speaks_gets_zeros() -> None:
    net = create_model("three-conv", 10, 1, 28)
    shown = class_maps(net, torch.zeros(1, 1, 28, 28), 0, "pool1" if hasattr(net, "pool1") else None)
    assert np.isfinite(shown).all()
    dark = class_maps(Corner(), torch.zeros(1, 1, 16, 16), 1, "light")
    assert (dark == 0).all()
