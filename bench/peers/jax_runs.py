"""Exact hypergradients of whole training runs in JAX: jit, lax.scan, grad through the run."""

import functools

import jax
import jax.numpy as jnp

import problem
from jax_nets import NetData, penalty


def hypergradient(work, dtype):
    method, steps = problem.run_of(work)
    data = NetData(problem.RUN_NET, dtype, problem.BATCHES)
    net = data.net
    rows, labels = data.batch
    batches = rows.reshape(problem.BATCHES, net.batch, -1), labels.reshape(problem.BATCHES, net.batch)
    hyper = {
        name: jnp.asarray(values, dtype) for name, values in problem.hyperparameters(net, steps).items()
    }

    def train(hyper, w, batches):
        l2 = data.unflatten(jnp.exp(hyper["log_l2"]))

        def loss(w, batch):
            return data.loss(w, batch) + penalty(l2, w)

        def step(state, inputs):
            w, v = state
            t, rates, momentum = inputs
            batch = batches[0][t % problem.BATCHES], batches[1][t % problem.BATCHES]
            gradient = jax.grad(loss)(w, batch)
            v = [momentum * a + g for a, g in zip(v, gradient)]
            return ([p - rates[i] * a for i, (p, a) in enumerate(zip(w, v))], v), None

        inputs = jnp.arange(steps), jnp.exp(hyper["log_rates"]), jax.nn.sigmoid(hyper["momenta"])
        state = w, [jnp.zeros_like(part) for part in w]
        if method == "tape":
            (w, _), _ = jax.lax.scan(step, state, inputs)
            return w

        @jax.checkpoint
        def segment(state, inputs):
            return jax.lax.scan(step, state, inputs)

        if method != "checkpoints" or steps % problem.CHECKPOINTS != 0:
            raise ValueError(f"no {method} of {steps} steps in JAX")
        segments = [part.reshape((problem.CHECKPOINTS, -1) + part.shape[1:]) for part in inputs]
        (w, _), _ = jax.lax.scan(segment, state, tuple(segments))
        return w

    @jax.jit
    def differentiate(hyper, w, batches, everything):
        value, gradients = jax.value_and_grad(lambda h: data.loss(train(h, w, batches), everything))(hyper)
        return [value, *(gradients[name] for name in ("log_rates", "momenta", "log_l2"))]

    call = functools.partial(differentiate, hyper, data.weights, batches, data.batch)
    return {"scan" if method == "tape" else "scan of checkpointed scans": call}
