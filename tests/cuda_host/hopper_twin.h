// Twins of the instructions that only Hopper has, for hopper.cuh.
#pragma once

#include "bulk_copy.h"
#include "cuda_host.h"
#include "warpgroup.h"

namespace cuda_host {

// One lane of the warp; with a seed not the one that code would take for granted.
inline bool elect_one() {
  bool chosen = false;
  meet("elect.sync", chosen, [](bool** slots, int n) { *slots[Block::current()->seeded() ? n / 3 : 0] = true; });
  return chosen;
}

struct NamedBarriers {
  struct One {
    int threads = 0;
    std::vector<unsigned> waiting;
  };
  std::map<int, One> barriers;

  bool at_rest() const {
    return std::all_of(barriers.begin(), barriers.end(), [](const auto& b) { return b.second.waiting.empty(); });
  }
};

inline void named_barrier_sync(int index, int threads) {
  Block& block = *Block::current();
  if (index < 1 || index > 15 || threads % kWarpSize) block.fail("bar.sync: barriers 1 to 15, whole warps");
  NamedBarriers::One& barrier = block_local<NamedBarriers>().barriers[index];
  if (barrier.waiting.empty()) barrier.threads = threads;
  if (barrier.threads != threads) block.fail("bar.sync: threads do not agree on how many they are");
  if (static_cast<int>(barrier.waiting.size()) + 1 < threads) {
    barrier.waiting.push_back(block.thread().index);
    block.wait("bar.sync");
    return;
  }
  for (const unsigned thread : barrier.waiting) block.make_ready(thread);
  barrier.waiting.clear();
  if (block.seeded()) block.give_way();
}

// ---- clusters -----------------------------------------------------------------------------------------------

inline uint32_t cluster_rank() { return Block::current()->rank(); }
inline void cluster_sync() { Block::current()->cluster().barrier(); }

// Another block of the cluster, which must still be there.
inline Block& peer(uint32_t rank, const std::string& what) {
  Block& block = *Block::current();
  if (rank >= block.cluster().num_blocks()) block.fail(what + ": no such block in the cluster");
  Block& other = block.cluster().block(rank);
  if (other.has_left()) block.fail(what + ": the other block has left");
  return other;
}

inline void mbarrier_arrive_at(uint64_t* word, uint32_t rank) {
  Block& block = *Block::current();
  if (block.seeded() && block.draw(8) == 0) block.give_way();
  Block& other = peer(rank, "mbarrier.arrive");
  arrive_at(barrier_at(static_cast<uint64_t*>(in_block(other, word)), other));
}

// Two numbers of 4 bytes that are stored together.
struct alignas(8) TwoFloats {
  float first, second;
};

template <class T>
void store_async(T* to, uint64_t* word, uint32_t rank, T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "what st.async takes here");
  Block& block = *Block::current();
  if (block.cluster().num_blocks() < 2) block.fail("st.async: undefined in a cluster of one block");
  if (!block.is_shared(to, sizeof(T)) || reinterpret_cast<uintptr_t>(to) % sizeof(T))
    block.fail("st.async: the place must be shared memory, a multiple of its size");
  if (block.seeded() && block.draw(8) == 0) block.give_way();
  Block& other = peer(rank, "st.async");
  Barrier& barrier = barrier_at(static_cast<uint64_t*>(in_block(other, word)), other);
  Store store{in_block(other, to), static_cast<uint64_t*>(in_block(other, word)), {}, sizeof(T)};
  std::memcpy(store.value, &value, sizeof(T));
  std::memset(store.to, kPoison, sizeof(T));
  block_local<BulkCopies>(other).stores.push_back(store);
  wake(barrier);  // they see to it that it lands
}
inline void store_async(float* to, uint64_t* word, uint32_t rank, float first, float second) {
  store_async(reinterpret_cast<TwoFloats*>(to), word, rank, TwoFloats{first, second});
}

// Each block's copy lands by itself.
inline void tma_load_2d_multicast(void* shared, const CUtensorMap* map, uint64_t* word, int32_t x, int32_t y,
                                  uint16_t blocks) {
  if (blocks == 0) Block::current()->fail("cp.async.bulk.tensor: a multicast to nobody");
  for (uint32_t rank = 0; rank < 16; ++rank)
    if (blocks >> rank & 1) copy_to(peer(rank, "cp.async.bulk.tensor"), shared, map, word, x, y);
}

// -------------------------------------------------------------------------------------------------------------

template <int kRegisters>
void set_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0, "what setmaxnreg takes");
  char slot = 0;
  meet("setmaxnreg", slot, [](char**, int) {});
}
template <int kRegisters>
void set_registers_down() {
  set_registers<kRegisters>();
}
template <int kRegisters>
void set_registers_up() {
  set_registers<kRegisters>();
}

// How many blocks left copies, phases or products unfinished since the last call. Those of launches that failed
// count too.
inline int count_unfinished_blocks() {
  int count = unfinished_blocks;
  for (auto& owned : all_owned<BulkCopies>()) count += discard(owned);
  for (auto& owned : all_owned<TensorWarps>()) count += discard(owned);
  unfinished_blocks = 0;
  return count;
}

}  // namespace cuda_host
