#include "ladder.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/random.h>

namespace ladder {

using hypertape::Dtype;
using hypertape::grad;
using hypertape::jvp;
using hypertape::linearize;
using hypertape::vjp;

namespace {

bool differentiable(const Tensor& x) { return x.defined() && hypertape::is_floating(x.dtype()); }

// Random normal tensors like those of `list`; absent where there is nothing to differentiate.
TensorList random_like(const TensorList& list, std::uint64_t seed) {
  TensorList result(list.size());
  for (std::size_t i = 0; i < list.size(); ++i)
    if (differentiable(list[i]))
      result[i] = converted(hypertape::random(list[i].shape(), hypertape::Distribution::normal,
                                              {seed, static_cast<std::uint32_t>(i), 7}),
                            list[i].dtype());
  return result;
}

// The same, with elements in [-1, 1]: directions that leave no element's neighbourhood.
TensorList direction_like(const TensorList& list, std::uint64_t seed) {
  TensorList result(list.size());
  for (std::size_t i = 0; i < list.size(); ++i)
    if (differentiable(list[i]))
      result[i] = converted(sample(list[i].shape(), -1, 1, seed + 100 * static_cast<std::uint64_t>(i)),
                            list[i].dtype());
  return result;
}

// x + t v, computed outside the library.
TensorList moved(const TensorList& x, const TensorList& v, double t) {
  TensorList result = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!v[i].defined()) continue;
    std::vector<double> values = elements(x[i]);
    const std::vector<double> step = elements(v[i]);
    for (std::size_t k = 0; k < values.size(); ++k) values[k] += t * step[k];
    result[i] = Tensor::from(values, x[i].shape());
  }
  return result;
}

// The same elements somewhere else in memory: axes turned around, backwards, or with gaps between them.
Tensor relaid(const Tensor& x, std::uint64_t choice) {
  const int rank = x.rank();
  if (rank == 0 || x.size() == 0) return x;
  const std::int64_t axis = static_cast<std::int64_t>(choice) % rank, extent = x.extent(axis);
  switch (choice / 8 % 4) {
    case 0:
      return hypertape::transpose(hypertape::contiguous(hypertape::transpose(x)));
    case 1:
      return hypertape::flip(hypertape::contiguous(hypertape::flip(x, {axis})), {axis});
    case 2:
      return hypertape::slice(hypertape::repeat(x, 2, axis), axis, 1, 2 * extent, 2);
    default:
      return hypertape::slice(hypertape::concatenate({x, x}, axis), axis, extent, 2 * extent);
  }
}
TensorList relaid(const TensorList& list, std::uint64_t choice) {
  TensorList result;
  for (std::size_t i = 0; i < list.size(); ++i)
    result.push_back(list[i].defined() ? relaid(list[i], choice + 9 * i) : list[i]);
  return result;
}

// v and w as a block of two tangents.
TensorList stacked(const TensorList& v, const TensorList& w) {
  TensorList result(v.size());
  for (std::size_t i = 0; i < v.size(); ++i)
    if (v[i].defined()) result[i] = hypertape::stack({v[i], w[i]});
  return result;
}
TensorList unstacked(const TensorList& block, std::size_t row) {
  TensorList result(block.size());
  for (std::size_t i = 0; i < block.size(); ++i)
    if (block[i].defined()) result[i] = hypertape::unstack(block[i])[row];
  return result;
}

// <a, b> as a tensor, for functions that are differentiated again.
Tensor paired(const TensorList& a, const TensorList& b) {
  Tensor total = Tensor::scalar(0.0);
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].defined() && b[i].defined()) total = total + hypertape::dot(a[i], b[i]);
  return total;
}

struct Case {
  const std::string& name;
  const Function& f;
  const TensorList& x;
  const Options& options;
  TensorList values, u, v, w, c;

  Case(const std::string& name_, const Function& f_, const TensorList& x_, const Options& options_)
      : name(name_), f(f_), x(x_), options(options_) {
    values = f(x);
    u = random_like(values, options.seed + 11);
    c = random_like(values, options.seed + 12);
    v = direction_like(x, options.seed + 13);
    w = direction_like(x, options.seed + 14);
  }

