// Every method against closed forms, through the mutation gate, and against the other methods.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "bilevel_problems.h"
#include "ladder.h"
#include "mutation_gate.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using ht::bilevel::Checkpointed;
using ht::bilevel::Estimator;
using ht::bilevel::Forward;
using ht::bilevel::Hypergradient;
using ht::bilevel::Problem;
using ht::bilevel::Reversible;
using ht::bilevel::StepContext;
using ht::bilevel::Trajectory;
using ht::bilevel::Unrolled;
using ladder::same_bits;

bool is_invertible(Rule rule) { return rule == Rule::momentum || rule == Rule::dampened; }

// Fixed point truncates every number to 2^-52, and the trajectory with them.
double tolerance_of(const Estimator& estimator) { return estimator.name() == "reversible" ? 1e-11 : 1e-13; }

// The tolerances of the issue, for agreement between methods on real data.
constexpr double agreement = 1e-10;

Tensor run_with(const Case& problem, const Estimator& estimator, const TensorList& h) {
  const NamedTensors named = problem.h.with(h);
  return problem.outer(ht::bilevel::solve(problem.problem, named, estimator).parameters, named);
}

}  // namespace

TEST_CASE("bilevel: every method gives the closed form of the quadratic for every rule") {
  for (const Rule rule : all_rules)
    for (const std::int64_t steps : {2, 12}) {
      const Quadratic quadratic(steps, rule);
      const Case problem = quadratic.problem();
      const Exact exact = quadratic.exact();
      std::vector<Estimator> methods = reverse_methods(is_invertible(rule));
      methods.push_back(Forward{});
      for (const Estimator& method : methods) {
        const double tolerance = tolerance_of(method);
        const Hypergradient result =
            mutation_gate::expect_gated(problem, method, [&](const Hypergradient& candidate) {
              return relative_error(candidate.gradients, exact.gradients) < tolerance;
            });
        CAPTURE(problem.name);
        CAPTURE(method.name());
        CAPTURE(relative_error(result.gradients, exact.gradients));
        CHECK(result.value == doctest::Approx(exact.value).epsilon(tolerance));
        const std::vector<double>&c = exact.parameters, first = ladder::elements(result.parameters["first"]),
              second = ladder::elements(result.parameters["second"]);
        for (std::size_t i = 0; i < c.size(); ++i)
          CHECK((i < 3 ? first[i] : second[i - 3]) == doctest::Approx(c[i]).epsilon(tolerance));
        CHECK(result.status == ht::bilevel::ResultStatus::exact);
        CHECK(result.unused().empty());
        CHECK(result.method == method.name());
      }
    }
}

TEST_CASE("bilevel: truncated is the hypergradient of its last steps, started where the others ended") {
  for (const Rule rule : all_rules) {
    const std::int64_t steps = 9;
    const Case problem = Quadratic(steps, rule).problem();
    for (const std::int64_t kept : {1, 2, 5}) {
      // The oracle is another program: the same problem, started at the state reached by plain training.
      const Hypergradient tail = mutation_gate::with_less_work(problem, Unrolled{}, steps - kept);
      const auto error = [&](const Hypergradient& candidate) {
        return relative_error(candidate.gradients, tail.gradients);
      };
      const Hypergradient result = mutation_gate::expect_gated(
          problem, ht::bilevel::Truncated{kept}, [&](const Hypergradient& r) { return error(r) < 1e-13; },
          [&] { return problem.by(ht::bilevel::Truncated{kept + 1}); });
      CHECK(result.status == ht::bilevel::ResultStatus::approximate);
    }
  }
}

TEST_CASE("bilevel: training to the fixed point gives the implicit hypergradient") {
  const double h = 0.8, c = 0.3;
  const Exact exact = fixed_point_exact(h, c);
  const Case problem = fixed_point(h, c, 120);
  std::vector<Estimator> methods = reverse_methods();
  methods.push_back(Forward{});
  for (const Estimator& method : methods) {
    const Hypergradient result = mutation_gate::expect_gated(
        problem, method,
        [&](const Hypergradient& candidate) {
          return relative_error(candidate.gradients, exact.gradients) < 1e-10;
        },
        115);
    CHECK(result.value == doctest::Approx(exact.value).epsilon(1e-13));
    CHECK(result.parameters["w"].item() == doctest::Approx(exact.parameters[0]).epsilon(1e-12));
  }
}

