// Posterior means over training patches from a stratified sample of them, with their variance.
//
// Patches are sorted into strata of patches that are alike, and shuffled within each. A model of
// every stratum says how much its patches weigh for a query; as many of them are drawn as keep the
// variance that it predicts within the tolerance. Draws are runs of a stratum's shuffled members
// from one random place, the same for all queries, so that queries share what is read from memory:
// the work goes stratum by stratum, each a product of two small matrices.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "lanes.h"

// The whole interface: laid out as `_Task` in strata_code.py.
struct Task {
  const std::uint8_t* images;   // (n h w c), and a cache line more
  const std::int32_t* order;    // patches by stratum: the index among all pixels (n h w) of the one
                                // in their first row and column
  const std::int64_t* start;    // (strata + 1,): where each begins in `order`
  const float* queries;         // (q, stride): their inner product with the levels of a patch less
                                // `unit` times the squares of those is its binary log-weight
  const float* features;        // (q, terms): their inner product with `terms_of` is
                                // log2 sqrt(E w^2) of a stratum's patches by the model
  const float* terms_of;        // (terms, strata); the number of strata is a multiple of 64
  const float* means;           // (components, strata): of a stratum's patches, to be compared with
                                // the features from number `components` on
  const float* centre;          // (strata, c): mean of their centre pixels, as levels
  const float* spread;          // (strata,): variance of those, averaged over channels
  const std::uint64_t* keys;    // (q,): what a query's random numbers depend on
  double* mean;                 // (q, c): the posterior mean, as levels
  double* variance;             // (q,): of it, averaged over channels; in squared levels
  double* draws;                // (q,): patches that it was compared with
  std::int64_t count;           // q, a multiple of `group`
  std::int64_t group;           // queries of which the tolerance is to hold on average
  std::uint64_t seed;           // of the places where runs begin
  std::int32_t terms, components, strata, channels, height, width;
  std::int32_t window_rows, window_columns;  // cells of a patch
  std::int32_t centre_row, centre_column;    // of the pixel that is averaged, in a window
  std::int32_t stride;                       // floats of a query, a multiple of kLanes
  std::int32_t threads;
  float unit;
  float tolerance;              // standard deviation in levels, above 0
  double most;                  // draws at which a query is given up
  double dear;                  // draws of all queries from which on none are made
};

