#include "bilevel_problems.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "data.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/core/error.h"
#include "ladder.h"

namespace bilevel_problems {

namespace ht = hypertape;
using ht::bilevel::StepContext;

namespace {

constexpr std::size_t n = 5, m = 3;
constexpr std::array<std::size_t, n> group = {0, 0, 0, 1, 1};
constexpr double slow_pull = 0.3;

// A fixed sequence in [-1, 1], the same on every platform.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed) {}
  double next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<double>(state_ >> 40) * 0x1p-23 - 1.0;
  }
  std::vector<double> take(std::size_t count, double scale, double shift = 0.0) {
    std::vector<double> values(count);
    for (double& x : values) x = shift + scale * next();
    return values;
  }

 private:
  std::uint64_t state_;
};

std::vector<double> symmetric_positive(Numbers& numbers) {
  const std::vector<double> root = numbers.take(n * n, 1.0);
  std::vector<double> a(n * n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t k = 0; k < n; ++k) a[i * n + j] += root[k * n + i] * root[k * n + j] / n;
      if (i == j) a[i * n + j] += 0.5;
    }
  return a;
}

Tensor scaled(const Tensor& factor, const Tensor& x) { return factor * x; }

std::vector<Tensor> rates_for(const Tensor& rate, const std::vector<std::int64_t>& groups) {
  const TensorList rows = ht::unstack(rate);
  std::vector<Tensor> rates;
  for (const std::int64_t g : groups) rates.push_back(rows[static_cast<std::size_t>(g)]);
  return rates;
}

}  // namespace

std::string name_of(Rule rule) {
  constexpr std::array names = {"momentum", "dampened", "tanh momentum", "slow weights"};
  return names[static_cast<std::size_t>(rule)];
}

ht::optim::Step step_of(Rule rule, const std::string& rate, const std::string& momentum,
                        const std::vector<std::int64_t>& rate_groups) {
  if (rule == Rule::momentum || rule == Rule::dampened)
    return ht::optim::sgd(
        {.rate = rate, .momentum = momentum, .rate_groups = rate_groups, .dampened = rule == Rule::dampened});
  ht::optim::Step step;
  step.name = name_of(rule);
  step.initial_slots = [rule](const TensorList& w) {
    if (rule == Rule::slow_weights) return w;
    TensorList zeros;
    for (const Tensor& each : w) zeros.push_back(Tensor::zeros(each.shape(), each.dtype()));
    return zeros;
  };
  step.update = [=](const ht::optim::State& state, const TensorList& g, const NamedTensors& h) {
    const std::vector<Tensor> rates = rates_for(h[rate], rate_groups);
    ht::optim::State next;
    for (std::size_t i = 0; i < g.size(); ++i) {
      const Tensor &w = state.parameters[i], &slot = state.slots[i];
      if (rule == Rule::tanh_momentum) {
        next.slots.push_back(scaled(h[momentum], slot) + ht::tanh(g[i]));
        next.parameters.push_back(w - scaled(rates[i], next.slots[i]));
      } else {
        const Tensor fast = w - scaled(rates[i], g[i]);
        next.slots.push_back(slot + scaled(h[momentum], fast - slot));
        next.parameters.push_back(fast + slow_pull * (next.slots[i] - fast));
      }
    }
    return next;
  };
  return step;
}

Quadratic::Quadratic(std::int64_t steps, Rule rule) : steps_(steps), rule_(rule) {
  Numbers numbers(17);
  a_ = symmetric_positive(numbers);
  b_matrix_ = numbers.take(n * m, 1.0);
  b_ = numbers.take(n, 1.0);
  c_ = numbers.take(n, 1.0, 1.0);
  d_ = numbers.take(m, 0.5, 0.7);
  h_ = numbers.take(m, 1.0);
  start_ = numbers.take(n, 1.0, 2.0);
  const auto count = static_cast<std::size_t>(steps);
  rates_ = numbers.take(2 * count, 0.05, 0.15);
  momenta_ = numbers.take(count, 0.2, 0.6);
  for (double& each : momenta_) each = std::round(each * 65536.0) / 65536.0;
}

