"""jax_worker.py <threads>: JAX (jit) serving table.py. Everything is an argument of the compiled function, since
XLA would fold constants at compile time. The number of threads follows from affinity and XLA_FLAGS."""

import functools

import jax
import numpy

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")

import jax.numpy as jnp  # noqa: E402
import jaxlib  # noqa: E402

import jax_runs  # noqa: E402
import problem  # noqa: E402
import worker  # noqa: E402
from jax_nets import (  # noqa: E402
    gauss_newton_product,
    hessian_product,
    implicit_hypergradient,
    training_step,
)


def product(work, dtype):
    p = problem.Product.parse(work)
    a, b = (jnp.asarray(factor, dtype) for factor in p.factors())

    @jax.jit
    def matmul(a, b):
        return [jnp.matmul(a.mT if p.transposed[0] else a, b.mT if p.transposed[1] else b)]

    return {"matmul": functools.partial(matmul, a, b)}


def operation(work, dtype):
    name, a, b, row = problem.operands(work)
    a, b, row = (jnp.asarray(part, dtype) for part in (a, b, row))
    positive = jnp.abs(a) + 0.5
    sums = max(len(a) // 10, 1)
    shuffled, added = (jnp.asarray(problem.shuffled(len(a), n)) for n in (len(a), sums))
    function, *arguments = {
        "add": (jnp.add, a, b),
        "multiply": (jnp.multiply, a, b),
        "relu": (lambda x: jnp.maximum(x, 0), a),
        "exp": (jnp.exp, a),
        "tanh": (jnp.tanh, a),
        "sum": (jnp.sum, a),
        "sum_rows": (lambda x: jnp.sum(x, 1), a),
        "sum_columns": (lambda x: jnp.sum(x, 0), a),
        "softmax": (lambda x: jax.nn.softmax(x, 1), a),
        "add_row": (jnp.add, a, row),
        "copy_transposed": (jnp.transpose, a),
        "divide": (jnp.divide, a, positive),
        "log": (jnp.log, positive),
        "sigmoid": (jax.nn.sigmoid, a),
        "gelu": (lambda x: jax.nn.gelu(x, approximate=False), a),
        "erf": (jax.lax.erf, a),
        "sin": (jnp.sin, a),
        "pow": (jnp.power, positive, b),
        "max_rows": (lambda x: jnp.max(x, 1), a),
        "log_softmax": (lambda x: jax.nn.log_softmax(x, 1), a),
        "cumulative_sum": (lambda x: jnp.cumsum(x, 1), a),
        "gather": (lambda x, rows: jnp.take(x, rows, axis=0), a, shuffled),
        "scatter_add": (lambda x, rows: jnp.zeros((sums, x.shape[1]), x.dtype).at[rows].add(x), a, added),
    }[name]
    return {name: functools.partial(jax.jit(lambda *x: [function(*x)]), *arguments)}


KINDS = {
    "step": training_step,
    "hvp": hessian_product,
    "gauss_newton": gauss_newton_product,
    "implicit": implicit_hypergradient,
    "hypergradient": jax_runs.hypergradient,
    "matmul": product,
    "op": operation,
}


def build(work, dtype):
    variants = KINDS[work.split("/")[0]](work, jnp.dtype(dtype))
    return worker.Work(
        variants, wait=jax.block_until_ready, arrays=lambda result: [numpy.asarray(part) for part in result]
    )


worker.serve("jax", {"jax": jax.__version__, "jaxlib": jaxlib.__version__}, build)
