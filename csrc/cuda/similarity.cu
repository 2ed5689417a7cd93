// The explicit matrix, and the two passes that find eta of any rows.
#include "lists.cuh"
#include "tiles.cuh"

namespace proto_engine {

cudaError_t launch_similarity(const TilePass& pass, float* out, cudaStream_t stream) {
  return launch_pass<StoreEpilogue>(pass, stream, out);
}

cudaError_t launch_best(const TilePass& pass, const Extremes& extremes, cudaStream_t stream) {
  return launch_pass<BestEpilogue>(pass, stream, extremes);
}

cudaError_t launch_near(const TilePass& pass, const Extremes& extremes, float reach, Entry* list, Counter* length,
                        int64_t capacity, cudaStream_t stream) {
  return launch_pass<NearEpilogue>(pass, stream, extremes, reach, list, length, static_cast<Counter>(capacity));
}

}  // namespace proto_engine
