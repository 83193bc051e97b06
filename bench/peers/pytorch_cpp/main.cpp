// pytorch_worker <threads>: serves table.py.
#include <malloc.h>
#include <torch/version.h>

#include <fstream>

#include "work.h"

namespace pytorch_worker {
namespace {

peers::Work build(const std::string& work, const std::string& dtype_name) {
  const torch::Dtype dtype = dtype_name == "float32" ? torch::kFloat32 : torch::kFloat64;
  const std::string kind = work.substr(0, work.find('/'));
  if (kind == "chain") return chain(work, dtype);
  if (kind == "step") return training_step(work, dtype);
  if (kind == "hvp") return hessian_product(work, dtype);
  if (kind == "gauss_newton") return gauss_newton_product(work, dtype);
  if (kind == "implicit") return implicit_hypergradient(work, dtype);
  if (kind == "hypergradient") return run_hypergradient(work, dtype);
  if (kind == "matmul") return product(work, dtype);
  if (kind == "op") return operation(work, dtype);
  throw std::invalid_argument("unknown work " + work);
}

// In bytes; of /proc/self/status.
std::int64_t status(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(field + ":")) return 1024 * std::stoll(line.substr(field.size() + 1));
  throw std::runtime_error("no " + field + " in /proc/self/status");
}

// Growth of the resident memory during the call, freed memory given back before.
std::int64_t peak(const std::function<void()>& call) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the high-water mark starts again
  const std::int64_t before = status("VmRSS");
  call();
  return std::max<std::int64_t>(0, status("VmHWM") - before);
}

}  // namespace
}  // namespace pytorch_worker

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " <threads>\n";
    return 2;
  }
  torch::set_num_threads(std::stoi(argv[1]));
  return peers::serve(
      {"pytorch_cpp", "{\"pytorch\": \"" TORCH_VERSION "\"}", pytorch_worker::build, pytorch_worker::peak});
}
