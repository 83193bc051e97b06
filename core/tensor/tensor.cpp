#include <hypertape/core/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <new>
#include <ostream>

#include <hypertape/core/error.h>
#include "core/backend/backend.h"
#include "core/base/classic_print.h"
#include "core/tensor/header.h"

namespace hypertape {
namespace detail {
namespace {

std::size_t header_bytes(int rank) {
  return sizeof(Header) + 2 * static_cast<std::size_t>(rank) * sizeof(std::int64_t);
}

// A header without storage yet; the caller fills strides, storage and data.
Header* new_header(const std::int64_t* extents, int rank, std::int64_t size, Dtype dtype) {
  auto* header = new (allocate_bytes(header_bytes(rank))) Header;
  header->dtype = dtype;
  header->rank = static_cast<std::uint8_t>(rank);
  header->size = size;
  header->storage = nullptr;
  for (int axis = 0; axis < rank; ++axis) header->extents()[axis] = extents[axis];
  return header;
}

void set_contiguous_strides(Header& header) {
  std::int64_t stride = 1;
  std::int64_t* strides = header.extents() + header.rank;
  for (int axis = header.rank - 1; axis >= 0; --axis) {
    strides[axis] = stride;
    stride *= std::max<std::int64_t>(header.extents()[axis], 1);
  }
  header.contiguous = true;
}

// Contiguity ignores the strides of axes with one element, which are never walked.
bool is_row_major(const Header& header) {
  if (header.size == 0) return true;
  std::int64_t expected = 1;
  for (int axis = header.rank - 1; axis >= 0; --axis) {
    if (header.extents()[axis] == 1) continue;
    if (header.strides()[axis] != expected) return false;
    expected *= header.extents()[axis];
  }
  return true;
}

Storage* new_storage(std::size_t bytes, Backend& backend) {
  void* block = backend.allocate(sizeof(Storage) + bytes);
  auto* storage = new (block) Storage;
  storage->bytes = bytes;
  storage->data = static_cast<std::byte*>(block) + sizeof(Storage);
  storage->backend = &backend;
  return storage;
}

void release_storage(Storage* storage) noexcept {
  if (storage->references.load(std::memory_order_acquire) != 1 &&
      storage->references.fetch_sub(1, std::memory_order_acq_rel) != 1)
    return;
  delete storage->foreign_owner;
  Backend& backend = *storage->backend;
  storage->~Storage();
  backend.release(storage);
}

Tensor new_contiguous(const std::int64_t* extents, int rank, std::int64_t size, Dtype dtype) {
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<std::size_t>(size), size_of(dtype), &bytes) ||
      bytes > (std::size_t{1} << 62))
    fail("tensor", size, " elements of ", dtype, " do not fit in memory");
  Header* header = new_header(extents, rank, size, dtype);
  Tensor owner = Tensor::adopt(header);  // frees the header if the storage cannot be had
  set_contiguous_strides(*header);
  header->storage = new_storage(bytes, cpu_backend());
  header->data = header->storage->data;
  return owner;
}

}  // namespace

void fail_absent(std::string_view operation) {
  fail(operation,
       "operand is absent: it is a default-constructed tensor, or a derivative that does not exist");
}

void free_tangents(Tangent* list) noexcept {
  while (list) {
    Tangent* next = list->next;
    list->~Tangent();
    release_bytes(list);
    list = next;
  }
}

Tangent* copy_tangent(std::uint64_t scope, Tensor value, SupportPointer support) {
  return new (allocate_bytes(sizeof(Tangent))) Tangent{scope, std::move(value), nullptr, std::move(support)};
}

void destroy(Header* header) noexcept {
  if (header->tangents) free_tangents(header->tangents);
  TapeRecord* node = header->node;
  if (header->storage) release_storage(header->storage);
  header->~Header();
  release_bytes(header);
  // Last, since ending a node may end other tensors.
  if (node) release(node);
}

Tensor make_tensor(const Shape& shape, Dtype dtype) {
  return new_contiguous(shape.begin(), shape.rank(), shape.size(), dtype);
}

Tensor make_like(const Header& header) {
  return new_contiguous(header.extents(), header.rank, header.size, header.dtype);
}

