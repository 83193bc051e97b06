#include "hypertape/core/named_tensors.h"

#include <algorithm>

#include "hypertape/core/error.h"

namespace hypertape {
namespace {
const std::vector<std::string>& no_names() {
  static const std::vector<std::string> empty;
  return empty;
}
}  // namespace

NamedTensors::NamedTensors(std::initializer_list<std::pair<std::string, Tensor>> entries) {
  for (const auto& [name, tensor] : entries) add(name, tensor);
}

const std::vector<std::string>& NamedTensors::names() const noexcept { return names_ ? *names_ : no_names(); }

void NamedTensors::add(std::string name, Tensor tensor) {
  if (contains(name)) fail("named_tensors", "the name '", name, "' is given twice");
  auto extended = std::make_shared<std::vector<std::string>>(names());
  extended->push_back(std::move(name));
  tensors_.push_back(std::move(tensor));
  names_ = std::move(extended);
}

std::size_t NamedTensors::find(std::string_view name) const noexcept {
  const auto& all = names();
  return static_cast<std::size_t>(std::find(all.begin(), all.end(), name) - all.begin());
}

const Tensor& NamedTensors::operator[](std::string_view name) const {
  const std::size_t position = find(name);
  if (position == size()) {
    std::string known;
    for (const std::string& other : names()) known.append(known.empty() ? "" : ", ").append(other);
    fail("named_tensors", "there is no '", name, "'; the names are: ", known);
  }
  return tensors_[position];
}

std::vector<Shape> NamedTensors::shapes() const {
  std::vector<Shape> result;
  for (const Tensor& tensor : tensors_) result.push_back(tensor.shape());
  return result;
}

NamedTensors NamedTensors::with(TensorList tensors) const {
  if (tensors.size() != size())
    fail("named_tensors", tensors.size(), " tensors given for ", size(), " names");
  NamedTensors result;
  result.names_ = names_;
  result.tensors_ = std::move(tensors);
  return result;
}

NamedTensors NamedTensors::with(std::string_view name, Tensor tensor) const {
  (void)(*this)[name];
  NamedTensors result = *this;
  result.tensors_[find(name)] = std::move(tensor);
  return result;
}

}  // namespace hypertape
