// peer_worker <threads>: serves table.py.
#include "work.h"

namespace hypertape::peers_worker {
namespace {

peers::Work build(const std::string& work, const std::string& dtype_name) {
  const Dtype dtype = dtype_name == "float32" ? Dtype::float32 : Dtype::float64;
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

std::int64_t peak(const std::function<void()>& call) {
  const PeakScope scope;
  call();
  return scope.peak_bytes();
}

}  // namespace
}  // namespace hypertape::peers_worker

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " <threads>\n";
    return 2;
  }
  hypertape::initialize();
  hypertape::set_thread_count(std::stoi(argv[1]));
  const hypertape::RuntimeInfo info = hypertape::runtime_info();
  return peers::serve({"hypertape",
                       "{\"hypertape\": \"" HYPERTAPE_VERSION "\", \"kernels\": \"" + info.isa + "\"}",
                       hypertape::peers_worker::build, hypertape::peers_worker::peak});
}
