// The two passes that find cutoff and density: a histogram of some tiles, counts over all of them.
#include "tiles.cuh"

namespace proto_engine {

cudaError_t launch_histogram(const TilePass& pass, const ClassState* states, Counter* histogram,
                             cudaStream_t stream) {
  return launch_pass<HistogramEpilogue>(pass, stream, states, histogram);
}

cudaError_t launch_count(const TilePass& pass, ClassState* states, uint32_t* above, Entry* entries,
                         Counter* histogram, cudaStream_t stream) {
  return launch_pass<CountEpilogue>(pass, stream, states, above, entries, histogram);
}

}  // namespace proto_engine
