// The table of bad input: elementwise operations, comparisons and reductions.
#include <cmath>
#include <cstdint>

#include <hypertape/autodiff/ops.h>
#include "bad_input.h"

namespace bad_input {
namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;

#define CALL(...) []([[maybe_unused]] TensorList& x) { return TensorList{__VA_ARGS__}; }

// (2, 3), all positive, none 1: a NaN in one operand does not hide behind another.
Tensor matrix() { return Tensor::from({0.3, 0.4, 0.5, 0.6, 0.7, 0.8}, Shape{2, 3}); }
Tensor mask() { return Tensor::from({true, false, true, true, false, true}, Shape{2, 3}); }
Tensor none() { return Tensor::zeros({0, 3}); }

void add_elementwise(std::vector<Case>& all) {
  const Tensor m = matrix(), e = none();
  const auto with_odd = [](auto op) { return [op](TensorList& x) { return TensorList{op(x)}; }; };
#define HYPERTAPE_UNARY(Op, op) \
  all.push_back({#op, "f", {m}, CALL(ht::op(x[0])), CALL(ht::op(std::move(x[0]))), {}, {e}, "(0, 3)"});
#define HYPERTAPE_WITH_SCALAR(Op, op) \
  all.push_back(                      \
      {#op, "f", {m}, CALL(ht::op(x[0], 0.7)), CALL(ht::op(std::move(x[0]), 0.7)), {}, {e}, "(0, 3)"});
#define HYPERTAPE_BINARY(Op, op)                                           \
  all.push_back({#op,                                                      \
                 "ff",                                                     \
                 {m, m},                                                   \
                 CALL(ht::op(x[0], x[1])),                                 \
                 CALL(ht::op(std::move(x[0]), std::move(x[1]))),           \
                 {{with_odd([](TensorList& x) {                            \
                     return ht::op(std::move(x[0]), Tensor::ones({2, 4})); \
                   }),                                                     \
                   {"(2, 3)", "(2, 4)"}}},                                 \
                 {e, Tensor::ones({3})},                                   \
                 "(0, 3)"});
#define HYPERTAPE_TERNARY(Op, op)                                                           \
  all.push_back({#op,                                                                       \
                 "fff",                                                                     \
                 {m, m, m},                                                                 \
                 CALL(ht::op(x[0], x[1], x[2])),                                            \
                 CALL(ht::op(std::move(x[0]), std::move(x[1]), std::move(x[2]))),           \
                 {{with_odd([](TensorList& x) {                                             \
                     return ht::op(std::move(x[0]), std::move(x[1]), Tensor::ones({4, 3})); \
                   }),                                                                      \
                   {"(2, 3)", "(4, 3)"}}},                                                  \
                 {e, e, Tensor::ones({3})},                                                 \
                 "(0, 3)"});
#include <hypertape/core/elementwise.def>
  // Selections are constant in what decides.
  for (Case& row : all)
    if (row.name == "masked") row.ignores = "1";
  all.push_back({"clamp",
                 "f",
                 {m},
                 CALL(ht::clamp(x[0], 0.35, 0.7)),
                 CALL(ht::clamp(std::move(x[0]), 0.35, 0.7)),
                 {{CALL(ht::clamp(std::move(x[0]), 1.0, 0.0)), {"low <= high", "1", "0"}},
                  {CALL(ht::clamp(std::move(x[0]), 0.0, NAN)), {"low <= high", "nan"}}},
                 {e},
                 "(0, 3)"});
}

void add_comparisons(std::vector<Case>& all) {
  const Tensor m = matrix(), e = none();
#define COMPARISON(op, ordered)                                                                       \
  all.push_back({#op, "mm", {m, m}, CALL(ht::op(x[0], x[1])), {}, {}, {e, e}, "(0, 3)", "01"});       \
  all.back().refusals.push_back({CALL(ht::op(x[0], Tensor::ones({2, 4}))), {"(2, 3)", "(2, 4)"}});    \
  if (ordered) all.back().refusals.push_back({CALL(ht::op(mask(), mask())), {"booleans", "(2, 3)"}}); \
  all.push_back({#op, "a", {m}, CALL(ht::op(x[0], 0.5)), {}, {}, {e}, "(0, 3)", "0"});                \
  for (const double odd : {0.5, 0x1p63, -0x1p64, double(NAN), double(INFINITY)})                      \
    all.back().refusals.push_back(                                                                    \
        {[odd](TensorList&) { return TensorList{ht::op(Tensor::zeros({4}, Dtype::int64), odd)}; },    \
         {"int64", "(4)"}});                                                                          \
  all.back().refusals.push_back({CALL(ht::op(mask(), 1.0)), {"boolean", "(2, 3)"}});
  COMPARISON(less, true)
  COMPARISON(less_equal, true)
  COMPARISON(greater, true)
  COMPARISON(greater_equal, true)
  COMPARISON(equal, false)
  COMPARISON(not_equal, false)
#undef COMPARISON
  const Tensor b = mask(), no = Tensor::zeros({0, 3}, Dtype::boolean);
  const std::vector<std::string> shapes = {"(2, 3)", "(3, 2)"};
  all.push_back({"logical_and", "bb", {b, b}, CALL(ht::logical_and(x[0], x[1])), {}, {}, {no, no}, "(0, 3)"});
  all.back().refusals = {{CALL(ht::logical_and(x[0], ht::transpose(x[0]))), shapes}};
  all.push_back({"logical_or", "bb", {b, b}, CALL(ht::logical_or(x[0], x[1])), {}, {}, {no, no}, "(0, 3)"});
  all.back().refusals = {{CALL(ht::logical_or(x[0], ht::transpose(x[0]))), shapes}};
  all.push_back({"logical_not", "b", {b}, CALL(ht::logical_not(x[0])), {}, {}, {no}, "(0, 3)"});
  all.push_back({"where", "bmm", {b, m, m}, CALL(ht::where(x[0], x[1], x[2])), {}, {}, {no, e, e}, "(0, 3)"});
  all.back().refusals = {{CALL(ht::where(x[0], x[1], ht::transpose(x[2]))), shapes},
                         {CALL(ht::where(ht::transpose(x[0]), x[1], x[2])), shapes}};
  all.push_back({"where", "ba", {b, m}, CALL(ht::where(x[0], x[1], 0.5)), {}, {}, {no, e}, "(0, 3)"});
  all.back().refusals = {
      {CALL(ht::where(x[0], Tensor::zeros({2, 3}, Dtype::int64), 0.5)), {"0.5", "int64", "(2, 3)"}},
      {CALL(ht::where(x[0], x[0], 1.0)), {"boolean"}}};
  all.push_back({"where", "ba", {b, m}, CALL(ht::where(x[0], 0.5, x[1])), {}, {}, {no, e}, "(0, 3)"});
  all.back().refusals = {
      {CALL(ht::where(x[0], 1e300, Tensor::zeros({2, 3}, Dtype::int64))), {"1e+300", "int64"}}};
}

void add_reductions(std::vector<Case>& all) {
  const Tensor m = matrix(), e = none(), b = mask(), no = Tensor::zeros({0, 3}, Dtype::boolean);
  // Of everything, and over axes: what empty axes give, and the refusals that all of them share.
#define REDUCTION(op, role, good, nothing, of_all)                                       \
  all.push_back({#op, role, {good}, CALL(ht::op(x[0])), {}, {}, {nothing}, of_all});     \
  all.push_back({#op, role, {good}, CALL(ht::op(x[0], {1})), {}, {}, {nothing}, "(0)"}); \
  all.back().refusals = {{CALL(ht::op(x[0], {2})), {"axis 2", "(2, 3)"}},                \
                         {CALL(ht::op(x[0], {-3})), {"axis -3", "(2, 3)"}},              \
                         {CALL(ht::op(x[0], {INT64_MIN})), {"(2, 3)"}},                  \
                         {CALL(ht::op(x[0], {1, -1})), {"twice", "(2, 3)"}},             \
                         {CALL(ht::op(Tensor::full(Shape{}, 1.0, x[0].dtype()), {0})), {"()"}}};
  REDUCTION(sum, "f", m, e, "()")
  REDUCTION(mean, "f", m, e, "!empty")
  REDUCTION(prod, "f", m, e, "()")
  REDUCTION(squared_norm, "f", m, e, "()")
  REDUCTION(standard_deviation, "f", m, e, "!(0, 3)")
  for (const std::int64_t correction : {std::int64_t{-1}, std::int64_t{3}, INT64_MIN, INT64_MAX})
    all.back().refusals.push_back({[correction](TensorList& x) {
                                     return TensorList{ht::standard_deviation(x[0], {1}, false, correction)};
                                   },
                                   {"correction", "3 elements", "(2, 3)"}});
  REDUCTION(variance, "f", m, e, "!(0, 3)")
  for (const std::int64_t correction : {std::int64_t{-1}, std::int64_t{3}, INT64_MIN, INT64_MAX})
    all.back().refusals.push_back(
        {[correction](TensorList& x) { return TensorList{ht::variance(x[0], {1}, false, correction)}; },
         {"correction", "3 elements", "(2, 3)"}});
  REDUCTION(max, "f", m, e, "!no elements")
  all.back().refusals.push_back({CALL(ht::max(none(), {0})), {"no elements", "(0, 3)"}});
  REDUCTION(min, "f", m, e, "!no elements")
  all.back().refusals.push_back({CALL(ht::min(none(), {0})), {"no elements", "(0, 3)"}});
  REDUCTION(logsumexp, "f", m, e, "()")
  REDUCTION(norm, "f", m, e, "()")
  REDUCTION(any, "b", b, no, "()")
  REDUCTION(all, "b", b, no, "()")
  REDUCTION(count, "b", b, no, "()")
#undef REDUCTION
#define POSITION(op)                                                                    \
  all.push_back({#op, "f", {m}, CALL(ht::op(x[0])), {}, {}, {e}, "!no elements", "0"}); \
  all.push_back({#op, "f", {m}, CALL(ht::op(x[0], 1)), {}, {}, {e}, "(0)", "0"});       \
  all.back().refusals = {{CALL(ht::op(x[0], 2)), {"axis 2", "(2, 3)"}},                 \
                         {CALL(ht::op(none(), 0)), {"no elements", "(0, 3)"}}};
  POSITION(argmax)
  POSITION(argmin)
#undef POSITION
  all.push_back({"cumulative_sum", "f", {m}, CALL(ht::cumulative_sum(x[0], 1)), {}, {}, {e}, "(0, 3)"});
  all.back().refusals = {{CALL(ht::cumulative_sum(x[0], 2)), {"axis 2", "(2, 3)"}},
                         {CALL(ht::cumulative_sum(Tensor::scalar(1.0), 0)), {"()"}}};
  all.push_back({"sum_to", "f", {m}, CALL(ht::sum_to(x[0], {3})), {}, {}, {e}, "(3)"});
  all.back().refusals = {{CALL(ht::sum_to(x[0], {2})), {"(2, 3)", "(2)"}},
                         {CALL(ht::sum_to(x[0], {1, 2, 3})), {"(2, 3)", "(1, 2, 3)"}}};
  all.push_back({"dot", "ff", {m, m}, CALL(ht::dot(x[0], x[1])), {}, {}, {e, e}, "()"});
  all.back().refusals = {{CALL(ht::dot(x[0], ht::transpose(x[1]))), {"(2, 3)", "(3, 2)"}}};
}

}  // namespace

std::vector<Case> cases() {
  std::vector<Case> all;
  add_elementwise(all);
  add_comparisons(all);
  add_reductions(all);
  add_structural_cases(all);
  return all;
}

}  // namespace bad_input
