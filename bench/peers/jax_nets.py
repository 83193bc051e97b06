"""Work on a net in JAX; where there are several ways, each is a variant."""

import functools

import jax
import jax.numpy as jnp
import numpy

import problem


class NetData:
    """Shapes and data; `batch` (rows, labels) is passed to the compiled functions."""

    def __init__(self, text, dtype, batches=1):
        self.net = problem.Net.parse(text)
        self.weights = [jnp.asarray(part, dtype) for part in self.net.weights()]
        self.direction = [jnp.asarray(part, dtype) for part in self.net.direction()]
        self.batch = jnp.asarray(self.net.rows(batches), dtype), jnp.asarray(self.net.labels(batches))
        self.activation = jnp.tanh if self.net.activation == "tanh" else jax.nn.relu

    def logits(self, w, x):
        for i in range(0, len(w) - 2, 2):
            x = self.activation(x @ w[i] + w[i + 1])
        return x @ w[-2] + w[-1]

    def loss(self, w, batch):
        x, y = batch
        logits = jax.nn.log_softmax(self.logits(w, x))
        return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=1))

    def unflatten(self, flat):
        ends = numpy.cumsum([part.size for part in self.weights])[:-1]
        return [
            piece.reshape(part.shape) for piece, part in zip(jnp.split(flat, ends), self.weights)
        ]


def net_of(work):
    return work.split("/", 1)[1]


def penalty(l2, w):
    return 0.5 * sum(jnp.sum(s * p * p) for s, p in zip(l2, w))


def training_step(work, dtype):
    data = NetData(net_of(work), dtype)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, v, batch):
        value, gradient = jax.value_and_grad(data.loss)(w, batch)
        v = [problem.MOMENTUM * a + g for a, g in zip(v, gradient)]
        return value, [p - problem.RATE * a for p, a in zip(w, v)], v

    state = [jnp.array(part) for part in data.weights], [jnp.zeros_like(part) for part in data.weights]

    def call():
        nonlocal state
        value, *state = step(*state, data.batch)
        return [value, *state[0]]

    return {"jit": call}


def hessian_product(work, dtype):
    data = NetData(net_of(work), dtype)

    @jax.jit
    def product(w, v, batch):
        return jax.jvp(lambda at: jax.grad(data.loss)(at, batch), (w,), (v,))[1]

    return {"jvp of grad": functools.partial(product, data.weights, data.direction, data.batch)}


def gauss_newton_product(work, dtype):
    data = NetData(net_of(work), dtype)

    def output_hessian_product(z, u):
        p = jax.nn.softmax(z)
        pu = p * u
        return (pu - p * jnp.sum(pu, 1, keepdims=True)) / len(z)

    @jax.jit
    def by_both(w, v, x):
        function = functools.partial(data.logits, x=x)
        z, along = jax.jvp(function, (w,), (v,))
        return jax.vjp(function, w)[1](output_hessian_product(z, along))[0]

    @jax.jit
    def by_transposition(w, v, x):
        z, linear = jax.linearize(functools.partial(data.logits, x=x), w)
        return jax.linear_transpose(linear, w)(output_hessian_product(z, linear(v)))[0]

    arguments = data.weights, data.direction, data.batch[0]
    return {
        "jvp and vjp": functools.partial(by_both, *arguments),
        "linearize and transpose": functools.partial(by_transposition, *arguments),
    }


def implicit_hypergradient(work, dtype):
    """-f_hw p for p the Neumann series of the inverse Hessian times F_w; one linearised gradient serves all
    terms."""
    data = NetData(net_of(work), dtype)
    h = jnp.full(data.net.parameter_count(), numpy.log(problem.L2), dtype)

    def inner_gradient(w, h, batch):
        return jax.grad(lambda at: data.loss(at, batch) + penalty(data.unflatten(jnp.exp(h)), at))(w)

    @jax.jit
    def hypergradient(w, h, batch):
        value, outer = jax.value_and_grad(data.loss)(w, batch)
        _, hessian = jax.linearize(lambda at: inner_gradient(at, h, batch), w)

        def term(carry, _):
            d, p = carry
            d = [a - problem.NEUMANN_RATE * b for a, b in zip(d, hessian(d))]
            return (d, [a + b for a, b in zip(p, d)]), None

        d = [problem.NEUMANN_RATE * part for part in outer]
        (_, p), _ = jax.lax.scan(term, (d, d), None, length=problem.NEUMANN_TERMS)
        mixed = jax.vjp(lambda at: inner_gradient(w, at, batch), h)[1](p)[0]
        return [value, -mixed]

    return {"linearised gradient": functools.partial(hypergradient, data.weights, h, data.batch)}
