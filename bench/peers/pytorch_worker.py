"""pytorch_worker.py <threads>: PyTorch's Python API (eager) serving table.py."""

import sys

import torch

import problem
import pytorch_runs
import worker
from pytorch_nets import gauss_newton_product, hessian_product, implicit_hypergradient, training_step


def product(work, dtype):
    p = problem.Product.parse(work)
    a, b = (torch.from_numpy(factor).to(dtype) for factor in p.factors())

    @torch.inference_mode()
    def matmul():
        return [torch.matmul(a.mT if p.transposed[0] else a, b.mT if p.transposed[1] else b)]

    return {"matmul": matmul}


def operation(work, dtype):
    name, a, b, row = problem.operands(work)
    a, b, row = (torch.from_numpy(part).to(dtype) for part in (a, b, row))
    positive = a.abs() + 0.5
    sums = max(len(a) // 10, 1)
    shuffled, added = (torch.from_numpy(problem.shuffled(len(a), n)) for n in (len(a), sums))
    call = {
        "add": lambda: a + b,
        "multiply": lambda: a * b,
        "relu": lambda: torch.relu(a),
        "exp": lambda: torch.exp(a),
        "tanh": lambda: torch.tanh(a),
        "sum": lambda: torch.sum(a),
        "sum_rows": lambda: torch.sum(a, 1),
        "sum_columns": lambda: torch.sum(a, 0),
        "softmax": lambda: torch.softmax(a, 1),
        "add_row": lambda: a + row,
        "copy_transposed": lambda: a.t().contiguous(),
        "divide": lambda: a / positive,
        "log": lambda: torch.log(positive),
        "sigmoid": lambda: torch.sigmoid(a),
        "gelu": lambda: torch.nn.functional.gelu(a),
        "erf": lambda: torch.erf(a),
        "sin": lambda: torch.sin(a),
        "pow": lambda: torch.pow(positive, b),
        "max_rows": lambda: torch.amax(a, 1),
        "log_softmax": lambda: torch.log_softmax(a, 1),
        "cumulative_sum": lambda: torch.cumsum(a, 1),
        "gather": lambda: torch.index_select(a, 0, shuffled),
        "scatter_add": lambda: a.new_zeros(sums, a.shape[1]).index_add_(0, added, a),
    }[name]
    return {name: torch.inference_mode()(lambda: [call()])}


KINDS = {
    "step": training_step,
    "hvp": hessian_product,
    "gauss_newton": gauss_newton_product,
    "implicit": implicit_hypergradient,
    "hypergradient": pytorch_runs.hypergradient,
    "matmul": product,
    "op": operation,
}


def build(work, dtype):
    variants = KINDS[work.split("/")[0]](work, getattr(torch, dtype))
    return worker.Work(
        variants, wait=lambda result: None, arrays=lambda result: [part.detach().numpy() for part in result]
    )


torch.set_num_threads(int(sys.argv[1]))
worker.serve("pytorch", {"pytorch": torch.__version__}, build)
