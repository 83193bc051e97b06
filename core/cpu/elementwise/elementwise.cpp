// Runs elementwise kernels, which know only unit strides, over broadcast and strided operands.
#include <numeric>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/loops.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

constexpr int max_operands = ElementwiseCall::max_inputs + 2;
// A gathered piece of one operand: small enough that all of them stay in the first-level cache.
constexpr std::int64_t block = 256;
// The same for several short rows, some of which are copied.
constexpr std::int64_t tile_size = 512;
// All gathered pieces of one call together: threads may have small stacks. Pieces are smaller where many
// operands are gathered.
template <class T>
constexpr std::int64_t gathered_size = 8192 / sizeof(T);

// The elements of each of so many operands' pieces, whole cache lines.
template <class T>
std::int64_t piece_of(std::int64_t most, int operands) {
  return operands == 0 ? most : std::min(most, gathered_size<T> / operands / line_of<T> * line_of<T>);
}

template <class T>
void gather(const T* source, std::int64_t stride, std::int64_t count, T* target) {
  for (std::int64_t i = 0; i < count; ++i) target[i] = source[i * stride];
}

// One run of unit strides. Adding to the output goes by pieces that stay in the first-level cache: no pass
// over memory for the terms, and no second set of kernels.
template <class T>
void run_loop(const ElementwiseCall& call, ElementwiseLoop loop, std::int64_t count, const void* const* in,
              void* const* out) {
  if (!call.accumulate) return loop(count, in, out, call.scalar);
  constexpr std::int64_t piece = 2 * block;
  alignas(64) T terms[piece];
  for (std::int64_t begin = 0; begin < count; begin += piece) {
    const std::int64_t length = std::min(piece, count - begin);
    const void* from[ElementwiseCall::max_inputs];
    for (int k = 0; k < call.input_count; ++k) from[k] = static_cast<const T*>(in[k]) + begin;
    void* const to = terms;
    loop(length, from, &to, call.scalar);
    loops<T>().accumulate(length, terms, static_cast<T*>(out[0]) + begin);
  }
}

// One operand along the two inner axes.
template <class T>
struct RowOperand {
  const T* data;
  std::int64_t step, row_step;
  T* tile;

  // `rows` rows of `count` elements from a column on, in one run of memory: in place where they are one, else
  // copied. What all rows share is copied once and stays.
  const T* gathered(std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t count, bool whole,
                    std::int64_t& kept) {
    const T* from = data + row * row_step + column * step;
    if (step == 1 && (rows == 1 || (whole && row_step == count))) return from;
    const bool shared = row_step == 0 && (whole || step == 0);
    if (shared && kept >= rows * count) return tile;
    for (std::int64_t r = 0; r < rows; ++r, from += row_step) {
      T* to = tile + r * count;
      if (step == 1)
        std::copy_n(from, count, to);
      else if (step == 0)
        std::fill_n(to, count, *from);
      else
        gather(from, step, count, to);
    }
    if (shared) kept = rows * count;
    return tile;
  }
};

// Rows in a tile of so many elements: many enough to fill it, and such that every tile starts at a cache line
// like the first if that can be.
template <class T>
std::int64_t rows_in_tile(std::int64_t elements, std::int64_t length) {
  constexpr std::int64_t line = line_of<T>;
  const std::int64_t rows = std::max<std::int64_t>(elements / length, 1);
  const std::int64_t aligned = line / std::gcd(line, length);
  return rows > aligned ? rows - rows % aligned : rows;
}

// The commonest: all rows of a group at once, of operands that lie in place or are the same for every row,
// such as a bias. Little is done between tiles, which would keep the next one's memory waiting, and they are
// small: the more of the first-level cache the copied rows take, the slower come the lines that stream
// through it.
template <class T>
class WholeRows {
 public:
  /// Tiles of so many elements at most.
  explicit WholeRows(std::int64_t tile) : tile_(std::min(tile, block)) {}
  /// False where an operand is something else; `length` elements each.
  bool add(RowOperand<T>& operand, std::int64_t row, std::int64_t rows, std::int64_t length,
           std::int64_t& kept) {
    const bool shared = operand.row_step == 0;
    if (!shared && (operand.step != 1 || operand.row_step != length)) return false;
    row_steps_[count_] = operand.row_step;
    first_[count_++] =
        operand.gathered(row, shared ? std::min(rows, height(length)) : 1, 0, length, true, kept);
    return true;
  }
  void run(const ElementwiseCall& call, ElementwiseLoop loop, T* const* out, std::int64_t rows,
           std::int64_t length) const {
    const void* in[ElementwiseCall::max_inputs];
    void* to[2] = {};
    const std::int64_t tile = height(length);
    for (std::int64_t r = 0; r < rows; r += tile) {
      for (int k = 0; k < count_; ++k) in[k] = first_[k] + r * row_steps_[k];
      for (int k = 0; k < call.output_count; ++k) to[k] = out[k] + r * length;
      run_loop<T>(call, loop, std::min(tile, rows - r) * length, in, to);
    }
  }

