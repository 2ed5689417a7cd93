// proto_engine on the GPU: every launch function. Device pointers and a stream; no allocation, no
// synchronization; the error of the launch is returned.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace proto_engine {

// squares[i] = the pinned sum of squares of row i, unit[i] = float32(x_i / sqrt(squares[i])).
// x: [m, d] float32, squares: [m] float64, unit: [m, d] float32
cudaError_t launch_normalize(const float* x, int64_t m, int64_t d, double* squares, float* unit, cudaStream_t stream);

}  // namespace proto_engine