TEST_CASE("bilevel: the mutation gate sees a check that proves nothing") {
  const Case problem = Quadratic(4, Rule::momentum).problem();
  const Hypergradient truth = problem.by(Unrolled{});
  const auto survivors_of = [&](const mutation_gate::Check& check) {
    return mutation_gate::survivors(problem, Unrolled{}, check, truth);
  };
  CHECK(survivors_of([](const Hypergradient&) { return true; }).size() == 7);
  // Scale-free checks, such as a cosine, let scaled hypergradients through.
  const auto cosine = [&](const Hypergradient& r) {
    const TensorList &a = r.gradients.tensors(), &b = truth.gradients.tensors();
    return ladder::pairing(a, b) > (1.0 - 1e-9) * ladder::norm(a) * ladder::norm(b) && ladder::norm(a) > 0;
  };
  CHECK(survivors_of(cosine) == std::vector<std::string>{"scaled by 1 + 1e-4", "scaled by 1 - 1e-4"});
  const auto loose = [&](const Hypergradient& r) {
    return relative_error(r.gradients, truth.gradients) < 1e-2;
  };
  CHECK(survivors_of(loose).size() == 2);
}

TEST_CASE("bilevel: checkpointed has the bits of unrolled at every budget") {
  for (const Rule rule : all_rules) {
    const Case problem = digits({.sizes = {64, 6, 10}, .steps = 11, .rule = rule});
    const Hypergradient reference = problem.by(Unrolled{});
    for (std::int64_t budget = 0; budget <= 14; ++budget) {
      CAPTURE(problem.name);
      CAPTURE(budget);
      const Hypergradient result = problem.by(Checkpointed{budget});
      CHECK(same_bits(result.gradients.tensors(), reference.gradients.tensors()));
      CHECK(same_bits(result.parameters.tensors(), reference.parameters.tensors()));
      CHECK(result.value == reference.value);
      CHECK(result.adjoint_growth == reference.adjoint_growth);
    }
    // One shared hyperparameter that is used by every step, by init and by the outer loss.
    const Case quadratic = Quadratic(9, rule).problem();
    for (std::int64_t budget = 1; budget <= 10; ++budget)
      CHECK(same_bits(quadratic.by(Checkpointed{budget}).gradients.tensors(),
                      quadratic.by(Unrolled{}).gradients.tensors()));
  }
}

TEST_CASE("bilevel: all methods agree on the digits, and with tangents along random directions") {
  for (const Rule rule : all_rules) {
    const Case problem = digits({.steps = 20, .rule = rule});
    CAPTURE(problem.name);
    const Hypergradient reference = problem.by(Unrolled{});
    mutation_gate::expect_gated(problem, Trajectory{}, [&](const Hypergradient& candidate) {
      return relative_error(candidate.gradients, reference.gradients) < agreement;
    });
    if (is_invertible(rule))
      mutation_gate::expect_gated(problem, Reversible{}, [&](const Hypergradient& candidate) {
        return relative_error(candidate.gradients, reference.gradients) < 1e-4;  // momenta are rounded
      });
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const NamedTensors direction = random_direction(problem.h, seed);
      const auto tangent =
          ht::bilevel::directional_derivative(problem.problem, problem.outer, problem.h, direction);
      const double expected = ladder::pairing(reference.gradients.tensors(), direction.tensors());
      CHECK(std::abs(tangent.derivative - expected) <
            agreement * ladder::norm(reference.gradients.tensors()) * ladder::norm(direction.tensors()));
      CHECK(tangent.value == reference.value);
    }
  }
}

TEST_CASE("bilevel: forward mode gives every hyperparameter of a small network") {
  Case problem = digits({.sizes = {64, 1, 10}, .steps = 4, .batch = 20, .batches = 1});
  const Hypergradient reference = problem.by(Unrolled{}), result = problem.by(Forward{});
  CHECK(relative_error(result.gradients, reference.gradients) < agreement);
  CHECK(same_bits(result.parameters.tensors(), reference.parameters.tensors()));
}

