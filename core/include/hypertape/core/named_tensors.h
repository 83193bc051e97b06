// An ordered list of tensors with names: how parameters and hyperparameters appear at the API.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hypertape/core/export.h>
#include <hypertape/core/tensor.h>

namespace hypertape {

class HYPERTAPE_API NamedTensors {
 public:
  NamedTensors() = default;
  /// Error if a name is given twice.
  NamedTensors(std::initializer_list<std::pair<std::string, Tensor>> entries);

  /// Appends; Error if the name is taken.
  void add(std::string name, Tensor tensor);

  std::size_t size() const noexcept { return tensors_.size(); }
  bool empty() const noexcept { return tensors_.empty(); }
  bool contains(std::string_view name) const noexcept { return find(name) < size(); }
  /// The tensor of that name; Error listing the names there are.
  const Tensor& operator[](std::string_view name) const;
  /// Its position, or size() if there is none.
  std::size_t find(std::string_view name) const noexcept;

  const std::vector<std::string>& names() const noexcept;
  const TensorList& tensors() const noexcept { return tensors_; }
  std::vector<Shape> shapes() const;
  /// The same names over other tensors, one each.
  NamedTensors with(TensorList tensors) const;
  /// The same with one tensor replaced; Error if there is no such name.
  NamedTensors with(std::string_view name, Tensor tensor) const;

 private:
  // Shared, since every training step passes the same names along.
  std::shared_ptr<const std::vector<std::string>> names_;
  TensorList tensors_;
};

}  // namespace hypertape