namespace {

typedef float loose __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef std::uint8_t bytes __attribute__((vector_size(kLanes), aligned(1)));

constexpr int kRun = 4;                   // patches that are drawn together at least, and multiplied
constexpr int kQueries = 3;               // multiplied together
constexpr int kSegment = 48 << 10;        // floats of patches at hand: they stay in the cache
constexpr int kMostMembers = 256;         // of a segment
constexpr int kAhead = 8;                 // patches are fetched so long before they are needed
constexpr int kRounds = 7;
constexpr float kNothing = -1e30f;
constexpr float kMiddle = 127.5f;
constexpr double kAll = 1e18;             // draws that are all patches
constexpr double kPilot = 2048;           // draws of the first round
constexpr double kAim = 0.75;             // share of the tolerance that a plan aims at
constexpr double kMostUneven = 4;         // a query's variance over the square of the tolerance
constexpr float kLeastShare = 1e-9f;      // of the draws; less than that is not planned at all
constexpr double kDefensive = 0.1;        // share of the draws that does not trust the model
constexpr std::int64_t kWhole = 2 << 20;  // floats of the likeliest strata that are all compared
constexpr std::int64_t kMore = 8;         // times as many where few patches weigh anything
constexpr double kFew = 100;              // and what is few
constexpr int kMostWhole = 128;           // of those strata
constexpr double kDoubt = 4;              // times too much weight that the model may promise
constexpr double kCaution = 1.3;          // times the error that draws and model tell of
constexpr double kFloor = 0.05;           // of the tolerance: no smaller error is claimed
constexpr double kPrior = 8;              // draws that the model's variance of a stratum is worth
constexpr float kDull = 25.0f;            // squared levels by which all centre pixels vary at least

inline vec load(const float* at) { return *reinterpret_cast<const loose*>(at); }
inline void store(float* at, vec value) { *reinterpret_cast<loose*>(at) = value; }

// Sums of neighbouring lanes, within each 128 bits those of a before those of b.
inline vec pair_sums(vec a, vec b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#elif defined(__AVX__)
  return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// The sums of the lanes of four vectors.
inline void lane_sums(const vec* four, float* out) {
  const vec sums = pair_sums(pair_sums(four[0], four[1]), pair_sums(four[2], four[3]));
  float lanes[kLanes];
  std::memcpy(lanes, &sums, sizeof(lanes));
  for (int i = 0; i < 4; ++i) {
    out[i] = lanes[i];
    for (int lane = i + 4; lane < kLanes; lane += 4) out[i] += lanes[lane];
  }
}

inline float lane_sum(vec value) {
  float lanes[kLanes];
  std::memcpy(lanes, &value, sizeof(lanes));
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

inline float lane_max(vec value) {
  float lanes[kLanes];
  std::memcpy(lanes, &value, sizeof(lanes));
  return *std::max_element(lanes, lanes + kLanes);
}

inline float highest_of(const float* values, int count) {
  vec highest = load(values);
  for (int i = kLanes; i < count; i += kLanes) highest = largest_of(highest, load(values + i));
  return lane_max(highest);
}

inline vec root_of(vec value) {
  for (int lane = 0; lane < kLanes; ++lane) value[lane] = std::sqrt(value[lane]);
  return value;
}

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

// A random number for every number (Steele, Lea & Flood 2014).
inline std::uint64_t mixed(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

inline double uniform(std::uint64_t key, std::uint64_t number) {
  return (mixed(key ^ mixed(number)) >> 11) * 0x1p-53;
}

// Call work(item, thread) for every item on all threads.
template <class Work>
bool in_parallel(int threads, std::int64_t items, const Work& work) {
  return on_threads(threads, items, [&](int thread, const auto& take) {
    for (std::int64_t i; (i = take()) >= 0;) work(i, thread);
  });
}

// What a query has seen of one stratum, in sums over the patches drawn, of which `w` is the weight
// relative to 2^peak and c the centre pixel as levels.
template <int C>
struct Seen {
  std::int32_t stratum, drawn;
  float chance;       // that it was to be drawn from at all
  float model;        // sqrt(E w^2) times how far centre pixels vary, as a binary logarithm
  float peak;
  float mass;         // sum of w
  float moment[C];    // of w c
  float square;       // of w^2
  float mixed[C];     // of w^2 c
  float energy;       // of w^2 |c|^2 / C

  void shrink(float factor) {
    mass *= factor;
    const float twice = factor * factor;
    square *= twice;
    energy *= twice;
    for (int c = 0; c < C; ++c) {
      moment[c] *= factor;
      mixed[c] *= twice;
    }
  }
};

// A query asks for members `from` up to `to` of a stratum's run.
struct Request {
  std::int32_t query, slot, stratum, from, to;
};

template <int C>
class Estimator {
 public:
  explicit Estimator(const Task& task)
      : task_(task),
        cells_(task.window_columns * C),
        members_(std::clamp(kSegment / task.stride / kLanes * kLanes, kLanes, kMostMembers)),
        seen_(task.count),
        rate_(task.count, 0.0),
        need_(task.count, 0.0),
        peak_(task.count, kNothing),
        mass_(task.count, 0.0),
        done_(task.count, 0),
        whole_(task.count, kWhole),
        scores_(static_cast<std::size_t>(task.count) * task.strata),
        requests_(task.threads),
        desks_(task.threads),
        members_of_(task.strata),
        spread_(task.strata),
        centre_(static_cast<std::size_t>(task.strata) * C) {
    for (int s = 0; s < task.strata; ++s) {
      members_of_[s] = static_cast<float>(size(s));
      spread_[s] = task.spread[s] + kDull;
      for (int c = 0; c < C; ++c) centre_[c * task.strata + s] = task.centre[s * C + c];
    }
    for (auto& desk : desks_) {
      desk.patches.resize(static_cast<std::size_t>(members_) * task.stride + 3 * kLanes);
      desk.squares.resize(members_);
      desk.centres.resize(static_cast<std::size_t>(members_) * C);
      desk.weights.resize(static_cast<std::size_t>(members_) * kQueries);
      for (auto* one : {&desk.model, &desk.cautious, &desk.share, &desk.wish, &desk.members,
                        &desk.distance})
        one->resize(task.strata);
      desk.strata.resize(task.strata);
    }
  }

  // 0: done; 1: out of memory; 3: too many draws would be needed.
  int run() {
    const auto score_one = [&](std::int64_t q, int) { score(q); };
    if (!in_parallel(task_.threads, task_.count, score_one)) return 1;
    for (int round = 0; round < kRounds; ++round) {
      for (auto& some : requests_) some.clear();
      const auto plan_one = [&](std::int64_t q, int thread) {
        if (!done_[q]) plan(q, round, desks_[thread], requests_[thread]);
      };
      if (!in_parallel(task_.threads, task_.count, plan_one)) return 1;
      sort_requests();
      if (sorted_.empty()) return 0;
      const auto draw_one = [&](std::int64_t s, int thread) { draw(s, desks_[thread]); };
      if (!in_parallel(task_.threads, task_.strata, draw_one)) return 1;
      const auto judge_one = [&](std::int64_t q, int thread) {
        if (!done_[q]) judge(q, round, desks_[thread]);
      };
      if (!in_parallel(task_.threads, task_.count, judge_one)) return 1;
      double needed = 0;
      for (std::int64_t q = 0; q < task_.count; q += task_.group) needed += settle(q, round);
      if (!round && needed > task_.dear) return 3;
    }
    return 0;
  }

 private:
  // One thread's memory.
  struct Desk {
    std::vector<float> patches, squares, centres, weights;  // of the segment at hand
    std::vector<float> model, cautious;  // (strata,): see `weigh`
    // Of the strata that a query may draw from:
    int count;
    std::vector<std::int32_t> strata;
    std::vector<float> share, wish, members;
    std::vector<float> distance;  // (strata,): see `nearest`
    std::vector<std::int32_t> slot;  // (strata,): where a query keeps what it has seen, or -1
    std::vector<std::int32_t> active;
  };

  std::int64_t size(std::int64_t stratum) const {
    return task_.start[stratum + 1] - task_.start[stratum];
  }

  void score(std::int64_t q) {
    const float* features = task_.features + q * task_.terms;
    float* out = scores_.data() + q * task_.strata;
    for (int s = 0; s < task_.strata; s += 4 * kLanes) {
      vec sums[4] = {};
      for (int term = 0; term < task_.terms; ++term) {
        const float* terms = task_.terms_of + static_cast<std::size_t>(term) * task_.strata + s;
        for (int i = 0; i < 4; ++i) sums[i] += splat(features[term]) * load(terms + i * kLanes);
      }
      for (int i = 0; i < 4; ++i) store(out + s + i * kLanes, sums[i]);
    }
  }

  std::int64_t run_length(double wanted, std::int64_t members) const {
    const auto runs = static_cast<std::int64_t>(std::ceil(std::max(wanted / kRun, 1.0)));
    return 2 * runs * kRun > members ? members : runs * kRun;
  }

  // What a query wants of each stratum: by the model, N sqrt(E w^2) times how far centre pixels are
  // from the mean, and a part of the draws by its root, in case the model is wrong. Both are shares
  // of a sum over strata; returns the binary logarithm of that of the model's.
  double weigh(std::int64_t q, const double* mean, Desk& desk) const {
    const float* score = scores_.data() + q * task_.strata;
    const float top = highest_of(score, task_.strata);
    vec total = {}, cautious = {};
    for (int s = 0; s < task_.strata; s += kLanes) {
      vec away = load(spread_.data() + s);
      for (int c = 0; c < C; ++c) {
        const vec difference =
            load(centre_.data() + c * task_.strata + s) - splat(static_cast<float>(mean[c]));
        away += difference * difference * (1.0f / C);
      }
      const vec power = exp2_of((load(score + s) - splat(top)) * .5f);
      const vec members = load(members_of_.data() + s);
      const vec model = members * power * power * root_of(away);
      store(desk.model.data() + s, model);
      store(desk.cautious.data() + s, members * power);
      total += model;
      cautious += members * power;
    }
    const float sum = lane_sum(total);
    const float one = float(1 - kDefensive) / sum, other = float(kDefensive) / lane_sum(cautious);
    int count = 0;
    for (int s = 0; s < task_.strata; ++s) {
      const float wish = desk.model[s] * one + desk.cautious[s] * other;
      desk.strata[count] = s;
      desk.wish[count] = wish;
      count += wish >= kLeastShare;
    }
    for (int i = 0; i < count; ++i) {
      desk.share[i] = desk.model[desk.strata[i]] / sum;
      desk.members[i] = members_of_[desk.strata[i]];
    }
    desk.count = count;
    return top + std::log2(static_cast<double>(sum));
  }

  // The variance that the model predicts at so many draws, in units of the square of its scale.
  double predicted(const Desk& desk, float draws) const {
    const float *share = desk.share.data(), *wish = desk.wish.data(), *all = desk.members.data();
    float sums[16] = {};
    const int count = desk.count;
    for (int begin = 0; begin < count; begin += 16)
      for (int i = begin; i < std::min(begin + 16, count); ++i) {
        const float wanted = draws * wish[i];
        const float chance = std::min(1.0f, wanted / kRun), drawn = std::max<float>(wanted, kRun);
        const float part = share[i] * share[i] * (1 / drawn + 1 - chance) / chance;
        sums[i - begin] += 2 * wanted >= all[i] ? 0 : part;
      }
    double sum = 0;
    for (float one : sums) sum += one;
    return sum;
  }

  // The draws at which the model predicts a variance, `unit` being the square of its scale.
  double draws_for(const Desk& desk, double variance, double unit) const {
    double draws = kPilot;
    for (int i = 0; i < 8; ++i) {
      const double ratio = predicted(desk, static_cast<float>(draws)) * unit / variance;
      draws = std::min(draws * std::clamp(ratio, 0.02, 50.0), task_.most);
      if (std::abs(ratio - 1) < 0.05) break;
    }
    return draws;
  }

  void plan(std::int64_t q, int round, Desk& desk, std::vector<Request>& requests) {
    auto& seen = seen_[q];
    double mean[C];
    if (round)
      for (int c = 0; c < C; ++c) mean[c] = task_.mean[q * C + c];
    else
      guess(q, mean);
    const double scale = weigh(q, mean, desk);
    const double draws = std::max(rate_[q], round ? need_[q] : kPilot);
    rate_[q] = draws;
    const float whole = round ? nearest(q, desk) : -1;
    desk.slot.assign(task_.strata, -1);
    for (std::size_t i = 0; i < seen.size(); ++i) desk.slot[seen[i].stratum] = static_cast<int>(i);
    for (int i = 0; i < desk.count; ++i) {
      const int s = desk.strata[i];
      const std::int64_t members = size(s);
      const double wanted = round && desk.distance[s] <= whole ? members : draws * desk.wish[i];
      const double chance = 2 * wanted >= members ? 1 : std::min(1.0, wanted / kRun);
      int slot = desk.slot[s];
      if (slot < 0) {
        if (chance < 1 && uniform(task_.keys[q], s) >= chance) continue;
        slot = static_cast<int>(seen.size());
        Seen<C> fresh{};
        fresh.stratum = s;
        fresh.peak = kNothing;
        fresh.model = static_cast<float>(scale + std::log2(desk.share[i] / members));
        seen.push_back(fresh);
      }
      auto& one = seen[slot];
      one.chance = std::max(one.chance, static_cast<float>(chance));
      const std::int64_t to = run_length(wanted, members);
      if (to > one.drawn)
        requests.push_back({static_cast<std::int32_t>(q), slot, s, one.drawn,
                            static_cast<std::int32_t>(to)});
    }
  }

  // Up to what squared distance of their means strata are taken whole, because one patch of them may
  // weigh much; leaves all distances in desk.distance.
  float nearest(std::int64_t q, Desk& desk) const {
    const float* along = task_.features + q * task_.terms + task_.components;
    for (int s = 0; s < task_.strata; s += kLanes) {
      vec sum = {};
      for (int i = 0; i < task_.components; ++i) {
        const vec away =
            load(task_.means + static_cast<std::size_t>(i) * task_.strata + s) - splat(along[i]);
        sum += away * away;
      }
      store(desk.distance.data() + s, sum);
    }
    auto& near = desk.active;
    near.clear();
    for (int s = 0; s < task_.strata; ++s)
      if (members_of_[s] > 0) near.push_back(s);
    const int most = whole_[q] == kWhole ? kMostWhole : kMostWhole * static_cast<int>(kMore);
    const int count = std::min(static_cast<int>(near.size()), most);
    const float* distance = desk.distance.data();
    std::partial_sort(near.begin(), near.begin() + count, near.end(),
                      [distance](int a, int b) { return distance[a] < distance[b]; });
    std::int64_t members = 0;
    int whole = 0;
    while (whole < count && (members += size(near[whole])) * task_.stride <= whole_[q]) ++whole;
    return distance[near[std::max(whole - 1, 0)]];
  }

  // The posterior mean by the model alone.
  void guess(std::int64_t q, double* mean) const {
    const float* score = scores_.data() + q * task_.strata;
    const float top = highest_of(score, task_.strata);
    double total = 0;
    std::fill(mean, mean + C, 0.0);
    for (int s = 0; s < task_.strata; ++s) {
      if (score[s] < top - 24) continue;
      const double weight = std::exp2(score[s] - top) * static_cast<double>(size(s));
      total += weight;
      for (int c = 0; c < C; ++c) mean[c] += weight * task_.centre[s * C + c];
    }
    for (int c = 0; c < C; ++c) mean[c] /= total;
  }

  // All requests by stratum.
  void sort_requests() {
    first_.assign(task_.strata + 1, 0);
    for (const auto& some : requests_)
      for (const auto& one : some) ++first_[one.stratum + 1];
    for (int s = 0; s < task_.strata; ++s) first_[s + 1] += first_[s];
    sorted_.resize(first_[task_.strata]);
    std::vector<std::int64_t> at(first_.begin(), first_.end() - 1);
    for (const auto& some : requests_)
      for (const auto& one : some) sorted_[at[one.stratum]++] = one;
  }

  // Answer all requests to one stratum, longest runs first.
  void draw(std::int64_t s, Desk& desk) {
    Request* begin = sorted_.data() + first_[s];
    Request* end = sorted_.data() + first_[s + 1];
    if (begin == end) return;
    std::sort(begin, end, [](const Request& a, const Request& b) {
      return a.to != b.to ? a.to > b.to : a.query < b.query;
    });
    int from = begin->from;
    for (Request* one = begin; one != end; ++one) from = std::min(from, one->from);
    for (int first = from / kLanes * kLanes; first < begin->to; first += members_) {
      const int last = std::min(first + members_, begin->to);
      desk.active.clear();
      for (Request* one = begin; one != end && one->to > first; ++one)
        if (one->from < last) desk.active.push_back(static_cast<int>(one - begin));
      if (desk.active.empty()) continue;
      read(s, first, last - first, desk);
      for (std::size_t i = 0; i < desk.active.size(); i += kQueries) {
        const int count = static_cast<int>(std::min<std::size_t>(kQueries, desk.active.size() - i));
        const Request* some[kQueries];
        for (int j = 0; j < kQueries; ++j)
          some[j] = begin + desk.active[i + std::min(j, count - 1)];
        const int needed = std::min(last, some[0]->to) - first;
        multiply(some, needed, desk);
        for (int j = 0; j < count; ++j) absorb(*some[j], first, needed, j, desk);
      }
    }
  }

  // Members first, ..., first + count of a stratum's run, as levels from the middle.
  void read(std::int64_t s, int first, int count, Desk& desk) {
    const std::int64_t members = size(s);
    const std::int64_t offset = static_cast<std::int64_t>(mixed(task_.seed ^ mixed(s)) % members);
    const std::int32_t* order = task_.order + task_.start[s];
    const std::int64_t row_bytes = static_cast<std::int64_t>(task_.width) * C;
    const int used = task_.window_rows * cells_;
    const auto at = [&](int i) {
      const std::int64_t member = offset + first + i;
      return task_.images + std::int64_t(order[member < members ? member : member - members]) * C;
    };
    for (int i = 0; i < count; ++i) {
      float* out = aligned(desk.patches) + static_cast<std::size_t>(i) * task_.stride;
      if (i + kAhead < count) {
        const std::uint8_t* soon = at(i + kAhead);
        for (int row = 0; row < task_.window_rows; ++row) {
          __builtin_prefetch(soon + row * row_bytes);
          __builtin_prefetch(soon + row * row_bytes + cells_ - 1);
        }
      }
      const std::uint8_t* source = at(i);
      for (int row = 0; row < task_.window_rows; ++row) {
        float* to = out + row * cells_;
        const std::uint8_t* levels = source + row * row_bytes;
        const int room = task_.stride - row * cells_;
        int cell = 0;
        for (; cell < cells_ && cell + kLanes <= room; cell += kLanes) {
          const bytes some = *reinterpret_cast<const bytes*>(levels + cell);
          store(to + cell, __builtin_convertvector(some, vec) - kMiddle);
        }
        for (; cell < cells_; ++cell) to[cell] = levels[cell] - kMiddle;
      }
      std::fill(out + used, out + task_.stride, 0.0f);
      vec sum = {};
      for (int cell = 0; cell < task_.stride; cell += kLanes) {
        const vec levels = *reinterpret_cast<const vec*>(out + cell);
        sum += levels * levels;
      }
      desk.squares[i] = task_.unit * lane_sum(sum);
      const std::uint8_t* centre = source + task_.centre_row * row_bytes + task_.centre_column * C;
      for (int c = 0; c < C; ++c) desk.centres[c * members_ + i] = centre[c] - kMiddle;
    }
    for (int i = count; i < round_up(count, kLanes); ++i) {  // fill the last lanes, to no effect
      float* out = aligned(desk.patches) + static_cast<std::size_t>(i) * task_.stride;
      std::fill(out, out + task_.stride, 0.0f);
      desk.squares[i] = 0;
      for (int c = 0; c < C; ++c) desk.centres[c * members_ + i] = 0;
    }
  }

  static float* aligned(std::vector<float>& memory) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
    const std::uintptr_t step = sizeof(vec);
    return reinterpret_cast<float*>((at + step - 1) / step * step);
  }

  // The binary log-weights of the first `count` members at hand for some queries.
  void multiply(const Request* const* some, int count, Desk& desk) {
    const float* queries[kQueries];
    for (int j = 0; j < kQueries; ++j)
      queries[j] = task_.queries + static_cast<std::int64_t>(some[j]->query) * task_.stride;
    const float* patches = aligned(desk.patches);
    const int stride = task_.stride;
    for (int m = 0; m < count; m += kRun) {
      // Written out, so that all twelve sums stay in registers.
      vec a0 = {}, a1 = {}, a2 = {}, a3 = {}, b0 = {}, b1 = {}, b2 = {}, b3 = {};
      vec c0 = {}, c1 = {}, c2 = {}, c3 = {};
      const float* members = patches + static_cast<std::size_t>(m) * stride;
      for (int i = 0; i < stride; i += kLanes) {
        const vec a = load(queries[0] + i), b = load(queries[1] + i), c = load(queries[2] + i);
        vec y = *reinterpret_cast<const vec*>(members + i);
        a0 += a * y, b0 += b * y, c0 += c * y;
        y = *reinterpret_cast<const vec*>(members + stride + i);
        a1 += a * y, b1 += b * y, c1 += c * y;
        y = *reinterpret_cast<const vec*>(members + 2 * stride + i);
        a2 += a * y, b2 += b * y, c2 += c * y;
        y = *reinterpret_cast<const vec*>(members + 3 * stride + i);
        a3 += a * y, b3 += b * y, c3 += c * y;
      }
      const vec sums[kQueries][kRun] = {{a0, a1, a2, a3}, {b0, b1, b2, b3}, {c0, c1, c2, c3}};
      for (int j = 0; j < kQueries; ++j) {
        float products[kRun];
        lane_sums(sums[j], products);
        for (int r = 0; r < kRun; ++r)
          desk.weights[j * members_ + m + r] = products[r] - desk.squares[m + r];
      }
    }
  }

  // Take in what one of the queries at hand has drawn of the members first, ..., first + count.
  void absorb(const Request& one, int first, int count, int j, Desk& desk) {
    auto& seen = seen_[one.query][one.slot];
    const int begin = std::max(0, one.from - first), end = std::min(count, one.to - first);
    if (begin >= end) return;
    float* weights = desk.weights.data() + static_cast<std::size_t>(j) * members_;
    const int low = begin / kLanes * kLanes, high = round_up(end, kLanes);
    std::fill(weights + low, weights + begin, kNothing);
    std::fill(weights + end, weights + high, kNothing);
    const float peak = std::max(seen.peak, highest_of(weights + low, high - low));
    if (seen.drawn) seen.shrink(std::exp2(seen.peak - peak));
    seen.peak = peak;
    vec mass = {}, square = {}, energy = {}, moment[C] = {}, mixed_moment[C] = {};
    for (int m = low; m < high; m += kLanes) {
      const vec weight = exp2_of(load(weights + m) - splat(peak)), twice = weight * weight;
      mass += weight;
      square += twice;
      vec norm = {};
      for (int c = 0; c < C; ++c) {
        const vec centre = load(desk.centres.data() + c * members_ + m);
        moment[c] += weight * centre;
        mixed_moment[c] += twice * centre;
        norm += centre * centre;
      }
      energy += twice * norm;
    }
    seen.mass += lane_sum(mass);
    seen.square += lane_sum(square);
    seen.energy += lane_sum(energy) / C;
    for (int c = 0; c < C; ++c) {
      seen.moment[c] += lane_sum(moment[c]);
      seen.mixed[c] += lane_sum(mixed_moment[c]);
    }
    seen.drawn += end - begin;
  }

  // The posterior mean of a query and its variance, from all that it has seen.
  void judge(std::int64_t q, int round, Desk& desk) {
    const auto& seen = seen_[q];
    float peak = kNothing;
    for (const auto& one : seen) peak = std::max(peak, one.peak);
    double mass = 0, square = 0, moment[C] = {}, draws = 0;
    for (const auto& one : seen) {
      const double share = expanded(one, peak);
      mass += share * one.mass;
      square += share * share * one.square;
      for (int c = 0; c < C; ++c) moment[c] += share * one.moment[c];
      draws += one.drawn;
    }
    double* mean = task_.mean + q * C;
    for (int c = 0; c < C; ++c) mean[c] = moment[c] / mass;
    peak_[q] = peak;
    mass_[q] = mass;
    const double trust = trusted(q, mean, peak);
    double variance = 0;
    for (const auto& one : seen) {
      const auto [offset, spread] = residual(one, mean, peak, trust);
      const double members = static_cast<double>(size(one.stratum));
      if (one.drawn < members)
        variance += members * (members - one.drawn) * spread / one.drawn / one.chance;
      variance += members * members * offset * (1 - one.chance) / (one.chance * one.chance);
    }
    task_.variance[q] = std::max(kCaution * kCaution * variance / (mass * mass),
                                 kFloor * kFloor * task_.tolerance * task_.tolerance);
    task_.draws[q] = draws;
    if (round) {
      if (whole_[q] == kWhole && mass * mass < kFew * square) whole_[q] *= -kMore;
      return;
    }
    const double scale = trust * std::exp2(weigh(q, mean, desk) - peak) / mass;
    need_[q] = draws_for(desk, task_.tolerance * task_.tolerance, scale * scale);
  }

  // Of what a query has seen of a stratum: the square of the mean of w (c - mean), and its variance
  // over patches, both averaged over channels and with w relative to 2^peak.
  struct Residual {
    double offset, spread;
  };

  // The variance is that of the draws and, as if by kPrior more of them, what the model says: a few
  // draws seldom see the heaviest patches.
  Residual residual(const Seen<C>& one, const double* mean, float peak, double trust) const {
    const double scale = std::exp2(double(one.peak) - peak);
    double offset = 0, second = one.energy;
    for (int c = 0; c < C; ++c) {
      const double part = (one.moment[c] - mean[c] * one.mass) * scale / one.drawn;
      offset += part * part / C;
      second += mean[c] * (mean[c] * one.square - 2 * one.mixed[c]) / C;
    }
    second = std::max(0.0, second * scale * scale / one.drawn - offset);
    const double prior = trust * std::exp2(double(one.model) - peak);
    return {offset, (second * one.drawn + kPrior * prior * prior) / (one.drawn - 1 + kPrior)};
  }

  // What the model's standard deviations are to be multiplied by: 1, but less where it promises far
  // more weight than there is, as it does where noise is small and all patches are far.
  double trusted(std::int64_t q, const double* mean, float peak) const {
    double seen = 0, model = 0;
    for (const auto& one : seen_[q]) {
      const double members = static_cast<double>(size(one.stratum)) / one.chance;
      const auto [offset, spread] = residual(one, mean, peak, 0);
      seen += members * std::sqrt(offset + spread);
      model += members * std::exp2(double(one.model) - peak);
    }
    return model > kDoubt * seen ? kDoubt * seen / model : 1;
  }

  // What is to be drawn next for a group of queries, the first of which is q: returns the draws.
  // With a variance of A / n after n draws, the least draws in all that keep the mean variance are
  // those at which each query's variance goes with sqrt(A).
  double settle(std::int64_t q, int round) {
    const auto each = [&](const auto& work) {
      for (std::int64_t i = q; i < q + task_.group; ++i) work(i);
    };
    const double enough = task_.tolerance * task_.tolerance;
    double mean = 0, needed = 0;
    if (!round) {
      each([&](std::int64_t i) { mean += std::sqrt(need_[i]) / task_.group; });
      each([&](std::int64_t i) {
        const double part = std::min(kAim * kAim * std::sqrt(need_[i]) / mean, kMostUneven);
        needed += need_[i] = std::min(need_[i] / part, task_.most);
      });
      return needed;
    }
    each([&](std::int64_t i) { mean += task_.variance[i] / task_.group; });
    each([&](std::int64_t i) {
      const double ratio = task_.variance[i] / enough;
      const bool few = whole_[i] < 0;  // to be looked at once more
      const bool bad = ratio > kMostUneven, spent = rate_[i] >= task_.most;
      done_[i] = !few && ((mean <= enough && !bad) || ratio <= kAim * kAim || (spent && !bad));
      if (few)
        whole_[i] = -whole_[i], need_[i] = rate_[i];
      else if (!done_[i])
        need_[i] = spent ? kAll : std::min(rate_[i] * std::clamp(1.3 * ratio, 1.3, 8.0), task_.most);
    });
    return 0;
  }

  double expanded(const Seen<C>& one, float peak) const {
    return std::exp2(double(one.peak) - peak) * size(one.stratum) / one.drawn / one.chance;
  }

  const Task& task_;
  const int cells_;                        // of a row of a window
  const int members_;                      // of a segment
  std::vector<std::vector<Seen<C>>> seen_;  // of each query
  std::vector<double> rate_;               // draws that each query has planned
  std::vector<double> need_;               // and those that it is to plan next
  std::vector<float> peak_;                // of each query
  std::vector<double> mass_;               // relative to 2^peak
  std::vector<char> done_;
  std::vector<std::int64_t> whole_;        // floats of the nearest strata that each compares with
  std::vector<float> scores_;              // (q, strata): log2 sqrt(E w^2) by the model
  std::vector<std::vector<Request>> requests_;  // of each thread
  std::vector<Request> sorted_;
  std::vector<std::int64_t> first_;        // of the sorted requests, by stratum
  std::vector<Desk> desks_;
  std::vector<float> members_of_, spread_, centre_;  // of the strata
};

template <int C>
int estimate(const Task& task) {
  try {
    return Estimator<C>(task).run();
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

// 0: done; 1: out of memory; 2: a number of channels that is not compiled in; 3: more draws would be
// needed than `dear`.
extern "C" int els_estimate(const Task* task) {
  switch (task->channels) {
    case 1: return estimate<1>(*task);
    case 2: return estimate<2>(*task);
    case 3: return estimate<3>(*task);
    case 4: return estimate<4>(*task);
    default: return 2;
  }
}

// The stratum of each of n points (n d): the nearest of `many` branches, then the nearest of `few`
// leaves of it. Both lie as (d + 1, count) with half their square in the last row; counts are
// multiples of 16.
extern "C" void els_assign(const float* points, std::int64_t n, std::int32_t d,
                           const float* branches, std::int32_t many, const float* leaves,
                           std::int32_t few, std::int32_t* stratum, std::int32_t threads) {
  constexpr std::int64_t kBlock = 1024;
  constexpr int kWide = 16 / kLanes;
  const auto nearest = [d](const float* point, const float* centres, int count) {
    float best = kNothing;
    int found = 0;
    for (int i = 0; i < count; i += 16) {
      vec likeness[kWide];
      for (int w = 0; w < kWide; ++w)
        likeness[w] = -load(centres + std::int64_t(d) * count + i + w * kLanes);
      for (int c = 0; c < d; ++c)
        for (int w = 0; w < kWide; ++w)
          likeness[w] += splat(point[c]) * load(centres + std::int64_t(c) * count + i + w * kLanes);
      float values[16];
      std::memcpy(values, likeness, sizeof(values));
      for (int j = 0; j < 16; ++j)
        if (values[j] > best) best = values[j], found = i + j;
    }
    return found;
  };
  in_parallel(threads, (n + kBlock - 1) / kBlock, [&](std::int64_t block, int) {
    for (std::int64_t i = block * kBlock; i < std::min(n, (block + 1) * kBlock); ++i) {
      const int branch = nearest(points + i * d, branches, many);
      const float* own = leaves + std::int64_t(branch) * (d + 1) * few;
      stratum[i] = branch * few + nearest(points + i * d, own, few);
    }
  });
}

// Patches (image, row, column) by stratum, in the order in which steps of `step` (modulo n, without
// a common factor) come by; see `Task::order`. `at` begins as the places where strata begin.
extern "C" void els_sort(const std::int32_t* stratum, std::int64_t n, std::int64_t step,
                         std::int64_t* at, std::int32_t* order, std::int32_t rows,
                         std::int32_t columns, std::int32_t height, std::int32_t width) {
  std::int64_t patch = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t image = patch / (rows * columns), place = patch % (rows * columns);
    const std::int64_t row = image * height + place / columns;
    order[at[stratum[patch]]++] =
        static_cast<std::int32_t>(row * width + place % columns);
    patch += step;
    if (patch >= n) patch -= n;
  }
}
