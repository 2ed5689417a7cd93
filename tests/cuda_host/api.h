// How the test library is called: the shape of the next launch, and errors as text.
#pragma once

#include <string>

#include "cuda_host.h"

// Grid of the next launch, and the seed that shuffles its blocks and threads (0: in order).
inline struct NextLaunch {
  unsigned x = 1, y = 1;
  uint64_t seed = 0;
} next_launch;

template <class Kernel>
void run(unsigned threads, std::size_t shared_bytes, Kernel&& kernel) {
  cuda_host::run_grid(dim3(next_launch.x, next_launch.y), dim3(threads), shared_bytes, next_launch.seed, kernel);
}

// Null, or the text of the error.
template <class F>
const char* guarded(F&& f) {
  static std::string error;
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}
