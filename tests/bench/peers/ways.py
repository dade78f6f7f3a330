"""How an op is called in torch: the ways by name, and random operands for them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

BACKWARD = ", backward alone"


@dataclass
class Prepared:
    """A call, and the tensors that it reads or writes: of an op bound by memory there are several sets of these."""

    call: Callable[[], object]
    tensors: list

    def bytes(self):
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass
class Way:
    how: str
    prepare: Callable[[], Prepared]
    instead: "Way | None" = None  # where this one fails


class Stage:
    """Makes random operands."""

    def __init__(self, device, dtype, compile_too):
        self.device, self.dtype, self.compile_too = device, dtype, compile_too

    def normal(self, *shape, dtype=None, grad=False):
        made = torch.randn(*shape, device=self.device, dtype=dtype or self.dtype)
        return made.requires_grad_() if grad else made

    def f32(self, *shape, grad=False):
        return self.normal(*shape, dtype=torch.float32, grad=grad)

    def empty(self, *shape, dtype=None):
        return torch.empty(*shape, device=self.device, dtype=dtype or self.dtype)

    def ids(self, count, limit):
        return torch.randint(limit, (count,), device=self.device)

    def assignments(self, tokens, chosen, experts):
        """For every row of the experts, in their order, the assignment that it is: token * chosen + which."""
        return self.normal(tokens, experts, dtype=torch.float32).topk(chosen).indices.flatten().sort(stable=True).indices


WAYS = {}


def ways(*ops):
    def remember(function):
        WAYS.update({op: function for op in ops})
        return function
    return remember


def through_graph(outputs, inputs, gradients):
    """Backward alone: the graph is kept, and gone through again by every call."""
    return Prepared(lambda: torch.autograd.grad(outputs, inputs, gradients, retain_graph=True),
                    [*outputs, *inputs, *gradients])


def compiled(function):
    """torch.compile, so that its graph can be gone through more than once: a backward otherwise takes for itself the memory
    of what forward saved."""
    import torch._functorch.config as config

    if hasattr(config, "donated_buffer"):
        config.donated_buffer = False
    return torch.compile(function)


def either(form, forward, backward):
    return backward if form.op.endswith("_backward") else forward
