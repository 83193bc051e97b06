// What lies behind a Tensor handle: the pooled header, its storage, and the links that derivatives hang on
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <hypertape/core/memory.h>
#include <hypertape/core/tensor.h>

namespace hypertape::detail {

class Backend;

/// Reference-counted bytes. The elements follow the struct in the same block, 64-byte aligned, unless the
/// memory is an embedder's.
struct alignas(64) Storage {
  std::atomic<std::uint32_t> references{1};
  /// Raised by every explicit mutation; saved tensors compare it.
  std::atomic<std::uint32_t> version{0};
  std::size_t bytes = 0;
  std::byte* data = nullptr;
  Backend* backend = nullptr;
  /// Set when the memory is an embedder's: keeps it alive, and forbids writing.
  std::shared_ptr<const void>* foreign_owner = nullptr;
};
static_assert(sizeof(Storage) == 64);

/// What core knows of a tape node: how to count it and how to end it.
struct TapeRecord : Counted {
  explicit TapeRecord(void (*end)(TapeRecord*) noexcept) : destroy_record(end) {}
  void (*destroy_record)(TapeRecord*) noexcept;
};

inline void retain(TapeRecord* record) noexcept {
  record->references.fetch_add(1, std::memory_order_relaxed);
}
inline void release(TapeRecord* record) noexcept {
  if (record->references.load(std::memory_order_acquire) == 1 ||
      record->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
    record->destroy_record(record);
}

class Support;  // autodiff/tape/support.h
using SupportPointer = std::shared_ptr<const Support>;

/// One (scope, tangent) pair of a tensor; the list is sorted by scope, outermost first.
struct Tangent {
  std::uint64_t scope;
  Tensor value;
  Tangent* next;
  SupportPointer support;  ///< where the tangent can differ from 0; null: nothing is known
};

struct Header : Counted {
  Dtype dtype;
  std::uint8_t rank;
  bool contiguous;           ///< row-major without gaps
  std::uint32_t output = 0;  ///< which output of `node`
  std::int64_t size;
  Storage* storage;
  std::byte* data;
  TapeRecord* node = nullptr;
  Tangent* tangents = nullptr;
  /// `rank` extents, then `rank` strides in elements.
  std::int64_t* extents() noexcept { return reinterpret_cast<std::int64_t*>(this + 1); }
  const std::int64_t* extents() const noexcept { return reinterpret_cast<const std::int64_t*>(this + 1); }
  const std::int64_t* strides() const noexcept { return extents() + rank; }
};

/// The header, or Error "[operation] operand is absent".
inline Header& header_of(std::string_view operation, const Tensor& tensor);
[[noreturn]] void fail_absent(std::string_view operation);
inline Header& header_of(std::string_view operation, const Tensor& tensor) {
  if (!tensor.defined()) fail_absent(operation);
  return *tensor.header();
}

/// Uninitialised, contiguous, of the CPU backend.
Tensor make_tensor(const Shape& shape, Dtype dtype);
/// The same, taking the shape of an existing contiguous or strided tensor.
Tensor make_like(const Header& header);
/// A header of its own over the same memory: no node, no tangents.
Tensor make_view(const Tensor& of, const Shape& shape, const std::int64_t* strides, std::int64_t offset);
Tensor make_alias(const Tensor& of);
/// Same elements, row-major; the tensor itself if it is so already. Not recorded: for kernels.
Tensor make_contiguous(const Tensor& tensor);

void free_tangents(Tangent* list) noexcept;
Tangent* copy_tangent(std::uint64_t scope, Tensor value, SupportPointer support);

/// Whether nobody but the one who holds `tensor` can see its bytes, which are contiguous.
inline bool is_held_alone(const Tensor& tensor) noexcept {
  const Header& header = *tensor.header();
  return header.references.load(std::memory_order_acquire) == 1 && header.contiguous &&
         header.storage->references.load(std::memory_order_acquire) == 1 && !header.storage->foreign_owner;
}
/// Whether an operation may write its result over `operand`: handed over, and nobody else can see the bytes.
inline bool is_donatable(const Operand& operand) noexcept {
  return operand.given() && is_held_alone(*operand);
}

}  // namespace hypertape::detail
