// The tests' main: settles the BLAS kernels first, as every program of ours does.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "hypertape/core/initialize.h"

int main(int argc, char** argv) {
  hypertape::initialize();
  return doctest::Context(argc, argv).run();
}