 private:
  std::int64_t height(std::int64_t length) const { return rows_in_tile<T>(tile_, length); }
  std::int64_t tile_;
  int count_ = 0;
  const T* first_[ElementwiseCall::max_inputs];
  std::int64_t row_steps_[ElementwiseCall::max_inputs];
};

// Rows [first, last), counted through all axes but the last: as many at a time as a tile holds, so that a
// kernel's call is spread over them.
template <class T>
void run_rows(const ElementwiseCall& call, ElementwiseLoop loop, const StridedWalk<max_operands>& walk,
              const std::array<T*, max_operands>& base, std::int64_t first, std::int64_t last) {
  const int inner = walk.rank - 1;
  const auto column_axis = static_cast<std::size_t>(inner), row_axis = static_cast<std::size_t>(inner - 1);
  const std::int64_t length = walk.extents[column_axis], group = walk.extents[row_axis];
  std::array<RowOperand<T>, ElementwiseCall::max_inputs> operands;
  int gathered = 0;
  for (std::size_t k = 0; k < static_cast<std::size_t>(call.input_count); ++k) {
    operands[k].step = walk.strides[k][column_axis];
    operands[k].row_step = walk.strides[k][row_axis];
    gathered +=
        static_cast<int>(operands[k].step != 1 || operands[k].row_step != length);  // others lie in place
  }
  const std::int64_t tile = piece_of<T>(tile_size, gathered);
  const std::int64_t width = std::min(length, tile), height = rows_in_tile<T>(tile, length);
  const bool whole = width == length;
  alignas(64) T tiles[gathered_size<T>];
  T* next_tile = tiles;
  for (std::size_t k = 0; k < static_cast<std::size_t>(call.input_count); ++k) {
    operands[k].tile = next_tile;
    if (operands[k].step != 1 || operands[k].row_step != length) next_tile += tile;
  }
  for (std::int64_t row = first; row < last;) {
    const std::array<std::int64_t, max_operands> at = walk.offsets_at(inner - 1, row / group);
    const std::int64_t begin = row % group, end = std::min(group, begin + (last - row));
    std::array<std::int64_t, ElementwiseCall::max_inputs> kept{};
    for (int k = 0; k < call.input_count; ++k) {
      const auto operand = static_cast<std::size_t>(k);
      operands[operand].data = base[operand] + at[operand];
    }
    WholeRows<T> whole_rows(tile);
    bool simple = whole;
    for (std::size_t k = 0; simple && k < static_cast<std::size_t>(call.input_count); ++k)
      simple = whole_rows.add(operands[k], begin, end - begin, length, kept[k]);
    if (simple) {
      T* out[2] = {};
      for (int k = 0; k < call.output_count; ++k) {
        const auto operand = static_cast<std::size_t>(call.input_count + k);
        out[k] = base[operand] + at[operand] + begin * length;  // outputs are contiguous
      }
      whole_rows.run(call, loop, out, end - begin, length);
      row += end - begin;
      continue;
    }
    for (std::int64_t r = begin; r < end; r += height) {
      const std::int64_t count = std::min(height, end - r);
      for (std::int64_t column = 0; column < length; column += width) {
        const std::int64_t columns = std::min(width, length - column);
        const void* in[max_operands];
        void* out[2] = {};
        for (int k = 0; k < call.input_count; ++k) {
          const auto operand = static_cast<std::size_t>(k);
          in[k] = operands[operand].gathered(r, count, column, columns, whole, kept[operand]);
        }
        for (int k = 0; k < call.output_count; ++k) {
          const auto operand = static_cast<std::size_t>(call.input_count + k);
          out[k] = base[operand] + at[operand] + r * length + column;  // outputs are contiguous
        }
        run_loop<T>(call, loop, count * columns, in, out);
      }
    }
    row += end - begin;
  }
}

