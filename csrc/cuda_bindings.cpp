// Python face of cuda/proto_engine_cuda.h: addresses and sizes in, launches out. Memory and streams too, so
// that no other library is needed to use a GPU.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "cuda/proto_engine_cuda.h"
#include "cuda/score.h"

namespace py = pybind11;
using namespace proto_engine;

namespace {

using Address = uintptr_t;
// (data, count, dim, stride, dtype, squares)
using RowsTuple = std::tuple<Address, int64_t, int64_t, int64_t, int32_t, Address>;
// (data, count, dim, stride, dtype, segments, scale, uniform)
using TileRowsTuple = std::tuple<Address, int64_t, int32_t, int64_t, int32_t, int32_t, Address, float>;
// (offsets, tile_start, first, last, rounds, columns, shape)
using WorkTuple = std::tuple<Address, Address, int64_t, int64_t, int64_t, int64_t, int32_t>;
// (loop, work, rows, columns)
using PassTuple = std::tuple<int32_t, WorkTuple, TileRowsTuple, TileRowsTuple>;
// (limit, smallest, best)
using ExtremesTuple = std::tuple<Address, Address, Address>;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that was reported must not be found again by the next call
  const std::string message = std::string(what) + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    PyErr_SetString(PyExc_MemoryError, message.c_str());
    throw py::error_already_set();
  }
  throw std::runtime_error(message);
}

// Makes a device the current one and the other one again.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_), "current device");
    if (device != before_) check(cudaSetDevice(device), "choosing the device");
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

// The pool that a device's memory comes from. It keeps what is given back, up to a limit: otherwise every
// wait for the device would return all of it to the driver, and the next call would wait to have it again.
constexpr uint64_t kKeptBytes = uint64_t{1} << 29;

cudaMemPool_t pool_of(int device) {
  static std::map<int, cudaMemPool_t> pools;  // under the interpreter's lock
  const auto found = pools.find(device);
  if (found != pools.end()) return found->second;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties), "memory pool");
  uint64_t kept = kKeptBytes;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept), "memory pool");
  return pools[device] = pool;
}

// The most that was in use since the last reset, and what is in use now, in bytes.
py::tuple pool_usage(int device, bool reset) {
  OnDevice on(device);
  const cudaMemPool_t pool = pool_of(device);
  uint64_t most = 0, now = 0, zero = 0;
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most), "memory pool");
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &now), "memory pool");
  if (reset) check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &zero), "memory pool");
  return py::make_tuple(most, now);
}

// Memory of a device, in the order of a stream. It is given back there too, so that the stream must still be:
// `owner` keeps it, where there is one.
class DeviceMemory {
 public:
  DeviceMemory(int64_t bytes, int device, Address stream, py::object owner)
      : device_(device), stream_(at<CUstream_st>(stream)), owner_(std::move(owner)) {
    OnDevice on(device);
    check(cudaMallocFromPoolAsync(&pointer_, static_cast<size_t>(bytes > 0 ? bytes : 1), pool_of(device), stream_),
          "device memory");
  }
  ~DeviceMemory() {
    int before = 0;
    if (pointer_ == nullptr || cudaGetDevice(&before) != cudaSuccess) return;  // the process is ending
    cudaSetDevice(device_);
    cudaFreeAsync(pointer_, stream_);
    cudaSetDevice(before);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  Address pointer() const { return reinterpret_cast<Address>(pointer_); }

 private:
  int device_;
  cudaStream_t stream_;
  py::object owner_;
  void* pointer_ = nullptr;
};

// Page-locked memory of the host, which copies run from and to in the background.
class PinnedMemory {
 public:
  explicit PinnedMemory(int64_t bytes) : bytes_(bytes) {
    check(cudaHostAlloc(&pointer_, static_cast<size_t>(bytes > 0 ? bytes : 1), cudaHostAllocDefault),
          "page-locked memory");
  }
  ~PinnedMemory() {
    if (pointer_ != nullptr) cudaFreeHost(pointer_);
  }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  py::buffer_info buffer() const {
    return py::buffer_info(static_cast<uint8_t*>(pointer_), static_cast<py::ssize_t>(bytes_));
  }

