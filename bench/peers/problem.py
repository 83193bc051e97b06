"""What each piece of work is made of, evaluated alike by every system: problem.h says the same in C++.

Numbers come from an integer hash of (seed, index), so that all systems get the same bits without files.
"""

import dataclasses
import math

try:
    import numpy
except ImportError:
    numpy = None  # names of rows can be read without; only a peer's worker makes numbers

MOMENTUM = 58982.0 / 65536.0  # a multiple of 2^-16, as reversible training executes it
RATE = 0.01  # of the single training step
BATCHES = 5  # of a training run, in turn
RUN_RATE = 0.01  # at 0.1, 1,000 steps are chaotic: no two systems agree
CHECKPOINTS = 25
NEUMANN_TERMS, NEUMANN_RATE = 20, 0.1
L2 = 1e-4
RUN_NET = "784-50-50-50-10/tanh/200"  # the net of the training runs


def uniform(seed, count, low=0.0, high=1.0):
    """splitmix64 (Steele, Lea and Flood 2014) of `count` successive numbers, in [low, high)."""
    with numpy.errstate(over="ignore"):
        z = numpy.arange(count, dtype=numpy.uint64) + numpy.uint64(seed << 32)
        z *= numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z ^= z >> numpy.uint64(31)
    return low + (high - low) * ((z >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53)


def checksum(arrays):
    """For each result its norm and its product with a fixed vector."""
    sums = []
    for array in arrays:
        values = numpy.asarray(array, dtype=numpy.float64).reshape(-1)
        along = uniform(99, values.size, -1.0, 1.0)
        sums.append([float(numpy.linalg.norm(values)), float(along @ values)])
    return sums


@dataclasses.dataclass
class Net:
    sizes: list
    activation: str
    batch: int

    @staticmethod
    def parse(text):
        """From "784-50-10/tanh/200"."""
        sizes, activation, batch = text.split("/")[:3]
        return Net([int(size) for size in sizes.split("-")], activation, int(batch))

    def shapes(self):
        """Of weight_1, bias_1, weight_2, ..."""
        pairs = zip(self.sizes[:-1], self.sizes[1:])
        return [shape for pair in pairs for shape in (pair, (pair[1],))]

    def weights(self):
        """Weights of variance 1 / inputs, biases 0."""
        result = []
        for i, shape in enumerate(self.shapes()):
            if i % 2 == 0:
                bound = numpy.sqrt(3.0 / shape[0])
                result.append(uniform(10 + i, shape[0] * shape[1], -bound, bound).reshape(shape))
            else:
                result.append(numpy.zeros(shape))
        return result

    def direction(self):
        """Something shaped like the weights."""
        shapes = self.shapes()
        return [
            uniform(40 + i, int(numpy.prod(shape)), -1.0, 1.0).reshape(shape)
            for i, shape in enumerate(shapes)
        ]

    def rows(self, batches=1):
        count = batches * self.batch
        return uniform(1, count * self.sizes[0], 0.0, 0.1).reshape(count, self.sizes[0])

    def labels(self, batches=1):
        return numpy.arange(batches * self.batch, dtype=numpy.int64) * 7 % 10

    def parameter_count(self):
        return sum(math.prod(shape) for shape in self.shapes())


def hyperparameters(net, steps):
    """Logarithm of a rate for each step and parameter tensor, logit of each step's momentum, logarithm of one
    L2 strength per weight."""
    return {
        "log_rates": numpy.full((steps, len(net.shapes())), numpy.log(RUN_RATE)),
        "momenta": numpy.full(steps, numpy.log(MOMENTUM / (1.0 - MOMENTUM))),
        "log_l2": numpy.full(net.parameter_count(), numpy.log(L2)),
    }


def run_of(work):
    """"hypergradient/tape/100": method and steps."""
    _, method, steps = work.split("/")
    return method, int(steps)


@dataclasses.dataclass
class Product:
    """"matmul/200x784x50/nt", or "matmul/64x64x64/nn/16" for a batch of 16: op(a) op(b), with n or t for each
    factor read as it is or transposed."""

    m: int
    k: int
    n: int
    transposed: tuple
    batch: int

    @staticmethod
    def parse(work):
        parts = work.split("/")
        m, k, n = (int(extent) for extent in parts[1].split("x"))
        transposed = tuple(letter == "t" for letter in parts[2])
        return Product(m, k, n, transposed, int(parts[3]) if len(parts) > 3 else 0)

    def factors(self):
        a = (self.k, self.m) if self.transposed[0] else (self.m, self.k)
        b = (self.n, self.k) if self.transposed[1] else (self.k, self.n)
        lead = (self.batch,) if self.batch else ()
        copies = self.batch or 1
        return (
            uniform(1, copies * self.m * self.k, -1.0, 1.0).reshape(lead + a),
            uniform(2, copies * self.k * self.n, -1.0, 1.0).reshape(lead + b),
        )


def columns_of(size):
    """Of the matrices that operations of `size` elements work on."""
    return min(100, size // 10)


def operands(work):
    """Of "op/tanh/10000": two matrices and a row."""
    _, name, size = work.split("/")
    size = int(size)
    columns = columns_of(size)
    shape = (size // columns, columns)
    return (
        name,
        uniform(1, size, -1.0, 1.0).reshape(shape),
        uniform(2, size, -1.0, 1.0).reshape(shape),
        uniform(3, columns, -1.0, 1.0),
    )


def shuffled(rows, count):
    """Of each row, the one of `count` that it is gathered from or added to."""
    return numpy.arange(rows) * 7919 % count
