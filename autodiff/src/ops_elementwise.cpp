// Elementwise operations: one implementation driven by the structs of elementwise_ops.h.
//
// An operation F, its fused derivatives pull<i>, and their derivatives are all instances of one thing: a
// Function with kernels and rules. Deeper derivatives come from running the formula on tensors.
#include <array>
#include <utility>

#include "checks.h"
#include "elementwise_code.h"
#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "node.h"

namespace hypertape {
namespace {
// Formulas of elementwise_ops.h, run on tensors, meet literals here.
Tensor times(const Tensor& x, double c) { return multiply_scalar(x, c); }
Tensor over(const Tensor& x, double c) { return divide_scalar(x, c); }
Tensor minus_from(double c, const Tensor& x) { return c - x; }
}  // namespace
}  // namespace hypertape

#include "elementwise_ops.h"

namespace hypertape::detail {
namespace {

constexpr int max_arguments = 5;

struct Function;

// Attributes of a node: which function, its scalar, and the operands' shapes where they broadcast.
struct ElementwiseAttributes {
  const Function* function;
  double scalar;
};
struct BroadcastAttributes : ElementwiseAttributes {
  std::array<Shape, max_arguments> shapes;
};

struct Function {
  const char* name;
  int arity;
  /// Bit i: a derivative in operand i exists.
  unsigned differentiable;
  Saves (*saves)(unsigned linked);
  ElementwiseKernels (*kernel)(unsigned mask);  ///< plain for 0, else dual
  /// For pulls that are t times one tensor: that tensor, else null.
  const Tensor* (*factor)(int operand, const Primal& primal);
  /// Contribution of operand i: the formula pull<i> at cotangent or tangent t.
  Tensor (*pull)(int operand, const Primal& primal, double scalar, const Tensor& t);
};

Tensor apply(const Function& function, double scalar, std::span<const Operand> operands);
const Tensor* no_factor(int, const Primal&) { return nullptr; }

// --- Functions from the structs
// ----------------------------------------------------------------------------------

template <class Op>
inline constexpr ElementwiseCode code_of = ElementwiseCode::count;
#define HYPERTAPE_UNARY(Op, name) \
  template <>                     \
  inline constexpr ElementwiseCode code_of<elementwise::Op> = ElementwiseCode::name;
#define HYPERTAPE_BINARY(Op, name) HYPERTAPE_UNARY(Op, name)
#define HYPERTAPE_TERNARY(Op, name) HYPERTAPE_UNARY(Op, name)
#define HYPERTAPE_WITH_SCALAR(Op, name) HYPERTAPE_UNARY(Op, name)
#include "hypertape/core/elementwise.def"

template <class Op>
constexpr const char* name_of_op() {
  constexpr const char* names[] = {
#define HYPERTAPE_UNARY(Op, name) #name,
#define HYPERTAPE_BINARY(Op, name) #name,
#define HYPERTAPE_TERNARY(Op, name) #name,
#define HYPERTAPE_WITH_SCALAR(Op, name) #name,
#include "hypertape/core/elementwise.def"
  };
  return names[static_cast<std::size_t>(code_of<Op>)];
}

template <class Op>
constexpr int pull_count = static_cast<int>(std::size(Op::uses));

constexpr Saves saves_of_uses(unsigned uses) { return {uses & 7u, uses >> 3 & 1u}; }

constexpr unsigned nth_bit(unsigned bits, std::size_t n) {
  for (; n > 0; --n) bits &= bits - 1;
  return static_cast<unsigned>(__builtin_ctz(bits));
}

// Calls body(a, b...) with what `uses` names, in order.
template <unsigned uses, class Body>
auto with_used(const Primal& primal, Body&& body) {
  const auto tensor = [&](unsigned bit) -> const Tensor& {
    return bit == 3 ? primal.output() : primal.input(static_cast<int>(bit));
  };
  return [&]<std::size_t... k>(std::index_sequence<k...>) { return body(tensor(nth_bit(uses, k))...); }
  (std::make_index_sequence<static_cast<std::size_t>(__builtin_popcount(uses))>());
}

template <class Op, int operand>
struct PullFunction;

template <class Op>
struct OpFunction {
  static Saves saves(unsigned linked) {
    Saves all;
    for (int i = 0; i < pull_count<Op>; ++i) {
      if (!(linked >> i & 1u)) continue;
      const Saves one = saves_of_uses(Op::uses[i]);
      all.inputs |= one.inputs;
      all.outputs |= one.outputs;
    }
    return all;
  }
  static ElementwiseKernels kernel(unsigned mask) {
    const OpKernels& kernels = elementwise_kernels(code_of<Op>);
    return mask ? kernels.dual[mask] : kernels.value;
  }
  template <int operand>
  static Tensor pull_one(const Primal& primal, double scalar, const Tensor& t) {
    return with_used<Op::uses[operand]>(primal, [&](const auto&... used) -> Tensor {
      if constexpr (Op::fused[operand]) {
        const std::array<Operand, 1 + sizeof...(used)> operands{Operand(t), Operand(used)...};
        return apply(PullFunction<Op, operand>::function, scalar, operands);
      } else {
        return Op::template pull<operand>(Constant{scalar}, t, used...);
      }
    });
  }
  static Tensor pull(int operand, const Primal& primal, double scalar, const Tensor& t) {
    Tensor result;
    [&]<std::size_t... i>(std::index_sequence<i...>) {
      (void)((static_cast<int>(i) == operand &&
              (result = pull_one<static_cast<int>(i)>(primal, scalar, t), true)) ||
             ...);
    }
    (std::make_index_sequence<static_cast<std::size_t>(pull_count<Op>)>());
    return result;
  }
  static const Tensor* factor(int operand, const Primal& primal) {
    const Tensor* result = nullptr;
    if constexpr (requires { Op::product; }) {
      [&]<std::size_t... i>(std::index_sequence<i...>) {
        const auto look = [&]<std::size_t k>() {
          if constexpr (Op::product[k])
            with_used<Op::uses[k]>(primal, [&](const Tensor& other) { result = &other; });
        };
        ((static_cast<int>(i) == operand ? look.template operator()<i>() : void()), ...);
      }
      (std::make_index_sequence<static_cast<std::size_t>(pull_count<Op>)>());
    }
    return result;
  }
  static const Function function;
};
template <class Op>
const Function OpFunction<Op>::function = {
    name_of_op<Op>(), Op::arity, (1u << pull_count<Op>)-1, saves, kernel, factor, pull};

// The second derivative as a function of its own: s * d pull<operand>(t, used...) / d argument j.
template <class Op, int operand, int j>
struct SecondPullFunction {
  static constexpr int pull_arity = 1 + __builtin_popcount(Op::uses[operand]);
  static Saves saves(unsigned) { return {(1u << (pull_arity + 1)) - 1, 0}; }
  static ElementwiseKernels kernel(unsigned mask) {
    return mask ? ElementwiseKernels{} : elementwise_kernels(code_of<Op>).pull_pull[operand][j];
  }
  // The value as tensor operations: the formula's tangent along argument j.
  static Tensor formula(double scalar, const TensorList& x) {
    TensorList arguments(x.begin() + 1, x.end()), tangents(arguments.size());
    tangents[static_cast<std::size_t>(j)] = x[0];
    return jvp(
               [scalar](const TensorList& a) {
                 return [&]<std::size_t... k>(std::index_sequence<k...>)->Tensor {
                   return Op::template pull<operand>(Constant{scalar}, a[k]...);
                 }
                 (std::make_index_sequence<static_cast<std::size_t>(pull_arity)>());
               },
               arguments, tangents)
        .second;
  }
  static Tensor pull(int argument, const Primal& primal, double scalar, const Tensor& t) {
    const auto position = static_cast<std::size_t>(argument);
    // All of one shape, so that the Jacobian is diagonal and a tangent along one argument is also its
    // cotangent.
    // A tangent, unlike a cotangent, may be smaller than the result.
    Shape shape = t.shape();
    for (int i = 0; i <= pull_arity; ++i)
      shape = broadcast_shapes(name_of_op<Op>(), shape, primal.input(i).shape());
    TensorList x;
    for (int i = 0; i <= pull_arity; ++i) x.push_back(expand(primal.input(i), shape));
    TensorList tangents(x.size());
    tangents[position] = expand(t, shape);
    return jvp([scalar](const TensorList& all) { return formula(scalar, all); }, x, tangents).second;
  }
  static const Function function;
};
template <class Op, int operand, int j>
const Function SecondPullFunction<Op, operand, j>::function = {
    name_of_op<Op>(), pull_arity + 1, (1u << (pull_arity + 1)) - 1, saves, kernel, no_factor, pull};

template <class Op, int operand>
struct PullFunction {
  static constexpr int arity = 1 + __builtin_popcount(Op::uses[operand]);
  static Saves saves(unsigned linked) {
    const unsigned used = (1u << arity) - 2;
    return {(linked & ~1u) ? (1u << arity) - 1 : used, 0};
  }
  static ElementwiseKernels kernel(unsigned mask) {
    const OpKernels& kernels = elementwise_kernels(code_of<Op>);
    return mask ? kernels.pull_dual[operand][mask] : kernels.pull[operand];
  }
  template <std::size_t... k>
  static Tensor pull_of(int argument, const Primal& primal, double scalar, const Tensor& t,
                        std::index_sequence<k...>) {
    if (argument == 0) {  // linear in t: the same function again
      const std::array<Operand, arity> operands{Operand(t),
                                                Operand(primal.input(static_cast<int>(k) + 1))...};
      return apply(function, scalar, operands);
    }
    const std::array<Operand, arity + 1> operands{Operand(t), Operand(primal.input(0)),
                                                  Operand(primal.input(static_cast<int>(k) + 1))...};
    Tensor result;
    (void)((static_cast<int>(k) + 1 == argument &&
            (result =
                 apply(SecondPullFunction<Op, operand, static_cast<int>(k) + 1>::function, scalar, operands),
             true)) ||
           ...);
    return result;
  }
  static Tensor pull(int argument, const Primal& primal, double scalar, const Tensor& t) {
    return pull_of(argument, primal, scalar, t, std::make_index_sequence<arity - 1>());
  }
  static const Function function;
};
template <class Op, int operand>
const Function PullFunction<Op, operand>::function = {
    name_of_op<Op>(), arity, (1u << arity) - 1, saves, kernel, no_factor, pull};

// --- Applying a function
// -----------------------------------------------------------------------------------------

// Shapes of operands, given only by nodes that broadcast.
template <bool broadcasts>
void pull_elementwise(Pull& pull) {
  const auto& attributes = pull.attributes<ElementwiseAttributes>();
  const Function& function = *attributes.function;
  int last = -1;
  for (int i = 0; i < function.arity; ++i)
    if ((function.differentiable >> i & 1u) && pull.needs(i)) last = i;
  for (int i = 0; i <= last; ++i) {
    if (!(function.differentiable >> i & 1u) || !pull.needs(i)) continue;
    if constexpr (!broadcasts) {
      // The cotangent's last use may lend its memory.
      const Tensor* factor = i == last ? function.factor(i, pull) : nullptr;
      if (factor) {
        pull.gradients[static_cast<std::size_t>(i)] = multiply(std::move(pull.cotangents[0]), *factor);
        return;
      }
    }
    if constexpr (broadcasts) {
      // Summed to a scalar, a product is a dot: the same additions in the same order, without the product in
      // memory.
      const Shape& shape = pull.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(i)];
      const Tensor* factor = shape.size() == 1 ? function.factor(i, pull) : nullptr;
      if (factor && same_shape(*factor->header(), *pull.cotangent().header())) {
        pull.gradients[static_cast<std::size_t>(i)] = reshape(dot(pull.cotangent(), *factor), shape);
        continue;
      }
    }
    Tensor gradient = function.pull(i, pull, attributes.scalar, pull.cotangent());
    if (!gradient.defined()) continue;  // the formula does not depend on this operand
    if constexpr (broadcasts)
      gradient = sum_to(gradient, pull.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(i)]);
    pull.gradients[static_cast<std::size_t>(i)] = std::move(gradient);
  }
}

