// Bilevel problems whose hypergradients are known, and one on real data.
//
// The closed forms are computed here by dense loops in long double that share nothing with the library: a
// tangent per scalar hyperparameter, or bisection and the implicit function theorem.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/nn/layers.h>

namespace bilevel_problems {

using hypertape::NamedTensors;
using hypertape::Tensor;
using hypertape::TensorList;

/// Everything that `hypergradient` takes but the estimator.
struct Case {
  std::string name;
  hypertape::bilevel::Problem problem;
  hypertape::bilevel::OuterLoss outer;
  NamedTensors h;

  hypertape::bilevel::Hypergradient by(const hypertape::bilevel::Estimator& estimator) const {
    return hypertape::bilevel::hypergradient(problem, outer, h, estimator);
  }
};

/// One vector per hyperparameter, in the order of h.
using Gradients = std::vector<std::vector<double>>;

struct Exact {
  double value = 0.0;
  std::vector<double> parameters;  ///< w_T
  Gradients gradients;
  /// d w_T / d theta for every scalar hyperparameter theta, in the order of h.
  std::vector<std::vector<double>> jacobian;
};

/// How a training step moves (w, s), given the gradient g, rate r and momentum m.
enum class Rule : std::uint8_t {
  momentum,       ///< v <- m v + g;  w <- w - r v
  dampened,       ///< v <- m v + (1 - m) g;  w <- w - r v
  tanh_momentum,  ///< v <- m v + tanh(g);  w <- w - r v: no gradient_cotangent, no inverse
  slow_weights,   ///< u = w - r g;  s <- s + m (u - s);  w <- u + 0.3 (s - u), with s = w at the start
  nesterov,       ///< v <- m v + g;  w <- w - r (m v + g)
  decayed,        ///< p = (1 - dampening) (g + decay w);  v <- m v + p;  w <- w - r v
  adam,           ///< Adam with beta1 = m, beta2, epsilon; decay w added to the gradient
  adamw           ///< the same with decoupled decay
};
inline constexpr Rule all_rules[] = {Rule::momentum, Rule::dampened, Rule::tanh_momentum, Rule::slow_weights,
                                     Rule::nesterov, Rule::decayed,  Rule::adam,          Rule::adamw};
std::string name_of(Rule rule);
constexpr bool is_adam(Rule rule) { return rule == Rule::adam || rule == Rule::adamw; }
constexpr bool is_decayed(Rule rule) { return rule == Rule::decayed || is_adam(rule); }

/// What some rules read besides rate and momentum.
struct ExtraSettings {
  hypertape::optim::Setting dampening = 0.25, decay = 0.01, beta2 = 0.99, epsilon = 1e-3;
};

/// The step that follows `rule`, reading hyperparameters of these names.
hypertape::optim::Step step_of(Rule rule, const std::string& rate, const std::string& momentum,
                               const std::vector<std::int64_t>& rate_groups, const ExtraSettings& extra = {});

/// f(w, h) = 1/2 w'Aw - w'(b + Bh);  F = 1/2 |w - c|^2 + d'h, with w in two tensors of 3 and 2 elements.
/// Hyperparameters: h (3); rates (T, 2), one per step and tensor; momenta (T), multiples of 2^-16; start (5);
/// where the rule has them also dampening (), decay (2), one per tensor, beta2 (T) and epsilon ().
class Quadratic {
 public:
  Quadratic(std::int64_t steps, Rule rule);
  Case problem() const;
  Exact exact() const;
  /// (d2F/dh2) direction, over all hyperparameters together.
  Gradients hessian_vector(const NamedTensors& direction) const;

 private:
  struct Group {
    std::string name;
    std::vector<std::int64_t> extents;
    std::vector<double> values;
  };
  template <class Number>
  struct Trained {
    std::vector<Number> w;
    Number value;
  };
  template <class Number>
  Trained<Number> train(const std::vector<Number>& theta) const;
  /// The hyperparameters' elements in the order of h, as numbers without slope.
  std::vector<double> theta() const;
  Gradients in_groups(const std::vector<double>& all) const;

  std::int64_t steps_;
  Rule rule_;
  std::vector<double> a_, b_matrix_, b_, c_, d_;
  std::vector<Group> groups_;
};

/// Training whose fixed point is w = tanh(h w + c), run until it no longer moves; F = 1/2 (w - 0.2)^2 +
/// 0.3 h^2. Hyperparameters: h, c, of rank 0.
Case fixed_point(double h, double c, std::int64_t steps);
/// w by bisection, the gradients by the implicit function theorem.
Exact fixed_point_exact(double h, double c);

struct DigitsOptions {
  std::vector<std::int64_t> sizes = {64, 8, 10};
  std::int64_t steps = 10;
  std::int64_t batch = 30;
  std::int64_t batches = 3;
  double rate = 0.2;
  /// Momenta change over the steps around this one; 0 makes them the constant below.
  double momentum = 0.8;
  Rule rule = Rule::momentum;
  hypertape::Dtype dtype = hypertape::Dtype::float64;
};
/// A tanh network on a slice of the digits. Hyperparameters: log_rates (T, layers), momenta (T) as logits,
/// log_init_scales (layers), log_l2 (weights).
Case digits(const DigitsOptions& options = {});

/// |a - b| / |b| of the worst hyperparameter, absent tensors counting as zeros; absolute where b is zero.
double relative_error(const NamedTensors& a, const Gradients& b);
double relative_error(const NamedTensors& a, const NamedTensors& b);

/// Independent normal draws shaped like h.
NamedTensors random_direction(const NamedTensors& h, std::uint64_t seed);

/// Methods that differentiate a run in reverse; all but `reversible` work with every step.
std::vector<hypertape::bilevel::Estimator> reverse_methods(bool with_reversible = true);

}  // namespace bilevel_problems
