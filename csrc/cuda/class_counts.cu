// Launch functions of class_counts.cuh.
#include "class_counts.cuh"
#include "tiles.cuh"

namespace proto_engine {

cudaError_t launch_count_classes(const TilePass& pass, const int32_t* class_of, int64_t num_classes, float lo,
                                 float hi, uint32_t* above, Entry* list, Counter* length, int64_t capacity,
                                 cudaStream_t stream) {
  return launch_pass<ClassCountEpilogue>(pass, stream, class_of, num_classes, lo, hi, above, list, length,
                                         static_cast<Counter>(capacity));
}

cudaError_t launch_list_classes(const DeviceRows& x, const Entry* list, int64_t n, double cutoff,
                                const int32_t* class_of, int64_t num_classes, uint32_t* above, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return with_rows(x, [&](auto rows) {
    using T = typename decltype(rows)::Element;
    return start(list_classes_kernel<T>, blocks_for(n, kRowGroups), kRowThreads, 0, stream, rows, list, n, cutoff,
                 class_of, num_classes, above);
  });
}

}  // namespace proto_engine
