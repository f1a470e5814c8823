// What the compiled code shares: vectors of floats, their powers of two, and threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float vec __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t bits __attribute__((vector_size(4 * kLanes)));

constexpr float kMiddle = 127.5f;        // a byte less this is a level
constexpr std::uint8_t kUnknown = 255;  // of a code that does not tell; see sorting.cpp
typedef float loose __attribute__((vector_size(4 * kLanes), aligned(4)));

inline vec splat(float value) { return vec{} + value; }
inline vec least_of(vec a, vec b) { return a < b ? a : b; }
inline vec largest_of(vec a, vec b) { return a > b ? a : b; }

// Whether a lane of a is below that of b, in one instruction: compilers find it for no vector type.
inline bool any_below(vec a, vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ)) != 0;
#else
  const bits below = (bits)(a < b);
  std::uint32_t all = 0;
  for (int lane = 0; lane < kLanes; ++lane) all |= below[lane];
  return all != 0;
#endif
}

inline vec load(const float* at) { return *reinterpret_cast<const loose*>(at); }

inline int lowest_lane(vec values) {
  int lowest = 0;
  for (int lane = 1; lane < kLanes; ++lane)
    if (values[lane] < values[lowest]) lowest = lane;
  return lowest;
}

// 2^x for x <= 0 with a relative error below 3e-7, and 2^-125 where x is less than -125.
inline vec exp2_of(vec x) {
  const vec shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  x = largest_of(x, splat(-125.0f));
  const vec rounded = x + shifter;
  const vec f = x - (rounded - shifter);
  vec p = splat(1.327645461e-3f);
  p = p * f + splat(9.675540368e-3f);
  p = p * f + splat(5.55071331e-2f);
  p = p * f + splat(2.402211974e-1f);
  p = p * f + splat(6.931469671e-1f);
  p = p * f + splat(1.0f);
  return (vec)((bits)p + ((bits)rounded << 23));
}

// Call work(thread, take) on every thread, where take() gives the next of the items, and -1 when
// there is none; false when memory ran out.
template <class Work>
bool on_threads(std::int64_t threads, std::int64_t items, const Work& work) {
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto take = [&]() -> std::int64_t {
    const std::int64_t item = failed ? items : next++;
    return item < items ? item : -1;
  };
  const auto run = [&](int thread) {
    try {
      work(thread, take);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  try {
    const int wanted = static_cast<int>(std::min(threads, items));
    others.reserve(wanted);  // or a failure would leave threads behind that nobody waits for
    for (int i = 1; i < wanted; ++i) others.emplace_back(run, i);
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do all the work.
  }
  run(0);
  for (auto& thread : others) thread.join();
  return !failed;
}

}  // namespace
