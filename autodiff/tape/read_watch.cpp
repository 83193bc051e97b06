#include "autodiff/tape/read_watch.h"

#include <array>

namespace hypertape::detail {
namespace {
struct WatchAttributes {
  std::shared_ptr<std::vector<std::uint8_t>> read;  // outlives the watch where a tensor is kept
  std::size_t index;
};
}  // namespace

// Its scope is never active, so that nothing is recorded behind it.
const OpRule read_watch_rule = {"watched", nullptr, nullptr, [](void* attributes) noexcept {
                                  std::destroy_at(static_cast<WatchAttributes*>(attributes));
                                }};

void note_read(const Node& node) noexcept {
  const auto& attributes =
      *static_cast<const WatchAttributes*>(const_cast<Node&>(node).attributes());  // the node's own bytes
  // A loss may spread its work over threads.
  std::atomic_ref((*attributes.read)[attributes.index]).store(1, std::memory_order_relaxed);
}

ReadWatch::ReadWatch(std::size_t count)
    : scope_(open_scope()),
      mask_({scope_, scope_ + 1}),
      read_(std::make_shared<std::vector<std::uint8_t>>(count)) {}

Tensor ReadWatch::watched(const Tensor& plain, std::size_t index) const {
  Tensor alias = make_alias(plain);
  const std::array<const Tensor*, 1> in{&plain};
  const std::array<Tensor*, 1> out{&alias};
  Node* node = make_node(read_watch_rule, {}, sizeof(WatchAttributes), std::span<const Tensor* const>(in),
                         std::span<Tensor* const>(out));
  new (node->attributes()) WatchAttributes{read_, index};
  node->min_scope = node->max_scope = scope_;
  return alias;
}

}  // namespace hypertape::detail