template <bool broadcasts>
void push_elementwise(Push& push) {
  const auto& attributes = push.attributes<ElementwiseAttributes>();
  const Function& function = *attributes.function;
  Tensor total;
  for (int i = 0; i < function.arity; ++i) {
    const Tensor& tangent = push.tangents[static_cast<std::size_t>(i)];
    if (!(function.differentiable >> i & 1u) || !tangent.defined()) continue;
    Tensor term = function.pull(i, push, attributes.scalar, tangent);
    if (!term.defined()) continue;
    if constexpr (broadcasts) {
      // The formula may not mention the operand that has the larger shape (add: t alone).
      Shape shape;
      for (int k = 0; k < function.arity; ++k)
        shape = broadcast_shapes(function.name, shape,
                                 push.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(k)]);
      term = contiguous(expand(term, shape));  // the layout that a dual kernel writes
    }
    total = total.defined() ? add(std::move(total), std::move(term)) : std::move(term);
  }
  push.results[0] = std::move(total);
}

const char* name_of_function(const void* attributes) noexcept {
  return static_cast<const ElementwiseAttributes*>(attributes)->function->name;
}
constexpr OpRule elementwise_rule = {"elementwise", pull_elementwise<false>, push_elementwise<false>, nullptr,
                                     name_of_function};
