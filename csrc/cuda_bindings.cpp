// Python face of cuda/proto_engine_cuda.h: addresses and sizes in, launches out. Memory and streams too, so
// that no other library is needed to use a GPU.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>

#include "cuda/proto_engine_cuda.h"

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

// Memory of a device from its pool, in the order of a stream.
class DeviceMemory {
 public:
  DeviceMemory(int64_t bytes, int device, Address stream) : device_(device), stream_(at<CUstream_st>(stream)) {
    OnDevice on(device);
    check(cudaMallocAsync(&pointer_, static_cast<size_t>(bytes > 0 ? bytes : 1), stream_), "device memory");
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
  void* pointer_ = nullptr;
};

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

py::dict device_properties(int device) {
  cudaDeviceProp found;
  check(cudaGetDeviceProperties(&found, device), "device properties");
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
      .def(py::init<int64_t, int, Address>())
      .def_property_readonly("pointer", &DeviceMemory::pointer);
  cuda.def("upload", &upload);
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
  cuda.def("list_extremes", [](const RowsTuple& x, A list, int64_t n, A rows, A order, A smallest, A eta, A s) {
    check(launch_list_extremes(device_rows(x), at<Entry>(list), n, at<int64_t>(rows), at<int64_t>(order),
                               at<uint8_t>(smallest), at<Counter>(eta), at<CUstream_st>(s)),
          "list_extremes");
  });
}

}  // namespace

void bind_cuda(py::module_& core) {
  py::module_ cuda = core.def_submodule("cuda", "Launches on an NVIDIA GPU; see csrc/cuda/proto_engine_cuda.h.");
  bind_memory(cuda);
  bind_launches(cuda);
}