template <class T>
void run_strided(const ElementwiseCall& call, ElementwiseLoop loop) {
  const Header& shape = *call.outputs[0]->header();
  const int operands = call.input_count + call.output_count;
  StridedWalk<max_operands> walk;
  std::array<T*, max_operands> base{};
  std::array<std::array<std::int64_t, max_operands>, max_rank> steps{};
  for (int k = 0; k < operands; ++k) {
    const Tensor& tensor = k < call.input_count ? *call.inputs[k] : *call.outputs[k - call.input_count];
    const Header& header = *tensor.header();
    base[static_cast<std::size_t>(k)] = reinterpret_cast<T*>(header.data);
    const int missing = shape.rank - header.rank;
    for (int axis = missing; axis < shape.rank; ++axis)
      if (header.extents()[axis - missing] != 1)
        steps[static_cast<std::size_t>(axis)][static_cast<std::size_t>(k)] = header.strides()[axis - missing];
  }
  for (int axis = 0; axis < shape.rank; ++axis)
    walk.add_axis(shape.extents()[axis], steps[static_cast<std::size_t>(axis)], operands);

  const int inner = walk.rank - 1;
  const std::int64_t length = walk.rank ? walk.extents[static_cast<std::size_t>(inner)] : 1;
  std::array<std::int64_t, max_operands> inner_step{};
  int gathered = 0;
  for (std::size_t k = 0; k < static_cast<std::size_t>(operands); ++k) {
    inner_step[k] = walk.rank ? walk.strides[k][static_cast<std::size_t>(inner)] : 1;
    gathered += static_cast<int>(inner_step[k] != 1);
  }
  const std::int64_t piece = piece_of<T>(block, gathered);

  const Sharing sharing = Sharing::of(sizeof(T), call.kernel.cost);
  const std::int64_t grain = sharing.piece(length);
  const auto run_row = [&](const std::array<std::int64_t, max_operands>& offset) {
    // Not inlined: run_rows below has pieces of its own, and they would add up.
    const auto run_piece = [&](std::int64_t first, std::int64_t last) __attribute__((noinline)) {
      const void* in[max_operands];
      void* out[2] = {};
      alignas(64) T pieces[gathered_size<T>];
      const std::int64_t width = gathered == 0 ? last - first : std::min(piece, last - first);
      for (std::int64_t begin = first; begin < last; begin += width) {
        const std::int64_t count = std::min(width, last - begin);
        T* next = pieces;
        for (int k = 0; k < call.input_count; ++k) {
          const auto operand = static_cast<std::size_t>(k);
          const std::int64_t step = inner_step[operand];
          const T* source = base[operand] + offset[operand] + begin * step;
          in[k] = step == 1 ? source : next;
          if (step == 1) continue;
          if (step != 0)
            gather(source, step, count, next);
          else if (begin == first)
            std::fill_n(next, count, *source);  // stays for all blocks
          next += piece;
        }
        for (int k = 0; k < call.output_count; ++k) {
          const auto operand = static_cast<std::size_t>(call.input_count + k);
          out[k] = base[operand] + offset[operand] + begin;  // outputs are contiguous
        }
        run_loop<T>(call, loop, count, in, out);
      }
    };
    parallel_ranges(length, grain, run_piece, sharing.call_size(length));
  };
  if (length > sharing.least || walk.rank < 2) {
    walk.for_each(std::max(inner, 0), run_row);
    return;
  }
  // Short rows, several at a time; pieces of them for the threads.
  const std::int64_t rows = walk.positions(inner);
  const std::int64_t rows_per_piece = std::max<std::int64_t>(sharing.piece(shape.size) / length, 1);
  const auto run = [&](std::int64_t first, std::int64_t last) {
    run_rows<T>(call, loop, walk, base, first, last);
  };
  parallel_ranges(rows, rows_per_piece, run, sharing.call_size(shape.size));
}

template <class T>
void run_contiguous(const ElementwiseCall& call, ElementwiseLoop loop, std::int64_t size) {
  const Sharing sharing = Sharing::of(sizeof(T), call.kernel.cost);
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    const void* in[ElementwiseCall::max_inputs];
    void* out[2] = {};
    for (int k = 0; k < call.input_count; ++k)
      in[k] = reinterpret_cast<const T*>(call.inputs[k]->header()->data) + begin;
    for (int k = 0; k < call.output_count; ++k)
      out[k] = reinterpret_cast<T*>(call.outputs[k]->header()->data) + begin;
    run_loop<T>(call, loop, end - begin, in, out);
  };
  parallel_ranges(size, sharing.piece(size), run, sharing.call_size(size));
}

}  // namespace

void run_elementwise(const ElementwiseCall& call) {
  const Header& target = *call.outputs[0]->header();
  if (target.size == 0) return;
  bool contiguous = true;
  for (int k = 0; k < call.input_count; ++k) {
    const Header& header = *call.inputs[k]->header();
    contiguous &= header.contiguous && header.size == target.size;
  }
  const bool single = target.dtype == Dtype::float32;
  const ElementwiseLoop loop = single ? call.kernel.float32 : call.kernel.float64;
  if (contiguous)
    single ? run_contiguous<float>(call, loop, target.size) : run_contiguous<double>(call, loop, target.size);
  else
    single ? run_strided<float>(call, loop) : run_strided<double>(call, loop);
}

}  // namespace hypertape::detail