constexpr OpRule broadcast_rule = {"elementwise", pull_elementwise<true>, push_elementwise<true>, nullptr,
                                   name_of_function};

// The one scope whose tangents a dual kernel can carry: all of the operands' active tangents belong to it,
// they are plain numbers, and no operand serves a scope below it. 0 if the tangents need operations of their
// own.
std::uint64_t dual_scope(const Function& function, std::span<const Operand> operands, unsigned& mask) {
  std::uint64_t scope = 0;
  mask = 0;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Header& header = *operands[i]->header();
    for (const Tangent* t = header.tangents; t; t = t->next) {
      if (!is_active(t->scope)) continue;
      if (scope != 0 && t->scope != scope) return 0;
      scope = t->scope;
      if (function.differentiable >> i & 1u) mask |= 1u << i;
      const Header& tangent = *t->value.header();
      if (tangent.tangents || tangent.node) return 0;
    }
  }
  for (const Operand& operand : operands) {
    const Header& header = *operand->header();
    if (!header.node) continue;
    const std::uint64_t serves = active_scope_of(*static_cast<const Node*>(header.node));
    if (serves != 0 && serves < scope) return 0;
  }
  return scope;
}

// Which operands take part in derivatives, one bit each.
struct Participation {
  unsigned recorded = 0;  ///< serves an active scope, in an operand with a derivative
  bool tangents = false;
  bool any = false;
};