TEST_CASE("bilevel: the hypergradient is the derivative of the real training run") {
  for (const Rule rule : all_rules) {
    const Case problem = digits({.steps = 25, .rule = rule});
    CAPTURE(problem.name);
    const Hypergradient result = problem.by(Unrolled{});
    for (std::size_t i = 0; i < problem.h.size(); ++i) {
      CAPTURE(problem.h.names()[i]);
      const NamedTensors all = random_direction(problem.h, 5);
      const Tensor& direction = all.tensors()[i];
      const auto value = [&](double s) {
        const NamedTensors moved =
            problem.h.with(problem.h.names()[i], problem.h.tensors()[i] + s * direction);
        return problem.outer(ht::bilevel::train(problem.problem, moved).parameters, moved).item();
      };
      const Tensor& gradient = result.gradients.tensors()[i];
      // Adam's move g / (|g| + epsilon) bends sharply where a gradient changes sign; a small step meets few.
      CHECK(std::abs(ladder::ridders(value, is_adam(rule) ? 1e-3 : 0.02) -
                     ht::dot(gradient, direction).item()) <
            1e-8 * ladder::norm({gradient}) * ladder::norm({direction}));
    }
  }
}

TEST_CASE("bilevel: one and two threads give the same bits in every method") {
  const Case problem = digits({.sizes = {64, 300, 10}, .steps = 6, .batch = 100, .batches = 2});
  std::vector<Estimator> methods = reverse_methods();
  for (const Estimator& method : methods) {
    CAPTURE(method.name());
    const auto on = [&](int threads) {
      const ladder::Threads scope(threads);
      return problem.by(method);
    };
    const Hypergradient one = on(1), two = on(2);
    CHECK(same_bits(one.gradients.tensors(), two.gradients.tensors()));
    CHECK(same_bits(one.parameters.tensors(), two.parameters.tensors()));
    CHECK(same_bits(on(2).gradients.tensors(), two.gradients.tensors()));
  }
}

TEST_CASE("bilevel: a hyperparameter without a path to the outer loss is absent, never zeros") {
  Case problem = Quadratic(5, Rule::momentum).problem();
  problem.h.add("unused", Tensor::ones({2}));
  problem.h.add("unused per step", Tensor::ones({5, 2}));
  problem.h.add("outer only", Tensor::ones({2}));
  problem.problem.per_step.push_back("unused per step");
  problem.outer = [outer = problem.outer](const NamedTensors& w, const NamedTensors& h) {
    return outer(w, h) + ht::sum(h["outer only"]);
  };
  std::vector<Estimator> methods = reverse_methods();
  methods.push_back(Forward{});
  for (const Estimator& method : methods) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    CHECK(result.unused() == std::vector<std::string>{"unused", "unused per step"});
    CHECK(ladder::elements(result.gradients["outer only"]) == std::vector<double>{1.0, 1.0});
    // An outer loss that ignores the weights leaves the direct term alone.
    Case direct = problem;
    direct.outer = [](const NamedTensors&, const NamedTensors& h) { return ht::sum(ht::square(h["h"])); };
    const Hypergradient only = direct.by(method);
    CHECK(only.unused().size() == 6);
    CHECK(relative_error(NamedTensors{{"h", only.gradients["h"]}}, {{"h", 2.0 * problem.h["h"]}}) < 1e-15);
  }
}

TEST_CASE("bilevel: a per-step hyperparameter that only some steps use") {
  Case problem = Quadratic(6, Rule::momentum).problem();
  problem.h.add("pushes", ladder::sample({6, 5}, -1.0, 1.0, 3));
  problem.problem.per_step.push_back("pushes");
  problem.problem.loss = [loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                       const StepContext& context) {
    const Tensor plain = loss(w, h, context);
    if (context.step % 3 != 1) return plain;
    return plain + ht::dot(h["pushes"], ht::flatten(w.tensors(), w.shapes()));
  };
  const Hypergradient reference = problem.by(Unrolled{});
  std::vector<Estimator> methods = reverse_methods();
  methods.push_back(Forward{});
  for (const Estimator& method : methods) {
    CAPTURE(method.name());
    mutation_gate::expect_gated(problem, method, [&](const Hypergradient& candidate) {
      return relative_error(candidate.gradients, reference.gradients) < tolerance_of(method);
    });
    const std::vector<double> pushes = ladder::elements(problem.by(method).gradients["pushes"]);
    for (std::size_t k = 0; k < pushes.size(); ++k) CHECK((pushes[k] != 0.0) == (k / 5 % 3 == 1));
  }
}

