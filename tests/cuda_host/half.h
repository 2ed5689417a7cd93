// float16, bit by bit.
#pragma once

#include <cstdint>
#include <cstring>

namespace cuda_host {

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  if (exponent == 31) return same_bits<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent > 0) return same_bits<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float value = static_cast<float>(fraction) * 0x1p-24f;  // subnormal: exact
  return sign ? -value : value;
}

// To the nearest, ties to even.
inline uint16_t float_to_half(float x) {
  const uint32_t bits = same_bits<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  if (magnitude > 0x7f800000u) return 0x7fff;                                  // what the GPU makes of NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above
  if (magnitude < 0x33000000u) return sign;                                    // below half of 2^-24
  const uint32_t exponent = magnitude >> 23;
  const uint32_t shift = exponent >= 113 ? 13 : 126 - exponent;  // bits that have no place in the result
  const uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t kept = significand >> shift, rest = significand & ((1u << shift) - 1), half = 1u << (shift - 1);
  const uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1u)));
  // A normal number's leading one adds 1 to the exponent field, and so does a carry out of the fraction.
  return static_cast<uint16_t>(sign + (exponent >= 113 ? ((exponent - 113) << 10) + rounded : rounded));
}

inline float bfloat_to_float(uint16_t bits) { return same_bits<float>(static_cast<uint32_t>(bits) << 16); }

}  // namespace cuda_host
