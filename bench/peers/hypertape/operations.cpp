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
  const Tensor positive = abs(a) + 0.5;
  const std::int64_t rows = a.shape()[0], columns = a.shape()[1], sums = std::max<std::int64_t>(rows / 10, 1);
  const auto indices = [&](std::int64_t count) { return Tensor::from(operands.shuffled(count), {rows}); };
  const Tensor shuffled = indices(rows), each_column = expand(unsqueeze(indices(sums), 1), a.shape());
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
  if (name == "divide") return of([=] { return a / positive; });
  if (name == "log") return of([=] { return log(positive); });
  if (name == "sigmoid") return of([=] { return sigmoid(a); });
  if (name == "gelu") return of([=] { return gelu(a); });
  if (name == "erf") return of([=] { return erf(a); });
  if (name == "sin") return of([=] { return sin(a); });
  if (name == "pow") return of([=] { return pow(positive, b); });
  if (name == "max_rows") return of([=] { return max(a, {1}); });
  if (name == "log_softmax") return of([=] { return log_softmax(a); });
  if (name == "cumulative_sum") return of([=] { return cumulative_sum(a, 1); });
  if (name == "gather") return of([=] { return index_select(a, 0, shuffled); });
  if (name == "scatter_add") return of([=] { return scatter_add({sums, columns}, 0, each_column, a); });
  throw std::invalid_argument("unknown operation " + name);
}

}  // namespace hypertape::peers_worker