Case Quadratic::problem() const {
  const auto extent = [](std::size_t size) { return static_cast<std::int64_t>(size); };
  const Tensor a = Tensor::from(a_, {extent(n), extent(n)}), b = Tensor::from(b_, {extent(n)}),
               b_matrix = Tensor::from(b_matrix_, {extent(n), extent(m)}), c = Tensor::from(c_, {extent(n)}),
               d = Tensor::from(d_, {extent(m)});
  const std::vector<ht::Shape> shapes = {{3}, {2}};
  Case result;
  result.name = "quadratic, " + name_of(rule_);
  result.h = {{"h", Tensor::from(h_, {extent(m)})},
              {"rates", Tensor::from(rates_, {steps_, 2})},
              {"momenta", Tensor::from(momenta_, {steps_})},
              {"start", Tensor::from(start_, {extent(n)})}};
  ht::bilevel::Problem& problem = result.problem;
  problem.steps = steps_;
  problem.per_step = {"rates", "momenta"};
  problem.step = step_of(rule_, "rates", "momenta", {0, 1});
  problem.init = [=](const NamedTensors& h) {
    const TensorList pieces = ht::unflatten(h["start"], shapes);
    return NamedTensors{{"first", pieces[0]}, {"second", pieces[1]}};
  };
  problem.loss = [=](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    const Tensor all = ht::flatten(w.tensors(), shapes);
    return 0.5 * ht::dot(ht::matmul(a, all), all) - ht::dot(all, b + ht::matmul(b_matrix, h["h"]));
  };
  result.outer = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::sum(ht::square(ht::flatten(w.tensors(), shapes) - c)) + ht::dot(d, h["h"]);
  };
  return result;
}

Exact Quadratic::exact() const {
  using Real = long double;
  const auto steps = static_cast<std::size_t>(steps_);
  const std::size_t first_rate = m, first_momentum = m + 2 * steps, first_start = first_momentum + steps;
  const std::size_t count = first_start + n;
  // w, s and, for each scalar theta, their derivatives.
  std::vector<Real> w(start_.begin(), start_.end()), s(n, 0.0L);
  std::vector<std::vector<Real>> dw(count, std::vector<Real>(n, 0.0L)), ds = dw;
  for (std::size_t i = 0; i < n; ++i) dw[first_start + i][i] = 1.0L;
  if (rule_ == Rule::slow_weights) {
    s = w;
    ds = dw;
  }
  for (std::size_t t = 0; t < steps; ++t) {
    std::vector<Real> g(n);
    for (std::size_t i = 0; i < n; ++i) {
      g[i] = -Real(b_[i]);
      for (std::size_t j = 0; j < n; ++j) g[i] += Real(a_[i * n + j]) * w[j];
      for (std::size_t j = 0; j < m; ++j) g[i] -= Real(b_matrix_[i * m + j]) * Real(h_[j]);
    }
    const Real mu = momenta_[t];
    for (std::size_t theta = 0; theta < count; ++theta) {
      std::vector<Real> next_w(n), next_s(n);
      const Real dmu = theta == first_momentum + t ? 1.0L : 0.0L;
      for (std::size_t i = 0; i < n; ++i) {
        const Real r = rates_[2 * t + group[i]];
        const Real dr = theta == first_rate + 2 * t + group[i] ? 1.0L : 0.0L;
        Real dg = theta < m ? -Real(b_matrix_[i * m + theta]) : 0.0L;
        for (std::size_t j = 0; j < n; ++j) dg += Real(a_[i * n + j]) * dw[theta][j];
        if (rule_ == Rule::slow_weights) {
          const Real fast = w[i] - r * g[i], dfast = dw[theta][i] - dr * g[i] - r * dg;
          next_s[i] = ds[theta][i] + dmu * (fast - s[i]) + mu * (dfast - ds[theta][i]);
          next_w[i] = dfast + Real(slow_pull) * (next_s[i] - dfast);
          continue;
        }
        Real v = 0.0L;
        if (rule_ == Rule::tanh_momentum) {
          const Real y = std::tanh(g[i]);
          v = mu * s[i] + y;
          next_s[i] = dmu * s[i] + mu * ds[theta][i] + (1.0L - y * y) * dg;
        } else {
          const Real keep = rule_ == Rule::dampened ? 1.0L - mu : 1.0L;
          const Real dkeep = rule_ == Rule::dampened ? -dmu : 0.0L;
          v = mu * s[i] + keep * g[i];
          next_s[i] = dmu * s[i] + mu * ds[theta][i] + dkeep * g[i] + keep * dg;
        }
        next_w[i] = dw[theta][i] - dr * v - r * next_s[i];
      }
      dw[theta] = next_w;
      ds[theta] = next_s;
    }
    for (std::size_t i = 0; i < n; ++i) {
      const Real r = rates_[2 * t + group[i]];
      if (rule_ == Rule::slow_weights) {
        const Real fast = w[i] - r * g[i];
        s[i] += mu * (fast - s[i]);
        w[i] = fast + Real(slow_pull) * (s[i] - fast);
      } else {
        const Real keep = rule_ == Rule::dampened ? 1.0L - mu : 1.0L;
        s[i] = mu * s[i] + (rule_ == Rule::tanh_momentum ? std::tanh(g[i]) : keep * g[i]);
        w[i] -= r * s[i];
      }
    }
  }
  Exact exact;
  exact.parameters.assign(w.begin(), w.end());
  Real value = 0.0L;
  for (std::size_t i = 0; i < n; ++i) value += 0.5L * (w[i] - Real(c_[i])) * (w[i] - Real(c_[i]));
  for (std::size_t j = 0; j < m; ++j) value += Real(d_[j]) * Real(h_[j]);
  exact.value = static_cast<double>(value);
  std::vector<double> all;
  for (std::size_t theta = 0; theta < count; ++theta) {
    Real total = theta < m ? Real(d_[theta]) : 0.0L;
    for (std::size_t i = 0; i < n; ++i) total += (w[i] - Real(c_[i])) * dw[theta][i];
    all.push_back(static_cast<double>(total));
    exact.jacobian.emplace_back(dw[theta].begin(), dw[theta].end());
  }
  std::size_t at = 0;
  for (const std::size_t size : {m, 2 * steps, steps, n}) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(at);
    exact.gradients.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(size));
    at += size;
  }
  return exact;
}