  Tensor phi(const TensorList& at) const {
    const TensorList y = f(at);
    Tensor total = Tensor::scalar(0.0);
    for (std::size_t k = 0; k < y.size(); ++k)
      if (c[k].defined()) total = total + hypertape::dot(c[k], y[k] * ((y[k] * 0.05 + 0.3) * y[k] + 1.0));
    return total;
  }
  TensorList gradient(const TensorList& at) const {
    return grad([this](const TensorList& z) { return phi(z); }, at);
  }
  TensorList hessian_times(const TensorList& at, const TensorList& direction) const {
    return jvp([this](const TensorList& z) { return gradient(z); }, at, direction).second;
  }

  void equal(const char* what, const TensorList& got, const TensorList& expected) const {
    CHECK_MESSAGE(same_bits(got, expected), name << ": bits differ: " << std::string(what) << ", by "
                                                 << difference(got, expected) << ", seed " << options.seed);
  }
  void below(const char* what, double error, double unit, double tolerance) const {
    const bool holds = error <= tolerance * unit;
    CHECK_MESSAGE(holds, name << ": " << std::string(what) << ": error " << error << " in units of " << unit
                              << ", tolerance " << tolerance << ", seed " << options.seed);
  }
};

void check_first_order(const Case& at, bool extrapolate) {
  const TensorList jv = jvp(at.f, at.x, at.v).second;
  const auto [values, pullback] = vjp(at.f, at.x);
  const TensorList ju = pullback(at.u);
  const double forward = pairing(at.u, jv), reverse = pairing(ju, at.v);
  // The last: derivatives may cancel altogether, their terms do not.
  const double unit =
      std::max({norm(at.u) * norm(jv), norm(ju) * norm(at.v), 1e-3 * norm(at.u) * norm(at.v)});
  at.below("<u, J v> = <J' u, v>", std::abs(forward - reverse), unit, 1e-12);
  const auto linear = linearize(at.f, at.x).second;
  at.equal("linearize", linear(at.v), jv);
  if (std::all_of(at.x.begin(), at.x.end(), [](const Tensor& x) { return x.rank() < hypertape::max_rank; })) {
    const TensorList block = linear.block(stacked(at.v, at.w));
    at.equal("the first of a block of tangents", unstacked(block, 0), jv);
    at.equal("the second of a block of tangents", unstacked(block, 1), jvp(at.f, at.x, at.w).second);
  }
  for (std::size_t i = 0; i < at.x.size(); ++i) {
    if (!ju[i].defined()) continue;
    CHECK_MESSAGE((ju[i].shape() == at.x[i].shape() && ju[i].dtype() == at.x[i].dtype()),
                  at.name << ": gradient " << i << " has shape " << ju[i].shape());
  }
  if (!extrapolate) return;
  const double measured =
      ridders([&](double t) { return pairing(at.u, at.f(moved(at.x, at.v, t))); }, at.options.step);
  at.below("J v against extrapolation", std::abs(measured - forward),
           unit + 1e-4 * norm(at.u) * norm(at.values), 1e-8);
}

void check_second_order(const Case& at, bool extrapolate) {
  const auto gradient = [&](const TensorList& z) { return at.gradient(z); };
  const TensorList g = at.gradient(at.x), hv = at.hessian_times(at.x, at.v);
  const double unit = std::max({norm(hv), 1e-3 * norm(g), 1e-4 * norm(at.c)});

  at.equal("hvp", hypertape::hvp([&](const TensorList& z) { return at.phi(z); }, at.x, at.v), hv);
  const TensorList reverse_reverse =
      grad([&](const TensorList& z) { return paired(at.gradient(z), at.v); }, at.x);
  at.below("reverse over reverse", difference(reverse_reverse, hv), unit, 1e-11);
  const TensorList reverse_forward = grad(
      [&](const TensorList& z) {
        const Tensor d = jvp([&](const TensorList& y) { return TensorList{at.phi(y)}; }, z, at.v).second[0];
        return d.defined() ? d : Tensor::scalar(0.0);
      },
      at.x);
  at.below("reverse over forward", difference(reverse_forward, hv), unit, 1e-11);
  const auto linear = linearize(gradient, at.x).second;
  at.below("linearized gradient", difference(linear(at.v), hv), unit, 1e-11);
  CHECK_MESSAGE(same_bits(linear(at.v), linear(at.v)), at.name << ": linearized gradient called twice");
  TensorList cotangent = at.v;
  for (std::size_t i = 0; i < g.size(); ++i)
    if (!g[i].defined()) cotangent[i] = Tensor();
  at.below("pullback of the gradient", difference(vjp(gradient, at.x).second(cotangent), hv), unit, 1e-11);

  const TensorList hw = at.hessian_times(at.x, at.w);
  at.below("<w, H v> = <v, H w>", std::abs(pairing(at.w, hv) - pairing(at.v, hw)),
           std::max(norm(at.w) * unit, norm(at.v) * norm(hw)), 1e-12);
  if (!extrapolate) return;
  const double measured =
      ridders([&](double t) { return pairing(at.w, at.gradient(moved(at.x, at.v, t))); }, at.options.step);
  at.below("H v against extrapolation", std::abs(measured - pairing(at.w, hv)), norm(at.w) * unit, 1e-7);
}

