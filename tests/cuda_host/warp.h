// What the lanes of a warp do together, and atomics.
//
// Every lane brings a slot on its own stack; the last to arrive carries the operation out for all of them.
// Only whole warps may meet: a mask other than all ones, a lane that never comes, or lanes that come for
// different things are errors, also where some GPU would let them pass.
#pragma once

#include "thread_block.h"

namespace cuda_host {

constexpr unsigned kFullMask = 0xffffffffu;

inline int64_t num_meetings = 0;  // of warps, all launches: how much work they did together

// combine(slots, n): the slots of lanes 0 to n - 1.
template <class Slot, class Combine>
void meet(const char* what, Slot& mine, Combine&& combine) {
  Block& block = *Block::current();
  Warp& warp = block.warp();
  if (warp.arrived > 0 && std::strcmp(warp.meets_at, what) != 0)
    block.fail(std::string("comes to ") + what + " while other lanes of its warp wait at " + warp.meets_at);
  warp.meets_at = what;
  warp.slots[block.lane()] = &mine;
  if (++warp.arrived < warp.size) {
    block.wait(what);
    return;
  }
  Slot* slots[kWarpSize];
  for (int l = 0; l < warp.size; ++l) slots[l] = static_cast<Slot*>(warp.slots[l]);
  combine(slots, warp.size);
  ++num_meetings;
  warp.arrived = 0;
  const unsigned first = block.thread().index - static_cast<unsigned>(block.lane());
  for (int l = 0; l < warp.size; ++l)
    if (l != block.lane()) block.make_ready(first + static_cast<unsigned>(l));
  if (block.seeded()) block.give_way();
}

inline void check_mask(unsigned mask, const char* what) {
  if (mask != kFullMask) Block::current()->fail(std::string(what) + ": only whole warps can meet here");
}

// source(l): the lane whose value lane l gets.
template <class T, class Source>
T shuffle(const char* what, unsigned mask, T value, Source&& source) {
  struct Slot {
    T in, out;
    int source;
  } slot{value, value, source(Block::current()->lane())};
  check_mask(mask, what);
  meet(what, slot, [what](Slot** slots, int n) {
    for (int l = 0; l < n; ++l) {
      if (slots[l]->source < 0 || slots[l]->source >= n)
        Block::current()->fail(std::string(what) + ": lane " + std::to_string(l) + " asks a lane that is not there");
      slots[l]->out = slots[slots[l]->source]->in;
    }
  });
  return slot.out;
}

inline unsigned ballot(const char* what, unsigned mask, bool predicate) {
  struct Slot {
    bool in;
    unsigned out;
  } slot{predicate, 0};
  check_mask(mask, what);
  meet(what, slot, [](Slot** slots, int n) {
    unsigned bits = 0;
    for (int l = 0; l < n; ++l) bits |= static_cast<unsigned>(slots[l]->in) << l;
    for (int l = 0; l < n; ++l) slots[l]->out = bits;
  });
  return slot.out;
}

// Whether change(*address) became its new value; returns the old one. Between two atomics others may run.
template <class T, class Change>
T atomic(T* address, Change&& change) {
  Block& block = *Block::current();
  if (block.seeded() && block.draw(8) == 0) block.give_way();
  const T before = *address;
  *address = change(before);
  return before;
}

template <class T>
struct Same {  // keeps an argument out of deduction
  using type = T;
};

}  // namespace cuda_host

inline void __syncthreads() { cuda_host::Block::current()->barrier(); }

inline void __syncwarp(unsigned mask = cuda_host::kFullMask) {
  char slot = 0;
  cuda_host::check_mask(mask, "__syncwarp");
  cuda_host::meet("__syncwarp", slot, [](char**, int) {});
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return cuda_host::shuffle("__shfl_sync", mask, value,
                            [=](int l) { return l / width * width + (lane & (width - 1)); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  // A lane beyond one's own group of `width` and after it is out of reach: one keeps one's own value.
  return cuda_host::shuffle("__shfl_xor_sync", mask, value,
                            [=](int l) { return (l ^ bits) / width > l / width ? l : l ^ bits; });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32) {
  return cuda_host::shuffle("__shfl_up_sync", mask, value, [=](int l) {
    return l % width < static_cast<int>(step) ? l : l - static_cast<int>(step);
  });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  return cuda_host::shuffle("__shfl_down_sync", mask, value, [=](int l) {
    return l % width + static_cast<int>(step) >= width ? l : l + static_cast<int>(step);
  });
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return cuda_host::ballot("__ballot_sync", mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return cuda_host::ballot("__any_sync", mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return cuda_host::ballot("__all_sync", mask, predicate == 0) == 0;
}

template <class T>
T atomicAdd(T* address, typename cuda_host::Same<T>::type value) {
  return cuda_host::atomic(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, typename cuda_host::Same<T>::type value) {
  return cuda_host::atomic(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* address, typename cuda_host::Same<T>::type value) {
  return cuda_host::atomic(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicOr(T* address, typename cuda_host::Same<T>::type value) {
  return cuda_host::atomic(address, [=](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicExch(T* address, typename cuda_host::Same<T>::type value) {
  return cuda_host::atomic(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, typename cuda_host::Same<T>::type compare, typename cuda_host::Same<T>::type value) {
  return cuda_host::atomic(address, [=](T old) { return old == compare ? value : old; });
}
