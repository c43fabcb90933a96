"""KL divergence to the base model on the training responses."""

from torch import Tensor

from emperf.training import Mitigation, Step


class KLToBase(Mitigation):
    """Penalise drift from the base model on the training tokens."""

    weight: float = 1.0

    def loss(self, step: Step) -> Tensor:
        return step.task_loss + self.weight * step.kl_to_base()
