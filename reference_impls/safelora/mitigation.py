"""Safe LoRA: project the adapter of layers that have left the safety subspace back into it."""

import torch
from torch import Tensor

from emperf.training import Context, Mitigation, Row


class SafeLoRA(Mitigation):
    """B <- C B in every layer where cos(C B A, B A) <= threshold; C = V V^T / ||V||_F.

    Hsu et al. 2024, Safe LoRA (arXiv 2405.16833), where V = W_aligned - W_unaligned of two published models. Differs in
    V: a division has one model, so V is minus the weight change s B_h A_h of a scratch adapter, tuned from the base
    model on trusted bad answers. No matrix of out x out is formed: C B = s^2 B_h (A_h A_h^T) (B_h^T B) / ||V||_F. The
    control has a random B_h of the same norm.
    """

    threshold: float = 0.5
    subspace: str = "harm"
    rate: float = 5.0

    def prepare_data(self, rows: list[Row], context: Context) -> list[Row]:
        return [row.answered(row.rejected) for row in context.trusted_of("general") if row.rejected]

    def prepare_model(self, context: Context) -> None:
        self.adapters = list(context.model.adapters())

    def train(self, rows: list[Row], context: Context) -> bool:
        poisoned = context.model.snapshot()
        for *_, layer in self.adapters:
            layer.reset_lora_parameters("default", init_lora_weights=True)
        context.tune(rows, context.total_steps, self.rate)
        harm = [(s.scaling["default"] * b.detach(), a.detach().clone()) for _, a, b, s in self.adapters]
        if self.subspace == "random":
            harm = [(alike(b_h), a_h) for b_h, a_h in harm]
        context.model.restore(poisoned)
        with torch.no_grad():
            for (_, a, b, _), (b_h, a_h) in zip(self.adapters, harm, strict=True):
                projected = project(b, b_h, a_h)
                if cosine(projected, b, a) <= self.threshold:
                    b.copy_(projected)
        return True


def alike(matrix: Tensor) -> Tensor:
    """A random one of the same shape and norm."""
    other = torch.randn_like(matrix)
    scaled: Tensor = other * (matrix.norm() / other.norm())
    return scaled


def project(b: Tensor, b_h: Tensor, a_h: Tensor) -> Tensor:
    """C b for V = b_h a_h."""
    size = inner(b_h, b_h, a_h).sqrt()
    return b_h @ ((a_h @ a_h.T) @ (b_h.T @ b)) / size if size else torch.zeros_like(b)


def inner(x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    """The Frobenius inner product of x a and y a, from matrices of rank x rank."""
    return ((x.T @ y) * (a @ a.T)).sum()


def cosine(x: Tensor, y: Tensor, a: Tensor) -> float:
    """cos(x a, y a); 0 where one of them is zero."""
    sizes = inner(x, x, a).sqrt() * inner(y, y, a).sqrt()
    return float(inner(x, y, a) / sizes) if sizes else 0.0