void check_third_order(const Case& at, bool extrapolate) {
  const TensorList z = direction_like(at.x, at.options.seed + 15);
  const auto hessian_w = [&](const TensorList& y) { return at.hessian_times(y, at.w); };
  // d3 phi [v, w, .], by forward over forward over reverse, then three other ways.
  const TensorList third = jvp(hessian_w, at.x, at.v).second;
  const double unit = std::max({norm(third), 1e-3 * norm(hessian_w(at.x)), 1e-4 * norm(at.c)});
  const TensorList reverse_forward_reverse =
      grad([&](const TensorList& y) { return paired(at.hessian_times(y, at.w), at.v); }, at.x);
  at.below("reverse over forward over reverse", difference(reverse_forward_reverse, third), unit, 1e-11);
  const auto reverse_reverse = [&](const TensorList& y) {
    return grad([&](const TensorList& q) { return paired(at.gradient(q), at.w); }, y);
  };
  at.below("forward over reverse over reverse", difference(jvp(reverse_reverse, at.x, at.v).second, third),
           unit, 1e-11);
  const TensorList thrice = grad([&](const TensorList& y) { return paired(reverse_reverse(y), at.v); }, at.x);
  at.below("reverse over reverse over reverse", difference(thrice, third), unit, 1e-11);
  if (!extrapolate) return;
  const double measured =
      ridders([&](double t) { return pairing(z, hessian_w(moved(at.x, at.v, t))); }, at.options.step);
  at.below("third derivative against extrapolation", std::abs(measured - pairing(z, third)), norm(z) * unit,
           1e-7);
}

// f(x) and J' u, one after another.
TensorList value_and_pull(const Case& at, const TensorList& x) {
  auto [values, pullback] = vjp(at.f, x);
  TensorList both = std::move(values);
  for (Tensor& gradient : pullback(at.u)) both.push_back(std::move(gradient));
  return both;
}