Participation participation_of(const Function& function, std::span<const Operand> operands) {
  Participation part;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Header& header = header_of(function.name, *operands[i]);
    if (!header.node && !header.tangents) continue;
    const Links links = links_of_linked(header);
    if (links.recorded && (function.differentiable >> i & 1u)) part.recorded |= 1u << i;
    part.tangents |= links.tangents;
    part.any |= links.any();
  }
  return part;
}

// Checks the operands; returns whether they all have the shape of the first.
bool check_operands(const Function& function, std::span<const Operand> operands) {
  const Header& first = *operands[0]->header();
  if (!is_floating(first.dtype)) require_floating(function.name, *operands[0]);
  bool same = true;
  for (std::size_t i = 1; i < operands.size(); ++i) {
    const Header& other = *operands[i]->header();
    if (other.dtype != first.dtype) require_same_dtype(function.name, *operands[0], *operands[i]);
    same &= same_shape(first, other);
  }
  return same;
}

Shape broadcast_shape(const Function& function, std::span<const Operand> operands) {
  Shape shape = operands[0]->shape();
  for (std::size_t i = 1; i < operands.size(); ++i)
    shape = broadcast_shapes(function.name, shape, operands[i]->shape());
  return shape;
}

// The operand whose header and memory the result may take over, or -1: handed over, nobody else holds it, no
// rule will need its old values, and it carries no tangent.
int find_donor(std::span<const Operand> operands, unsigned saved, bool same, const Shape& shape) {
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i].given() || (saved >> i & 1u) || !is_donatable(operands[i])) continue;
    const Header& header = *operands[i]->header();
    if (header.tangents || (!same && operands[i]->shape() != shape)) continue;
    bool alone = true;
    for (std::size_t k = 0; k < operands.size(); ++k) alone &= k == i || operands[k]->header() != &header;
    if (alone) return static_cast<int>(i);
  }
  return -1;
}

void run(const Function& function, double scalar, std::span<const Operand> operands, unsigned mask,
         std::uint64_t scope, const Tensor& value, const Tensor* tangent) {
  ElementwiseCall call;
  call.kernel = function.kernel(mask);
  call.scalar = scalar;
  for (const Operand& operand : operands) call.inputs[call.input_count++] = &*operand;
  for (std::size_t i = 0; i < operands.size(); ++i)
    if (mask >> i & 1u) call.inputs[call.input_count++] = find_tangent(*operands[i]->header(), scope);
  call.outputs[call.output_count++] = &value;
  if (tangent) call.outputs[call.output_count++] = tangent;
  backend_of(value).elementwise(call);
}

Tensor make_output(std::span<const Operand> operands, bool same, const Shape& shape) {
  const Header& first = *operands[0]->header();
  return same ? make_like(first) : make_tensor(shape, first.dtype);
}

// A donor's links to scopes that are not active.
void drop_links(Tensor& tensor) noexcept {
  if (TapeRecord* node = std::exchange(tensor.header()->node, nullptr)) release(node);
}

template <class Attributes>
Node* record(const OpRule& rule, const Function& function, unsigned recorded, const Attributes& attributes,
             std::span<const Tensor* const> inputs, Tensor& value) {
  Tensor* const out = &value;
  Node* node = make_node(rule, function.saves(recorded), sizeof(Attributes), inputs, {&out, 1});
  new (node->attributes()) Attributes(attributes);
  return node;
}

