// Matrix products and single operations.
#include "work.h"

namespace pytorch_worker {

peers::Work product(const std::string& work, torch::Dtype dtype) {
  const peers::Product p(work);
  const torch::Tensor a = tensor(p.a(), dtype), b = tensor(p.b(), dtype);
  return Kept()
      .add("matmul",
           [=]() -> Tensors {
             const torch::InferenceMode unrecorded;
             return {torch::matmul(p.transpose_a ? a.transpose(-2, -1) : a,
                                   p.transpose_b ? b.transpose(-2, -1) : b)};
           })
      .work();
}

peers::Work operation(const std::string& work, torch::Dtype dtype) {
  const peers::Operands operands(work);
  const std::string& name = operands.name;
  const torch::Tensor a = tensor(operands.a, dtype), b = tensor(operands.b, dtype);
  const torch::Tensor row = tensor(operands.row, dtype);
  const torch::Tensor positive = a.abs() + 0.5;
  const std::int64_t sums = std::max<std::int64_t>(a.size(0) / 10, 1);
  const torch::Tensor shuffled = torch::tensor(operands.shuffled(a.size(0))),
                      added = torch::tensor(operands.shuffled(sums));
  const auto of = [&](auto function) {
    return Kept()
        .add(name,
             [function]() -> Tensors {
               const torch::InferenceMode unrecorded;
               return {function()};
             })
        .work();
  };
  if (name == "add") return of([=] { return a + b; });
  if (name == "multiply") return of([=] { return a * b; });
  if (name == "relu") return of([=] { return torch::relu(a); });
  if (name == "exp") return of([=] { return torch::exp(a); });
  if (name == "tanh") return of([=] { return torch::tanh(a); });
  if (name == "sum") return of([=] { return torch::sum(a); });
  if (name == "sum_rows") return of([=] { return torch::sum(a, 1); });
  if (name == "sum_columns") return of([=] { return torch::sum(a, 0); });
  if (name == "softmax") return of([=] { return torch::softmax(a, 1); });
  if (name == "add_row") return of([=] { return a + row; });
  if (name == "copy_transposed") return of([=] { return a.t().contiguous(); });
  if (name == "divide") return of([=] { return a / positive; });
  if (name == "log") return of([=] { return torch::log(positive); });
  if (name == "sigmoid") return of([=] { return torch::sigmoid(a); });
  if (name == "gelu") return of([=] { return torch::gelu(a); });
  if (name == "erf") return of([=] { return torch::erf(a); });
  if (name == "sin") return of([=] { return torch::sin(a); });
  if (name == "pow") return of([=] { return torch::pow(positive, b); });
  if (name == "max_rows") return of([=] { return torch::amax(a, 1); });
  if (name == "log_softmax") return of([=] { return torch::log_softmax(a, 1); });
  if (name == "cumulative_sum") return of([=] { return torch::cumsum(a, 1); });
  if (name == "gather") return of([=] { return torch::index_select(a, 0, shuffled); });
  if (name == "scatter_add")
    return of([=] { return torch::zeros({sums, a.size(1)}, a.options()).index_add_(0, added, a); });
  throw std::invalid_argument("unknown operation " + name);
}

}  // namespace pytorch_worker
