// Matrix products and single operations.
#include "work.h"

namespace hypertape::peers_worker {

peers::Work product(const std::string& work, Dtype dtype) {
  const peers::Product p(work);
  const Tensor a = tensor(p.a(), dtype), b = tensor(p.b(), dtype);
  return Kept().add("matmul", [=] { return TensorList{matmul(a, b, p.transpose_a, p.transpose_b)}; }).work();
}

peers::Work operation(const std::string& work, Dtype dtype) {
  const peers::Operands operands(work);
  const std::string& name = operands.name;
  const Tensor a = tensor(operands.a, dtype), b = tensor(operands.b, dtype);
  const Tensor row = tensor(operands.row, dtype);
  const auto of = [&](auto function) {
    return Kept().add(name, [function] { return TensorList{function()}; }).work();
  };
  if (name == "add") return of([=] { return a + b; });
  if (name == "multiply") return of([=] { return a * b; });
  if (name == "relu") return of([=] { return relu(a); });
  if (name == "exp") return of([=] { return exp(a); });
  if (name == "tanh") return of([=] { return tanh(a); });
  if (name == "sum") return of([=] { return sum(a); });
  if (name == "sum_rows") return of([=] { return sum(a, {1}); });
  if (name == "sum_columns") return of([=] { return sum(a, {0}); });
  if (name == "softmax") return of([=] { return softmax(a); });
  if (name == "add_row") return of([=] { return a + row; });
  if (name == "copy_transposed") return of([=] { return contiguous(transpose(a)); });
  throw std::invalid_argument("unknown operation " + name);
}

}  // namespace hypertape::peers_worker
