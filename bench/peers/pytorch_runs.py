"""Exact hypergradients of whole training runs in PyTorch, unrolled with create_graph."""

import torch

import problem
from pytorch_nets import NetData, penalty


def detached(parts):
    return [part.detach() for part in parts]


def leaves_of(parts):
    return [part.detach().requires_grad_() for part in parts]


class Run:
    def __init__(self, steps, dtype):
        self.data = NetData(problem.RUN_NET, dtype, problem.BATCHES)
        self.batches = list(
            zip(self.data.rows.split(self.data.net.batch), self.data.labels.split(self.data.net.batch))
        )
        self.steps = steps
        self.hyper = [
            torch.from_numpy(values).to(dtype)
            for values in problem.hyperparameters(self.data.net, steps).values()
        ]

    def prepare(self):
        log_rates, momenta, log_l2 = h = [each.clone().requires_grad_() for each in self.hyper]
        # Whole tensors cut once: indexing row t in each step would make the backward quadratic in the steps.
        rates = [row.unbind() for row in log_rates.exp().unbind()]
        return h, rates, momenta.sigmoid().unbind(), self.data.unflatten(log_l2.exp())

    def start(self):
        return leaves_of(part.clone() for part in self.data.weights), [
            torch.zeros_like(part) for part in self.data.weights
        ]

    def step(self, w, v, rates, momentum, l2, t, create_graph):
        x, y = self.batches[t % problem.BATCHES]
        fit = torch.nn.functional.cross_entropy(self.data.logits(w, x), y)
        gradient = torch.autograd.grad(fit + penalty(l2, w), w, create_graph=create_graph)
        with torch.set_grad_enabled(create_graph):
            v = [momentum * a + g for a, g in zip(v, gradient)]
            return [p - r * a for p, r, a in zip(w, rates, v)], v

    def by_tape(self):
        h, rates, momenta, l2 = self.prepare()
        w, v = self.start()
        for t in range(self.steps):
            w, v = self.step(w, v, rates[t], momenta[t], l2, t, True)
        value = self.data.loss(w)
        return [value, *torch.autograd.grad(value, h)]

    def by_checkpoints(self):
        """Plain training that keeps a state every steps / CHECKPOINTS steps; then each segment is recorded from
        the last one back, and its pullback takes the adjoint to the segment before."""
        h, recorded_rates, recorded_momenta, recorded_l2 = self.prepare()
        length = -(-self.steps // problem.CHECKPOINTS)
        # The segments differentiate leaves of their own, whose gradients enter the preparation's graph at the
        # end.
        rates = [leaves_of(row) for row in recorded_rates]
        momenta, l2 = leaves_of(recorded_momenta), leaves_of(recorded_l2)

        starts = []
        w, v = self.start()
        for t in range(self.steps):
            if t % length == 0:
                starts.append((detached(w), v))
            w, v = self.step(
                leaves_of(w), v, detached(rates[t]), momenta[t].detach(), detached(l2), t, False
            )
        last = leaves_of(w)
        value = self.data.loss(last)
        count = len(last)
        adjoint = [*torch.autograd.grad(value, last), *(torch.zeros_like(part) for part in last)]
        outputs, cotangents = [], []
        l2_cotangents = [torch.zeros_like(part) for part in l2]
        for segment in reversed(range(len(starts))):
            w, v = (leaves_of(parts) for parts in starts.pop())
            inputs = [*w, *v, *l2]
            for t in range(segment * length, min(self.steps, (segment + 1) * length)):
                inputs += [*rates[t], momenta[t]]
                outputs += [*recorded_rates[t], recorded_momenta[t]]
                w, v = self.step(w, v, rates[t], momenta[t], l2, t, True)
            gradients = torch.autograd.grad([*w, *v], inputs, adjoint)
            adjoint = gradients[: 2 * count]
            for total, part in zip(l2_cotangents, gradients[2 * count : 3 * count]):
                total += part
            cotangents += gradients[3 * count :]
        return [
            value,
            *torch.autograd.grad([*outputs, *recorded_l2], h, [*cotangents, *l2_cotangents]),
        ]


def hypergradient(work, dtype):
    method, steps = problem.run_of(work)
    run = Run(steps, dtype)
    if method == "tape":
        return {"unrolled": run.by_tape}
    if method == "checkpoints":
        return {"segments": run.by_checkpoints}
    raise ValueError(f"no method {method} in PyTorch")
