// The four stored element types, and how each becomes a float32 or float64 exactly.
// static: each instruction set keeps its own copy, none may stand in for another at link time.
#pragma once

#include <cstdint>
#include <cstring>

namespace proto_engine {

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

static inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// IEEE binary16, every case without a branch so that a loop over it vectorizes: subnormals are an
// integer times 2^-24, normals a shifted exponent, infinities and NaN keep an all-ones exponent.
static inline float to_float(Half h) {
  const uint32_t exponent = h.bits & 0x7c00u, fraction = h.bits & 0x03ffu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(fraction)) * 0x1p-24f;
  const uint32_t shifted =
      ((h.bits & 0x7fffu) << 13) + (exponent == 0x7c00u ? (255u - 31u) << 23 : (127u - 15u) << 23);
  const float magnitude = exponent == 0 ? subnormal : float_from_bits(shifted);
  return (h.bits & 0x8000u) ? -magnitude : magnitude;
}
static inline float to_float(BFloat b) { return float_from_bits(static_cast<uint32_t>(b.bits) << 16); }
static inline float to_float(float f) { return f; }

template <class T>
static inline double to_double(T value) {
  return static_cast<double>(to_float(value));
}
static inline double to_double(double value) { return value; }

}  // namespace proto_engine
