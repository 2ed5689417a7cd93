// Twins of mbarriers and of the copy engine that Hopper has. Written from the PTX manual, not from the kernel.
//
// A copy lands as late as the manual allows: when somebody waits for a barrier whose phase has not ended, one of
// the copies under way lands, with a seed any of them. Until then its destination is poison.
#pragma once

#include <array>
#include <map>

#include "cuda.h"
#include "warp.h"

namespace cuda_host {

inline int unfinished_blocks = 0;

// What a block has besides its memory.
template <class State>
struct Owned {
  uint64_t serial = 0;  // of the block
  State state;
};
// By rank in the cluster: those of the blocks that ran last. Hidden, so that no library looks at another's.
template <class State>
__attribute__((visibility("hidden"))) std::array<Owned<State>, kMostBlocksOfCluster>& all_owned() {
  static std::array<Owned<State>, kMostBlocksOfCluster> all;
  return all;
}

// Forgets a state; 1 when its block left something unfinished.
template <class State>
int discard(Owned<State>& owned) {
  const bool at_rest = owned.state.at_rest();
  owned = {};
  return !at_rest;
}

// The State of a block; each begins with a fresh one.
template <class State>
State& block_local(Block& block = *Block::current()) {
  Owned<State>& owned = all_owned<State>()[block.rank()];
  if (owned.serial != block.serial()) {
    unfinished_blocks += discard(owned);
    owned.serial = block.serial();
  }
  return owned.state;
}

// ---- addresses ----------------------------------------------------------------------------------------------

constexpr uint32_t kSharedBase = 1024;  // where dynamic shared memory begins in its window, as on the GPU

inline uint32_t shared_address(const void* pointer) {
  Block& block = *Block::current();
  if (!block.is_shared(pointer, 0)) block.fail("an address that is not in shared memory");
  return kSharedBase + static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - block.shared());
}
inline unsigned char* at_shared_address(uint32_t address, std::size_t bytes) {
  Block& block = *Block::current();
  unsigned char* pointer = block.shared() + (static_cast<int64_t>(address) - kSharedBase);
  if (address < kSharedBase || !block.is_shared(pointer, bytes)) block.fail("an operand beyond shared memory");
  return pointer;
}
// What lies in another block of the cluster where `pointer` lies in this one.
inline void* in_block(Block& other, const void* pointer) {
  return other.shared() + (static_cast<const unsigned char*>(pointer) - Block::current()->shared());
}
// The swizzle of 128 bytes: which of eight pieces of 16 bytes, by which of eight rows of 128.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// ---- state --------------------------------------------------------------------------------------------------

struct Barrier {
  Block* block = nullptr;
  uint32_t count, pending;  // arrivals
  int64_t bytes = 0;        // expected and not landed; below 0 where they land first
  uint32_t phase = 0;       // the parity of the one under way
  bool visible = false;     // to the copy engine
  std::vector<unsigned> waiting;
};

struct BulkCopy {
  void* to;
  CUtensorMap map;
  uint64_t* barrier;
  int32_t x, y;
};

// A number from a block of the cluster.
struct Store {
  void* to;
  uint64_t* barrier;
  unsigned char value[8];
  std::size_t bytes;
};

struct BulkCopies {
  std::map<uint64_t*, Barrier> barriers;
  std::vector<BulkCopy> under_way;
  std::vector<Store> stores;  // under way as well

  bool at_rest() const {
    bool rest = under_way.empty() && stores.empty();
    for (const auto& [word, barrier] : barriers)
      rest = rest && barrier.pending == barrier.count && barrier.bytes == 0;
    return rest;
  }
};

// What an mbarrier's word holds: nothing but its initialization may write there.
inline uint64_t barrier_marker(const uint64_t* word) { return ~reinterpret_cast<uint64_t>(word); }

inline Barrier& barrier_at(uint64_t* word, Block& block = *Block::current()) {
  auto& barriers = block_local<BulkCopies>(block).barriers;
  const auto found = barriers.find(word);
  if (found == barriers.end()) Block::current()->fail("no mbarrier here");
  if (*word != barrier_marker(word)) Block::current()->fail("an mbarrier has been written over");
  return found->second;
}

inline void wake(Barrier& barrier) {
  for (const unsigned thread : barrier.waiting) barrier.block->make_ready(thread);
  barrier.waiting.clear();
}

// After an arrival or a landing.
inline void end_phase_if_complete(Barrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.count;
  wake(barrier);
}

// ---- mbarriers ----------------------------------------------------------------------------------------------

inline void mbarrier_init(uint64_t* word, uint32_t count) {
  Block& block = *Block::current();
  if (reinterpret_cast<uintptr_t>(word) % 8 || !block.is_shared(word, 8))
    block.fail("mbarrier.init: not eight aligned bytes of shared memory");
  if (count == 0 || count >= 1u << 20) block.fail("mbarrier.init: a count of 1 to 2^20 - 1");
  *word = barrier_marker(word);
  Barrier& barrier = block_local<BulkCopies>().barriers[word];
  barrier.block = &block;
  barrier.count = barrier.pending = count;
}
inline void fence_mbarrier_init() {
  for (auto& [word, barrier] : block_local<BulkCopies>().barriers) barrier.visible = true;
}
inline void fence_proxy_async() {}

