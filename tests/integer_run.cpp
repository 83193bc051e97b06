#include "integer_run.h"

#include <doctest/doctest.h>

#include <cmath>
#include <memory>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "core/backend/fixed_point.h"
#include "ladder.h"

namespace integer_run {

namespace ht = hypertape;
using bilevel_problems::Case;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;

namespace {

using Wide = __int128;
constexpr double one = 0x1p52;
constexpr std::int64_t d = 65536;

// `values` with the derivative of the identity in `recorded`.
TensorList straight_through(const TensorList& recorded, const TensorList& values) {
  return ht::custom_vjp("straight through", recorded, [&](const TensorList&) {
    return ht::CustomVjp{values, [](const TensorList& cotangents) { return cotangents; }};
  });
}

Tensor rounded(const Tensor& momentum) {
  std::vector<double> values = ladder::elements(momentum);
  for (double& each : values) each = std::round(each * 65536.0) / 65536.0;
  return straight_through({momentum}, {Tensor::from(values, momentum.shape())})[0];
}

Wide floor_divide(Wide x, Wide n) {
  const Wide quotient = x / n;
  return quotient * n > x ? quotient - 1 : quotient;
}

struct IntegerTrajectory {
  std::vector<std::int64_t> w, v;
  std::vector<Wide> digits;
  Wide bound = 0;

  void start(const std::vector<double>& weights) {
    w.clear();
    for (const double x : weights) w.push_back(static_cast<std::int64_t>(x * one));
    v.assign(w.size(), 0);
    digits.assign(w.size(), 0);
    bound = 0;
  }

