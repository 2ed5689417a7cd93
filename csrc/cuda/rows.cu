// Launch functions of gather.cuh, rows.cuh and lists.cuh.
#include "gather.cuh"
#include "launch.cuh"
#include "lists.cuh"

namespace proto_engine {

cudaError_t launch_gather(const void* from, int64_t from_stride, const int64_t* index, int64_t n, int64_t bytes,
                          void* to, int64_t to_stride, cudaStream_t stream) {
  if (n == 0 || bytes == 0) return cudaSuccess;
  const int64_t together = static_cast<int64_t>(reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) |
                           from_stride | to_stride | bytes;
  const int32_t piece = together % 16 == 0 ? 16 : 2;
  return start(gather_kernel, blocks_for(n * (bytes / piece), kRowThreads), kRowThreads, 0, stream,
               static_cast<const uint8_t*>(from), from_stride, index, n, bytes, static_cast<uint8_t*>(to), to_stride,
               piece);
}

cudaError_t launch_inverse(const double* squares, int64_t n, float* inverse, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return start(inverse_kernel, blocks_for(n, kRowThreads), kRowThreads, 0, stream, squares, n, inverse);
}

cudaError_t launch_squares(const Rows& x, double* squares, cudaStream_t stream) {
  if (x.count == 0) return cudaSuccess;
  return with_rows({x, nullptr}, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(squares_kernel<T>, blocks_for(x.count, kRowGroups), kRowThreads, 0, stream, rows.data, rows.stride,
                 rows.dim, x.count, squares);
  });
}

cudaError_t launch_unit(const DeviceRows& x, float* unit, cudaStream_t stream) {
  if (x.rows.count == 0) return cudaSuccess;
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(unit_kernel<T>, blocks_for(x.rows.count, 1), kRowThreads, 0, stream, rows.data, rows.stride,
                 rows.dim, x.rows.count, x.squares, unit);
  });
}

cudaError_t launch_split(const DeviceRows& x, void* split, int64_t padded, cudaStream_t stream) {
  if (x.rows.count == 0) return cudaSuccess;
  if (padded < x.rows.dim || padded % 64 != 0) return cudaErrorInvalidValue;
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(split_kernel<T>, blocks_for(x.rows.count, 1), kRowThreads, 0, stream, rows.data, rows.stride,
                 rows.dim, x.rows.count, x.squares, static_cast<Float16*>(split), padded);
  });
}

cudaError_t launch_pairs(const DeviceRows& x, const int64_t* first, const int64_t* second, int64_t n, double* out,
                         cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(pairs_kernel<T>, blocks_for(n, kRowGroups), kRowThreads, 0, stream, rows, first, second, n, out);
  });
}

cudaError_t launch_list_bins(const DeviceRows& x, const Entry* list, int64_t n, double lo, double hi, int32_t bins,
                             Counter* count, Counter* least, Counter* most, Counter* above, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(list_bins_kernel<T>, blocks_for(n, kRowGroups), kRowThreads, 0, stream, rows, list, n, lo, hi, bins,
                 count, least, most, above);
  });
}

cudaError_t launch_list_threshold(const DeviceRows& x, const Entry* list, int64_t n, double cutoff, uint32_t* above,
                                  uint32_t* equal, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(list_threshold_kernel<T>, blocks_for(n, kRowGroups), kRowThreads, 0, stream, rows, list, n, cutoff,
                 above, equal);
  });
}

cudaError_t launch_list_extremes(const DeviceRows& x, const Entry* list, int64_t n, const int64_t* rows,
                                 const int64_t* order, const uint8_t* smallest, Counter* eta, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return with_rows(x, [&](auto stored) {
    using T = typename decltype(stored)::Element;
    return start(list_extremes_kernel<T>, blocks_for(n, kRowGroups), kRowThreads, 0, stream, stored, list, n, rows,
                 order, smallest, eta);
  });
}

}  // namespace proto_engine