Tensor make_view(const Tensor& of, const Shape& shape, const std::int64_t* strides, std::int64_t offset) {
  const Header& source = *of.header();
  Header* header = new_header(shape.begin(), shape.rank(), shape.size(), source.dtype);
  if (strides) {
    for (int axis = 0; axis < shape.rank(); ++axis) (header->extents() + header->rank)[axis] = strides[axis];
    header->contiguous = is_row_major(*header);
  } else {
    set_contiguous_strides(*header);
  }
  header->storage = source.storage;
  header->storage->references.fetch_add(1, std::memory_order_relaxed);
  header->data = source.data + offset * static_cast<std::int64_t>(size_of(source.dtype));
  return Tensor::adopt(header);
}

Tensor make_alias(const Tensor& of) {
  const Header& source = *of.header();
  Header* header = new_header(source.extents(), source.rank, source.size, source.dtype);
  for (int axis = 0; axis < source.rank; ++axis)
    (header->extents() + header->rank)[axis] = source.strides()[axis];
  header->contiguous = source.contiguous;
  header->storage = source.storage;
  header->storage->references.fetch_add(1, std::memory_order_relaxed);
  header->data = source.data;
  return Tensor::adopt(header);
}

Tensor make_contiguous(const Tensor& tensor) {
  if (tensor.header()->contiguous) return tensor;
  Tensor copy = make_like(*tensor.header());
  BackendCall(cpu_backend())->copy(view_of(tensor), view_of(copy));
  return copy;
}

}  // namespace detail

using detail::header_of;

Tensor Tensor::copy_from(const void* values, std::size_t count, Dtype dtype, const Shape& shape) {
  if (count != static_cast<std::size_t>(shape.size()))
    fail("tensor", count, " values given for shape ", shape, ", which holds ", shape.size());
  Tensor tensor = detail::make_tensor(shape, dtype);
  if (count) std::memcpy(tensor.header_->data, values, count * size_of(dtype));
  return tensor;
}

Tensor Tensor::full(const Shape& shape, double value, Dtype dtype) {
  const detail::DefaultFloats floats;
  if (dtype == Dtype::int64 && !(value >= -0x1p63 && value < 0x1p63 && value == std::trunc(value)))
    fail("full", "value ", value, " is not an int64");
  Tensor tensor = detail::make_tensor(shape, dtype);
  detail::BackendCall(detail::cpu_backend())->fill(detail::view_of(tensor), value);
  return tensor;
}

Tensor Tensor::wrap_memory(const void* memory, std::size_t count, Dtype dtype, const Shape& shape,
                           std::shared_ptr<const void> owner) {
  if (count != static_cast<std::size_t>(shape.size()))
    fail("wrap", count, " values given for shape ", shape, ", which holds ", shape.size());
  if (reinterpret_cast<std::uintptr_t>(memory) % size_of(dtype) != 0)
    fail("wrap", "the memory's address is not a multiple of the ", size_of(dtype), " bytes of a ", dtype,
         "; copy it with Tensor::from");
  Tensor tensor = adopt(detail::new_header(shape.begin(), shape.rank(), shape.size(), dtype));
  detail::set_contiguous_strides(*tensor.header_);
  tensor.header_->storage = detail::new_storage(0, detail::cpu_backend());
  detail::Storage& storage = *tensor.header_->storage;
  storage.foreign_owner = new std::shared_ptr<const void>(std::move(owner));
  storage.bytes = count * size_of(dtype);
  // Never written through: kernels write to fresh or donated storage, and foreign storage is not donatable.
  storage.data = static_cast<std::byte*>(const_cast<void*>(memory));
  tensor.header_->data = storage.data;
  return tensor;
}

Shape Tensor::shape() const {
  const detail::Header& header = header_of("shape", *this);
  return Shape(std::span<const std::int64_t>(header.extents(), header.rank));
}
int Tensor::rank() const { return header_of("rank", *this).rank; }
std::int64_t Tensor::extent(std::int64_t axis) const {
  const detail::Header& header = header_of("extent", *this);
  return header.extents()[normalize_axis("extent", axis, shape())];
}
std::int64_t Tensor::size() const { return header_of("size", *this).size; }
Dtype Tensor::dtype() const { return header_of("dtype", *this).dtype; }
std::vector<std::int64_t> Tensor::strides() const {
  const detail::Header& header = header_of("strides", *this);
  return {header.strides(), header.strides() + header.rank};
}
bool Tensor::is_contiguous() const { return header_of("is_contiguous", *this).contiguous; }