template <class Attributes>
Tensor apply_linked(const OpRule& rule, const Attributes& attributes, std::span<const Operand> operands,
                    const Participation& part, bool same, const Shape& shape) {
  const Function& function = *attributes.function;
  std::array<const Tensor*, max_arguments> in{};
  for (std::size_t i = 0; i < operands.size(); ++i) in[i] = &*operands[i];
  const std::span<const Tensor* const> inputs(in.data(), operands.size());
  if (!part.tangents) {
    const Saves saves = function.saves(part.recorded);
    const int donor = saves.outputs ? -1 : find_donor(operands, saves.inputs, same, shape);
    Tensor value;
    if (donor < 0) {
      value = make_output(operands, same, shape);
      run(function, attributes.scalar, operands, 0, 0, value, nullptr);
    } else {
      // make_node sees input and output in one header, and hands the old node from one to the other.
      const Operand& operand = operands[static_cast<std::size_t>(donor)];
      run(function, attributes.scalar, operands, 0, 0, *operand, nullptr);
      value = operand.take();
      in[static_cast<std::size_t>(donor)] = &value;
    }
    if (!part.recorded) {
      drop_links(value);
      return value;
    }
    Node* node = record(rule, function, part.recorded, attributes, inputs, value);
    Tensor* const out = &value;
    save_outputs(*node, {&out, 1});
    return value;
  }

  unsigned mask = 0;
  const std::uint64_t scope = dual_scope(function, operands, mask);
  const bool dual = scope != 0 && mask != 0 && function.kernel(mask);
  Tensor value = make_output(operands, same, shape);
  Tensor tangent;
  if (dual) tangent = make_like(*value.header());
  run(function, attributes.scalar, operands, dual ? mask : 0, scope, value, dual ? &tangent : nullptr);
  Node* node = part.recorded ? record(rule, function, part.recorded, attributes, inputs, value) : nullptr;
  Tensor* const out = &value;
  if (dual)
    attach_tangent(value, scope, std::move(tangent));
  else if (scope == 0 || mask != 0)
    push_tangents(rule, &attributes, inputs, {&out, 1});
  if (node) save_outputs(*node, {&out, 1});
  return value;
}

Tensor apply(const Function& function, double scalar, std::span<const Operand> operands) {
  const Participation part = participation_of(function, operands);
  const bool same = check_operands(function, operands);
  const Shape shape = same ? Shape() : broadcast_shape(function, operands);
  if (!part.any) {
    const int donor = find_donor(operands, 0, same, shape);
    if (donor >= 0) {
      const Operand& operand = operands[static_cast<std::size_t>(donor)];
      run(function, scalar, operands, 0, 0, *operand, nullptr);
      Tensor value = operand.take();
      drop_links(value);
      return value;
    }
    Tensor value = make_output(operands, same, shape);
    run(function, scalar, operands, 0, 0, value, nullptr);
    return value;
  }
  if (same)
    return apply_linked(elementwise_rule, ElementwiseAttributes{&function, scalar}, operands, part, true,
                        shape);
  BroadcastAttributes attributes;
  attributes.function = &function;
  attributes.scalar = scalar;
  for (std::size_t i = 0; i < operands.size(); ++i) attributes.shapes[i] = operands[i]->shape();
  return apply_linked(broadcast_rule, attributes, operands, part, false, shape);
}

}  // namespace
}  // namespace hypertape::detail

namespace hypertape {

#define HYPERTAPE_UNARY(Op, name)                                                      \
  Tensor name(Operand x) {                                                             \
    return detail::apply(detail::OpFunction<elementwise::Op>::function, 0.0, {&x, 1}); \
  }
#define HYPERTAPE_BINARY(Op, name)                                                      \
  Tensor name(Operand a, Operand b) {                                                   \
    const std::array<Operand, 2> operands{a, b};                                        \
    return detail::apply(detail::OpFunction<elementwise::Op>::function, 0.0, operands); \
  }
#define HYPERTAPE_TERNARY(Op, name)                                                     \
  Tensor name(Operand a, Operand b, Operand c) {                                        \
    const std::array<Operand, 3> operands{a, b, c};                                     \
    return detail::apply(detail::OpFunction<elementwise::Op>::function, 0.0, operands); \
  }
#define HYPERTAPE_WITH_SCALAR(Op, name)                                                   \
  Tensor name(Operand x, double scalar) {                                                 \
    return detail::apply(detail::OpFunction<elementwise::Op>::function, scalar, {&x, 1}); \
  }
#include "hypertape/core/elementwise.def"

}  // namespace hypertape