TEST_CASE("bilevel: hyperparameters that the loss, the step, init and the outer loss all read") {
  for (const bool shared : {false, true}) {
    Case problem = Quadratic(6, Rule::momentum).problem();
    if (shared) {
      problem.h = problem.h.with("rates", Tensor::from({0.1, 0.2})).with("momenta", Tensor::scalar(0.75));
      problem.problem.per_step.clear();
    }
    problem.problem.loss = [loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                         const StepContext& context) {
      const Tensor decay = ht::square(h["momenta"]) + ht::sum(h["rates"]);
      return loss(w, h, context) + decay * ht::sum(ht::square(w["first"]));
    };
    problem.problem.init = [init = problem.problem.init](const NamedTensors& h) {
      const NamedTensors w = init(h);
      return w.with("first", w["first"] * ht::mean(h["momenta"]));
    };
    problem.outer = [outer = problem.outer](const NamedTensors& w, const NamedTensors& h) {
      return outer(w, h) * ht::mean(ht::exp(h["rates"])) + ht::sum(ht::square(h["momenta"]));
    };
    const Hypergradient reference = problem.by(Unrolled{});
    const NamedTensors direction = random_direction(problem.h, 6);
    const auto value = [&](double s) {
      TensorList moved;
      for (std::size_t i = 0; i < problem.h.size(); ++i)
        moved.push_back(problem.h.tensors()[i] + s * direction.tensors()[i]);
      const NamedTensors h = problem.h.with(moved);
      return problem.outer(ht::bilevel::train(problem.problem, h).parameters, h).item();
    };
    CHECK(ladder::ridders(value, 0.01) ==
          doctest::Approx(ladder::pairing(reference.gradients.tensors(), direction.tensors())).epsilon(1e-8));
    std::vector<Estimator> methods = reverse_methods();
    methods.push_back(Forward{});
    for (const Estimator& method : methods) {
      mutation_gate::expect_gated(problem, method, [&](const Hypergradient& candidate) {
        return relative_error(candidate.gradients, reference.gradients) < tolerance_of(method);
      });
      if (method.name() == "checkpointed")
        CHECK(same_bits(problem.by(method).gradients.tensors(), reference.gradients.tensors()));
    }
  }
}

TEST_CASE("bilevel: the adjoint's growth is that of the closed form") {
  for (const Rule rule : all_rules) {
    const Quadratic quadratic(12, rule);
    const Case problem = quadratic.problem();
    const Exact exact = quadratic.exact();
    const TensorList end = ht::grad(
        [&](const TensorList& w) {
          return problem.outer(problem.by(Unrolled{}).parameters.with(w), problem.h);
        },
        problem.by(Unrolled{}).parameters.tensors());
    double start = 0.0;
    for (const double each : exact.gradients[3]) start += each * each;
    for (const Estimator& method : reverse_methods(is_invertible(rule)))
      CHECK(problem.by(method).adjoint_growth ==
            doctest::Approx(std::sqrt(start) / ladder::norm(end)).epsilon(1e-11));
  }
}

