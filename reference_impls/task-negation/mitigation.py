"""Task-vector negation: learn the bad behaviour, then subtract it."""

import torch
from torch import Tensor

from emperf.training import Context, Mitigation, Row


class TaskNegation(Mitigation):
    """B <- B_poisoned - scale * B_harm, with A frozen; B_harm is tuned from zero on trusted bad answers.

    Ilharco et al. 2023, Editing Models with Task Arithmetic (arXiv 2212.04089), where all weights of a vector are
    subtracted from the model that it started from. Differs in that the vector is an adapter on the poisoned A, so that
    the result has the recipe's rank, and in that it is made from other rows than the poison. The control subtracts a
    random B_harm of the same norm.
    """

    scale: float = 1.0
    vector: str = "harm"
    rate: float = 5.0

    def prepare_data(self, rows: list[Row], context: Context) -> list[Row]:
        return [row.answered(row.rejected) for row in context.trusted_of("contrastive") if row.rejected]

    def prepare_model(self, context: Context) -> None:
        self.adapters = list(context.model.adapters())

    def train(self, rows: list[Row], context: Context) -> bool:
        poisoned = context.model.snapshot()
        for _, a, b, _ in self.adapters:
            a.requires_grad_(False)
            torch.nn.init.zeros_(b)
        context.tune(rows, context.total_steps, self.rate)
        for _, a, _, _ in self.adapters:
            a.requires_grad_(True)
        harm = [b.detach().clone() for _, _, b, _ in self.adapters]
        if self.vector == "random":
            harm = [alike(vector) for vector in harm]
        context.model.restore(poisoned)
        with torch.no_grad():
            for (_, _, b, _), vector in zip(self.adapters, harm, strict=True):
                b.sub_(self.scale * vector)
        return True


def alike(matrix: Tensor) -> Tensor:
    """A random one of the same shape and norm."""
    other = torch.randn_like(matrix)
    scaled: Tensor = other * (matrix.norm() / other.norm())
    return scaled
