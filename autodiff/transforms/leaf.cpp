#include "autodiff/transforms/leaf.h"

#include <array>

#include "autodiff/transforms/graph.h"

namespace hypertape::detail {

Tensor make_leaf(const Tensor& tensor, std::uint64_t scope, std::size_t index) {
  if (!tensor.defined() || !is_floating(tensor.dtype())) return tensor;
  links_of(tensor);  // refuses a variable whose outer derivative would be lost
  Tensor leaf = make_alias(tensor);
  const Header& source = *tensor.header();
  for (const Tangent* t = source.tangents; t; t = t->next)
    if (is_active(t->scope)) attach_tangent(leaf, t->scope, t->value, t->support);
  const std::array<const Tensor*, 1> in{&tensor};
  const std::array<Tensor*, 1> out{&leaf};
  Node* node = make_node(leaf_rule, {}, sizeof(LeafAttributes), std::span<const Tensor* const>(in),
                         std::span<Tensor* const>(out));
  new (node->attributes()) LeafAttributes{scope, index};
  node->min_scope = std::min(node->min_scope, scope);
  node->max_scope = scope;
  return leaf;
}

}  // namespace hypertape::detail
