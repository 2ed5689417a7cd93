// Launch functions of bracket.cuh, finish.cuh and peaks.cuh.
#include "finish.cuh"
#include "launch.cuh"
#include "peaks.cuh"

namespace proto_engine {

cudaError_t launch_narrow(int64_t num_classes, ClassState* states, Counter* histogram, double sigmas, double margin,
                          cudaStream_t stream) {
  return start(narrow_kernel, static_cast<unsigned>(num_classes), kScanThreads, 0, stream, states, histogram, sigmas,
               margin);
}

cudaError_t launch_settle(int64_t num_classes, ClassState* states, Counter* histogram, double bound,
                          cudaStream_t stream) {
  return start(settle_kernel, static_cast<unsigned>(num_classes), kScanThreads, 0, stream, states, histogram, bound);
}

cudaError_t launch_decide(const DeviceRows& x, int64_t num_classes, const int64_t* offsets, ClassState* states,
                          Entry* entries, uint32_t* above, Counter* histogram, cudaStream_t stream) {
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(decide_kernel<T>, class_grid(num_classes), kRowThreads, 0, stream, rows, offsets, states, entries,
                 above, histogram);
  });
}

cudaError_t launch_cutoff(int64_t num_classes, ClassState* states, Counter* histogram, const Entry* entries,
                          double* candidates, cudaStream_t stream) {
  const unsigned classes = static_cast<unsigned>(num_classes);
  cudaError_t error = start(locate_kernel, classes, kScanThreads, 0, stream, states, histogram);
  if (error == cudaSuccess)
    error = start(collect_kernel, class_grid(num_classes), kScanThreads, 0, stream, states, entries, candidates);
  return error != cudaSuccess ? error : start(cutoff_kernel, classes, kScanThreads, 0, stream, states, candidates);
}

cudaError_t launch_rho(int64_t num_classes, const int64_t* offsets, const ClassState* states, const Entry* entries,
                       uint32_t* above, uint32_t* equal, int32_t* rho, cudaStream_t stream) {
  const cudaError_t error =
      start(patch_kernel, class_grid(num_classes), kScanThreads, 0, stream, offsets, states, entries, above, equal);
  return error != cudaSuccess ? error
                              : start(rho_kernel, class_grid(num_classes), kScanThreads, 0, stream, offsets, states,
                                      above, equal, rho);
}

cudaError_t launch_top(int64_t num_classes, const int64_t* offsets, const ClassState* states, const int32_t* rho,
                       int32_t* top, cudaStream_t stream) {
  return start(top_kernel, static_cast<unsigned>(num_classes), kTop, 0, stream, offsets, states, rho, top);
}

cudaError_t launch_pick(const DeviceRows& x, int64_t num_classes, const int64_t* offsets, const ClassState* states,
                        const int32_t* rho, const int32_t* top, Counter* smallest, const uint8_t* may_pick, int32_t p,
                        double eta_max, Picked* picked, int32_t* row, int32_t* density, double* eta,
                        cudaStream_t stream) {
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    const cudaError_t error = start(smallest_kernel<T>, class_grid(num_classes), kRowThreads, 0, stream, rows,
                                    offsets, states, rho, top, smallest);
    return error != cudaSuccess
               ? error
               : start(pick_kernel<T>, static_cast<unsigned>(num_classes), kTop, 0, stream, rows, offsets, states,
                       rho, top, smallest, may_pick, p, eta_max, picked, row, density, eta);
  });
}

}  // namespace proto_engine