 private:
  void* pointer_ = nullptr;
  int64_t bytes_;
};

class Stream {
 public:
  explicit Stream(int device) {
    OnDevice on(device);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  }
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Address pointer() const { return reinterpret_cast<Address>(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(int device) {
    OnDevice on(device);
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "event");
  }
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Address stream) { check(cudaEventRecord(event_, at<CUstream_st>(stream)), "event"); }
  void wait(Address stream) { check(cudaStreamWaitEvent(at<CUstream_st>(stream), event_, 0), "event"); }
  void synchronize() {
    cudaError_t error;
    {
      py::gil_scoped_release release;
      error = cudaEventSynchronize(event_);
    }
    check(error, "event");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

bool is_pinned(Address address) {
  cudaPointerAttributes found;
  if (cudaPointerGetAttributes(&found, at<void>(address)) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return found.type == cudaMemoryTypeHost;
}

void upload(Address to, const py::array& from, Address stream) {
  if (!(from.flags() & py::array::c_style)) throw std::invalid_argument("upload: wanted a contiguous array");
  check(cudaMemcpyAsync(at<void>(to), from.data(), static_cast<size_t>(from.nbytes()), cudaMemcpyHostToDevice,
                        at<CUstream_st>(stream)),
        "copy to the device");
}

void download(py::array to, Address from, Address stream) {
  if (!(to.flags() & py::array::c_style)) throw std::invalid_argument("download: wanted a contiguous array");
  void* data = to.mutable_data();
  const size_t bytes = static_cast<size_t>(to.nbytes());
  cudaError_t error;
  {
    py::gil_scoped_release release;
    error = cudaMemcpyAsync(data, at<void>(from), bytes, cudaMemcpyDeviceToHost, at<CUstream_st>(stream));
    if (error == cudaSuccess) error = cudaStreamSynchronize(at<CUstream_st>(stream));
  }
  check(error, "copy from the device");
}

void upload_async(Address to, const py::array& from, Address stream) { upload(to, from, stream); }

void download_async(py::array to, Address from, Address stream) {
  if (!(to.flags() & py::array::c_style)) throw std::invalid_argument("download: wanted a contiguous array");
  check(cudaMemcpyAsync(to.mutable_data(), at<void>(from), static_cast<size_t>(to.nbytes()), cudaMemcpyDeviceToHost,
                        at<CUstream_st>(stream)),
        "copy from the device");
}

// Asked for at every call and never another answer, but the runtime takes up to milliseconds to gather them.
const cudaDeviceProp& properties_of(int device) {
  static std::map<int, cudaDeviceProp> known;  // under the interpreter's lock
  const auto place = known.find(device);
  if (place != known.end()) return place->second;
  cudaDeviceProp found;
  check(cudaGetDeviceProperties(&found, device), "device properties");
  return known[device] = found;
}

py::dict device_properties(int device) {
  const cudaDeviceProp& found = properties_of(device);
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "driver version");
  py::dict out;
  out["name"] = std::string(found.name);
  out["compute_capability"] = py::make_tuple(found.major, found.minor);
  out["processors"] = found.multiProcessorCount;
  out["memory"] = static_cast<int64_t>(found.totalGlobalMem);
  out["l2"] = found.l2CacheSize;
  out["driver"] = driver;
  out["runtime"] = CUDART_VERSION;
  return out;
}

Rows rows_of(const RowsTuple& x) {
  const auto& [data, count, dim, stride, dtype, squares] = x;
  (void)squares;
  return {at<void>(data), count, dim, stride, static_cast<DType>(dtype)};
}
DeviceRows device_rows(const RowsTuple& x) { return {rows_of(x), at<double>(std::get<5>(x))}; }

TileRows tile_rows(const TileRowsTuple& x) {
  const auto& [data, count, dim, stride, dtype, segments, scale, uniform] = x;
  return {{at<void>(data), stride, at<float>(scale), uniform, dim, segments}, count, static_cast<DType>(dtype)};
}
TilePass tile_pass(const PassTuple& x) {
  const auto& [loop, work, rows, columns] = x;
  const auto& [offsets, tile_start, first, last, rounds, num_columns, shape] = work;
  return {static_cast<TileLoop>(loop),
          {at<int64_t>(offsets), at<int64_t>(tile_start), first, last, rounds, num_columns, shape},
          tile_rows(rows),
          tile_rows(columns)};
}
Extremes extremes_of(const ExtremesTuple& x) {
  const auto& [limit, smallest, best] = x;
  return {at<int64_t>(limit), at<uint8_t>(smallest), at<uint32_t>(best)};
}

void bind_memory(py::module_& cuda) {
  py::class_<DeviceMemory>(cuda, "DeviceMemory")
      .def(py::init<int64_t, int, Address, py::object>(), py::arg("bytes"), py::arg("device"), py::arg("stream"),
           py::arg("owner") = py::none())
      .def_property_readonly("pointer", &DeviceMemory::pointer);
  py::class_<PinnedMemory>(cuda, "PinnedMemory", py::buffer_protocol())
      .def(py::init<int64_t>())
      .def_buffer([](PinnedMemory& memory) { return memory.buffer(); });
  py::class_<Stream>(cuda, "Stream").def(py::init<int>()).def_property_readonly("pointer", &Stream::pointer);
  py::class_<Event>(cuda, "Event")
      .def(py::init<int>())
      .def("record", &Event::record)
      .def("wait", &Event::wait)
      .def("synchronize", &Event::synchronize);
  cuda.def("is_pinned", &is_pinned);
  cuda.def("pool_usage", &pool_usage);
  cuda.def("upload", &upload);
  cuda.def("upload_async", &upload_async);
  cuda.def("download_async", &download_async);
  cuda.def("download", &download);
  cuda.def("fill", [](Address to, int value, int64_t bytes, Address stream) {
    check(cudaMemsetAsync(at<void>(to), value, static_cast<size_t>(bytes), at<CUstream_st>(stream)), "fill");
  });
  cuda.def("copy", [](Address to, Address from, int64_t bytes, Address stream) {
    check(cudaMemcpyAsync(at<void>(to), at<void>(from), static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                          at<CUstream_st>(stream)),
          "copy on the device");
  });
  cuda.def("synchronize", [](Address stream) {
    cudaError_t error;
    {
      py::gil_scoped_release release;
      error = cudaStreamSynchronize(at<CUstream_st>(stream));
    }
    check(error, "synchronize");
  });
  cuda.def("device_count", [] {
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting devices");
    return count;
  });
  cuda.def("device_properties", &device_properties);
  cuda.def("current_device", [] {
    int device = 0;
    check(cudaGetDevice(&device), "current device");
    return device;
  });
  cuda.def("set_device", [](int device) { check(cudaSetDevice(device), "choosing the device"); });
  cuda.def("memory_info", [](int device) {
    OnDevice on(device);
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "memory");
    return py::make_tuple(static_cast<int64_t>(free), static_cast<int64_t>(total));
  });
}

void bind_launches(py::module_& cuda) {
  using A = Address;
  cuda.def("gather",
           [](A from, int64_t from_stride, A index, int64_t n, int64_t bytes, A to, int64_t to_stride, A s) {
             check(launch_gather(at<void>(from), from_stride, at<int64_t>(index), n, bytes, at<void>(to), to_stride,
                                 at<CUstream_st>(s)),
                   "gather");
           });
  cuda.def("squares", [](const RowsTuple& x, A squares, A s) {
    check(launch_squares(rows_of(x), at<double>(squares), at<CUstream_st>(s)), "squares");
  });
  cuda.def("inverse", [](A squares, int64_t n, A inverse, A s) {
    check(launch_inverse(at<double>(squares), n, at<float>(inverse), at<CUstream_st>(s)), "inverse");
  });
  cuda.def("unit", [](const RowsTuple& x, A unit, A s) {
    check(launch_unit(device_rows(x), at<float>(unit), at<CUstream_st>(s)), "unit");
  });
  cuda.def("split", [](const RowsTuple& x, A split, int64_t padded, A s) {
    check(launch_split(device_rows(x), at<void>(split), padded, at<CUstream_st>(s)), "split");
  });
  cuda.def("pairs", [](const RowsTuple& x, A first, A second, int64_t n, A out, A s) {
    check(
        launch_pairs(device_rows(x), at<int64_t>(first), at<int64_t>(second), n, at<double>(out), at<CUstream_st>(s)),
        "pairs");
  });
  cuda.def("histogram", [](const PassTuple& pass, A states, A histogram, A s) {
    check(launch_histogram(tile_pass(pass), at<ClassState>(states), at<Counter>(histogram), at<CUstream_st>(s)),
          "histogram");
  });
  cuda.def("count", [](const PassTuple& pass, A states, A above, A entries, A histogram, A s) {
    check(launch_count(tile_pass(pass), at<ClassState>(states), at<uint32_t>(above), at<Entry>(entries),
                       at<Counter>(histogram), at<CUstream_st>(s)),
          "count");
  });
  cuda.def("count_classes", [](const PassTuple& pass, A class_of, int64_t num_classes, float lo, float hi, A above,
                               A list, A length, int64_t capacity, A s) {
    check(launch_count_classes(tile_pass(pass), at<int32_t>(class_of), num_classes, lo, hi, at<uint32_t>(above),
                               at<Entry>(list), at<Counter>(length), capacity, at<CUstream_st>(s)),
          "count_classes");
  });
  cuda.def("similarity", [](const PassTuple& pass, A out, A s) {
    check(launch_similarity(tile_pass(pass), at<float>(out), at<CUstream_st>(s)), "similarity");
  });
  cuda.def("best", [](const PassTuple& pass, const ExtremesTuple& extremes, A s) {
    check(launch_best(tile_pass(pass), extremes_of(extremes), at<CUstream_st>(s)), "best");
  });
  cuda.def("near", [](const PassTuple& pass, const ExtremesTuple& extremes, float reach, A list, A length,
                      int64_t capacity, A s) {
    check(launch_near(tile_pass(pass), extremes_of(extremes), reach, at<Entry>(list), at<Counter>(length), capacity,
                      at<CUstream_st>(s)),
          "near");
  });
  cuda.def("narrow", [](int64_t classes, A states, A histogram, double sigmas, double margin, A s) {
    check(launch_narrow(classes, at<ClassState>(states), at<Counter>(histogram), sigmas, margin, at<CUstream_st>(s)),
          "narrow");
  });
  cuda.def("settle", [](int64_t classes, A states, A histogram, double bound, A s) {
    check(launch_settle(classes, at<ClassState>(states), at<Counter>(histogram), bound, at<CUstream_st>(s)),
          "settle");
  });
  cuda.def("decide",
           [](const RowsTuple& x, int64_t classes, A offsets, A states, A entries, A above, A histogram, A s) {
             check(launch_decide(device_rows(x), classes, at<int64_t>(offsets), at<ClassState>(states),
                                 at<Entry>(entries), at<uint32_t>(above), at<Counter>(histogram), at<CUstream_st>(s)),
                   "decide");
           });
  cuda.def("cutoff", [](int64_t classes, A states, A histogram, A entries, A candidates, A s) {
    check(launch_cutoff(classes, at<ClassState>(states), at<Counter>(histogram), at<Entry>(entries),
                        at<double>(candidates), at<CUstream_st>(s)),
          "cutoff");
  });
  cuda.def("rho", [](int64_t classes, A offsets, A states, A entries, A above, A equal, A rho, A s) {
    check(launch_rho(classes, at<int64_t>(offsets), at<ClassState>(states), at<Entry>(entries), at<uint32_t>(above),
                     at<uint32_t>(equal), at<int32_t>(rho), at<CUstream_st>(s)),
          "rho");
  });
  cuda.def("top", [](int64_t classes, A offsets, A states, A rho, A top, A s) {
    check(launch_top(classes, at<int64_t>(offsets), at<ClassState>(states), at<int32_t>(rho), at<int32_t>(top),
                     at<CUstream_st>(s)),
          "top");
  });
  cuda.def("pick", [](const RowsTuple& x, int64_t classes, A offsets, A states, A rho, A top, A smallest, A may_pick,
                      int32_t p, double eta_max, A picked, A row, A density, A eta, A s) {
    check(launch_pick(device_rows(x), classes, at<int64_t>(offsets), at<ClassState>(states), at<int32_t>(rho),
                      at<int32_t>(top), at<Counter>(smallest), at<uint8_t>(may_pick), p, eta_max, at<Picked>(picked),
                      at<int32_t>(row), at<int32_t>(density), at<double>(eta), at<CUstream_st>(s)),
          "pick");
  });
  cuda.def("list_bins", [](const RowsTuple& x, A list, int64_t n, double lo, double hi, int32_t bins, A count,
                           A least, A most, A above, A s) {
    check(launch_list_bins(device_rows(x), at<Entry>(list), n, lo, hi, bins, at<Counter>(count), at<Counter>(least),
                           at<Counter>(most), at<Counter>(above), at<CUstream_st>(s)),
          "list_bins");
  });
  cuda.def("list_threshold", [](const RowsTuple& x, A list, int64_t n, double cutoff, A above, A equal, A s) {
    check(launch_list_threshold(device_rows(x), at<Entry>(list), n, cutoff, at<uint32_t>(above), at<uint32_t>(equal),
                                at<CUstream_st>(s)),
          "list_threshold");
  });
  cuda.def("list_classes",
           [](const RowsTuple& x, A list, int64_t n, double cutoff, A class_of, int64_t num_classes, A above, A s) {
             check(launch_list_classes(device_rows(x), at<Entry>(list), n, cutoff, at<int32_t>(class_of), num_classes,
                                       at<uint32_t>(above), at<CUstream_st>(s)),
                   "list_classes");
           });
  cuda.def("list_extremes", [](const RowsTuple& x, A list, int64_t n, A rows, A order, A smallest, A eta, A s) {
    check(launch_list_extremes(device_rows(x), at<Entry>(list), n, at<int64_t>(rows), at<int64_t>(order),
                               at<uint8_t>(smallest), at<Counter>(eta), at<CUstream_st>(s)),
          "list_extremes");
  });
}

void bind_scores(py::module_& cuda) {
  using A = Address;
  cuda.def("prepare_folded", [](A folded, int64_t num_classes, int64_t dim, int32_t dtype, A workspace, A s) {
    check(launch_prepare_folded(at<double>(folded), num_classes, dim, static_cast<DType>(dtype), at<void>(workspace),
                                at<CUstream_st>(s)),
          "prepare_folded");
  });
  cuda.def("score_top2", [](const RowsTuple& x, A workspace, int64_t num_classes, A label, A best, A second, A s) {
    check(launch_score_top2(rows_of(x), at<void>(workspace), num_classes, at<int64_t>(label), at<double>(best),
                            at<double>(second), at<CUstream_st>(s)),
          "score_top2");
  });
  cuda.def("score", [](const RowsTuple& x, A workspace, int64_t num_classes, A sigma, A s) {
    check(launch_score(rows_of(x), at<void>(workspace), num_classes, at<float>(sigma), at<CUstream_st>(s)), "score");
  });
}

}  // namespace

void bind_cuda(py::module_& core) {
  py::module_ cuda = core.def_submodule("cuda", "Launches on an NVIDIA GPU; see csrc/cuda/proto_engine_cuda.h.");
  bind_memory(cuda);
  bind_launches(cuda);
  bind_scores(cuda);
}
