// Leaves: the nodes of what a derivative call differentiates by.
#pragma once

#include "autodiff/tape/node.h"

namespace hypertape::detail {

struct LeafAttributes {
  std::uint64_t scope;
  std::size_t index;
};

/// To outer scopes a leaf is the identity.
inline constexpr OpRule leaf_rule =
    with_supports({"leaf", [](Pull& pull) { pull.gradients[0] = std::move(pull.cotangents[0]); },
                   [](Push& push) { push.results[0] = push.tangents[0]; }, nullptr, nullptr, true},
                  Supports::dropped, Supports::moved);

inline bool is_leaf(Node& node) noexcept { return node.rule == &leaf_rule; }

/// Which leaf of the scope it is; null for any other node.
inline const LeafAttributes* leaf_of(Node& node, std::uint64_t scope) noexcept {
  if (node.rule != &leaf_rule) return nullptr;
  const auto* leaf = static_cast<const LeafAttributes*>(node.attributes());
  return leaf->scope == scope ? leaf : nullptr;
}

}  // namespace hypertape::detail
