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
  throw std::invalid_argument("unknown operation " + name);
}

}  // namespace pytorch_worker