void check_modes(const Case& at) {
  const auto inner = [&](const TensorList& x) { return value_and_pull(at, x); };
  const auto inside_scope = [&](const TensorList& x) { return vjp(inner, x).first; };
  const auto inside_tangent = [&](const TensorList& x) { return jvp(inner, x, at.w).first; };
  TensorList expected = at.f(at.x);
  const TensorList gradients = vjp(at.f, at.x).second.consume(at.u);
  expected.insert(expected.end(), gradients.begin(), gradients.end());

  const auto expect = [&](const char* mode, const TensorList& got) { at.equal(mode, got, expected); };
  expect("when recorded", inner(at.x));
  for (const std::uint64_t layout : {0, 16})
    expect("of inputs laid out otherwise", inner(relaid(at.x, at.options.seed + layout)));
  expect("with tangents", jvp(inner, at.x, at.v).first);
  expect("recorded in an outer scope", inside_scope(at.x));
  expect("inside two scopes", vjp(inside_scope, at.x).first);
  expect("inside scope and tangent", vjp(inside_tangent, at.x).first);
  expect("with tangents of two scopes", jvp(inside_tangent, at.x, at.v).first);
  expect("inside tangent and scope", jvp(inside_scope, at.x, at.v).first);
  expect("linearized", linearize(inner, at.x).first);
  {
    // The tangent alone, then the values from it: f under one tangent, without any recording.
    TensorList got = jvp(at.f, at.x, at.v).first;
    const auto pullback = vjp(at.f, at.x).second;
    pullback(at.u);
    for (Tensor& gradient : pullback(at.u)) got.push_back(std::move(gradient));
    expect("in a pullback's second call", got);
  }
  {
    // As checkpointing does: plain forward, recorded again only when the cotangent has arrived.
    const auto again = [&](const TensorList& x) {
      return hypertape::custom_vjp("again", x, [&](const TensorList& plain) {
        return hypertape::CustomVjp{at.f(plain), [&at, plain](const TensorList& cotangents) {
                                      return vjp(at.f, plain).second.consume(cotangents);
                                    }};
      });
    };
    auto [got, pullback] = vjp(again, at.x);
    for (Tensor& gradient : pullback.consume(at.u)) got.push_back(std::move(gradient));
    expect("when run again", got);
  }
  TensorList tangents[2];
  for (const int threads : {1, 2}) {
    const Threads count(threads);
    expect(threads == 1 ? "on 1 thread" : "on 2 threads", inner(at.x));
    tangents[threads - 1] = jvp(inner, at.x, at.v).second;
  }
  CHECK_MESSAGE(same_bits(tangents[0], tangents[1]), at.name << ": tangents differ between 1 and 2 threads");
  if (at.options.given) {
    TensorList copies;
    for (const Tensor& x : at.x) copies.push_back(converted(x, x.dtype()));
    CHECK_MESSAGE(same_bits(at.options.given(std::move(copies)), at.f(at.x)),
                  at.name << ": bits differ when operands are given away");
    // Operands that somebody else still holds must survive.
    TensorList shared = at.x, before;
    for (const Tensor& x : at.x) before.push_back(converted(x, x.dtype()));
    CHECK_MESSAGE(same_bits(at.options.given(std::move(shared)), at.f(at.x)),
                  at.name << ": bits differ when shared operands are given away");
    for (std::size_t i = 0; i < before.size(); ++i)
      CHECK_MESSAGE(same_bits(before[i], at.x[i]), at.name << ": a shared operand was overwritten");
  }
}

void check_float32(const Case& at) {
  TensorList single, exact, single_u, exact_u;
  double largest = 1.0, count = 1.0;
  for (const Tensor& x : at.x) {
    single.push_back(differentiable(x) ? converted(x, Dtype::float32) : x);
    exact.push_back(differentiable(x) ? converted(single.back(), Dtype::float64) : x);
    if (!differentiable(x)) continue;
    count += static_cast<double>(x.size());
    for (const double value : elements(x)) largest = std::max(largest, std::abs(value));
  }
  for (const Tensor& u : at.u) {
    single_u.push_back(u.defined() ? converted(u, Dtype::float32) : u);
    exact_u.push_back(u.defined() ? converted(single_u.back(), Dtype::float64) : u);
    if (u.defined())
      for (const double value : elements(u)) largest = std::max(largest, std::abs(value));
  }
  const auto evaluate = [&](const TensorList& x, const TensorList& u) {
    auto [values, pullback] = vjp(at.f, x);
    for (Tensor& gradient : pullback.consume(u)) values.push_back(std::move(gradient));
    return values;
  };
  const TensorList got = evaluate(single, single_u), expected = evaluate(exact, exact_u);
  for (std::size_t k = 0; k < got.size(); ++k) {
    CHECK_MESSAGE(got[k].defined() == expected[k].defined(), at.name << ": float32 paths differ");
    if (!got[k].defined() || !differentiable(got[k])) continue;
    CHECK(got[k].dtype() == Dtype::float32);
    double unit = largest;
    for (const double value : elements(expected[k])) unit = std::max(unit, std::abs(value));
    at.below("float32 against float64", difference({converted(got[k], Dtype::float64)}, {expected[k]}), unit,
             8 * std::sqrt(count) * static_cast<double>(std::numeric_limits<float>::epsilon()));
  }
}

}  // namespace

void expect_derivatives(const std::string& name, const Function& f, const TensorList& inputs,
                        const Options& options) {
  const Case at(name, f, inputs, options);
  check_first_order(at, true);
  if (options.max_order >= 2) check_second_order(at, true);
  if (options.max_order >= 3) check_third_order(at, true);
  check_modes(at);
  if (options.float32) check_float32(at);
}

void expect_consistent(const std::string& name, const Function& f, const TensorList& inputs,
                       const Options& options) {
  const Case at(name, f, inputs, options);
  check_first_order(at, false);
  if (options.max_order >= 2) check_second_order(at, false);
  if (options.max_order >= 3) check_third_order(at, false);
  check_modes(at);
}