// d/dw of 1/2 w^2 - log(cosh(h w + c)) / h is w - tanh(h w + c).
Case fixed_point(double h, double c, std::int64_t steps) {
  Case result;
  result.name = "fixed point";
  result.h = {{"h", Tensor::scalar(h)}, {"c", Tensor::scalar(c)}};
  result.problem.steps = steps;
  result.problem.step = ht::optim::sgd({.rate = 0.5, .momentum = 0.25});
  result.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::full({1}, 0.9)}}; };
  result.problem.loss = [](const NamedTensors& w, const NamedTensors& hyper, const StepContext&) {
    const Tensor x = hyper["h"] * w["w"] + hyper["c"];
    return ht::sum(0.5 * ht::square(w["w"]) - ht::log(ht::exp(x) + ht::exp(-x)) / hyper["h"]);
  };
  result.outer = [](const NamedTensors& w, const NamedTensors& hyper) {
    return 0.5 * ht::sum(ht::square(w["w"] - 0.2)) + 0.3 * ht::square(hyper["h"]);
  };
  return result;
}

Exact fixed_point_exact(double h, double c) {
  long double low = -1.0L, high = 1.0L;
  for (int i = 0; i < 100; ++i) {
    const long double middle = 0.5L * (low + high);
    (middle < std::tanh(h * middle + c) ? low : high) = middle;
  }
  const long double w = 0.5L * (low + high), slope = 1.0L - w * w;
  const long double per_c = slope / (1.0L - h * slope), per_h = per_c * w;
  Exact exact;
  exact.value = static_cast<double>(0.5L * (w - 0.2L) * (w - 0.2L) + 0.3L * h * h);
  exact.parameters = {static_cast<double>(w)};
  exact.gradients = {{static_cast<double>((w - 0.2L) * per_h + 0.6L * h)},
                     {static_cast<double>((w - 0.2L) * per_c)}};
  return exact;
}