  void step(const std::vector<double>& gradient, const std::vector<double>& rates, std::int64_t n,
            bool dampened) {
    // The low 32 bits of all digits are put away once some could reach 2^46.
    if (bound >= Wide(1) << 46) {
      for (Wide& each : digits) each >>= 32;
      bound >>= 32;
    }
    bound = ((bound + 1) * d - 1) / n;
    const double scale = dampened ? 1.0 - static_cast<double>(n) / static_cast<double>(d) : 1.0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const Wide quotient = floor_divide(v[i], d), dropped = v[i] - quotient * d;
      const Wide pushed = digits[i] * d + dropped;
      digits[i] = pushed / n;
      v[i] = static_cast<std::int64_t>(quotient * n + pushed % n +
                                       static_cast<Wide>(gradient[i] * (scale * one)));
      w[i] -= static_cast<std::int64_t>(static_cast<double>(v[i]) * rates[i]);
    }
  }
};

std::vector<double> flat(const TensorList& list) {
  std::vector<double> all;
  for (const Tensor& tensor : list) {
    const std::vector<double> values = ladder::elements(tensor);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TensorList pieces(const std::vector<std::int64_t>& fixed, const std::vector<ht::Shape>& shapes) {
  std::vector<double> values;
  for (const std::int64_t x : fixed) values.push_back(static_cast<double>(x) / one);
  return ht::unflatten(Tensor::from(values, {static_cast<std::int64_t>(values.size())}), shapes);
}

std::vector<ht::Shape> shapes_of(const TensorList& list) {
  std::vector<ht::Shape> shapes;
  for (const Tensor& tensor : list) shapes.push_back(tensor.shape());
  return shapes;
}

// One rate per element; weights and biases of layer l share rate l.
std::vector<double> rate_per_element(const std::vector<double>& rates, const std::vector<ht::Shape>& shapes) {
  std::vector<double> all;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    all.insert(all.end(), static_cast<std::size_t>(shapes[i].size()), rates[i / 2]);
  return all;
}

}  // namespace

Case with_rounded_momenta(const Case& problem) {
  Case result = problem;
  result.problem.prepare = [prepare = problem.problem.prepare](const NamedTensors& h) {
    const NamedTensors prepared = prepare(h);
    return prepared.with("momentum", rounded(prepared["momentum"]));
  };
  return result;
}

Case taped_integers(const Case& problem, bool dampened) {
  Case result = with_rounded_momenta(problem);
  const auto integers = std::make_shared<IntegerTrajectory>();
  result.problem.init = [=, init = problem.problem.init](const NamedTensors& h) {
    const NamedTensors w = init(h);
    integers->start(flat(w.tensors()));
    return w.with(straight_through(w.tensors(), pieces(integers->w, w.shapes())));
  };
  result.problem.step.name = "integers";
  // The step's formulas on the tape, each result replaced by the integers' before the next one reads it: the
  // move and its derivative in the rate take the velocity that was executed.
  result.problem.step.update = [=](const ht::optim::State& state, const TensorList& g,
                                   const NamedTensors& h) {
    const std::vector<ht::Shape> shapes = shapes_of(state.parameters);
    integers->step(flat(g), rate_per_element(ladder::elements(h["rates"]), shapes),
                   std::llround(h["momentum"].item() * 65536.0), dampened);
    const Tensor& momentum = h["momentum"];
    ht::optim::State next;
    for (std::size_t i = 0; i < g.size(); ++i)
      next.buffers.push_back(momentum * state.buffers[i] + (dampened ? (1.0 - momentum) * g[i] : g[i]));
    next.buffers = straight_through(next.buffers, pieces(integers->v, shapes));
    for (std::size_t i = 0; i < g.size(); ++i) {
      const auto layer = static_cast<std::int64_t>(i / 2);
      const Tensor rate = ht::reshape(ht::slice(h["rates"], 0, layer, layer + 1), {});
      next.parameters.push_back(state.parameters[i] - rate * next.buffers[i]);
    }
    next.parameters = straight_through(next.parameters, pieces(integers->w, shapes));
    return next;
  };
  return result;
}

Stepwise::Stepwise(const Case& digits_problem)
    : digits(flat(digits_problem.problem.init(digits_problem.problem.prepare(digits_problem.h)).tensors())
                 .size()),
      problem_(digits_problem),
      prepared_(digits_problem.problem.prepare(digits_problem.h)),
      initial_(digits_problem.problem.init(prepared_)),
      rates_(ladder::elements(prepared_["rates"])),
      momenta_(ladder::elements(prepared_["momentum"])) {
  const std::vector<double> start = flat(initial_.tensors());
  w.resize(start.size());
  v.assign(start.size(), 0);
  ht::detail::to_fixed<double>(start, w);
}

std::vector<double> Stepwise::gradient(std::int64_t t) const {
  const TensorList at = pieces(w, initial_.shapes());
  return flat(ht::grad(
      [&](const TensorList& x) {
        return problem_.problem.loss(initial_.with(x), prepared_,
                                     {t, {problem_.problem.seed, 0, static_cast<std::uint64_t>(t)}});
      },
      at));
}

void Stepwise::apply(std::int64_t t, bool undo) {
  const std::vector<ht::Shape> shapes = initial_.shapes();
  const std::size_t layers = shapes.size() / 2;
  const auto numerator = ht::detail::momentum_numerator(momenta_[static_cast<std::size_t>(t)]);
  const auto segments = [&](const std::vector<double>& g) {
    std::vector<ht::detail::MomentumSegment<double>> all;
    std::size_t offset = 0;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const auto size = static_cast<std::size_t>(shapes[i].size());
      std::span<const double> force;
      if (!g.empty()) force = std::span(g).subspan(offset, size);
      all.push_back({std::span(w).subspan(offset, size), std::span(v).subspan(offset, size), force,
                     rates_[static_cast<std::size_t>(t) * layers + i / 2]});
      offset += size;
    }
    return all;
  };
  using ht::detail::StepFault;
  if (undo) {
    const auto weights = segments({});
    REQUIRE(ht::detail::momentum_reverse_weights<double>(weights) == StepFault::none);
    const std::vector<double> g = gradient(t);
    const auto velocities = segments(g);
    REQUIRE(ht::detail::momentum_reverse_velocities<double>(digits, numerator, false, velocities) ==
            StepFault::none);
  } else {
    const std::vector<double> g = gradient(t);
    const auto all = segments(g);
    REQUIRE(ht::detail::momentum_forward<double>(digits, numerator, false, all) == StepFault::none);
  }
}

void Stepwise::forward() { apply(step_++, false); }
void Stepwise::backward() { apply(--step_, true); }

}  // namespace integer_run
