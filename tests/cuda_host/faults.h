// Small kernels that try the stand-in for CUDA itself: some are right, some have the kind of fault that it is
// there to find.
#pragma once

#include <cstdint>

namespace faults {

// How many threads do not find their neighbor's number in shared memory.
int neighbors(bool with_barrier);
// The sum of ones that 64 threads add to a variable, which may have had no first value.
int sum_of_ones(bool written_first);
// How many words are not what cp.async should have copied, with a wait for all copies or for too few.
int copies(bool with_wait);

// These throw: threads that never meet, and addresses that no GPU would take.
void left_before_barrier();
void half_a_warp_shuffles();
void a_shuffle_against_a_vote();
void unaligned_copy();

// One element beyond the end of shared memory: AddressSanitizer ends the process.
void overrun();

// c [16, 8] += a [16, 16] b [8, 16]^T by ldmatrix and mma; elements as bits.
void product(bool bfloat16, const uint16_t* a, const uint16_t* b, float* c);

}  // namespace faults