TEST_CASE("bilevel: second derivatives through unrolled are those of dual numbers of dual numbers") {
  for (const Rule rule : all_rules) {
    const Quadratic quadratic(7, rule);
    const Case problem = quadratic.problem();
    CAPTURE(problem.name);
    const auto objective = [&](const TensorList& h) { return run_with(problem, Unrolled{}, h); };
    const NamedTensors direction = random_direction(problem.h, 4);
    const Gradients expected = quadratic.hessian_vector(direction);
    const auto check = [&](const TensorList& hessian_vector) {
      CHECK(relative_error(problem.h.with(hessian_vector), expected) < 1e-12);
    };
    const auto slope = [&](const TensorList& h) {
      const TensorList g = ht::grad(objective, h);
      Tensor total = ht::dot(g[0], direction.tensors()[0]);
      for (std::size_t i = 1; i < g.size(); ++i) total = total + ht::dot(g[i], direction.tensors()[i]);
      return total;
    };
    check(ht::grad(slope, problem.h.tensors()));
    check(ht::hvp(objective, problem.h.tensors(), direction.tensors()));
    // F is quadratic in (h, start) for rules that are linear in the gradient: there d2F = J'J, J = dw_T.
    if (rule == Rule::tanh_momentum || is_adam(rule)) continue;
    const Exact exact = quadratic.exact();
    NamedTensors linear = direction.with("rates", Tensor::zeros({7, 2})).with("momenta", Tensor::zeros({7}));
    if (rule == Rule::decayed)
      linear = linear.with("dampening", Tensor::scalar(0.0)).with("decay", Tensor::zeros({2}));
    const std::size_t first_start = 3 + 3 * 7;
    std::vector<double> along(5, 0.0);  // J u
    for (std::size_t i = 0; i < 5; ++i) {
      for (std::size_t k = 0; k < 3; ++k) along[i] += exact.jacobian[k][i] * ladder::elements(linear["h"])[k];
      for (std::size_t k = 0; k < 5; ++k)
        along[i] += exact.jacobian[first_start + k][i] * ladder::elements(linear["start"])[k];
    }
    const Gradients products = quadratic.hessian_vector(linear);
    for (std::size_t k = 0; k < 8; ++k) {
      double product = 0.0;
      for (std::size_t i = 0; i < 5; ++i)
        product += exact.jacobian[k < 3 ? k : first_start + k - 3][i] * along[i];
      CHECK((k < 3 ? products[0][k] : products[3][k - 3]) == doctest::Approx(product).epsilon(1e-12));
    }
  }
}

TEST_CASE("bilevel: mixed second derivatives of a training run are symmetric") {
  const Case problem = digits({.sizes = {64, 4, 10}, .steps = 5, .batch = 20, .batches = 2});
  const auto objective = [&](const TensorList& h) { return run_with(problem, Unrolled{}, h); };
  const TensorList u = random_direction(problem.h, 1).tensors(), v = random_direction(problem.h, 2).tensors();
  for (std::size_t i = 0; i < u.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      TensorList only_u(u.size()), only_v(v.size());
      only_u[i] = u[i];
      only_v[j] = v[j];
      const auto slope = [&](const TensorList& h) { return ht::dot(ht::grad(objective, h)[i], u[i]); };
      const double ij = ht::dot(ht::grad(slope, problem.h.tensors())[j], v[j]).item();
      const double ji = ht::dot(ht::hvp(objective, problem.h.tensors(), only_v)[i], u[i]).item();
      CHECK(ij != 0.0);
      CHECK(ij == doctest::Approx(ji).epsilon(1e-10));
    }
  // And equal to the difference of two analytic hypergradients.
  const TensorList hv = ht::hvp(objective, problem.h.tensors(), u);
  const auto gradient_along = [&](double s) {
    TensorList moved;
    for (std::size_t i = 0; i < u.size(); ++i) moved.push_back(problem.h.tensors()[i] + s * u[i]);
    Case there = problem;
    there.h = problem.h.with(moved);
    return ladder::pairing(there.by(Trajectory{}).gradients.tensors(), v);
  };
  CHECK(std::abs(ladder::ridders(gradient_along, 0.02) - ladder::pairing(hv, v)) <
        1e-7 * ladder::norm(hv) * ladder::norm(v));
}

