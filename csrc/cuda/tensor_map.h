// Descriptions of matrices for the bulk copy engine of Hopper.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace proto_engine {

// What one copy brings: kBoxColumns elements of 16 bits (128 bytes, the span of the swizzle) of some rows.
constexpr int kBoxColumns = 64;

// map: a row-major matrix of 16-bit elements in device memory, [rows, width], `stride` elements from one row to
// the next. Copies bring box_rows rows (up to 256), swizzle by 128 bytes, and give zeros for what lies outside
// the matrix.
//
// cudaErrorInvalidValue: data or stride (in bytes) not a multiple of 16, stride < width, or a size out of range
// (1 to 2^31 - 1 rows and columns). cudaErrorNotSupported: the driver knows no such descriptions.
// Other errors are those of finding the driver. Needs neither a context nor a linked driver.
cudaError_t make_tensor_map(const void* data, int64_t rows, int64_t width, int64_t stride, int box_rows,
                            CUtensorMap* map);

}  // namespace proto_engine
