"""Work on a net in PyTorch; where there are several ways, each is a variant."""

import math

import torch

import problem


class NetData:
    def __init__(self, text, dtype, batches=1):
        self.net = problem.Net.parse(text)
        self.weights = [torch.from_numpy(part).to(dtype) for part in self.net.weights()]
        self.direction = [torch.from_numpy(part).to(dtype) for part in self.net.direction()]
        self.rows = torch.from_numpy(self.net.rows(batches)).to(dtype)
        self.labels = torch.from_numpy(self.net.labels(batches))
        self.activation = getattr(torch, self.net.activation)

    def logits(self, w, x):
        for i in range(0, len(w) - 2, 2):
            x = self.activation(torch.addmm(w[i + 1], x, w[i]))
        return torch.addmm(w[-1], x, w[-2])

    def loss(self, w):
        return torch.nn.functional.cross_entropy(self.logits(w, self.rows), self.labels)

    def leaves(self):
        return [part.clone().requires_grad_() for part in self.weights]

    def unflatten(self, flat):
        pieces = flat.split([part.numel() for part in self.weights])
        return [piece.view_as(part) for piece, part in zip(pieces, self.weights)]


def net_of(work):
    return work.split("/", 1)[1]


def penalty(l2, w):
    return 0.5 * sum(torch.sum(s * p * p) for s, p in zip(l2, w))


def training_step(work, dtype):
    data = NetData(net_of(work), dtype)

    def with_optimizer(**options):
        w = data.leaves()
        optimizer = torch.optim.SGD(w, lr=problem.RATE, momentum=problem.MOMENTUM, **options)

        def step():
            optimizer.zero_grad()
            loss = data.loss(w)
            loss.backward()
            optimizer.step()
            return [loss, *w]

        return step

    return {"fused": with_optimizer(fused=True), "foreach": with_optimizer(foreach=True)}


def hessian_product(work, dtype):
    data = NetData(net_of(work), dtype)
    w, v = data.leaves(), data.direction
    plain = tuple(data.weights)

    def double_backward():
        gradient = torch.autograd.grad(data.loss(w), w, create_graph=True)
        return torch.autograd.grad(gradient, w, v)

    def forward_over_reverse():
        gradient = torch.func.grad(data.loss)
        return torch.func.jvp(gradient, (plain,), (tuple(v),))[1]

    return {"double backward": double_backward, "jvp of grad": forward_over_reverse}


def gauss_newton_product(work, dtype):
    data = NetData(net_of(work), dtype)
    w, v = data.leaves(), data.direction
    plain = tuple(data.weights)

    def output_hessian_product(z, u):
        p = torch.softmax(z, 1)
        pu = p * u
        return (pu - p * pu.sum(1, keepdim=True)) / len(z)

    def two_pullbacks():
        z = data.logits(w, data.rows)
        u = torch.zeros_like(z, requires_grad=True)
        pulled = torch.autograd.grad(z, w, u, create_graph=True)
        along = torch.autograd.grad(pulled, u, v, retain_graph=True)[0]
        return torch.autograd.grad(z, w, output_hessian_product(z.detach(), along))

    def forward_and_reverse():
        along = torch.func.jvp(lambda at: data.logits(at, data.rows), (plain,), (tuple(v),))[1]
        z = data.logits(w, data.rows)
        return torch.autograd.grad(z, w, output_hessian_product(z.detach(), along))

    return {"jvp by two vjps": two_pullbacks, "jvp, then vjp": forward_and_reverse}


def implicit_hypergradient(work, dtype):
    """-f_hw p for p the Neumann series of the inverse Hessian times F_w; one recorded gradient serves all
    terms."""
    data = NetData(net_of(work), dtype)
    w = data.leaves()
    h = torch.full((data.net.parameter_count(),), math.log(problem.L2), dtype=dtype, requires_grad=True)

    def recorded_gradient():
        value = data.loss(w)
        outer = torch.autograd.grad(value, w)
        inner = data.loss(w) + penalty(data.unflatten(h.exp()), w)
        gradient = torch.autograd.grad(inner, w, create_graph=True)
        d = [problem.NEUMANN_RATE * part for part in outer]
        p = [part.clone() for part in d]
        for _ in range(problem.NEUMANN_TERMS):
            products = torch.autograd.grad(gradient, w, d, retain_graph=True)
            torch._foreach_sub_(d, products, alpha=problem.NEUMANN_RATE)
            torch._foreach_add_(p, d)
        return [value, -torch.autograd.grad(gradient, h, p)[0]]

    return {"recorded gradient": recorded_gradient}
