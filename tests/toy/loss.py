"""A right loss of the toy family, and one with a fault."""

import torch
from torch import Tensor

from tests.toy.family import ToySubject


class CrossEntropy(ToySubject):
    """Torch's own."""

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels)


class Overflows(ToySubject):
    """Softmax, then its logarithm: infinite where the probability of the label vanishes."""

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -logits.softmax(dim=1).log().gather(1, labels[:, None]).mean()
