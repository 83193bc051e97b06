// The one wrapper around threads. Everything that runs in parallel goes through here.
//
// Work is cut into chunks whose borders depend on the problem alone, or do not show in the result, so that
// results have the same bits on any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>

#include <hypertape/core/export.h>

namespace hypertape {

/// Number of threads that parallel work may use, at least 1. Default: the CPUs this process may run on, and
/// no more than those whose time its control groups allow (a container's limit, rounded up; read once). It is
/// shared by all calls that are in progress, whichever threads they come from: a call takes the calling
/// thread and those of the others that no call is using, and goes on alone when there are none.
HYPERTAPE_API int thread_count() noexcept;

/// Sets the number of threads for the whole process; `count` from 1 to the CPUs this process may run on,
/// else Error. Not to be called while another thread computes.
HYPERTAPE_API void set_thread_count(int count);

/// CPUs this process may run on (its affinity mask), whatever its control groups allow.
HYPERTAPE_API int available_cpus() noexcept;

/// What a parallel call takes in all. A brief one is some 20 us on one thread at most: helpers that sleep are
/// woken for it only when such calls go on.
enum class CallSize { any, brief };

namespace detail {
// A borrowed callable: no allocation, valid only during the call.
struct ChunkBody {
  void* object;
  void (*call)(void* object, std::int64_t chunk);
};
HYPERTAPE_API void run_chunks(std::int64_t chunks, ChunkBody body, CallSize call);
}  // namespace detail

/// Calls body(chunk) for every chunk in [0, chunks), possibly in parallel; returns when all are done.
/// The first exception thrown by a body is rethrown. One chunk, or one thread: runs in place, in order.
/// Nested calls run in order on the calling thread.
template <class Body>
void parallel_chunks(std::int64_t chunks, Body&& body, CallSize call = CallSize::any) {
  using Stored = std::remove_reference_t<Body>;
  detail::run_chunks(chunks,
                     {const_cast<void*>(static_cast<const void*>(std::addressof(body))),
                      [](void* object, std::int64_t chunk) { (*static_cast<Stored*>(object))(chunk); }},
                     call);
}

/// Calls body(begin, end) for [0, size) cut into pieces of `grain` elements (the last may be shorter).
template <class Body>
void parallel_ranges(std::int64_t size, std::int64_t grain, Body&& body, CallSize call = CallSize::any) {
  if (size <= 0) return;
  if (size <= grain) {
    body(std::int64_t{0}, size);
    return;
  }
  parallel_chunks((size + grain - 1) / grain,
                  [&](std::int64_t chunk) {
                    const std::int64_t begin = chunk * grain;
                    body(begin, size - begin < grain ? size : begin + grain);
                  },
                  call);
}

}  // namespace hypertape
