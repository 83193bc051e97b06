// Optimizer steps that read and write every tensor once, with the bits of the operations they stand for.
#include <array>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

constexpr const char* name = "sgd_step";
enum Input { weights, velocity, push_input, rate_input, momentum_input };

// The composite that the fused kernel stands for, for cotangents that are absent or are recorded themselves.
void pull_composed(Pull& pull, Tensor&& bar_w, Tensor&& bar_v) {
  Tensor bar_push = std::move(bar_v);
  const bool reaches_push = pull.needs(velocity) || pull.needs(push_input) || pull.needs(momentum_input);
  if (bar_w.defined() && reaches_push) {
    const Tensor move = negate(pull.input(rate_input));
    bar_push = bar_push.defined() ? multiply_add(move, bar_w, std::move(bar_push)) : move * bar_w;
  }
  if (pull.needs(rate_input) && bar_w.defined())
    pull.gradients[rate_input] = negate(dot(bar_w, pull.output(1)));
  if (bar_push.defined()) {
    if (pull.needs(momentum_input)) pull.gradients[momentum_input] = dot(bar_push, pull.input(velocity));
    if (pull.needs(velocity)) pull.gradients[velocity] = pull.input(momentum_input) * bar_push;
    if (pull.needs(push_input)) pull.gradients[push_input] = std::move(bar_push);
  }
  if (pull.needs(weights)) pull.gradients[weights] = std::move(bar_w);
}

bool is_plain(const Tensor& x) { return !links_of(x).any(); }

// Where the cotangent of the push may be written: over that of the velocity, if nobody else holds it.
Tensor place_over(const Tensor& bar_v) {
  if (is_held_alone(bar_v)) return make_alias(bar_v);
  return make_like(*bar_v.header());
}

void pull_sgd_step(Pull& pull) {
  Tensor bar_w = std::move(pull.cotangents[0]), bar_v = std::move(pull.cotangents[1]);
  const bool with_rate = pull.needs(rate_input), with_momentum = pull.needs(momentum_input);
  if (!bar_w.defined() || !bar_v.defined() || !pull.needs(velocity) || !is_plain(bar_w) || !is_plain(bar_v) ||
      !is_plain(pull.input(rate_input)) || !is_plain(pull.input(momentum_input)) ||
      (with_momentum && !is_plain(pull.input(velocity))) || (with_rate && !is_plain(pull.output(1))))
    return pull_composed(pull, std::move(bar_w), std::move(bar_v));
  const Tensor read_w = make_contiguous(bar_w);
  Tensor read_v = make_contiguous(bar_v);
  bar_v = Tensor();
  Tensor bar_push = place_over(read_v), bar_before = make_like(*read_v.header());
  SgdBackViews step{};
  Tensor old_velocity, rate_sum, momentum_sum;
  if (with_rate) {
    step.next_v = view_of(pull.output(1));
    step.rate_sum = view_of(rate_sum = make_tensor(Shape{}, read_w.dtype()));
  }
  if (with_momentum) {
    step.v = view_of(old_velocity = make_contiguous(pull.input(velocity)));
    step.momentum_sum = view_of(momentum_sum = make_tensor(Shape{}, read_w.dtype()));
  }
  step.bar_w = view_of(read_w);
  step.bar_v = view_of(read_v);
  step.rate = view_of(pull.input(rate_input));
  step.momentum = view_of(pull.input(momentum_input));
  step.bar_push = view_of(bar_push);
  step.bar_v_before = view_of(bar_before);
  backend_of(read_w)->sgd_step_back(step);
  read_v = Tensor();
  if (with_rate) pull.gradients[rate_input] = negate(std::move(rate_sum));
  if (with_momentum) pull.gradients[momentum_input] = std::move(momentum_sum);
  pull.gradients[velocity] = std::move(bar_before);
  if (pull.needs(push_input)) pull.gradients[push_input] = std::move(bar_push);
  if (pull.needs(weights)) pull.gradients[weights] = std::move(bar_w);
}

// v' = momentum v + push and w' = w - rate v', term by term: for tangents that are absent or are recorded
// themselves.
void push_composed(Push& push) {
  const auto tangent = [&](Input i) -> const Tensor& { return push.tangents[i]; };
  const auto plus = [](Tensor&& sum, const Tensor& factor, const Tensor& x) {
    return sum.defined() ? multiply_add(factor, x, std::move(sum)) : factor * x;
  };
  Tensor v;
  if (tangent(momentum_input).defined()) v = tangent(momentum_input) * push.input(velocity);
  if (tangent(velocity).defined()) v = plus(std::move(v), push.input(momentum_input), tangent(velocity));
  if (tangent(push_input).defined())
    v = v.defined() ? add(std::move(v), tangent(push_input)) : tangent(push_input);
  Tensor w = tangent(weights);
  if (tangent(rate_input).defined()) w = plus(std::move(w), negate(tangent(rate_input)), push.output(1));
  if (v.defined()) w = plus(std::move(w), negate(push.input(rate_input)), v);
  push.results[0] = std::move(w);
  push.results[1] = std::move(v);
}

