// What this machine reaches at the operations that the engine's inner loop cannot avoid.

#include <cstdint>
#include <thread>
#include <vector>

#include "../els/engines/lanes.h"

namespace {

constexpr int kChains = 12;  // independent, so that latency is hidden

// `steps` multiply-adds in each chain.
void multiply_add(std::int64_t steps, float* sink) {
  vec chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = vec{} + static_cast<float>(i);
  const vec a = vec{} + 0.999999f, b = vec{} + 1e-6f;
  for (std::int64_t step = 0; step < steps; ++step)
    for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * a + b;
  vec sum = vec{};
  for (int i = 0; i < kChains; ++i) sum += chain[i];
  *sink = sum[0];
}

// Read `bytes` of memory, `rounds` times.
void read(std::int64_t bytes, std::int64_t rounds, float* sink) {
  std::vector<vec> memory(static_cast<std::size_t>(bytes) / sizeof(vec), vec{} + 1.0f);
  vec sum[4] = {};
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i + 4 <= memory.size(); i += 4)
      for (int j = 0; j < 4; ++j) sum[j] += memory[i + j];
    asm volatile("" ::: "memory");
  }
  *sink = (sum[0] + sum[1] + sum[2] + sum[3])[0];
}

template <class Work>
void on_all(int threads, Work work) {
  std::vector<float> sinks(static_cast<std::size_t>(threads) * 64);
  std::vector<std::thread> others;
  for (int i = 0; i < threads; ++i) others.emplace_back([&, i] { work(&sinks[64 * i]); });
  for (auto& thread : others) thread.join();
}

}  // namespace

// Each returns how many elements (floats) all threads together worked on.
extern "C" double els_multiply_adds(std::int64_t steps, int threads) {
  on_all(threads, [=](float* sink) { multiply_add(steps, sink); });
  return static_cast<double>(steps) * kChains * kLanes * threads;
}

extern "C" double els_reads(std::int64_t bytes, std::int64_t rounds, int threads) {
  on_all(threads, [=](float* sink) { read(bytes, rounds, sink); });
  return static_cast<double>(bytes) / sizeof(float) * rounds * threads;
}