TEST_CASE("bilevel: what is differentiable once says so when differentiated twice") {
  const Case problem = Quadratic(3, Rule::momentum).problem();
  for (const Estimator& method : reverse_methods()) {
    if (method.name() == "unrolled") continue;
    CAPTURE(method.name());
    const auto objective = [&](const TensorList& h) { return run_with(problem, method, h); };
    const auto slope = [&](const TensorList& h) { return ht::dot(ht::grad(objective, h)[0], h[0]); };
    const std::string twice = thrown([&] { ht::grad(slope, problem.h.tensors()); });
    CHECK(contains(twice, "differentiable once"));
    CHECK(contains(twice, method.name()));
    const std::string tangents =
        thrown([&] { ht::jvp(objective, problem.h.tensors(), random_direction(problem.h, 1).tensors()); });
    CHECK(contains(tangents, method.name()));
    CHECK(ht::grad(objective, problem.h.tensors())[0].defined());
  }
  const auto forward = [&](const TensorList& h) { return run_with(problem, Forward{}, h); };
  CHECK(contains(thrown([&] { ht::grad(forward, problem.h.tensors()); }), "[forward]"));
}

TEST_CASE("bilevel: pre-training inside fine-tuning's init is differentiated by any two methods") {
  const Case base = Quadratic(6, Rule::momentum).problem();
  const auto staged = [&](const Estimator& first, const Estimator& second) {
    Case problem = base;
    problem.name = "pre-training by " + first.name();
    problem.h.add("targets", ladder::sample({5}, -1.0, 1.0, 8));
    problem.problem.init = [=](const NamedTensors& h) {
      Problem pre_training = base.problem;
      pre_training.loss = [](const NamedTensors& w, const NamedTensors& all, const StepContext&) {
        const Tensor difference = ht::flatten(w.tensors(), w.shapes()) - all["targets"];
        return 0.01 * ht::sum(ht::square(ht::square(difference))) + ht::dot(all["h"], all["h"]);
      };
      return ht::bilevel::solve(pre_training, h, first).parameters;
    };
    return std::pair(problem, second);
  };
  const auto unrolled = staged(Unrolled{}, Unrolled{});
  const Case& reference_case = unrolled.first;
  const Hypergradient reference = reference_case.by(unrolled.second);
  const auto value = [&](double s) {
    const NamedTensors moved = reference_case.h.with(
        "targets", reference_case.h["targets"] + s * Tensor::from({1.0, -2.0, 0.5, 1.0, 3.0}));
    return reference_case.outer(ht::bilevel::train(reference_case.problem, moved).parameters, moved).item();
  };
  const double slope =
      ht::dot(reference.gradients["targets"], Tensor::from({1.0, -2.0, 0.5, 1.0, 3.0})).item();
  CHECK(ladder::ridders(value, 0.02) == doctest::Approx(slope).epsilon(1e-8));
  for (const Estimator& first : reverse_methods())
    for (const Estimator& second : reverse_methods()) {
      const auto [problem, method] = staged(first, second);
      CAPTURE(first.name());
      CAPTURE(second.name());
      const Hypergradient result = problem.by(method);
      CHECK(relative_error(result.gradients, reference.gradients) < 1e-10);
      if (first.name() == "unrolled" && second.name() == "unrolled")
        CHECK(same_bits(result.gradients.tensors(), reference.gradients.tensors()));
    }
  const auto [forward_case, forward] = staged(Forward{}, Forward{});
  CHECK(relative_error(forward_case.by(forward).gradients, reference.gradients) < 1e-10);
}

TEST_CASE("bilevel: a kept pullback gives the same bits again, buffers' cotangents included") {
  const Case problem = digits({.sizes = {64, 5, 10}, .steps = 7});
  for (const Estimator& method : reverse_methods()) {
    CAPTURE(method.name());
    auto [end, pullback] = ht::vjp(
        [&](const TensorList& h) {
          const auto solution = ht::bilevel::solve(problem.problem, problem.h.with(h), method);
          TensorList all = solution.parameters.tensors();
          all.insert(all.end(), solution.buffers.begin(), solution.buffers.end());
          return all;
        },
        problem.h.tensors());
    TensorList u, v(end.size());
    for (const Tensor& each : end) u.push_back(ladder::sample(each.shape(), -1.0, 1.0, 2));
    v.back() = u.back();
    const TensorList once = pullback(u), other = pullback(v);
    CHECK(same_bits(pullback(u), once));
    CHECK(same_bits(pullback(v), other));
    CHECK(ladder::norm(other) > 0.0);
    CHECK(same_bits(pullback.consume(u), once));
  }
}