double Tensor::item() const {
  const detail::DefaultFloats floats;
  const detail::Header& header = header_of("item", *this);
  if (header.size != 1) fail("item", "tensor of shape ", shape(), " has ", header.size, " elements, not one");
  switch (header.dtype) {
    case Dtype::float32:
      return static_cast<double>(*reinterpret_cast<const float*>(header.data));
    case Dtype::float64:
      return *reinterpret_cast<const double*>(header.data);
    case Dtype::int64:
      return static_cast<double>(*reinterpret_cast<const std::int64_t*>(header.data));
    case Dtype::boolean:
      return *reinterpret_cast<const bool*>(header.data) ? 1.0 : 0.0;
  }
  return 0.0;
}

Tensor::operator bool() const {
  constexpr const char* cure =
      "ask defined() whether there is a tensor, any() or all() for one truth of a mask";
  if (!header_) fail("bool", "the tensor is absent: ", cure);
  if (header_->dtype != Dtype::boolean || header_->rank != 0)
    fail("bool", "tensor of ", header_->dtype, " and shape ", shape(),
         " is no condition, which is a boolean of shape (): ", cure);
  return *reinterpret_cast<const bool*>(header_->data);
}

void Tensor::copy_out(void* values, std::size_t count, Dtype dtype) const {
  const detail::Header& header = header_of("copy_to", *this);
  if (header.dtype != dtype) fail("copy_to", "tensor holds ", header.dtype, ", not ", dtype);
  if (count != static_cast<std::size_t>(header.size))
    fail("copy_to", count, " places given for the ", header.size, " elements of shape ", shape());
  if (!count) return;
  const Tensor row_major = detail::make_contiguous(*this);
  std::memcpy(values, row_major.header_->data, count * size_of(dtype));
}

const void* Tensor::contiguous_data(Dtype dtype) const {
  const detail::Header& header = header_of("data", *this);
  if (header.dtype != dtype) fail("data", "tensor holds ", header.dtype, ", not ", dtype);
  if (!header.contiguous)
    fail("data", "tensor of shape ", shape(), " is a strided view; copy it with to_vector or copy_to");
  return header.data;
}

void Tensor::assign(const Tensor& values) {
  detail::Header& header = header_of("assign", *this);
  const detail::Header& source = header_of("assign", values);
  if (header.dtype != source.dtype) fail("assign", "dtypes differ: ", header.dtype, " and ", source.dtype);
  if (shape() != values.shape()) fail("assign", "shapes differ: ", shape(), " and ", values.shape());
  if (header.node || header.tangents)
    fail("assign", "tensor of shape ", shape(), " is part of a derivative; assign to a tensor outside it");
  if (header.storage->foreign_owner) fail("assign", "tensor of shape ", shape(), " wraps read-only memory");
  for (int axis = 0; axis < header.rank; ++axis)
    if (header.strides()[axis] == 0 && header.extents()[axis] > 1)
      fail("assign", "tensor of shape ", shape(), " is broadcast: several elements share one place");
  // Overlapping views (say a transpose of the target) are read before they are written.
  Tensor stable = shares_storage_with(values) ? detail::make_like(source) : values;
  if (stable.header_ != values.header_)
    detail::BackendCall(detail::cpu_backend())->copy(detail::view_of(values), detail::view_of(stable));
  header.storage->version.fetch_add(1, std::memory_order_relaxed);
  detail::BackendCall(detail::cpu_backend())->copy(detail::view_of(stable), detail::view_of(*this));
}

bool Tensor::shares_storage_with(const Tensor& other) const noexcept {
  return header_ && other.header_ && header_->storage == other.header_->storage;
}

namespace {

void print(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) {
    out << "Tensor(absent)";
    return;
  }
  out << "Tensor(" << tensor.dtype() << ", " << tensor.shape() << ", [";
  constexpr std::int64_t shown = 8;
  const Tensor row_major = detail::make_contiguous(tensor);
  const detail::Header& header = *row_major.header();
  for (std::int64_t i = 0; i < std::min(header.size, shown); ++i) {
    out << (i ? ", " : "");
    const std::byte* element = header.data + i * static_cast<std::int64_t>(size_of(header.dtype));
    switch (header.dtype) {
      case Dtype::float32:
        out << *reinterpret_cast<const float*>(element);
        break;
      case Dtype::float64:
        out << *reinterpret_cast<const double*>(element);
        break;
      case Dtype::int64:
        out << *reinterpret_cast<const std::int64_t*>(element);
        break;
      case Dtype::boolean:
        out << (*reinterpret_cast<const bool*>(element) ? "true" : "false");
        break;
    }
  }
  out << (header.size > shown ? ", ...])" : "])");
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  return detail::print_classic(out, [&](std::ostream& text) { print(text, tensor); });
}

}  // namespace hypertape
