#include "bilevel_problems.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "data.h"
#include "ladder.h"
#include "long_dual.h"

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
  constexpr std::array names = {"momentum", "dampened", "tanh momentum", "slow weights",
                                "nesterov", "decayed",  "adam",          "adamw"};
  return names[static_cast<std::size_t>(rule)];
}

ht::optim::Step step_of(Rule rule, const std::string& rate, const std::string& momentum,
                        const std::vector<std::int64_t>& rate_groups, const ExtraSettings& extra) {
  if (is_adam(rule))
    return ht::optim::adam({.rate = rate,
                            .beta1 = momentum,
                            .beta2 = extra.beta2,
                            .epsilon = extra.epsilon,
                            .weight_decay = extra.decay,
                            .decoupled = rule == Rule::adamw,
                            .rate_groups = rate_groups});
  if (rule != Rule::tanh_momentum && rule != Rule::slow_weights) {
    ht::optim::SgdOptions options{.rate = rate, .momentum = momentum, .rate_groups = rate_groups};
    options.dampened = rule == Rule::dampened;
    options.nesterov = rule == Rule::nesterov;
    if (rule == Rule::decayed) {
      options.dampening = extra.dampening;
      options.weight_decay = extra.decay;
    }
    return ht::optim::sgd(options);
  }
  ht::optim::Step step;
  step.name = name_of(rule);
  step.initial_buffers = [rule](const TensorList& w) {
    if (rule == Rule::slow_weights) return w;
    TensorList zeros;
    for (const Tensor& each : w) zeros.push_back(Tensor::zeros(each.shape(), each.dtype()));
    return zeros;
  };
  step.update = [=](const ht::optim::State& state, const TensorList& g, const NamedTensors& h) {
    const std::vector<Tensor> rates = rates_for(h[rate], rate_groups);
    ht::optim::State next;
    for (std::size_t i = 0; i < g.size(); ++i) {
      const Tensor &w = state.parameters[i], &buffer = state.buffers[i];
      if (rule == Rule::tanh_momentum) {
        next.buffers.push_back(scaled(h[momentum], buffer) + ht::tanh(g[i]));
        next.parameters.push_back(w - scaled(rates[i], next.buffers[i]));
      } else {
        const Tensor fast = w - scaled(rates[i], g[i]);
        next.buffers.push_back(buffer + scaled(h[momentum], fast - buffer));
        next.parameters.push_back(fast + slow_pull * (next.buffers[i] - fast));
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
  const auto count = static_cast<std::size_t>(steps);
  const auto add = [this](const char* name, std::vector<std::int64_t> extents, std::vector<double> values) {
    groups_.push_back({name, std::move(extents), std::move(values)});
  };
  add("h", {m}, numbers.take(m, 1.0));
  const std::vector<double> start = numbers.take(n, 1.0, 2.0);
  add("rates", {steps, 2}, numbers.take(2 * count, 0.05, 0.15));
  add("momenta", {steps}, numbers.take(count, 0.2, 0.6));
  for (double& each : groups_.back().values) each = std::round(each * 65536.0) / 65536.0;
  add("start", {n}, start);
  if (rule == Rule::decayed) add("dampening", {}, {0.3});
  if (is_decayed(rule)) add("decay", {2}, {0.2, 0.05});
  if (!is_adam(rule)) return;
  add("beta2", {steps}, numbers.take(count, 0.1, 0.8));
  add("epsilon", {}, {0.04});
}

Case Quadratic::problem() const {
  const auto extent = [](std::size_t size) { return static_cast<std::int64_t>(size); };
  const Tensor a = Tensor::from(a_, {extent(n), extent(n)}), b = Tensor::from(b_, {extent(n)}),
               b_matrix = Tensor::from(b_matrix_, {extent(n), extent(m)}), c = Tensor::from(c_, {extent(n)}),
               d = Tensor::from(d_, {extent(m)});
  const std::vector<ht::Shape> shapes = {{3}, {2}};
  Case result;
  result.name = "quadratic, " + name_of(rule_);
  for (const Group& each : groups_)
    result.h.add(each.name, Tensor::from(each.values, ht::Shape(std::span(each.extents))));
  ht::bilevel::Problem& problem = result.problem;
  problem.steps = steps_;
  problem.per_step = {"rates", "momenta"};
  if (is_adam(rule_)) problem.per_step.push_back("beta2");
  problem.step = step_of(rule_, "rates", "momenta", {0, 1}, {"dampening", "decay", "beta2", "epsilon"});
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

// The formulas of the rules, one weight at a time.
template <class Number>
Quadratic::Trained<Number> Quadratic::train(const std::vector<Number>& theta) const {
  using long_dual::Real;
  const auto steps = static_cast<std::size_t>(steps_);
  const auto offset = [this](const char* name) {
    std::size_t at = 0;
    for (const Group& each : groups_) {
      if (each.name == name) return at;
      at += each.values.size();
    }
    return at;
  };
  const Number one = Real(1);
  const Number* const h = theta.data();
  const Number* const rates = h + offset("rates");
  const Number* const momenta = h + offset("momenta");
  const Number* const dampening = h + offset("dampening");
  const Number* const decays = h + offset("decay");
  const Number* const betas2 = h + offset("beta2");
  const Number* const epsilon = h + offset("epsilon");
  std::vector<Number> w(h + offset("start"), h + offset("start") + n), s(n), squares(n);
  if (rule_ == Rule::slow_weights) s = w;
  Number product1 = one, product2 = one;
  for (std::size_t t = 0; t < steps; ++t) {
    std::vector<Number> gradient(n);
    for (std::size_t i = 0; i < n; ++i) {
      gradient[i] = -Real(b_[i]);
      for (std::size_t j = 0; j < n; ++j) gradient[i] = gradient[i] + Number(Real(a_[i * n + j])) * w[j];
      for (std::size_t j = 0; j < m; ++j)
        gradient[i] = gradient[i] - Number(Real(b_matrix_[i * m + j])) * h[j];
    }
    const Number mu = momenta[t];
    if (is_adam(rule_)) {
      product1 = product1 * mu;
      product2 = product2 * betas2[t];
    }
    for (std::size_t i = 0; i < n; ++i) {
      const Number r = rates[2 * t + group[i]];
      Number g = gradient[i];
      if (rule_ == Rule::slow_weights) {
        const Number fast = w[i] - r * g;
        s[i] = s[i] + mu * (fast - s[i]);
        w[i] = fast + Number(Real(slow_pull)) * (s[i] - fast);
        continue;
      }
      if (is_adam(rule_)) {
        if (rule_ == Rule::adam)
          g = g + decays[group[i]] * w[i];
        else
          w[i] = w[i] - r * decays[group[i]] * w[i];
        s[i] = mu * s[i] + (one - mu) * g;
        squares[i] = betas2[t] * squares[i] + (one - betas2[t]) * g * g;
        w[i] = w[i] - r * (s[i] / (one - product1)) / (sqrt(squares[i] / (one - product2)) + *epsilon);
        continue;
      }
      if (rule_ == Rule::decayed) g = (one - *dampening) * (g + decays[group[i]] * w[i]);
      if (rule_ == Rule::dampened) g = (one - mu) * g;
      if (rule_ == Rule::tanh_momentum) g = tanh(g);
      s[i] = mu * s[i] + g;
      w[i] = w[i] - r * (rule_ == Rule::nesterov ? mu * s[i] + g : s[i]);
    }
  }
  Number value = Real(0);
  for (std::size_t i = 0; i < n; ++i) {
    const Number difference = w[i] - Number(Real(c_[i]));
    value = value + Number(Real(0.5)) * difference * difference;
  }
  for (std::size_t j = 0; j < m; ++j) value = value + Number(Real(d_[j])) * h[j];
  return {std::move(w), value};
}

std::vector<double> Quadratic::theta() const {
  std::vector<double> all;
  for (const Group& each : groups_) all.insert(all.end(), each.values.begin(), each.values.end());
  return all;
}

Gradients Quadratic::in_groups(const std::vector<double>& all) const {
  Gradients result;
  auto next = all.begin();
  for (const Group& each : groups_) {
    const auto end = next + static_cast<std::ptrdiff_t>(each.values.size());
    result.emplace_back(next, end);
    next = end;
  }
  return result;
}

Exact Quadratic::exact() const {
  using long_dual::First;
  const std::vector<double> at = theta();
  Exact exact;
  std::vector<double> all;
  for (std::size_t k = 0; k < at.size(); ++k) {
    std::vector<First> numbers(at.begin(), at.end());
    numbers[k].slope = 1.0L;
    const Trained<First> trained = train(numbers);
    all.push_back(static_cast<double>(trained.value.slope));
    std::vector<double>& column = exact.jacobian.emplace_back();
    exact.parameters.clear();
    for (const First& each : trained.w) {
      column.push_back(static_cast<double>(each.slope));
      exact.parameters.push_back(static_cast<double>(each.value));
    }
    exact.value = static_cast<double>(trained.value.value);
  }
  exact.gradients = in_groups(all);
  return exact;
}

Gradients Quadratic::hessian_vector(const NamedTensors& direction) const {
  using long_dual::First;
  using long_dual::Second;
  std::vector<double> along, all;
  for (const Tensor& each : direction.tensors())
    for (const double x : ladder::elements(each)) along.push_back(x);
  const std::vector<double> at = theta();
  for (std::size_t k = 0; k < at.size(); ++k) {
    std::vector<Second> numbers;
    for (std::size_t i = 0; i < at.size(); ++i)
      numbers.emplace_back(First(at[i], along[i]), First(i == k ? 1.0L : 0.0L));
    all.push_back(static_cast<double>(train(numbers).value.slope.slope));
  }
  return in_groups(all);
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
    std::vector<double> pixels(begin, begin + count * data.features);
    for (double& pixel : pixels) pixel /= 16.0;
    return ladder::converted(Tensor::from(pixels, {count, data.features}), options.dtype);
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
  // Adam moves every weight by about its rate, whatever the gradient.
  const double rate = is_adam(options.rule) ? 0.05 * options.rate : options.rate;
  result.h = {{"log_rates", Tensor::full({steps, layers}, std::log(rate), options.dtype)},
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
