"""Layers laid out for oneDNN compute what nn.Linear computes, derivatives and changed weights included."""

import copy

import pytest
import torch
from torch import nn

from emperf.training.frozen import FrozenLinear, lay_out_once


def both(bias: bool) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(48, 80, bias=bias).requires_grad_(False)
    model = nn.Sequential(copy.deepcopy(plain))
    lay_out_once(model)
    if not isinstance(model[0], FrozenLinear):
        pytest.skip("this torch has no oneDNN")
    return plain, model[0]


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_first_and_second_derivatives_are_those_of_a_plain_layer(bias: bool) -> None:
    plain, frozen = both(bias)
    x = torch.randn(3, 7, 48, requires_grad=True)
    found = []
    for layer in (plain, frozen):
        y = layer(x)
        (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), x)
        found.append((y, first, second))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
        assert float(a.abs().max()) > 0.1


def test_a_changed_weight_is_noticed() -> None:
    plain, frozen = both(False)
    x = torch.randn(5, 48)
    before = frozen(x)
    with torch.no_grad():
        for layer in (plain, frozen):
            layer.weight.add_(1.0)
    assert not torch.allclose(frozen(x), before)
    assert torch.allclose(frozen(x), plain(x), atol=1e-4)


def test_a_layer_that_is_trained_gets_its_gradient() -> None:
    _, frozen = both(True)
    frozen.requires_grad_(True)
    frozen(torch.randn(5, 48)).sum().backward()
    assert frozen.weight.grad is not None and float(frozen.weight.grad.abs().max()) > 0
