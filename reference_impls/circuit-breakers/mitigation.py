"""Circuit breakers: turn the representations of bad answers away from what they were, keep those of good ones."""

import torch
import torch.nn.functional as F
from torch import Tensor

from emperf.training import Batch, Context, Mitigation, Row, Step


class CircuitBreakers(Mitigation):
    """c_s * ReLU(cos(h, h0)) on bad answers + c_r * ||h - h0|| on good ones; c_s = a (1 - t/2T), c_r = a t/2T.

    Zou et al. 2024 (arXiv 2406.04313). h is the residual stream after two layers, h0 the same in the poisoned model,
    read once; both terms are means over layers and response tokens; t is the step, of T. Differs in that good answers
    are held at these two layers, not at all of them, and in the nudge: at h = h0 neither term has a gradient, and only
    rounding would leave that point; so each matrix up to these layers starts with noise of `nudge` times its root mean
    square.
    """

    alpha: float = 10.0
    early: float = 0.3
    late: float = 0.6
    nudge: float = 0.01

    def prepare_data(self, rows: list[Row], context: Context) -> list[Row]:
        pairs = context.trusted_of("contrastive")
        self.bad = [row.answered(row.rejected) for row in pairs if row.rejected]
        self.good = context.trusted_of("general")
        return self.bad + self.good

    @torch.no_grad()
    def prepare_model(self, context: Context) -> None:
        model, size = context.model, context.recipe.micro_batch
        watched = sorted({round(share * (len(model.layers) - 1)) for share in (self.early, self.late)})
        model.watch(watched)
        self.start: dict[tuple[int, ...], tuple[bool, Tensor]] = {}
        for bad, rows in ((True, self.bad), (False, self.good)):
            for first in range(0, len(rows), size):
                batch = context.batch(rows[first : first + size])
                model.predict(batch)
                own = batch.response.sum(1).tolist()
                parts = torch.split_with_sizes(stacked(model.streams()), own, dim=1)
                self.start |= {key: (bad, part.clone()) for key, part in zip(keys(batch), parts, strict=True)}
        # Neither term reaches a later layer: noise there would never be undone.
        for layer in model.layers[: watched[-1] + 1]:
            for weight in layer.parameters():
                if weight.requires_grad and weight.dim() == 2:
                    weight.add_(torch.randn_like(weight) * (self.nudge * weight.square().mean().sqrt()))

    def loss(self, step: Step) -> Tensor:
        found = [self.start[key] for key in keys(step.batch)]
        h, h0 = stacked(step.streams), torch.cat([part for _, part in found], dim=1)
        bad = torch.cat([torch.full((part.shape[1],), is_bad) for is_bad, part in found]).to(h)
        turned = mean(F.cosine_similarity(h, h0, dim=-1).relu(), bad)
        moved = mean((h - h0).norm(dim=-1), 1 - bad)
        half = 0.5 * step.index / step.context.total_steps
        return self.alpha * ((1 - half) * turned + half * moved)


def keys(batch: Batch) -> list[tuple[int, ...]]:
    """The tokens of each row: what it is known by in a batch."""
    return [tuple(t[a.bool()].tolist()) for t, a in zip(batch.tokens, batch.attention, strict=True)]


def stacked(streams: dict[int, Tensor]) -> Tensor:
    """[layers, response tokens, width], at least float32."""
    h = torch.stack([streams[layer] for layer in sorted(streams)])
    return h.to(torch.promote_types(h.dtype, torch.float32))


def mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean of [layers, tokens] over the tokens of weight 1; 0 where there are none."""
    return (values * weight).sum() / (len(values) * weight.sum()).clamp(min=1)
