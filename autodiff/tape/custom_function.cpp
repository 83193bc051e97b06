#include "autodiff/tape/custom_function.h"

#include <hypertape/autodiff/ops.h>
#include "autodiff/tape/node.h"
#include "autodiff/tape/version.h"

namespace hypertape::detail {
namespace {

struct Attributes {
  std::shared_ptr<const CustomFunction> function;
  std::shared_ptr<const TensorList> inputs;
  std::shared_ptr<const std::vector<std::uint32_t>> versions;
};

void require_unchanged(const Attributes& attributes) {
  for (std::size_t i = 0; i < attributes.inputs->size(); ++i) {
    const Tensor& input = (*attributes.inputs)[i];
    if (input.defined() && version_of(input) != (*attributes.versions)[i])
      fail(attributes.function->name, "its input ", i, " of shape ", input.shape(),
           " was overwritten by assign() after it was used; assign before, or to a copy");
  }
}

void pull_custom(Pull& pull) {
  const auto& attributes = pull.attributes<Attributes>();
  require_unchanged(attributes);
  std::vector<bool> needed(pull.gradients.size());
  for (std::size_t i = 0; i < needed.size(); ++i) needed[i] = pull.needs(static_cast<int>(i));
  TensorList gradients =
      attributes.function->pull(*attributes.inputs, pull.output(), pull.cotangent(), needed);
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (needed[i]) pull.gradients[i] = std::move(gradients[i]);
}

void push_custom(Push& push) {
  const auto& attributes = push.attributes<Attributes>();
  require_unchanged(attributes);
  push.results[0] = attributes.function->push(*attributes.inputs, push.output(),
                                              TensorList(push.tangents.begin(), push.tangents.end()));
}

constexpr OpRule rule = {
    "custom function", pull_custom, push_custom,
    [](void* attributes) noexcept { std::destroy_at(static_cast<Attributes*>(attributes)); },
    [](const void* attributes) noexcept {
      return static_cast<const Attributes*>(attributes)->function->name.c_str();
    }};

}  // namespace

Tensor call(const std::shared_ptr<const CustomFunction>& function, const TensorList& inputs) {
  TensorList plain(inputs.size());
  auto versions = std::make_shared<std::vector<std::uint32_t>>();
  std::vector<const Tensor*> in;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].defined()) plain[i] = stop_gradient(inputs[i]);
    versions->push_back(inputs[i].defined() ? version_of(inputs[i]) : 0);
    in.push_back(&inputs[i]);
  }
  Tensor output;
  {
    const ScopeMask mask({0, scope_bound()}, function->name.c_str());
    output = make_alias(function->value(plain));
  }
  const std::array<Tensor*, 1> out{&output};
  finish(rule, Saves{0, 1}, Attributes{function, std::make_shared<const TensorList>(inputs), versions}, in,
         out);
  return output;
}

}  // namespace hypertape::detail
