#include "mutation_gate.h"

#include <doctest/doctest.h>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>

namespace mutation_gate {

namespace ht = hypertape;
using bilevel_problems::Case;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::bilevel::Estimator;
using ht::bilevel::Hypergradient;
using ht::bilevel::Problem;

namespace {

TensorList zeros_like(const NamedTensors& h) {
  TensorList zeros;
  for (const Tensor& tensor : h.tensors()) zeros.push_back(Tensor::zeros(tensor.shape(), tensor.dtype()));
  return zeros;
}

Hypergradient with_gradients(const Hypergradient& truth, TensorList gradients) {
  Hypergradient mutant = truth;
  mutant.gradients = truth.gradients.with(std::move(gradients));
  return mutant;
}

Hypergradient scaled(const Hypergradient& truth, double factor) {
  TensorList gradients = truth.gradients.tensors();
  for (Tensor& gradient : gradients)
    if (gradient.defined()) gradient = gradient * factor;
  return with_gradients(truth, std::move(gradients));
}

TensorList direct_term(const Case& problem, const Hypergradient& truth) {
  TensorList direct =
      ht::grad([&](const TensorList& h) { return problem.outer(truth.parameters, problem.h.with(h)); },
               problem.h.tensors());
  const TensorList zeros = zeros_like(problem.h);
  for (std::size_t i = 0; i < direct.size(); ++i)
    if (!direct[i].defined()) direct[i] = zeros[i];
  return direct;
}

// The same problem reduced to its steps [first, last).
Problem part_of(const Problem& whole, std::int64_t first, std::int64_t last) {
  Problem part = whole;
  part.steps = last - first;
  part.prepare = [=](const NamedTensors& h) {
    NamedTensors prepared = whole.prepare ? whole.prepare(h) : h;
    for (const std::string& name : whole.per_step)
      prepared = prepared.with(name, ht::slice(prepared[name], 0, first, last));
    return prepared;
  };
  part.loss = [=](const NamedTensors& w, const NamedTensors& h, const ht::bilevel::StepContext& context) {
    ht::bilevel::StepContext shifted = context;
    shifted.step += first;
    shifted.key.step += static_cast<std::uint64_t>(first);
    return whole.loss(w, h, shifted);
  };
  return part;
}

}  // namespace

Hypergradient with_less_work(const Case& problem, const Estimator& estimator, std::int64_t dropped_steps) {
  const ht::bilevel::Solution middle =
      ht::bilevel::train(part_of(problem.problem, 0, dropped_steps), problem.h);
  Case rest = problem;
  rest.problem = part_of(problem.problem, dropped_steps, problem.problem.steps);
  rest.problem.init = [=](const NamedTensors&) { return middle.parameters; };
  rest.problem.step.initial_buffers = [=](const TensorList&) { return middle.buffers; };
  return rest.by(estimator);
}

std::vector<std::string> survivors(const Case& problem, const Check& check, const Hypergradient& truth,
                                   const LessWork& less_work) {
  std::vector<std::string> names;
  const auto try_mutant = [&](const char* name, const Hypergradient& mutant) {
    if (check(mutant)) names.emplace_back(name);
  };
  try_mutant("zero", with_gradients(truth, zeros_like(problem.h)));
  try_mutant("absent", with_gradients(truth, TensorList(problem.h.size())));
  try_mutant("negated", scaled(truth, -1.0));
  try_mutant("direct term", with_gradients(truth, direct_term(problem, truth)));
  try_mutant("scaled by 1 + 1e-4", scaled(truth, 1.0 + 1e-4));
  try_mutant("scaled by 1 - 1e-4", scaled(truth, 1.0 - 1e-4));
  try_mutant("less work", less_work());
  return names;
}

std::vector<std::string> survivors(const Case& problem, const Estimator& estimator, const Check& check,
                                   const Hypergradient& truth, std::int64_t dropped_steps) {
  return survivors(problem, check, truth, [&] { return with_less_work(problem, estimator, dropped_steps); });
}

Hypergradient expect_gated(const Case& problem, const Estimator& estimator, const Check& check,
                           std::int64_t dropped_steps) {
  return expect_gated(problem, estimator, check,
                      [&] { return with_less_work(problem, estimator, dropped_steps); });
}

Hypergradient expect_gated(const Case& problem, const Estimator& estimator, const Check& check,
                           const LessWork& less_work) {
  CAPTURE(problem.name);
  CAPTURE(estimator.name());
  CAPTURE(estimator.setting());
  const Hypergradient result = problem.by(estimator);
  CHECK(check(result));
  for (const std::string& mutant : survivors(problem, check, result, less_work))
    FAIL_CHECK("the check does not see the mutant: " << mutant);
  return result;
}

}  // namespace mutation_gate
