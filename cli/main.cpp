#include <exception>
#include <iostream>

#include <hypertape/core/initialize.h>
#include "program.h"

int main(int argc, char** argv) {
  try {
    hypertape::initialize();
  } catch (const std::exception& error) {
    std::cerr << "hypertape: " << error.what() << '\n';
    return 1;
  }
  return hypertape::run_program(argc, argv, std::cout, std::cerr);
}