Case digits(const DigitsOptions& options) {
  static const ht::Dataset data = ht::builtin_digits();
  const std::int64_t training = options.batch * options.batches, validation = 90, steps = options.steps;
  const auto images = [&](std::int64_t first, std::int64_t count) {
    const auto begin = data.inputs.begin() + first * data.features;
    const Tensor x =
        Tensor::from(std::vector<double>(begin, begin + count * data.features), {count, data.features});
    return ladder::converted(x, options.dtype);
  };
  const auto labels = [&](std::int64_t first, std::int64_t count) {
    const auto begin = data.labels.begin() + first;
    return Tensor::from(std::vector<std::int64_t>(begin, begin + count), {count});
  };
  const Tensor x = images(0, training), y = labels(0, training);
  const Tensor x_outer = images(training, validation), y_outer = labels(training, validation);
  const ht::nn::Mlp net(options.sizes, ht::nn::Activation::tanh);
  const auto layers = static_cast<std::int64_t>(net.layers());
  const NamedTensors draws = net.standard_normal({3}, options.dtype);
  const std::vector<ht::Shape> shapes = draws.shapes();

  Case result;
  result.name = "digits, " + name_of(options.rule);
  std::vector<double> logits, scales;
  for (std::int64_t t = 0; t < steps; ++t)
    logits.push_back(std::log(options.momentum / (1.0 - options.momentum)) +
                     0.3 * std::sin(0.7 * static_cast<double>(t)));
  for (std::int64_t l = 0; l < layers; ++l)
    scales.push_back(-0.5 * std::log(static_cast<double>(options.sizes[static_cast<std::size_t>(l)])));
  const auto in_dtype = [&](const Tensor& tensor) { return ladder::converted(tensor, options.dtype); };
  result.h = {{"log_rates", Tensor::full({steps, layers}, std::log(options.rate), options.dtype)},
              {"momenta", in_dtype(Tensor::from(logits, {steps}))},
              {"log_init_scales", in_dtype(Tensor::from(scales, {layers}))},
              {"log_l2", Tensor::full({net.parameter_count()}, std::log(1e-3), options.dtype)}};

  ht::bilevel::Problem& problem = result.problem;
  problem.steps = steps;
  problem.per_step = {"rates", "momentum"};
  problem.step = step_of(options.rule, "rates", "momentum", net.layer_of_parameters());
  problem.prepare = [=](const NamedTensors& h) {
    NamedTensors prepared = {{"rates", ht::exp(h["log_rates"])},
                             {"momentum", 1.0 / (1.0 + ht::exp(-h["momenta"]))},
                             {"scales", ht::exp(h["log_init_scales"])}};
    const TensorList l2 = ht::unflatten(ht::exp(h["log_l2"]), shapes);
    for (std::size_t i = 0; i < l2.size(); ++i) prepared.add("l2 of " + draws.names()[i], l2[i]);
    return prepared;
  };
  problem.init = [=](const NamedTensors& h) {
    const TensorList scale = ht::unstack(h["scales"]);
    TensorList w = draws.tensors();
    for (std::size_t i = 0; i < w.size(); i += 2) w[i] = scale[i / 2] * w[i];
    return draws.with(std::move(w));
  };
  problem.loss = [=, batch = options.batch, batches = options.batches](
                     const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    const std::int64_t first = context.step % batches * batch;
    Tensor loss = ht::softmax_cross_entropy(net(w, ht::slice(x, 0, first, first + batch)),
                                            ht::slice(y, 0, first, first + batch));
    for (std::size_t i = 0; i < w.size(); ++i)
      loss = loss + 0.5 * ht::dot(h["l2 of " + w.names()[i]] * w.tensors()[i], w.tensors()[i]);
    return loss;
  };
  result.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return ht::softmax_cross_entropy(net(w, x_outer), y_outer);
  };
  return result;
}

double relative_error(const NamedTensors& a, const Gradients& b) {
  double worst = a.size() == b.size() ? 0.0 : 1.0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    std::vector<double> values(b[i].size(), 0.0);
    if (a.tensors()[i].defined()) values = ladder::elements(a.tensors()[i]);
    if (values.size() != b[i].size()) return 1.0;
    double difference = 0.0, norm = 0.0;
    for (std::size_t k = 0; k < values.size(); ++k) {
      difference += (values[k] - b[i][k]) * (values[k] - b[i][k]);
      norm += b[i][k] * b[i][k];
    }
    const double error = std::sqrt(difference / (norm > 0.0 ? norm : 1.0));
    if (!(error <= worst)) worst = error;  // keeps a NaN
  }
  return worst;
}

double relative_error(const NamedTensors& a, const NamedTensors& b) {
  Gradients values;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const Tensor& tensor = b.tensors()[i].defined() ? b.tensors()[i] : a.tensors().at(i);
    values.push_back(tensor.defined() ? ladder::elements(tensor) : std::vector<double>{});
    if (!b.tensors()[i].defined()) std::fill(values.back().begin(), values.back().end(), 0.0);
  }
  return relative_error(a, values);
}

NamedTensors random_direction(const NamedTensors& h, std::uint64_t seed) {
  TensorList direction;
  for (std::size_t i = 0; i < h.size(); ++i)
    direction.push_back(ht::random(h.tensors()[i].shape(), ht::Distribution::normal,
                                   {.seed = seed, .stream = static_cast<std::uint32_t>(i)},
                                   h.tensors()[i].dtype()));
  return h.with(std::move(direction));
}

std::vector<ht::bilevel::Estimator> reverse_methods(bool with_reversible) {
  using namespace ht::bilevel;
  std::vector<Estimator> methods = {Unrolled{}, Checkpointed{}, Checkpointed{1}, Checkpointed{2},
                                    Trajectory{}};
  if (with_reversible) methods.push_back(Reversible{});
  return methods;
}

}  // namespace bilevel_problems
