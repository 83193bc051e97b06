// A number of threads for as long as a command runs.
#pragma once

#include <hypertape/core/parallel.h>

namespace hypertape {

class ThreadCountScope {
 public:
  explicit ThreadCountScope(int count) { set_thread_count(count); }
  ~ThreadCountScope() { set_thread_count(before_); }
  ThreadCountScope(const ThreadCountScope&) = delete;
  ThreadCountScope& operator=(const ThreadCountScope&) = delete;

 private:
  int before_ = thread_count();
};

}  // namespace hypertape
