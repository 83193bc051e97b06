// Uses the installed library as a stranger would: its headers, its functions, and an error across its border.
#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include <hypertape/core/version.h>

#include <atomic>
#include <iostream>

int main() {
  std::atomic<int> sum = 0;
  hypertape::parallel_chunks(100, [&](std::int64_t chunk) { sum += static_cast<int>(chunk); });
  if (sum != 4950) return 1;
  try {
    hypertape::set_thread_count(0);
  } catch (const hypertape::Error& error) {
    std::cout << "hypertape " << hypertape::version() << ": " << error.what() << '\n';
    return 0;
  }
  return 1;
}
