"""The rows of the table: what is computed, by whom, and the least that it must cost."""

import dataclasses

import problem

HYPERTAPE, PYTORCH, PYTORCH_CPP, JAX = SYSTEMS = ("hypertape", "pytorch", "pytorch_cpp", "jax")
DTYPES = ("float32", "float64")


@dataclasses.dataclass
class Row:
    """`operations`: multiplications and additions of the matrix products that no way of doing it avoids;
    `elements`: read or written, where that is the limit. `family`: rows of one family take turns in the same
    processes; None: processes of its own."""

    work: str
    operations: float = 0.0
    elements: float = 0.0
    dtypes: tuple = DTYPES
    threads: tuple = (1, 2)
    systems: tuple = SYSTEMS
    family: str = None
    quick: bool = True

    def least_seconds(self, limits, dtype):
        """By the multiply-add peak and the bandwidth that were measured; 0 if neither is a limit."""
        size = 4 if dtype == "float32" else 8
        peak = limits["operations"] * 4 / size
        moved = self.elements * size
        return max(self.operations / peak, moved / bandwidth(limits, moved) if moved else 0.0)


def bandwidth(limits, size):
    """Of a working set of `size` bytes: that of the next smaller one measured, which may be in a nearer cache."""
    rates = limits["bandwidth"]
    return next((rate for measured, rate in reversed(rates) if measured <= size), rates[0][1])


def products_of(net):
    """Operations of the first layer's product for a batch, and of the others'."""
    pairs = list(zip(net.sizes[:-1], net.sizes[1:]))
    each = [2.0 * net.batch * a * b for a, b in pairs]
    return each[0], sum(each[1:])


SMALL = problem.RUN_NET
LARGE = "784-1024-1024-10/relu/128"
DEEP = "784-1024-512-256-128-64-10/relu/512"


def chains():
    systems = (HYPERTAPE, PYTORCH_CPP)
    return [
        Row(f"chain/{mode}/1000", dtypes=("float32",), threads=(1,), systems=systems)
        for mode in ("record", "backward")
    ]


def nets():
    rows = []
    for text in (SMALL, LARGE):
        net = problem.Net.parse(text)
        f, r = products_of(net)
        # The weights and velocities of the step are read and written, its gradients read.
        rows.append(Row(f"step/{text}", 2 * f + 3 * r, 5.0 * net.parameter_count()))
        rows.append(Row(f"hvp/{text}", 3 * f + 8 * r))
    f, r = products_of(problem.Net.parse(DEEP))
    rows.append(Row(f"hvp/{DEEP}", 3 * f + 8 * r))
    rows.append(Row(f"gauss_newton/{DEEP}", 3 * f + 5 * r))
    for text in (SMALL, LARGE):
        f, r = products_of(problem.Net.parse(text))
        terms = problem.NEUMANN_TERMS
        rows.append(Row(f"implicit/{text}", 3 * f + 5 * r + terms * (2 * f + 6 * r)))
    return rows


def runs():
    f, r = products_of(problem.Net.parse(problem.RUN_NET))
    by_tape, again = 4 * f + 9 * r, 6 * f + 12 * r
    outer = problem.BATCHES * (2 * f + 3 * r)

    def row(method, steps, per_step, **options):
        return Row(f"hypergradient/{method}/{steps}", steps * per_step + outer, **options)

    return [
        row("tape", 100, by_tape),
        row("tape", 1000, by_tape, dtypes=("float64",), quick=False),
        row("checkpoints", 1000, again, dtypes=("float64",), quick=False),
        row(
            "reversible", 10000, again, dtypes=("float64",), threads=(2,), systems=(HYPERTAPE,), quick=False
        ),
    ]


def products():
    """Squares read both ways, the three products of each layer, batches."""
    shapes = [(f"{n}x{n}x{n}/{how}", n in (8, 64, 512)) for n in (2**i for i in range(3, 12)) for how in
              ("nn", "nt", "tn", "tt")]
    for text in (SMALL, LARGE, DEEP):
        net = problem.Net.parse(text)
        for layer, (a, b) in enumerate(zip(net.sizes[:-1], net.sizes[1:])):
            shapes.append((f"{net.batch}x{a}x{b}/nn", layer == 0))
            shapes.append((f"{a}x{net.batch}x{b}/tn", layer == 0))
            shapes.append((f"{net.batch}x{b}x{a}/nt", layer == 1))
    shapes += [("64x64x64/nn/16", True), ("64x64x64/nn/256", True)]
    rows = {}
    for shape, quick in shapes:
        p = problem.Product.parse("matmul/" + shape)
        copies = p.batch or 1
        rows[shape] = Row(
            "matmul/" + shape,
            copies * 2.0 * p.m * p.k * p.n,
            copies * float(p.m * p.k + p.k * p.n + p.m * p.n),
            family="products",
            quick=quick,
        )
    return list(rows.values())


# Matrices that each operation reads and writes.
MOVED = {
    "add": 3, "multiply": 3, "relu": 2, "exp": 2, "tanh": 2, "sum": 1, "sum_rows": 1, "sum_columns": 1,
    "softmax": 2, "add_row": 2, "copy_transposed": 2, "divide": 3, "log": 2, "sigmoid": 2, "gelu": 2, "erf": 2,
    "sin": 2, "pow": 3, "max_rows": 1, "log_softmax": 2, "cumulative_sum": 2, "gather": 2, "scatter_add": 1,
}  # fmt: skip


def operations():
    return [
        Row(f"op/{name}/{size}", 0.0, float(moved * size), family="operations", quick=size in (100, 10**6))
        for name, moved in MOVED.items()
        for size in (10**i for i in range(2, 8))
    ]


def catalogue():
    return chains() + nets() + runs() + products() + operations()
