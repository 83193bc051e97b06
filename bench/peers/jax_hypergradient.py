"""The exact hypergradient of bench_hypergradient.cpp in JAX: jit, lax.scan, grad through the whole run.

    python jax_hypergradient.py [784|64] [repetitions]
"""

import sys

import jax
import numpy

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")

import jax.numpy as jnp  # noqa: E402

import problem  # noqa: E402


def main():
    net = sys.argv[1] if len(sys.argv) > 1 else "784"
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 11
    rows, labels, draws, hyper = problem.make(net)
    rows, labels = jnp.asarray(rows), jnp.asarray(labels)
    draws = [(jnp.asarray(w), jnp.asarray(b)) for w, b in draws]
    hyper = {name: jnp.asarray(values) for name, values in hyper.items()}
    batches = (
        rows.reshape(problem.BATCHES, problem.BATCH, -1),
        labels.reshape(problem.BATCHES, problem.BATCH),
    )

    def cross_entropy(parameters, x, y):
        for weight, bias in parameters[:-1]:
            x = jnp.tanh(x @ weight + bias)
        weight, bias = parameters[-1]
        logits = jax.nn.log_softmax(x @ weight + bias)
        return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=1))

    def pieces(flat):
        result, offset = [], 0
        for weight, bias in draws:
            result.append(
                (
                    flat[offset : offset + weight.size].reshape(weight.shape),
                    flat[offset + weight.size : offset + weight.size + bias.size],
                )
            )
            offset += weight.size + bias.size
        return result

    def train(hyper):
        scales = jnp.exp(hyper["log_init_scales"])
        strengths = pieces(jnp.exp(hyper["log_l2"]))
        start = [(scales[l] * weight, bias) for l, (weight, bias) in enumerate(draws)]

        def loss(parameters, x, y):
            penalty = sum(
                jnp.sum(s * p * p)
                for strength, parameter in zip(strengths, parameters)
                for s, p in zip(strength, parameter)
            )
            return cross_entropy(parameters, x, y) + 0.5 * penalty

        def step(state, inputs):
            parameters, velocities = state
            t, rates, momentum = inputs
            gradient = jax.grad(loss)(
                parameters, batches[0][t % problem.BATCHES], batches[1][t % problem.BATCHES]
            )
            velocities = jax.tree.map(lambda v, g: momentum * v + g, velocities, gradient)
            parameters = [
                tuple(p - rates[l] * v for p, v in zip(parameters[l], velocities[l]))
                for l in range(len(parameters))
            ]
            return (parameters, velocities), None

        inputs = (
            jnp.arange(problem.STEPS),
            jnp.exp(hyper["log_rates"]),
            jax.nn.sigmoid(hyper["momenta"]),
        )
        zeros = jax.tree.map(jnp.zeros_like, start)
        (parameters, _), _ = jax.lax.scan(step, (start, zeros), inputs)
        return parameters

    train_compiled = jax.jit(train)
    differentiate = jax.jit(jax.value_and_grad(lambda h: cross_entropy(train(h), rows, labels)))

    def hypergradient():
        value, gradients = jax.block_until_ready(differentiate(hyper))
        return float(value), {name: numpy.asarray(g) for name, g in gradients.items()}

    problem.report(
        f"jax {jax.__version__}, scan, {net}",
        lambda: jax.block_until_ready(train_compiled(hyper)),
        hypergradient,
        repetitions,
    )


main()
