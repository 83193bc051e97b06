// What the documents' pieces of C++ take for granted: includes, names, and variables that the text around
// them speaks of.
#pragma once

#include <hypertape/hypertape.h>

#include <iostream>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace ht = hypertape;
namespace bl = hypertape::bilevel;

struct Table {
  explicit Table(std::int64_t rows);
  std::vector<double> cells;
};

extern const ht::Tensor x, v, w, c, labels;
extern const ht::TensorList b, parameters;
extern const ht::NamedTensors h;
extern const ht::nn::Mlp net;
extern const std::int64_t rows, pitch;
extern const bl::Problem problem;
extern const bl::JointProblem joint;
extern const bl::OuterLoss validation_loss;
ht::NamedTensors init(const ht::NamedTensors& h);

// A function of one tensor or of several, and a loss of a run.
struct Function {
  ht::Tensor operator()(const ht::Tensor& x) const;
  ht::Tensor operator()(const ht::TensorList& x) const;
  ht::Tensor operator()(const ht::NamedTensors& w, const ht::NamedTensors& h,
                        const bl::StepContext& context) const;
};
extern const Function f, F, loss;