void push_sgd_step(Push& push) {
  const Tensor &rate = push.tangents[rate_input], &momentum = push.tangents[momentum_input];
  bool plain = true;
  for (const Input i : {weights, velocity, push_input}) plain = plain && push.tangents[i].defined();
  // Both are there where the velocity or the push has a tangent.
  plain = plain && is_plain(push.input(rate_input)) && is_plain(push.input(momentum_input));
  for (const Tensor& each : push.tangents) plain = plain && (!each.defined() || is_plain(each));
  if (rate.defined()) plain = plain && is_plain(push.output(1));
  if (momentum.defined()) plain = plain && is_plain(push.input(velocity));
  if (!plain) return push_composed(push);
  const Tensor w = make_contiguous(push.tangents[weights]), v = make_contiguous(push.tangents[velocity]),
               moved = make_contiguous(push.tangents[push_input]);
  SgdTangentViews step{};
  Tensor old_velocity;
  if (rate.defined()) {
    step.next_v = view_of(push.output(1));
    step.rate_tangent = view_of(rate);
  }
  if (momentum.defined()) {
    step.v = view_of(old_velocity = make_contiguous(push.input(velocity)));
    step.momentum_tangent = view_of(momentum);
  }
  step.w_tangent = view_of(w);
  step.v_tangent = view_of(v);
  step.push_tangent = view_of(moved);
  step.rate = view_of(push.input(rate_input));
  step.momentum = view_of(push.input(momentum_input));
  step.next_w_tangent = view_of(push.results[0] = make_like(*w.header()));
  step.next_v_tangent = view_of(push.results[1] = make_like(*w.header()));
  backend_of(w)->sgd_step_tangent(step);
}

constexpr OpRule sgd_step_rule = {name, pull_sgd_step, push_sgd_step};

void require_number(const char* what, const Tensor& x, const Tensor& like) {
  require_same_dtype(name, x, like);
  if (x.rank() != 0) fail(name, "the ", what, " must be a scalar, not of shape ", x.shape());
}

// The first of the candidates whose memory a result may take over: handed over, held by nobody else, not
// among what the rules will read, and no operand twice.
struct Donors {
  std::array<const Operand*, 3> operands;
  std::array<bool, 3> free;
  const Operand* take(std::initializer_list<std::size_t> candidates) {
    for (const std::size_t i : candidates) {
      if (!free[i] || !is_donatable(*operands[i]) || (*operands[i])->header()->tangents) continue;
      int uses = 0;
      for (const Operand* other : operands) uses += (*other)->header() == (*operands[i])->header();
      if (uses > 1) continue;
      free[i] = false;
      return operands[i];
    }
    return nullptr;
  }
};

}  // namespace
}  // namespace detail

SgdStep sgd_step(Operand weights, Operand velocity, Operand push, const Tensor& rate,
                 const Tensor& momentum) {
  using namespace detail;
  const auto require_form = [&](const char* what, const Operand& x) {
    require_same_dtype(detail::name, *x, *weights);
    if (!same_shape(*x->header(), *weights->header()))
      fail(detail::name, "the ", what, " has shape ", x->shape(), ", the weights have ", weights->shape());
  };
  require_floating(detail::name, *weights);
  require_form("velocity", velocity);
  require_form("push", push);
  require_number("rate", rate, *weights);
  require_number("momentum", momentum, *weights);

  const Links w_links = links_of(*weights), v_links = links_of(*velocity), push_links = links_of(*push),
              rate_links = links_of(rate), momentum_links = links_of(momentum);
  const Links links = w_links | v_links | push_links | rate_links | momentum_links;
  Saves saves;
  if (momentum_links.any()) saves.inputs |= 1u << detail::velocity;
  if (v_links.any() || push_links.any() || momentum_links.any())
    saves.inputs |= 1u << rate_input | 1u << momentum_input;
  if (rate_links.any()) saves.outputs |= 2u;

  const bool lends = !links.tangents;
  Donors donors{{&weights, &velocity, &push}, {lends, lends && !momentum_links.any(), lends}};
  const Operand* v_donor = donors.take({detail::velocity, push_input});
  const Operand* w_donor = donors.take({detail::weights, push_input});
  const auto place = [&](const Operand* donor) {
    return donor ? make_alias(**donor) : make_like(*weights->header());
  };
  SgdStep next{place(w_donor), place(v_donor)};
  const Tensor read_w = make_contiguous(*weights), read_v = make_contiguous(*velocity),
               read_push = make_contiguous(*push);
  backend_of(read_w)->sgd_step({view_of(read_w), view_of(read_v), view_of(read_push), view_of(rate),
                                view_of(momentum), view_of(next.weights), view_of(next.velocity)});
  // Donors' old elements are gone: whatever happens from here on, nobody finds them half stepped.
  std::array<const Tensor*, 5> inputs{&*weights, &*velocity, &*push, &rate, &momentum};
  std::array<Tensor, 3> taken;
  for (std::size_t i = 0; i < taken.size(); ++i) {
    const Operand* operand = donors.operands[i];
    if (operand != v_donor && operand != w_donor) continue;
    taken[i] = operand->take();
    inputs[i] = &taken[i];
  }
  if (links.any() || is_watched()) {
    const std::array<Tensor*, 2> outputs{&next.weights, &next.velocity};
    finish(sgd_step_rule, saves, NoAttributes{}, std::span<const Tensor* const>(inputs),
           std::span<Tensor* const>(outputs));
  }
  return next;
}

}  // namespace hypertape
