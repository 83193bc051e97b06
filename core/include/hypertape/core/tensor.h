// Tensor: an 8-byte handle to an immutable, strided, typed array.
//
// Values never change once a tensor is seen: operations return new tensors, and reuse an operand's memory
// only when it was handed over (`std::move`) and nobody else holds it. The single mutator, `assign`, bumps
// the storage's version, so that a derivative that saved the old values refuses to use the new ones.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <hypertape/core/abi.h>
#include <hypertape/core/export.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/shape.h>

namespace hypertape {

namespace detail {
struct Header;  // core/tensor/header.h
struct Counted {
  std::atomic<std::uint32_t> references{1};
};
HYPERTAPE_API void destroy(Header* header) noexcept;
}  // namespace detail

class HYPERTAPE_API Tensor {
 public:
  /// The absent tensor: what a derivative returns for an input without a path to the output. It has no shape,
  /// and every operation refuses it by name.
  Tensor() noexcept = default;
  Tensor(const Tensor& other) noexcept : header_(other.header_) { retain(); }
  Tensor(Tensor&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}
  Tensor& operator=(const Tensor& other) noexcept {
    Tensor(other).swap(*this);
    return *this;
  }
  Tensor& operator=(Tensor&& other) noexcept {
    Tensor((std::move)(other)).swap(*this);
    return *this;
  }
  ~Tensor() { release(); }
  void swap(Tensor& other) noexcept { std::swap(header_, other.header_); }

  /// A tensor of `shape` holding a copy of `values`, row-major; Error if the counts differ.
  /// T is float, double, std::int64_t or bool.
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape) {
    return copy_from(values.data(), values.size(), dtype_of<T>, shape);
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }
  template <class T>
  static Tensor from(std::initializer_list<T> values, const Shape& shape) {
    return from(std::span<const T>(values.begin(), values.size()), shape);
  }
  /// A one-dimensional tensor of the values.
  template <class T>
  static Tensor from(std::initializer_list<T> values) {
    return from(values, Shape{static_cast<std::int64_t>(values.size())});
  }

  static Tensor full(const Shape& shape, double value, Dtype dtype = Dtype::float64);
  static Tensor zeros(const Shape& shape, Dtype dtype = Dtype::float64) { return full(shape, 0.0, dtype); }
  static Tensor ones(const Shape& shape, Dtype dtype = Dtype::float64) { return full(shape, 1.0, dtype); }
  /// A rank-0 tensor.
  static Tensor scalar(double value, Dtype dtype = Dtype::float64) { return full(Shape{}, value, dtype); }

  /// A tensor over the embedder's row-major memory, which is only read. `owner` (null: the embedder promises
  /// that the memory stays) is kept alive as long as any view of the memory; whoever writes to the memory
  /// meanwhile breaks every saved value. Other layouts are views of this one: padded rows by `slice`, columns
  /// first by `transpose`. Error: the counts differ, or the address is not a multiple of sizeof(T).
  template <class T>
  static Tensor wrap(std::span<const T> memory, const Shape& shape, std::shared_ptr<const void> owner) {
    return wrap_memory(memory.data(), memory.size(), dtype_of<T>, shape, (std::move)(owner));
  }

  /// False for the absent tensor; every other query below throws Error on it.
  bool defined() const noexcept { return header_ != nullptr; }
  /// The value of a boolean of rank 0, as in `if (any(greater(x, 1.0)))`. Error for every other tensor, the
  /// absent one too: whether there is a tensor is asked by `defined()`.
  explicit operator bool() const;

  Shape shape() const;
  int rank() const;
  /// Extent of one axis; negative axes count from the back.
  std::int64_t extent(std::int64_t axis) const;
  /// Number of elements.
  std::int64_t size() const;
  Dtype dtype() const;
  /// Elements between neighbours along each axis; 0 where the tensor is broadcast.
  std::vector<std::int64_t> strides() const;
  /// True iff the elements lie row-major without gaps.
  bool is_contiguous() const;

  /// The only element, converted to double; Error unless size() is 1.
  double item() const;
  /// Copies the elements in row-major order; Error if T is not the dtype.
  template <class T>
  std::vector<T> to_vector() const {
    static_assert(!std::is_same_v<T, bool>, "read boolean tensors with copy_to");
    auto values = detail::list_of<std::vector<T>>(size());
    copy_out(values.data(), values.size(), dtype_of<T>);
    return values;
  }
  /// Copies the elements in row-major order into `values`, whose size must be size().
  template <class T>
  void copy_to(std::span<T> values) const {
    copy_out(values.data(), values.size(), dtype_of<T>);
  }
  /// Read-only memory of a contiguous tensor; Error if T is not the dtype or it is not contiguous.
  template <class T>
  std::span<const T> data() const {
    return {static_cast<const T*>(contiguous_data(dtype_of<T>)), static_cast<std::size_t>(size())};
  }

  /// Overwrites the elements with those of `values` (same shape and dtype): the explicit mutator. Every view
  /// of this storage changes too. Refused when this tensor is part of a derivative or wraps foreign memory.
  void assign(const Tensor& values);

  /// Whether two handles refer to the same memory.
  bool shares_storage_with(const Tensor& other) const noexcept;

  /// For the library's own sources: the header behind the handle.
  detail::Header* header() const noexcept { return header_; }
  static Tensor adopt(detail::Header* header) noexcept {
    Tensor tensor;
    tensor.header_ = header;
    return tensor;
  }
  detail::Header* detach() noexcept { return std::exchange(header_, nullptr); }

 private:
  static Tensor copy_from(const void* values, std::size_t count, Dtype dtype, const Shape& shape);
  static Tensor wrap_memory(const void* memory, std::size_t count, Dtype dtype, const Shape& shape,
                            std::shared_ptr<const void> owner);
  void copy_out(void* values, std::size_t count, Dtype dtype) const;
  const void* contiguous_data(Dtype dtype) const;

  detail::Counted* counter() const noexcept { return reinterpret_cast<detail::Counted*>(header_); }
  void retain() const noexcept {
    if (header_) counter()->references.fetch_add(1, std::memory_order_relaxed);
  }
  void release() noexcept {
    if (!header_) return;
    // The sole owner needs no atomic read-modify-write: nobody else can raise the count.
    std::atomic<std::uint32_t>& references = counter()->references;
    if (references.load(std::memory_order_acquire) == 1 ||
        references.fetch_sub(1, std::memory_order_acq_rel) == 1)
      detail::destroy(header_);
  }

  detail::Header* header_ = nullptr;
};

/// Prints dtype, shape and the first elements.
HYPERTAPE_API std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

using TensorList = std::vector<Tensor>;

/// A tensor as an operation's argument: remembers whether it was handed over (`std::move`), in which case the
/// operation may reuse its memory.
class Operand {
 public:
  Operand(const Tensor& tensor) noexcept : tensor_(&tensor) {}
  Operand(Tensor&& tensor) noexcept : tensor_(&tensor), given_(true) {}
  const Tensor& operator*() const noexcept { return *tensor_; }
  const Tensor* operator->() const noexcept { return tensor_; }
  /// True iff the caller has no further use for the tensor.
  bool given() const noexcept { return given_; }
  /// The tensor itself, which must be given(); leaves the caller's absent.
  Tensor take() const noexcept { return (std::move)(const_cast<Tensor&>(*tensor_)); }

 private:
  const Tensor* tensor_;
  bool given_ = false;
};

}  // namespace hypertape
