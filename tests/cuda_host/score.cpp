// What the tests of the scores call: the launch functions by plain pointers, for a device that is the host.
#include "score.h"

#include <exception>

using namespace proto_engine;

namespace {

Rows rows_of(const void* data, int64_t n, int64_t dim, int64_t stride, int32_t dtype) {
  return {data, n, dim, stride, static_cast<DType>(dtype)};
}

// What is wrong with a launch is thrown; here it becomes a message that stays until the next call.
std::string message;
template <class Work>
const char* message_of(const Work& work) {
  try {
    const cudaError_t error = work();
    if (error == cudaSuccess) return nullptr;
    message = cudaGetErrorString(error);
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}

}  // namespace

extern "C" {

int64_t host_num_meetings() { return cuda_host::num_meetings; }

int64_t host_score_workspace_bytes(int64_t num_classes, int64_t dim) {
  return score_workspace_bytes(num_classes, dim);
}

const char* host_prepare_folded(const double* folded, int64_t num_classes, int64_t dim, int32_t dtype,
                                void* workspace) {
  return message_of(
      [&] { return launch_prepare_folded(folded, num_classes, dim, static_cast<DType>(dtype), workspace, nullptr); });
}

const char* host_score_top2(const void* data, int64_t n, int64_t dim, int64_t stride, int32_t dtype,
                            const void* workspace, int64_t num_classes, int64_t* label, double* best, double* second,
                            uint64_t seed, int32_t cluster) {
  cuda_host::launch_seed = seed;
  return message_of([&] {
    const auto launch = cluster ? launch_score_top2_cluster : launch_score_top2;
    return launch(rows_of(data, n, dim, stride, dtype), workspace, num_classes, label, best, second, nullptr);
  });
}

const char* host_score(const void* data, int64_t n, int64_t dim, int64_t stride, int32_t dtype, const void* workspace,
                       int64_t num_classes, float* sigma, uint64_t seed) {
  cuda_host::launch_seed = seed;
  return message_of(
      [&] { return launch_score(rows_of(data, n, dim, stride, dtype), workspace, num_classes, sigma, nullptr); });
}
}