Tensor sample(const Shape& shape, double low, double high, std::uint64_t seed, double kink, double distance) {
  const Tensor uniform = hypertape::random(shape, hypertape::Distribution::uniform, {seed, 3, 5});
  std::vector<double> values = uniform.to_vector<double>();
  for (double& value : values) {
    value = low + (high - low) * value;
    if (std::abs(value - kink) < distance) value = value < kink ? kink - distance : kink + distance;
  }
  return Tensor::from(values, shape);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const auto equal = [](const auto& x, const auto& y) {
    return x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0;
  };
  switch (a.dtype()) {
    case Dtype::float32:
      return equal(a.to_vector<float>(), b.to_vector<float>());
    case Dtype::float64:
      return equal(a.to_vector<double>(), b.to_vector<double>());
    case Dtype::int64:
      return equal(a.to_vector<std::int64_t>(), b.to_vector<std::int64_t>());
    case Dtype::boolean:
      break;
  }
  return false;
}

bool same_bits(const TensorList& a, const TensorList& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](const Tensor& x, const Tensor& y) { return same_bits(x, y); });
}

std::vector<double> elements(const Tensor& x) {
  if (x.dtype() == Dtype::float64) return x.to_vector<double>();
  const std::vector<float> values = x.to_vector<float>();
  return {values.begin(), values.end()};
}

Tensor converted(const Tensor& x, Dtype dtype) {
  if (dtype == Dtype::int64) return Tensor::from(x.to_vector<std::int64_t>(), x.shape());
  const std::vector<double> values = elements(x);
  if (dtype == Dtype::float64) return Tensor::from(values, x.shape());
  std::vector<float> rounded;
  for (const double value : values) rounded.push_back(static_cast<float>(value));
  return Tensor::from(rounded, x.shape());
}

double norm(const TensorList& list) { return std::sqrt(pairing(list, list)); }

double pairing(const TensorList& a, const TensorList& b) {
  long double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!differentiable(a[i]) || !differentiable(b[i])) continue;
    const std::vector<double> x = elements(a[i]), y = elements(b[i]);
    REQUIRE(x.size() == y.size());
    for (std::size_t k = 0; k < x.size(); ++k) total += static_cast<long double>(x[k]) * y[k];
  }
  return static_cast<double>(total);
}

double difference(const TensorList& a, const TensorList& b) {
  double largest = a.size() == b.size() ? 0.0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const Tensor& there = a[i].defined() ? a[i] : b[i];
    if (!differentiable(there)) continue;
    const std::vector<double> zeros(static_cast<std::size_t>(there.size()));
    const std::vector<double> x = a[i].defined() ? elements(a[i]) : zeros,
                              y = b[i].defined() ? elements(b[i]) : zeros;
    REQUIRE(x.size() == y.size());
    for (std::size_t k = 0; k < x.size(); ++k) {
      const double error = std::abs(x[k] - y[k]);
      // NaN must not pass as a small difference.
      if (!(error <= largest)) largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
    }
  }
  return largest;
}

double ridders(const std::function<double(double)>& f, double step) {
  constexpr int columns = 10;
  constexpr double shrink = 1.4;
  double table[columns][columns];
  double h = step, best = 0.0, error = std::numeric_limits<double>::max();
  table[0][0] = (f(h) - f(-h)) / (2 * h);
  for (int i = 1; i < columns; ++i) {
    h /= shrink;
    table[0][i] = (f(h) - f(-h)) / (2 * h);
    double factor = shrink * shrink;
    for (int j = 1; j <= i; ++j) {
      table[j][i] = (table[j - 1][i] * factor - table[j - 1][i - 1]) / (factor - 1);
      factor *= shrink * shrink;
      const double change =
          std::max(std::abs(table[j][i] - table[j - 1][i]), std::abs(table[j][i] - table[j - 1][i - 1]));
      if (change <= error) {
        error = change;
        best = table[j][i];
      }
    }
    if (std::abs(table[i][i] - table[i - 1][i - 1]) >= 2 * error) break;
  }
  return best;
}

Threads::Threads(int count) : before_(hypertape::thread_count()) {
  hypertape::set_thread_count(std::min(count, hypertape::available_cpus()));
}
Threads::~Threads() { hypertape::set_thread_count(before_); }

}  // namespace ladder
