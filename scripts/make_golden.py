#!/usr/bin/env python3
"""Writes tests/golden/pytorch.json: values and derivatives of operations and nets as PyTorch computes them.

The file is committed; tests/test_golden.cpp compares the library with it. To make it again:

    python3 -m venv venv && venv/bin/pip install torch && venv/bin/python scripts/make_golden.py

Everything is float64. For each case, with inputs x, random cotangents u and directions v: the outputs y, the gradient
g of <u, y>, and the gradient of <v, g> ("second", null where a derivative has no path). Numbers are written in full, so
that a second run differs in nothing but the version of PyTorch.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
random = torch.Generator().manual_seed(20)


def uniform(shape, low=-2.0, high=2.0):
    return low + (high - low) * torch.rand(shape, generator=random)


def positive(shape):
    return uniform(shape, 0.3, 3.0)


labels = torch.tensor([2, 0, 1, 2])
index = torch.tensor([[0, 2, 1, 0], [1, 1, 2, 2]])

# name: (function of a list of tensors, inputs). test_golden.cpp has the same names.
operations = {
    "divide": (lambda x: x[0] / x[1], [uniform((3, 4)), positive((4,))]),
    "exp": (lambda x: torch.exp(x[0]), [uniform((5,))]),
    "expm1": (lambda x: torch.expm1(x[0]), [uniform((5,), -0.5, 0.5)]),
    "log": (lambda x: torch.log(x[0]), [positive((5,))]),
    "log1p": (lambda x: torch.log1p(x[0]), [uniform((5,), -0.5, 2.0)]),
    "sqrt": (lambda x: torch.sqrt(x[0]), [positive((5,))]),
    "rsqrt": (lambda x: torch.rsqrt(x[0]), [positive((5,))]),
    "pow": (lambda x: torch.pow(x[0], x[1]), [positive((3, 2)), uniform((3, 1))]),
    "atan2": (lambda x: torch.atan2(x[0], x[1]), [uniform((7,)), uniform((7,))]),
    "sin": (lambda x: torch.sin(x[0]), [uniform((6,), -9.0, 9.0)]),
    "cos": (lambda x: torch.cos(x[0]), [uniform((6,), -9.0, 9.0)]),
    "erf": (lambda x: torch.erf(x[0]), [uniform((6,))]),
    "tanh": (lambda x: torch.tanh(x[0]), [uniform((6,))]),
    "sigmoid": (lambda x: torch.sigmoid(x[0]), [uniform((6,), -6.0, 6.0)]),
    "softplus": (lambda x: F.softplus(x[0]), [uniform((6,), -6.0, 6.0)]),
    "silu": (lambda x: F.silu(x[0]), [uniform((6,))]),
    "gelu": (lambda x: F.gelu(x[0]), [uniform((6,))]),
    "gelu_tanh": (lambda x: F.gelu(x[0], approximate="tanh"), [uniform((6,))]),
    "leaky_relu": (lambda x: F.leaky_relu(x[0], 0.2), [uniform((6,))]),
    "maximum": (lambda x: torch.maximum(x[0], x[1]), [uniform((4, 3)), uniform((3,))]),
    "where": (lambda x: torch.where(x[0] > 0.1, x[0] * x[0], torch.exp(x[1])), [uniform((6,)), uniform((6,))]),
    "variance": (lambda x: torch.var(x[0], dim=1, correction=1), [uniform((3, 5))]),
    "logsumexp": (lambda x: torch.logsumexp(x[0], dim=0), [uniform((4, 3))]),
    "norm": (lambda x: torch.linalg.vector_norm(x[0], dim=1), [uniform((3, 4))]),
    "prod": (lambda x: torch.prod(x[0], dim=1), [uniform((3, 4))]),
    "max": (lambda x: torch.amax(x[0], dim=1), [uniform((3, 4))]),
    "cumulative_sum": (lambda x: torch.cumsum(x[0], dim=1), [uniform((3, 4))]),
    "matmul": (lambda x: x[0] @ x[1], [uniform((2, 3, 4)), uniform((4, 5))]),
    "einsum": (lambda x: torch.einsum("bij,bkj,k->bik", x[0], x[1], x[2]),
               [uniform((2, 3, 4)), uniform((2, 5, 4)), uniform((5,))]),
    "concatenate": (lambda x: torch.cat([x[0], x[1], x[0]], dim=1), [uniform((2, 3)), uniform((2, 1))]),
    "gather": (lambda x: torch.gather(x[0], 0, index), [uniform((3, 4))]),
    "index_select": (lambda x: torch.index_select(x[0], 1, torch.tensor([2, 0, 2])), [uniform((2, 3))]),
    "roll": (lambda x: torch.roll(x[0], 2, dims=1), [uniform((2, 5))]),
    "tril": (lambda x: torch.tril(x[0], diagonal=1), [uniform((4, 4))]),
    "log_softmax": (lambda x: F.log_softmax(x[0], dim=1), [uniform((3, 4))]),
    "cross_entropy": (lambda x: F.cross_entropy(x[0], labels), [uniform((4, 3))]),
    "soft_cross_entropy": (lambda x: F.cross_entropy(x[0], torch.softmax(x[1], 1)), [uniform((4, 3)), uniform((4, 3))]),
    "mean_squared_error": (lambda x: F.mse_loss(x[0], x[1]), [uniform((3, 2)), uniform((3, 2))]),
    "binary_cross_entropy": (lambda x: F.binary_cross_entropy_with_logits(x[0], torch.sigmoid(x[1])),
                             [uniform((5,), -9.0, 9.0), uniform((5,))]),
}

x_net, y_net = uniform((6, 5)), torch.tensor([0, 2, 1, 1, 0, 2])
target = uniform((6, 3))
sequence = uniform((2, 4, 6))


def mlp(activation, loss):
    def run(w):
        hidden = activation(x_net @ w[0] + w[1])
        return loss(activation(hidden @ w[2] + w[3]) @ w[4] + w[5])
    return run


def attention(w):
    queries, keys, values = (sequence @ each for each in w[:3])
    scores = queries @ keys.transpose(1, 2) / 2.0
    mixed = torch.softmax(scores + torch.triu(torch.full((4, 4), -30.0), 1), dim=-1) @ values
    return (mixed @ w[3]).square().mean()


def normalised(w):
    hidden = x_net @ w[0]
    hidden = (hidden - hidden.mean(1, keepdim=True)) * torch.rsqrt(hidden.var(1, keepdim=True, correction=0) + 1e-5)
    return F.mse_loss(F.gelu(hidden * w[1] + w[2]) @ w[3], target)


def weights(*shapes):
    return [0.5 * uniform(shape) for shape in shapes]


layers = ((5, 4), (4,), (4, 4), (4,), (4, 3), (3,))
nets = {
    "tanh classifier": (mlp(torch.tanh, lambda z: F.cross_entropy(z, y_net)), weights(*layers)),
    "relu regression": (mlp(torch.relu, lambda z: F.mse_loss(z, target)), weights(*layers)),
    "silu logistic": (mlp(F.silu, lambda z: F.binary_cross_entropy_with_logits(z, torch.sigmoid(target))),
                      weights(*layers)),
    "causal attention": (attention, weights((6, 4), (6, 4), (6, 4), (4, 2))),
    "layer norm gelu": (normalised, weights((5, 4), (4,), (4,), (4, 3))),
}


def numbers(tensor):
    return {"shape": list(tensor.shape), "values": tensor.detach().reshape(-1).tolist()}


def case(name, function, inputs):
    x = [each.clone().requires_grad_() for each in inputs]
    y = function(x)
    u = uniform(y.shape, 0.5, 1.5)
    v = [uniform(each.shape, 0.5, 1.5) for each in x]
    g = torch.autograd.grad((u * y).sum(), x, create_graph=True)
    along = sum((a * b).sum() for a, b in zip(v, g))
    second = torch.autograd.grad(along, x, allow_unused=True) if along.requires_grad else [None] * len(x)
    return {
        "name": name,
        "inputs": [numbers(each) for each in x],
        "cotangent": numbers(u),
        "directions": [numbers(each) for each in v],
        "output": numbers(y),
        "gradients": [numbers(each) for each in g],
        "second": [None if each is None else numbers(each) for each in second],
    }


constants = {"x": x_net, "target": target, "sequence": sequence}
document = {
    "made_by": "scripts/make_golden.py, PyTorch " + torch.__version__.split("+")[0],
    "constants": {name: numbers(tensor) for name, tensor in constants.items()},
    "operations": [case(name, *rest) for name, rest in operations.items()],
    "nets": [case(name, *rest) for name, rest in nets.items()],
}
path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "pytorch.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(document, indent=1).replace("\n    ", " ") + "\n")
print(f"{path}: {len(document['operations'])} operations, {len(document['nets'])} nets")