inline void arrive_at(Barrier& barrier) {
  --barrier.pending;
  end_phase_if_complete(barrier);
}
inline void mbarrier_arrive(uint64_t* word) { arrive_at(barrier_at(word)); }
inline void mbarrier_arrive_expect_tx(uint64_t* word, uint32_t bytes) {
  Barrier& barrier = barrier_at(word);
  barrier.bytes += bytes;
  if (barrier.bytes >= 1 << 20) Block::current()->fail("mbarrier: more bytes than it can count");
  arrive_at(barrier);
}

inline void land_one(BulkCopies& copies);
inline void land_one_store(BulkCopies& copies);

inline bool mbarrier_try_wait(uint64_t* word, uint32_t parity) {
  Block& block = *Block::current();
  if (parity > 1) block.fail("mbarrier.try_wait.parity: 0 or 1");
  if (block.seeded() && block.draw(4) == 0) block.give_way();
  Barrier& barrier = barrier_at(word);
  if (barrier.phase != parity) return true;
  BulkCopies& copies = block_local<BulkCopies>();
  if (!copies.under_way.empty()) {
    land_one(copies);
    return barrier.phase != parity;
  }
  if (!copies.stores.empty()) {
    land_one_store(copies);
    return barrier.phase != parity;
  }
  barrier.waiting.push_back(block.thread().index);
  block.wait("mbarrier.try_wait");
  return barrier.phase != parity;
}

// ---- the copy engine ----------------------------------------------------------------------------------------

// Into the memory of block `other`, in the place of `shared` in this one, and for its barrier in the place of `word`.
inline void copy_to(Block& other, void* shared, const CUtensorMap* map, uint64_t* word, int32_t x, int32_t y) {
  Block& block = *Block::current();
  const std::size_t bytes = std::size_t{map->box_width} * map->box_rows * 2;
  if (shared_address(shared) % 128 || !block.is_shared(shared, bytes))
    block.fail("cp.async.bulk.tensor: the destination must be shared memory, a multiple of 128");
  if (reinterpret_cast<uintptr_t>(map) % 64) block.fail("cp.async.bulk.tensor: the map must be a multiple of 64");
  word = static_cast<uint64_t*>(in_block(other, word));
  Barrier& barrier = barrier_at(word, other);
  if (!barrier.visible) block.fail("cp.async.bulk.tensor: nothing made the barrier visible to the copy engine");
  void* to = in_block(other, shared);
  std::memset(to, kPoison, bytes);
  block_local<BulkCopies>(other).under_way.push_back({to, *map, word, x, y});
  wake(barrier);  // they see to it that the copy lands
}
inline void tma_load_2d(void* shared, const CUtensorMap* map, uint64_t* word, int32_t x, int32_t y) {
  copy_to(*Block::current(), shared, map, word, x, y);
}

inline void land_one(BulkCopies& copies) {
  Block& block = *Block::current();
  const std::size_t which = block.seeded() ? block.draw(copies.under_way.size()) : 0;
  const BulkCopy copy = copies.under_way[which];
  copies.under_way.erase(copies.under_way.begin() + static_cast<std::ptrdiff_t>(which));
  const uint32_t begin = shared_address(copy.to), width = copy.map.box_width;
  for (uint32_t r = 0; r < copy.map.box_rows; ++r)
    for (uint32_t k = 0; k < width; ++k) {
      const int64_t row = int64_t{copy.y} + r, column = int64_t{copy.x} + k;
      uint16_t element = 0;  // outside the matrix
      if (row >= 0 && row < static_cast<int64_t>(copy.map.rows) && column >= 0 &&
          column < static_cast<int64_t>(copy.map.width))
        std::memcpy(&element, copy.map.data + row * static_cast<int64_t>(copy.map.row_bytes) + column * 2, 2);
      std::memcpy(at_shared_address(swizzled(begin + (r * width + k) * 2), 2), &element, 2);
    }
  Barrier& barrier = barrier_at(copy.barrier);
  barrier.bytes -= int64_t{width} * copy.map.box_rows * 2;
  end_phase_if_complete(barrier);
}

// In any order.
inline void land_one_store(BulkCopies& copies) {
  Block& block = *Block::current();
  std::swap(copies.stores[block.seeded() ? block.draw(copies.stores.size()) : 0], copies.stores.back());
  const Store store = copies.stores.back();
  copies.stores.pop_back();
  std::memcpy(store.to, store.value, store.bytes);
  Barrier& barrier = barrier_at(store.barrier);
  barrier.bytes -= static_cast<int64_t>(store.bytes);
  end_phase_if_complete(barrier);
}

}  // namespace cuda_host
