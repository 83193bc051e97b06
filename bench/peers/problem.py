"""The training problem of bench_hypergradient.cpp for the peers: same shapes, data distribution and
hyperparameters, and the row that each peer prints."""

import json
import statistics
import sys
import time

import numpy

SIZES = {"784": [784, 50, 50, 50, 10], "64": [64, 100, 100, 100, 10]}
STEPS = 100
BATCH = 200
BATCHES = 5
MOMENTUM = 58982.0 / 65536.0


def make(net):
    """Data, standard normal draws of the weights, and the hyperparameters, as float64 arrays."""
    sizes = SIZES[net]
    layers = len(sizes) - 1
    random = numpy.random.default_rng(1)
    rows = 0.1 * random.random((BATCHES * BATCH, sizes[0]))
    labels = numpy.arange(BATCHES * BATCH) * 7 % 10
    draws = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:]):
        draws.append((random.standard_normal((inputs, outputs)), numpy.zeros(outputs)))
    count = sum(weight.size + bias.size for weight, bias in draws)
    hyper = {
        "log_rates": numpy.full((STEPS, layers), numpy.log(0.1)),
        "momenta": numpy.full(STEPS, numpy.log(MOMENTUM / (1 - MOMENTUM))),
        "log_init_scales": -0.5 * numpy.log(numpy.array(sizes[:-1], dtype=float)),
        "log_l2": numpy.full(count, numpy.log(1e-4)),
    }
    return rows, labels, draws, hyper


def report(name, train, hypergradient, repetitions):
    """Times `train()` and `hypergradient()` in turns and prints one JSON line. Both wait for their results;
    `hypergradient` returns (value, {group: gradient as an array})."""
    train()
    value, gradients = hypergradient()
    trained, differentiated = [], []
    for _ in range(repetitions):
        start = time.perf_counter()
        train()
        middle = time.perf_counter()
        hypergradient()
        trained.append(middle - start)
        differentiated.append(time.perf_counter() - middle)
    ratios = [d / t for d, t in zip(differentiated, trained)]
    row = {
        "name": name,
        "value": value,
        "norms": {group: float(numpy.linalg.norm(g)) for group, g in gradients.items()},
        "training_run_seconds": statistics.median(trained),
        "seconds": statistics.median(differentiated),
        "training_runs": statistics.median(ratios),
    }
    print(json.dumps(row))
    sys.stdout.flush()
