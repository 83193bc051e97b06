// The end of a layer: bias and activation over a product that is there already, in one pass over memory.
#include <algorithm>
#include <bit>

#include <hypertape/core/parallel.h>
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

// Elements of a block: what is read and written of one, tangents included, stays in the first-level cache.
constexpr std::int64_t block = 1024;

template <class T>
ElementwiseLoop loop_of(const ElementwiseKernels& kernels) {
  return sizeof(T) == 4 ? kernels.float32 : kernels.float64;
}

// A row repeated, so that kernels run over several rows of a layer at once, however short they are.
template <class T>
class RepeatedRow {
 public:
  RepeatedRow(const View& row, std::int64_t rows) {
    if (!row.data) return;
    if (rows == 1 && row.contiguous) {
      data_ = row.as<T>();
      return;
    }
    const std::int64_t columns = row.extents[0];
    owned_ = static_cast<T*>(allocate_bytes(static_cast<std::size_t>(rows * columns) * sizeof(T)));
    for (std::int64_t j = 0; j < columns; ++j) owned_[j] = row.as<T>()[j * row.strides[0]];
    for (std::int64_t i = 1; i < rows; ++i) std::copy_n(owned_, columns, owned_ + i * columns);
    data_ = owned_;
  }
  ~RepeatedRow() {
    if (owned_) release_bytes(owned_);
  }
  RepeatedRow(const RepeatedRow&) = delete;
  RepeatedRow& operator=(const RepeatedRow&) = delete;
  const T* get() const noexcept { return data_; }

 private:
  T* owned_ = nullptr;
  const T* data_ = nullptr;
};

}  // namespace

template <class T>
void finish_layer_rows(const LayerViews& layer) {
  const std::int64_t rows = layer.value.extents[0], columns = layer.value.extents[1];
  if (rows == 0 || columns == 0) return;
  // A power of two: blocks of full vectors but for the last one, whatever the number of columns.
  const auto most = static_cast<std::uint64_t>(std::max<std::int64_t>(std::min(rows, block / columns), 1));
  const auto block_rows = static_cast<std::int64_t>(std::bit_floor(most));
  const RepeatedRow<T> bias(layer.bias, block_rows), bias_tangent(layer.bias_tangent, block_rows);
  const ElementwiseLoop add = loop_of<T>(elementwise_kernels(ElementwiseCode::add).value);
  ElementwiseLoop activate = nullptr;
  int cost = 1;
  if (layer.activation) {
    activate = loop_of<T>(layer.tangent.data ? layer.activation->dual[1] : layer.activation->value);
    cost = layer.activation->value.cost;
  }
  const std::int64_t blocks = (rows + block_rows - 1) / block_rows;
  const Sharing sharing = Sharing::of(sizeof(T), cost);
  const std::int64_t grain = divide_up(sharing.piece(rows * columns), block_rows * columns);
  const auto run = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const std::int64_t start = b * block_rows * columns;
      const std::int64_t count = std::min(block_rows * columns, rows * columns - start);
      T* value = layer.value.as<T>() + start;
      T* tangent = layer.tangent.data ? layer.tangent.as<T>() + start : nullptr;
      const void* terms[] = {value, bias.get()};
      void* results[] = {value, tangent};
      add(count, terms, results, 0.0);
      if (bias_tangent.get() && layer.bias_tangent_alone) {
        std::copy_n(bias_tangent.get(), count, tangent);
      } else if (bias_tangent.get()) {
        const void* tangents[] = {tangent, bias_tangent.get()};
        add(count, tangents, &results[1], 0.0);
      }
      const void* sums[] = {value, tangent};
      if (activate) activate(count, sums, results, 0.0);
    }
  };
  parallel_ranges(blocks, grain, run, sharing.call_size(rows * columns));
}

template void finish_layer_rows<float>(const LayerViews&);
template void finish_layer_rows<double>(const LayerViews&);

}  // namespace hypertape::detail
