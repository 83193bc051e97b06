"""The exact hypergradient of bench_hypergradient.cpp in PyTorch: an unrolled run with create_graph.

    python pytorch_hypergradient.py [784|64] [repetitions] [threads]
"""

import sys

import torch

import problem


def main():
    net = sys.argv[1] if len(sys.argv) > 1 else "784"
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 11
    if len(sys.argv) > 3:
        torch.set_num_threads(int(sys.argv[3]))
    rows, labels, draws, hyper = problem.make(net)
    rows, labels = torch.from_numpy(rows), torch.from_numpy(labels)
    draws = [torch.from_numpy(part) for pair in draws for part in pair]
    sizes = [draw.numel() for draw in draws]
    batches = list(zip(rows.split(problem.BATCH), labels.split(problem.BATCH)))
    hyper = {name: torch.from_numpy(values) for name, values in hyper.items()}

    def cross_entropy(parameters, x, y):
        for l in range(0, len(parameters) - 2, 2):
            x = torch.tanh(torch.addmm(parameters[l + 1], x, parameters[l]))
        logits = torch.addmm(parameters[-1], x, parameters[-2])
        return torch.nn.functional.cross_entropy(logits, y)

    def train(hyper, create_graph):
        scales = hyper["log_init_scales"].exp().unbind()
        # Whole tensors cut once: indexing row t in each step would make the backward quadratic in T.
        rates = [row.unbind() for row in hyper["log_rates"].exp().unbind()]
        momenta = hyper["momenta"].sigmoid().unbind()
        strengths = [
            part.view_as(draw)
            for part, draw in zip(hyper["log_l2"].exp().split(sizes), draws)
        ]
        w = [scales[i // 2] * d if i % 2 == 0 else d.clone() for i, d in enumerate(draws)]
        if not create_graph:
            w = [p.detach() for p in w]
        w = [p if p.requires_grad else p.requires_grad_() for p in w]
        v = [torch.zeros_like(p) for p in w]
        for t in range(problem.STEPS):
            x, y = batches[t % problem.BATCHES]
            penalty = sum(torch.sum(s * p * p) for s, p in zip(strengths, w))
            loss = cross_entropy(w, x, y) + 0.5 * penalty
            gradient = torch.autograd.grad(loss, w, create_graph=create_graph)
            v = [momenta[t] * a + g for a, g in zip(v, gradient)]
            w = [p - rates[t][i // 2] * a for i, (p, a) in enumerate(zip(w, v))]
            if not create_graph:
                w = [p.requires_grad_() for p in w]
        return w

    def plain_train():
        train(hyper, create_graph=False)

    def hypergradient():
        leaves = {name: h.clone().requires_grad_() for name, h in hyper.items()}
        value = cross_entropy(train(leaves, create_graph=True), rows, labels)
        gradients = torch.autograd.grad(value, list(leaves.values()))
        return value.item(), dict(zip(leaves, (g.numpy() for g in gradients)))

    problem.report(f"pytorch {torch.__version__}, unrolled, {net}", plain_train, hypergradient, repetitions)


main()
