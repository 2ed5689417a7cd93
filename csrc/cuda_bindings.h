// What the Python faces of CUDA share: addresses as numbers, and errors as exceptions.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace proto_engine {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that was reported must not be found again by the next call
  const std::string message = std::string(what) + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    PyErr_SetString(PyExc_MemoryError, message.c_str());
    throw pybind11::error_already_set();
  }
  throw std::runtime_error(message);
}

}  // namespace proto_engine

void bind_cuda_memory(pybind11::module_& cuda);  // cuda_memory_bindings.cpp
