// Posterior means over training patches from a sample of them, with their variance.
//
// Patches are sorted into strata of patches that are alike, and shuffled within each. Two draws
// choose those that a query is compared with. First a run of each stratum's members: as many as a
// model of the stratum says. Of these only a few coordinates are compared; they give the chance with
// which each is then compared in full. The tolerance bounds the sum of both variances. Runs begin at
// the same random places for all queries, and the second draw has the same random numbers, so that
// they share what is read from memory: their errors are correlated.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "lanes.h"

// The whole interface: laid out as `_Task` in strata_code.py.
struct Task {
  const std::uint8_t* images;   // (n h w c), and a cache line more
  const std::int32_t* order;    // patches by stratum: the index among all pixels (n h w) of the one
                                // in their first row and column
  const std::int64_t* start;    // (strata + 1,): where each begins in `order`
  const std::uint8_t* codes;    // (patches, components + 1 + c): see sorting.cpp, which arranges them
  const float* centres;         // (strata, components): what coordinates in codes are relative to
  const float* steps;           // (strata, components + 1): what a unit of a code stands for
  const float* x;               // noisy images (b, x_rows, x_width, c) as levels, and a cache line more
  const std::int64_t* at;       // (q,): where the window of a query begins in `x`
  const float* features;        // (q, terms): their inner product with `terms_of` is
                                // log2 sqrt(E w^2) of a stratum's patches by the model; squares of
                                // coordinates, coordinates, what these leave out, squared norm, 1
  const float* terms_of;        // (terms, strata); the number of strata is a multiple of 64
  const float* means;           // (components, strata): of coordinates, times alpha
  const float* variances;       // (components, strata): of the same
  const float* lowest;          // (components, strata): the least of them, times alpha,
  const float* highest;         // and the largest
  const float* reach;           // (strata,): the largest norm of what they leave out, times alpha
  const float* centre;          // (strata, c): mean of their centre pixels, as levels
  const float* spread;          // (strata,): variance of those, averaged over channels
  const std::uint64_t* keys;    // (q,): what tells which strata of few draws a query asks
  double* mean;                 // (q, c): the posterior mean, as levels
  double* variance;             // (q,): of it, averaged over channels; in squared levels
  double* draws;                // (q,): patches that it was compared with; -1 where it is left to be
                                // answered in full, as are all of a group to which that is better
  std::int64_t count;           // q, a multiple of `group`
  std::int64_t group;           // queries of which the tolerance is to hold on average
  std::uint64_t seed;           // of the places where runs begin, and of the second draw
  std::int32_t terms, components, strata, channels, height, width;
  std::int32_t window_rows, window_columns;  // cells of a patch
  std::int32_t x_width;
  std::int32_t threads;
  float alpha;
  float unit;                   // alpha^2 / (2 sigma^2 ln 2)
  float scale;                  // 1 / (2 sigma^2 ln 2)
  float tolerance;              // standard deviation in levels, above 0
  double most;                  // first draws above which a query takes all patches
  double dear;                  // core-nanoseconds that a group in full takes,
  double alone;                 // and one query, where the others are estimated
};

namespace {

typedef std::int32_t signed_bits __attribute__((vector_size(4 * kLanes)));

constexpr int kMembers = 128;             // of a segment: those at hand stay in the cache
constexpr int kBlock = 4 * kLanes;        // members that are compared together
constexpr int kUsual = 51;                // a usual code of what coordinates leave out
constexpr int kShelf = 16;                // queries that are planned by one thread
constexpr int kShares = 32;               // of the strata, summed apart: no sum depends on the threads;
                                          // and of the requests, sorted apart
constexpr int kAhead = 8;                 // patches are fetched so long before they are needed
constexpr int kRounds = 6;
constexpr int kHalvings = 24;             // to find how far the nearest strata go
constexpr float kNothing = -1e30f;
constexpr float kMostPower = 60.0f;       // of two, that a weight may exceed what was expected
constexpr double kAll = 1e18;             // draws that are all patches
constexpr double kPilot = 2048;           // first draws of the first round
constexpr double kAim = 0.5;              // share of the squared tolerance that a plan aims at
constexpr double kFirst = 0.35;           // share of that which the first draw may use
constexpr double kMostUneven = 4;         // variance over the square of the tolerance in a plan
constexpr double kWorst = 25;             // and in an answer
constexpr float kLeastShare = 3e-8f;      // of the draws; less than that is not planned at all
constexpr double kDefensive = 0.1;        // share of the draws that does not trust the model
constexpr float kLeastChance = 1.0f / 1024;  // with which a patch is compared in full
constexpr std::int64_t kWhole = 16384;    // members of the nearest strata that are all drawn first
constexpr std::int64_t kWholePilot = 2048;     // and in the first round
constexpr std::int64_t kWholeOfFew = 1 << 20;  // and where few patches carry the weight
constexpr double kFew = 100;              // effective patches that are few
constexpr double kDoubt = 4;              // times too much weight that the model may promise a plan
constexpr double kBelief = 30;            // and a claim
constexpr double kCaution = 1.15;         // times the error that the draws tell of
constexpr double kModel = 0.35;           // share of the model's variance that is added to it
constexpr double kFloor = 0.05;           // of the tolerance: no smaller error is claimed
constexpr double kMostResidual = 3;       // variance of log-weights that coordinates may leave open
constexpr float kSteep = 8;                // and within the nearest stratum, for a query not to be far
constexpr double kMostUnlike = 0.06;      // variance of log-weights in a stratum that is sampled from afar
constexpr double kMissed = 0.3;           // times the tolerance that strata left out may make an answer wrong
constexpr float kMostBits = 1 << 22;      // of a query's own weight: float32 tells half a bit of them
constexpr float kWorstCase = 3;           // standard deviations that log-weights by codes may be off
constexpr float kMostNoise = 2;           // times what is expected that chances take to be left out
constexpr float kDull = 25.0f;            // squared levels by which all centre pixels vary at least
constexpr float kNear = 5.0f;             // levels that all of them are off at least
constexpr float kFarthest = 255 + kNear;  // and at most
// Core-nanoseconds, as measured with AVX-512: to compare with a patch's coordinates; with all of it,
// by its floats.
constexpr double kShortCost = 3.5, kFullCost = 20, kFullByFloat = 0.2;

inline void store(float* at, vec value) { *reinterpret_cast<loose*>(at) = value; }

// How far values are outside of bounds.
inline vec beyond_of(vec lowest, vec value, vec highest) {
  return largest_of(largest_of(lowest - value, value - highest), vec{});
}

inline float lane_sum(vec value) {
  typedef float quad __attribute__((vector_size(16)));
  quad parts[kLanes / 4], sum = {};
  std::memcpy(parts, &value, sizeof(parts));
  for (const quad& part : parts) sum += part;
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
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

inline bool any_of(bits value) {
  typedef std::uint64_t two __attribute__((vector_size(16)));
  two parts[kLanes / 4], all = {};
  std::memcpy(parts, &value, sizeof(parts));
  for (const two& part : parts) all |= part;
  return (all[0] | all[1]) != 0;
}

// Loops over memory: compilers take conversions and roots of vector types lane by lane.
inline vec root_of(vec value) {
  float lanes[kLanes];
  std::memcpy(lanes, &value, sizeof(lanes));
  for (float& lane : lanes) lane = std::sqrt(lane);
  std::memcpy(&value, lanes, sizeof(lanes));
  return value;
}

inline void levels_of(const std::uint8_t* __restrict bytes, float* __restrict out) {
  for (int lane = 0; lane < kLanes; ++lane) out[lane] = static_cast<int>(bytes[lane]) - kMiddle;
}

// Floats in memory that is aligned for vectors: reading across cache lines takes twice as long.
class Floats {
 public:
  explicit Floats(std::size_t count = 0) { resize(count); }
  void resize(std::size_t count) { vectors_.resize((count + kLanes - 1) / kLanes); }
  float* data() { return reinterpret_cast<float*>(vectors_.data()); }
  const float* data() const { return reinterpret_cast<const float*>(vectors_.data()); }
  float& operator[](std::size_t i) { return data()[i]; }
  float operator[](std::size_t i) const { return data()[i]; }

 private:
  std::vector<vec> vectors_;
};

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

// A random number for every number (Steele, Lea & Flood 2014).
inline std::uint64_t mixed(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Random numbers in [0, 1) for the numbers first, first + 1, ... (Wellons 2018, lowbias32).
inline vec uniforms(std::uint32_t key, std::uint32_t first) {
  bits z;
  for (int lane = 0; lane < kLanes; ++lane) z[lane] = lane;
  z = (z + first) * 0x9E3779B9u + key;
  z = (z ^ (z >> 16)) * 0x7FEB352Du;
  z = (z ^ (z >> 15)) * 0x846CA68Bu;
  z ^= z >> 16;
  return __builtin_convertvector((signed_bits)(z >> 8), vec) * 0x1p-24f;
}

// Call work(item, thread) for every item on all threads.
template <class Work>
bool in_parallel(int threads, std::int64_t items, const Work& work) {
  return on_threads(threads, items, [&](int thread, const auto& take) {
    for (std::int64_t i; (i = take()) >= 0;) work(i, thread);
  });
}

// What a query has seen. Weights are relative to 2^peak and divided by the chance of their patch; c is
// the centre pixel as levels.
template <int C>
struct Seen {
  double peak = kNothing;
  double mass = 0;         // sum of w
  double moment[C] = {};   // of w c
  double square = 0;       // of w^2 (1 - chance)
  double mixed[C] = {};    // times c
  double energy = 0;       // times |c|^2 / C
  double total = 0;        // what coordinates promised, at most, relative to the peak that was expected
  double heavy = 0;        // sum of w^2 times the chance

  void raise(double to) {
    const double factor = mass > 0 ? std::exp2(peak - to) : 0, twice = factor * factor;
    mass *= factor;
    square *= twice;
    energy *= twice;
    heavy *= twice;
    for (int c = 0; c < C; ++c) {
      moment[c] *= factor;
      mixed[c] *= twice;
    }
    peak = to;
  }

  void add(Seen other) {
    if (other.peak > peak) std::swap(*this, other);
    const double factor = std::exp2(other.peak - peak), twice = factor * factor;
    total += other.total;
    mass += factor * other.mass;
    square += twice * other.square;
    energy += twice * other.energy;
    heavy += twice * other.heavy;
    for (int c = 0; c < C; ++c) {
      moment[c] += factor * other.moment[c];
      mixed[c] += twice * other.mixed[c];
    }
  }
};

// What a query has seen in the first round, by coordinates alone; weights as above.
template <int C>
struct Scouted {
  double peak = kNothing;
  double mass = 0;         // sum of w
  double moment[C] = {};   // of w c
  double total = 0;        // of sqrt(E w^2) times how far centre pixels are from the mean
  double residual = 0;     // of w times the variance of log-weights that coordinates leave open

  void add(Scouted other) {
    if (other.peak > peak) std::swap(*this, other);
    const double factor = std::exp2(other.peak - peak);
    mass += factor * other.mass;
    total += factor * other.total;
    residual += factor * other.residual;
    for (int c = 0; c < C; ++c) moment[c] += factor * other.moment[c];
  }
};

// A query asks for the first `to` members of a stratum's run, each of which has the same chance.
struct Request {
  std::int32_t query, stratum, to;
  float chance;
};

template <int C>
class Estimator {
 public:
  explicit Estimator(const Task& task)
      : task_(task),
        cells_(task.window_columns * C),
        row_(round_up(cells_, kLanes)),
        queries_(task.count),
        scores_(static_cast<std::size_t>(task.count) * task.strata),
        requests_((task.count + kShelf - 1) / kShelf),
        desks_(task.threads),
        shares_(kShares),
        members_of_(task.strata),
        spread_(task.strata),
        centre_(static_cast<std::size_t>(task.strata) * C) {
    for (int s = 0; s < task.strata; ++s) {
      members_of_[s] = static_cast<float>(size(s));
      spread_[s] = task.spread[s] + kDull;
      for (int c = 0; c < C; ++c) centre_[c * task.strata + s] = task.centre[s * C + c];
    }
    for (auto& share : shares_) {
      share.scouted.resize(task.count);
      share.seen.resize(task.count);
    }
    for (auto& desk : desks_) {
      desk.patches.resize(static_cast<std::size_t>(kMembers) * row_ * task.window_rows);
      desk.coordinates.resize(static_cast<std::size_t>(task.components) * kMembers);
      desk.centres.resize(static_cast<std::size_t>(kMembers) * C);
      for (auto* one : {&desk.squares, &desk.bases, &desk.open, &desk.unknown, &desk.lots, &desk.margins,
                        &desk.chances})
        one->resize(kMembers);
      desk.kept.resize(kMembers);
      desk.least.resize(kMembers);
      desk.at_hand.resize(kMembers);
      for (auto* one : {&desk.model, &desk.cautious, &desk.share, &desk.wish, &desk.members,
                        &desk.distance, &desk.unlike, &desk.away, &desk.missed, &desk.random})
        one->resize(task.strata);
      desk.strata.resize(task.strata);
    }
  }

  // Whether memory sufficed.
  bool run() {
    const auto score_one = [&](std::int64_t q, int) { score(q); };
    if (!in_parallel(task_.threads, task_.count, score_one)) return false;
    for (int round = 0; round < kRounds; ++round) {
      for (auto& some : requests_) some.clear();
      const auto plan_some = [&](std::int64_t shelf, int thread) {
        const std::int64_t end = std::min(task_.count, (shelf + 1) * kShelf);
        for (std::int64_t q = shelf * kShelf; q < end; ++q)
          if (!queries_[q].done) plan(q, round, desks_[thread], requests_[shelf]);
      };
      if (!in_parallel(task_.threads, requests_.size(), plan_some)) return false;
      for (auto& share : shares_) std::fill(share.seen.begin(), share.seen.end(), Seen<C>());
      if (!sort_requests()) return false;
      if (sorted_.empty()) return true;
      const auto draw_share = [&](std::int64_t share, int thread) {
        for (auto s = share; s < task_.strata; s += kShares)
          draw(s, round, shares_[share], desks_[thread]);
      };
      if (!in_parallel(task_.threads, kShares, draw_share)) return false;
      const auto judge_one = [&](std::int64_t q, int thread) {
        if (queries_[q].done) return;
        if (round)
          judge(q);
        else
          prepare(q, desks_[thread]);
      };
      if (!in_parallel(task_.threads, task_.count, judge_one)) return false;
      for (std::int64_t q = 0; q < task_.count; q += task_.group) {
        if (round)
          settle(q, round);
        else
          divide(q);
      }
    }
    return true;
  }

 private:
  // What is known of a query.
  struct Query {
    double rate = kPilot;    // first draws that are planned
    std::int64_t whole = kWholePilot;  // members of the nearest strata that are drawn whole
    double drawn = 0;        // and done
    double selection = 0;    // chance of a second draw over the weight that a patch promises
    double model = 0;        // `total` as the model has it
    double predicted = 0;    // variance that it predicts for the first draw, over its square
    float peak = kNothing;   // binary logarithm of the largest weight expected
    double mass = 0;         // sum of weights by coordinates, relative to 2^peak
    double total = 0;        // of sqrt(E w^2) times how far centre pixels are from the mean
    double residual = 0;     // variance of log-weights that coordinates leave open
    float constant = 0;      // binary log-weight of a patch all of whose coordinates are 0
    float beside = 0;        // what coordinates leave out, squared, in units of what is expected
    float noise = 0;         // the same, but at most kMostNoise
    double missed = 0;       // what strata that are left out could add to `total` at most
    double sampled = 1;      // share of the draws that are not from strata which are wanted whole,
    double taken = 0;        // and members of those, of a query that is
    bool far = false;        // from all patches, by how much log-weights vary
    bool few = false;        // patches carry its weight, and only the nearest were drawn whole
    bool done = false;
  };

  // What a share of the strata has shown.
  struct Share {
    std::vector<Scouted<C>> scouted;  // of each query
    std::vector<Seen<C>> seen;        // of each query, this round
  };

  // One thread's memory.
  struct Desk {
    // Of the segment at hand:
    Floats coordinates;                 // (components, kMembers)
    Floats open;                        // (kMembers,): what these leave out, as a binary log-weight
    Floats unknown;                     // (kMembers,): 1 where codes do not tell, else 0
    Floats bases;                       // (kMembers,): binary log-weights are this and inner products
    Floats centres;                     // (c, kMembers)
    Floats lots;                        // (kMembers,): of the second draw, in [0, 1), for all queries
    int least_count;                    // of those below the least chance:
    std::vector<std::int32_t> least;
    Floats margins, chances;
    std::vector<std::int32_t> kept;
    std::vector<std::uint8_t> at_hand;  // (kMembers,): whether these of a member are:
    Floats patches;                     // (kMembers, window_rows, row_), as levels and zeros
    Floats squares;                     // of those, summed
    // Of the strata, and of those that a query may draw from:
    Floats model, cautious;             // (strata,): see `weigh`
    int count;
    std::vector<std::int32_t> strata;
    Floats share, wish;
    Floats members;                     // 0 of those that it takes whole
    Floats distance;                    // (strata,): see `measure` and `bound`
    Floats unlike;                      // (strata,): see `bound`
    Floats away;                        // (strata,): how far centre pixels are from the mean
    Floats missed;                      // (strata,): see `least_that_counts`
    Floats random;                      // (strata,), in [0, 1)
  };

  std::int64_t size(std::int64_t stratum) const {
    return task_.start[stratum + 1] - task_.start[stratum];
  }

  const float* along(std::int64_t q) const {
    return task_.features + q * task_.terms + task_.components;
  }

  // By the model, but no more than a patch of a stratum could weigh that is as near as its members
  // reach: far from all patches, tails of Gaussians promise what no patch holds.
  void score(std::int64_t q) {
    auto& query = queries_[q];
    const float* features = task_.features + q * task_.terms;
    const int d = task_.components, left = task_.window_rows * cells_ - d;
    const float rest = left ? features[2 * d] : 0, norm = features[2 * d + 1];
    const float variance = static_cast<float>(1 / (2 * std::log(2.0) * task_.scale));
    const float beside = std::sqrt(rest), noise = std::sqrt(variance * static_cast<float>(left));
    float* out = scores_.data() + q * task_.strata;
    vec least = splat(-kNothing), where{};  // squared distance of the nearest strata, and which they are
    for (int s = 0; s < task_.strata; s += kBlock) {
      vec sums[4] = {}, away[4] = {};
      for (int term = 0; term < task_.terms; ++term) {
        const float* terms = task_.terms_of + static_cast<std::size_t>(term) * task_.strata + s;
        for (int i = 0; i < 4; ++i) sums[i] += splat(features[term]) * load(terms + i * kLanes);
      }
      for (int k = 0; k < d; ++k) {
        const std::size_t at = static_cast<std::size_t>(k) * task_.strata + s;
        const vec value = splat(along(q)[k]);
        for (int i = 0; i < 4; ++i) {
          const vec beyond = beyond_of(load(task_.lowest + at + i * kLanes), value,
                                       load(task_.highest + at + i * kLanes));
          away[i] += beyond * beyond;
        }
      }
      for (int i = 0; i < 4; ++i) {
        const vec beyond = largest_of(splat(beside) - load(task_.reach + s + i * kLanes), vec{});
        const vec still = largest_of(beyond - splat(noise), vec{});
        const vec distance = away[i] + still * still;
        where = distance < least ? splat(static_cast<float>(s + i * kLanes)) : where;
        least = least_of(least, distance);
        const vec most = (splat(norm) - away[i] - beyond * beyond) * task_.scale;
        store(out + s + i * kLanes, least_of(sums[i], most));
      }
    }
    const int lane = lowest_lane(least);
    query.far = steepness(q, static_cast<int>(where[lane]) + lane) > kSteep;
    if (query.far) query.whole = kWhole;
    if (norm * task_.scale > kMostBits) leave(q);
    double inside = 0;
    for (int i = 0; i < d; ++i) inside += features[i];
    query.constant = static_cast<float>(task_.scale * (norm - inside - rest));
    query.beside = left ? rest / (variance * static_cast<float>(left)) : 0;
    query.noise = std::min(query.beside, kMostNoise);
  }

  // How much log-weights vary within a stratum by the way to its nearest point: their variance, by that
  // of its members. Where they do, a few of its members have all its weight.
  float steepness(std::int64_t q, int s) const {
    float sum = 0;
    for (int k = 0; k < task_.components; ++k) {
      const std::size_t at = static_cast<std::size_t>(k) * task_.strata + s;
      const float value = along(q)[k];
      const float beyond = std::max({task_.lowest[at] - value, value - task_.highest[at], 0.0f});
      sum += beyond * beyond * task_.variances[at];
    }
    return sum * slope() * slope();
  }

  // One over the variance of the noise: log-weights are squared distances times half of it.
  float slope() const { return 2 * std::log(2.0f) * task_.scale; }

  // What a query wants of each stratum: by the model, N sqrt(E w^2) times how far centre pixels are
  // from the mean, and a part of the draws by its root, in case the model is wrong. Both are shares
  // of a sum over strata; returns the binary logarithm of that of the model's. The nearest strata are
  // wanted whole. Far from all patches the weights of a stratum's members may differ so much that a
  // sample tells little of what it misses: such strata, too, are wanted whole there, once something
  // has been seen by which those are known that could not matter, and are left out.
  double weigh(std::int64_t q, const double* mean, Desk& desk) {
    auto& query = queries_[q];
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
      away = root_of(away);
      const vec power = exp2_of((load(score + s) - splat(top)) * .5f);
      const vec members = load(members_of_.data() + s);
      const vec model = members * power * power * away;
      store(desk.away.data() + s, away);
      store(desk.model.data() + s, model);
      store(desk.cautious.data() + s, members * power);
      total += model;
      cautious += members * power;
    }
    const float sum = lane_sum(total);
    const float one = float(1 - kDefensive) / sum, other = float(kDefensive) / lane_sum(cautious);
    const bool afar = query.far && query.mass > 0;
    if (query.far)
      bound(q, desk);
    else
      measure(q, desk);
    const float near = nearest(query.whole, desk), least = afar ? least_that_counts(q, desk) : 0;
    int count = 0;
    for (int s = 0; s < task_.strata; ++s) {
      const float wish = desk.model[s] * one + desk.cautious[s] * other;
      desk.strata[count] = s;
      desk.wish[count] = std::max(wish, kLeastShare);
      count += afar ? desk.missed[s] >= least || desk.distance[s] <= near : wish >= kLeastShare;
    }
    for (int i = 0; i < count; ++i) {
      const int s = desk.strata[i];
      const bool whole = desk.distance[s] <= near || (afar && desk.unlike[s] > kMostUnlike);
      desk.share[i] = desk.model[s] / sum;
      desk.members[i] = whole ? 0 : members_of_[s];
    }
    desk.count = count;
    return top + std::log2(static_cast<double>(sum));
  }

  // What a stratum must be able to add to a query's `total` not to be left out, so that all that are
  // could not make the answer wrong by more than `kMissed` allows.
  float least_that_counts(std::int64_t q, Desk& desk) {
    auto& query = queries_[q];
    const float norm = task_.features[q * task_.terms + 2 * task_.components + 1];
    for (int s = 0; s < task_.strata; s += kLanes) {
      const vec most = (splat(norm) - load(desk.distance.data() + s)) * task_.scale - splat(query.peak);
      store(desk.missed.data() + s, load(members_of_.data() + s) * load(desk.away.data() + s) *
                                        exp2_of(least_of(most, splat(kMostPower))));
    }
    const double most = kMissed * task_.tolerance * query.mass;
    auto least = static_cast<float>(most);
    while ((query.missed = missed_below(least, desk)) > most) least /= 2;
    return least;
  }

  float missed_below(float least, const Desk& desk) const {
    vec sum = {};
    for (int s = 0; s < task_.strata; s += kLanes) {
      const vec missed = load(desk.missed.data() + s);
      sum += missed < splat(least) ? missed : splat(0);
    }
    return lane_sum(sum);
  }

  // The variance that the model predicts at so many draws, in units of the square of its scale.
  double predicted(const Desk& desk, float draws) const {
    const float *share = desk.share.data(), *wish = desk.wish.data(), *all = desk.members.data();
    float sums[16] = {};
    const int count = desk.count;
    for (int begin = 0; begin < count; begin += 16)
      for (int i = begin; i < std::min(begin + 16, count); ++i) {
        const float wanted = draws * wish[i];
        sums[i - begin] += 2 * wanted >= all[i] ? 0 : share[i] * share[i] / wanted;
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

  // Choose the first draw.
  void plan(std::int64_t q, int round, Desk& desk, std::vector<Request>& requests) {
    auto& query = queries_[q];
    double* mean = task_.mean + q * C;
    if (!round) guess(q, mean);
    query.model = std::exp2(weigh(q, mean, desk) - query.peak);
    query.predicted = predicted(desk, static_cast<float>(query.rate));
    query.drawn = 0;
    const auto key = static_cast<std::uint32_t>(mixed(task_.keys[q]));
    for (int s = 0; s < task_.strata; s += kLanes)
      store(desk.random.data() + s, uniforms(key, s));
    for (int i = 0; i < desk.count; ++i) {
      const int s = desk.strata[i];
      const std::int64_t members = size(s);
      const double wanted = desk.members[i] > 0 ? query.rate * desk.wish[i] : members;
      if (wanted < 1 && desk.random[s] >= wanted) continue;
      const std::int64_t to =
          2 * wanted >= members ? members : static_cast<std::int64_t>(std::ceil(wanted));
      const double chance = std::min(wanted, 1.0) * static_cast<double>(to) / members;
      requests.push_back({static_cast<std::int32_t>(q), s, static_cast<std::int32_t>(to),
                          static_cast<float>(chance)});
      query.drawn += static_cast<double>(to);
    }
  }

  // The squared distances of the means of strata.
  void measure(std::int64_t q, Desk& desk) const {
    for (int s = 0; s < task_.strata; s += kLanes) {
      vec sum = {};
      for (int i = 0; i < task_.components; ++i) {
        const vec away =
            load(task_.means + static_cast<std::size_t>(i) * task_.strata + s) - splat(along(q)[i]);
        sum += away * away;
      }
      store(desk.distance.data() + s, unless_empty(s, sum));
    }
  }

  // Values of strata, and 0 for empty ones, which may lie anywhere.
  vec unless_empty(int s, vec values) const {
    const bits some = load(members_of_.data() + s) > splat(0) ? bits{} - 1 : bits{};
    return (vec)((bits)values & some);
  }

  // The squared distances that no member of a stratum is nearer than, and the variance of log-weights
  // within it that the model expects.
  void bound(std::int64_t q, Desk& desk) const {
    const int d = task_.components;
    const bool all = task_.window_rows * cells_ == d;  // and what is left is rounding
    const float beside = all ? 0 : std::sqrt(task_.features[q * task_.terms + 2 * d]);
    for (int s = 0; s < task_.strata; s += kLanes) {
      vec away = {}, unlike = {};
      for (int k = 0; k < d; ++k) {
        const std::size_t at = static_cast<std::size_t>(k) * task_.strata + s;
        const vec value = splat(along(q)[k]), off = load(task_.means + at) - value;
        const vec beyond = beyond_of(load(task_.lowest + at), value, load(task_.highest + at));
        away += beyond * beyond;
        unlike += off * off * load(task_.variances + at);
      }
      const vec beyond = largest_of(splat(beside) - load(task_.reach + s), vec{});
      store(desk.distance.data() + s, unless_empty(s, away + beyond * beyond));
      store(desk.unlike.data() + s, unlike * (slope() * slope()));
    }
  }

  // Up to what distance strata are taken whole, because one patch of them may weigh much.
  float nearest(std::int64_t most, const Desk& desk) const {
    // The largest distance within which there are no more members: by halving what is left.
    float low = 0, high = 2 * highest_of(desk.distance.data(), task_.strata);
    for (int i = 0; i < kHalvings; ++i) {
      const float middle = (low + high) / 2;
      (members_within(middle, desk) <= static_cast<float>(most) ? low : high) = middle;
    }
    if (members_within(low, desk) > 0) return low;
    float least = high;  // at least the nearest of all
    for (int s = 0; s < task_.strata; ++s)
      if (members_of_[s] > 0) least = std::min(least, desk.distance[s]);
    return least;
  }

  float members_within(float distance, const Desk& desk) const {
    vec sum = {};
    for (int s = 0; s < task_.strata; s += kLanes)
      sum += load(desk.distance.data() + s) <= splat(distance) ? load(members_of_.data() + s)
                                                               : splat(0);
    return lane_sum(sum);
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

  // All requests by stratum, and by query there: each share of the shelves puts its own where their
  // turn is. False when memory ran out.
  bool sort_requests() {
    const std::int64_t shelves = requests_.size();
    std::vector<std::int64_t> turns(static_cast<std::size_t>(kShares) * task_.strata);
    const auto each_request = [&](std::int64_t part, const auto& work) {
      for (auto i = part * shelves / kShares; i < (part + 1) * shelves / kShares; ++i)
        for (const auto& one : requests_[i]) work(one, turns[part * task_.strata + one.stratum]);
    };
    const auto count = [&](std::int64_t part, int) {
      each_request(part, [](const Request&, std::int64_t& turn) { ++turn; });
    };
    if (!in_parallel(task_.threads, kShares, count)) return false;
    std::int64_t sum = 0;
    first_.assign(task_.strata + 1, 0);
    for (int s = 0; s < task_.strata; ++s) {
      first_[s] = sum;
      for (int part = 0; part < kShares; ++part)
        sum += std::exchange(turns[static_cast<std::size_t>(part) * task_.strata + s], sum);
    }
    first_[task_.strata] = sum;
    sorted_.resize(sum);
    const auto put = [&](std::int64_t part, int) {
      each_request(part, [&](const Request& one, std::int64_t& turn) { sorted_[turn++] = one; });
    };
    return in_parallel(task_.threads, kShares, put);
  }

  // Answer all requests to one stratum.
  void draw(std::int64_t s, int round, Share& share, Desk& desk) {
    const Request* begin = sorted_.data() + first_[s];
    const Request* end = sorted_.data() + first_[s + 1];
    int longest = 0;
    for (const Request* one = begin; one != end; ++one) longest = std::max(longest, one->to);
    for (int first = 0; first < longest; first += kMembers) {
      decode(s, first, std::min(kMembers, longest - first), desk);
      for (const Request* one = begin; one != end; ++one) {
        if (one->to <= first) continue;
        if (one + kAhead < end) {
          const int soon = one[kAhead].query;
          __builtin_prefetch(&queries_[soon]);
          __builtin_prefetch(&share.seen[soon]);
          for (int k = 0; k < task_.components; k += kLanes) __builtin_prefetch(along(soon) + k);
        }
        const int count = std::min(kMembers, one->to - first);
        if (round)
          absorb(*one, s, first, count, share, desk);
        else
          scout(*one, count, share, desk);
      }
    }
  }

  // Which member of a stratum is the i-th of its run.
  std::int64_t member(std::int64_t s, std::int64_t i) const {
    const std::int64_t members = size(s);
    const std::int64_t at =
        static_cast<std::int64_t>(mixed(task_.seed ^ mixed(s)) % members) + i;
    return at < members ? at : at - members;
  }

  // Call work(i, bytes, n) for the n bytes of a code at one place of members first + i, first + i +
  // 1, ..., all count of them in one or two parts.
  template <class Work>
  void each_part(std::int64_t s, int first, int count, int place, const Work& work) const {
    const std::int64_t members = size(s), from = member(s, first);
    const int bytes = task_.components + 1 + C;
    const std::uint8_t* codes = task_.codes + task_.start[s] * bytes + place * members;
    const int till = static_cast<int>(std::min<std::int64_t>(count, members - from));
    work(0, codes + from, till);
    if (till < count) work(till, codes, count - till);
  }

  // What codes say of the members first, ..., first + count of a stratum's run.
  void decode(std::int64_t s, int first, int count, Desk& desk) {
    const int d = task_.components;
    const float* centre = task_.centres + s * d;
    const float* step = task_.steps + s * (d + 1);
    std::fill_n(desk.bases.data(), kMembers, 0.0f);
    for (int k = 0; k < d; ++k)
      each_part(s, first, count, k, [&](int i, const std::uint8_t* codes, int n) {
        float* __restrict out = desk.coordinates.data() + k * kMembers + i;
        float* __restrict base = desk.bases.data() + i;
        const float unit = step[k], origin = centre[k] - 128 * unit;
        for (int j = 0; j < n; ++j) {
          const float value = origin + unit * static_cast<int>(codes[j]);
          out[j] = value;
          base[j] -= task_.unit * value * value;
        }
      });
    each_part(s, first, count, d, [&](int i, const std::uint8_t* codes, int n) {
      for (int j = 0; j < n; ++j) {
        const bool unknown = codes[j] == kUnknown;
        const float root = step[d] * (unknown ? kUsual : static_cast<int>(codes[j]));
        desk.open[i + j] = task_.unit * root * root;
        desk.unknown[i + j] = unknown;
      }
    });
    for (int c = 0; c < C; ++c)
      each_part(s, first, count, d + 1 + c, [&](int i, const std::uint8_t* codes, int n) {
        float* __restrict out = desk.centres.data() + c * kMembers + i;
        for (int j = 0; j < n; ++j) out[j] = static_cast<int>(codes[j]) - kMiddle;
      });
    const auto key = static_cast<std::uint32_t>(mixed(task_.seed ^ mixed(~s)));
    for (int i = 0; i < count; i += kLanes) store(desk.lots.data() + i, uniforms(key, first + i));
    desk.least_count = 0;
    for (int i = 0; i < count; ++i) {
      desk.least[desk.least_count] = i;
      desk.least_count += desk.lots[i] < kLeastChance;
    }
    for (int i = count; i < round_up(count, kBlock); ++i) {  // fill the last block, to no effect
      desk.bases[i] = kNothing;
      desk.open[i] = desk.unknown[i] = 0;
      desk.lots[i] = 1;
      for (int c = 0; c < C; ++c) desk.centres[c * kMembers + i] = 0;
      for (int k = 0; k < d; ++k) desk.coordinates[k * kMembers + i] = 0;
    }
    std::fill_n(desk.at_hand.data(), kMembers, std::uint8_t(0));
  }

  // Have the patches of those members at hand that were kept.
  void read(std::int64_t s, int first, int kept, Desk& desk) {
    const std::int32_t* order = task_.order + task_.start[s];
    const std::int64_t row_bytes = static_cast<std::int64_t>(task_.width) * C;
    const std::int64_t members = size(s), from = member(s, first);
    const auto at = [&](int i) {
      const std::int64_t m = from + desk.kept[i];
      return task_.images + std::int64_t(order[m < members ? m : m - members]) * C;
    };
    for (int i = 0; i < kept; ++i) {
      if (i + kAhead < kept && !desk.at_hand[desk.kept[i + kAhead]]) {
        const std::uint8_t* soon = at(i + kAhead);
        for (int row = 0; row < task_.window_rows; ++row) {
          __builtin_prefetch(soon + row * row_bytes);
          __builtin_prefetch(soon + row * row_bytes + cells_ - 1);
        }
      }
      const int m = desk.kept[i];
      if (!desk.at_hand[m]) copy(at(i), row_bytes, patch(desk, m));
    }
    // Not above: what has just been written in small parts is slow to read in large ones.
    for (int i = 0; i < kept; ++i) {
      const int m = desk.kept[i];
      if (desk.at_hand[m]) continue;
      const float* levels = patch(desk, m);
      vec sum = {};
      for (int cell = 0; cell < task_.window_rows * row_; cell += kLanes) {
        const vec some = *reinterpret_cast<const vec*>(levels + cell);
        sum += some * some;
      }
      desk.squares[m] = lane_sum(sum);
      desk.at_hand[m] = 1;
    }
  }

  // A patch as levels.
  void copy(const std::uint8_t* source, std::int64_t row_bytes, float* out) const {
    for (int row = 0; row < task_.window_rows; ++row, out += row_, source += row_bytes) {
      for (int cell = 0; cell < row_; cell += kLanes) levels_of(source + cell, out + cell);
      for (int cell = cells_; cell < row_; ++cell) out[cell] = 0;
    }
  }

  float* patch(Desk& desk, int i) const {
    return desk.patches.data() + static_cast<std::size_t>(i) * task_.window_rows * row_;
  }

  // Binary log-weights by coordinates alone of P vectors of members, as if nothing were left out.
  template <int P>
  void compare(const float* coordinates, float constant, int m, const Desk& desk, vec* out) const {
    constexpr int kChains = 4 / P;  // sums that wait for one another are slow
    vec sums[P][kChains] = {};
    for (int p = 0; p < P; ++p) sums[p][0] = load(desk.bases.data() + m + p * kLanes) + splat(constant);
    const float factor = 2 * task_.alpha * task_.scale;
    for (int k = 0; k < task_.components; k += kChains)
      for (int i = 0; i < kChains && k + i < task_.components; ++i) {
        const vec coordinate = splat(factor * coordinates[k + i]);
        const float* members = desk.coordinates.data() + (k + i) * kMembers + m;
        for (int p = 0; p < P; ++p) sums[p][i] += coordinate * load(members + p * kLanes);
      }
    for (int p = 0; p < P; ++p) {
      out[p] = sums[p][0];
      for (int i = 1; i < kChains; ++i) out[p] += sums[p][i];
    }
  }

  // Call work(m, log-weights, vectors) for every few vectors of the first `count` members.
  template <class Work>
  void compare_all(std::int64_t q, int count, const Desk& desk, const Work& work) const {
    const float* coordinates = along(q);
    const float constant = queries_[q].constant;
    vec found[4];
    int m = 0;
    for (; m + kLanes < count; m += kBlock) {
      compare<4>(coordinates, constant, m, desk, found);
      work(m, found, std::min(4, round_up(count - m, kLanes) / kLanes));
    }
    if (m < count) {
      compare<1>(coordinates, constant, m, desk, found);
      work(m, found, 1);
    }
  }

  // How far the centre pixels of members are from a mean, and kNear more.
  vec away(const double* mean, int m, const Desk& desk) const {
    vec sum = splat(kNear * C);
    for (int c = 0; c < C; ++c) {
      const vec difference =
          load(desk.centres.data() + c * kMembers + m) - splat(static_cast<float>(mean[c]));
      sum += largest_of(difference, -difference);
    }
    return sum * (1.0f / C);
  }

  // Take in the first `count` members at hand by their coordinates alone.
  void scout(const Request& one, int count, Share& share, Desk& desk) {
    const float noise = queries_[one.query].noise;
    float* logs = desk.margins.data();
    compare_all(one.query, count, desk, [&](int m, const vec* found, int vectors) {
      for (int p = 0; p < vectors; ++p, m += kLanes)
        store(logs + m, found[p] - (1 - noise) * load(desk.open.data() + m));
    });
    for (int m = count; m < round_up(count, kLanes); ++m) logs[m] = kNothing;
    const float peak = highest_of(logs, round_up(count, kLanes));
    Scouted<C> found;
    found.peak = peak;
    vec mass = {}, total = {}, residual = {}, moment[C] = {};
    for (int m = 0; m < count; m += kLanes) {
      const vec weight = exp2_of(load(logs + m) - splat(peak));
      const vec open = load(desk.open.data() + m);
      const vec more = noise * open;
      mass += weight;
      residual += weight * more;
      total += weight * exp2_of(least_of(more, splat(kMostPower))) *
               away(task_.mean + one.query * C, m, desk);
      for (int c = 0; c < C; ++c)
        moment[c] += weight * load(desk.centres.data() + c * kMembers + m);
    }
    found.mass = lane_sum(mass) / one.chance;
    found.total = lane_sum(total) / one.chance;
    found.residual = lane_sum(residual) / one.chance;
    for (int c = 0; c < C; ++c) found.moment[c] = lane_sum(moment[c]) / one.chance;
    share.scouted[one.query].add(found);
  }

  // How far the binary log-weights of a stratum's members may be off because codes are rounded: little,
  // but from afar.
  float doubt(std::int64_t q, std::int64_t s) const {
    const float* step = task_.steps + s * (task_.components + 1);
    float sum = 0;
    for (int k = 0; k < task_.components; ++k) {
      const float off = task_.means[std::int64_t(k) * task_.strata + s] - along(q)[k];
      sum += off * off * step[k] * step[k];
    }
    return kWorstCase * 2 * task_.scale * task_.alpha * std::sqrt(sum / 12);
  }

  // Draw a second time from the first `count` members at hand, and take in what that gives. Most
  // promise so little that all blocks of them need is the least chance.
  void absorb(const Request& one, std::int64_t s, int first, int count, Share& share, Desk& desk) {
    auto& seen = share.seen[one.query];
    const auto& query = queries_[one.query];
    const float chance = one.chance;
    const float rate = static_cast<float>(std::min(query.selection / chance, 1e30));
    const double* mean = task_.mean + one.query * C;
    const vec dull = splat(std::log2(kLeastChance / (rate * kFarthest)));
    const float worst = kWorstCase * kWorstCase * 2 * query.beside / std::log(2.0f);
    const vec shift = splat(query.far ? query.peak - doubt(one.query, s) : query.peak);
    vec total = {};
    int kept = 0, least = 0, passed = 0;
    compare_all(one.query, count, desk, [&](int m, const vec* found, int vectors) {
      vec powers[4];
      bits some = {};
      for (int p = 0; p < vectors; ++p) {
        const vec open = load(desk.open.data() + m + p * kLanes);
        vec more = 2 * query.noise * open;
        if (query.far) more = largest_of(more, root_of(open * worst));
        powers[p] = found[p] - open + more - shift;
        some |= (bits)(powers[p] > dull) | (bits)load(desk.unknown.data() + m + p * kLanes);
      }
      const int end = std::min(count, m + vectors * kLanes);
      if (!any_of(some)) {
        for (; least < desk.least_count && desk.least[least] < end; ++least) {
          if (desk.least[least] < m) continue;
          desk.kept[kept++] = desk.least[least];
          desk.chances[desk.least[least]] = kLeastChance;
        }
        passed += end - m;
        return;
      }
      for (int p = 0; p < vectors; ++p, m += kLanes) {
        const vec power = least_of(powers[p], splat(kMostPower));
        const vec promised = exp2_of(power) * away(mean, m, desk);
        total += promised;
        vec wanted = splat(rate) * promised;
        wanted = least_of(largest_of(wanted, splat(kLeastChance)), splat(1.0f));
        wanted = largest_of(wanted, load(desk.unknown.data() + m));
        const vec margin = wanted - load(desk.lots.data() + m);
        if (!any_of((bits)(margin > splat(0)))) continue;
        store(desk.chances.data() + m, wanted);
        store(desk.margins.data() + m, margin);
        for (int i = m; i < std::min(end, m + kLanes); ++i) {
          desk.kept[kept] = i;
          kept += desk.margins[i] > 0;
        }
      }
    });
    seen.total += (lane_sum(total) + static_cast<float>(passed) * kLeastChance / rate) / chance;
    if (!kept) return;
    read(s, first, kept, desk);
    take_in(one, kept, share, desk);
  }

  // Take in the kept members at hand.
  void take_in(const Request& one, int kept, Share& share, Desk& desk) {
    auto& seen = share.seen[one.query];
    const float* window = task_.x + task_.at[one.query];
    float* found = desk.margins.data();
    float* all = desk.chances.data();
    for (int i = 0; i < kept; ++i) {  // m >= i: what is written was read
      const int m = desk.kept[i];
      found[i] = product(window, patch(desk, m)) - task_.unit * desk.squares[m];
      all[i] = one.chance * desk.chances[m];
    }
    for (int i = kept; i < round_up(kept, kLanes); ++i) found[i] = kNothing, all[i] = 1;
    const float highest = highest_of(found, round_up(kept, kLanes));
    if (highest > seen.peak) seen.raise(highest);
    const vec peak = splat(static_cast<float>(seen.peak));
    for (int i = 0; i < kept; i += kLanes)
      store(found + i, exp2_of(load(found + i) - peak) / load(all + i));
    double mass = 0, total = 0, heavy = 0, energy = 0, moment[C] = {}, mixed[C] = {};
    for (int i = 0; i < kept; ++i) {
      const float weight = found[i], square = weight * weight * (1 - all[i]);
      mass += weight;
      total += square;
      heavy += weight * weight * all[i];
      float norm = 0;
      for (int c = 0; c < C; ++c) {
        const float centre = desk.centres[c * kMembers + desk.kept[i]];
        moment[c] += weight * centre;
        mixed[c] += square * centre;
        norm += centre * centre;
      }
      energy += square * norm / C;
    }
    seen.mass += mass;
    seen.square += total;
    seen.heavy += heavy;
    seen.energy += energy;
    for (int c = 0; c < C; ++c) {
      seen.moment[c] += moment[c];
      seen.mixed[c] += mixed[c];
    }
  }

  // The binary log-weight of a patch, but for its square.
  float product(const float* window, const float* levels) const {
    const float factor = 2 * task_.alpha * task_.scale;
    switch (row_ / kLanes) {
      case 1: return factor * product_of<1>(window, levels);
      case 2: return factor * product_of<2>(window, levels);
      case 3: return factor * product_of<3>(window, levels);
      case 4: return factor * product_of<4>(window, levels);
      default: return factor * product_of<0>(window, levels);
    }
  }

  // The same where a row has V vectors of cells, or any number of them.
  template <int V>
  float product_of(const float* window, const float* levels) const {
    const int step = task_.x_width * C, wide = V ? V : row_ / kLanes;
    vec sum = {}, other = {};
    for (int row = 0; row < task_.window_rows; ++row, window += step, levels += row_)
      for (int v = 0; v < wide; ++v) {
        const vec some = *reinterpret_cast<const vec*>(levels + v * kLanes);
        (v & 1 ? other : sum) += load(window + v * kLanes) * some;
      }
    return lane_sum(sum + other);
  }

  // After the first round: what the second draw and the plan of the first need.
  void prepare(std::int64_t q, Desk& desk) {
    auto& query = queries_[q];
    Scouted<C> scouted;
    for (const auto& share : shares_) scouted.add(share.scouted[q]);
    query.peak = static_cast<float>(scouted.peak);
    query.mass = scouted.mass;
    query.total = scouted.total;
    double* mean = task_.mean + q * C;
    for (int c = 0; c < C; ++c) mean[c] = scouted.moment[c] / scouted.mass;
    query.residual = 2 * std::log(2.0) * scouted.residual / scouted.mass;
    query.whole = kWhole;
    const double model = std::exp2(weigh(q, mean, desk) - query.peak);
    const double trusted = std::min(model, kDoubt * query.total) / query.mass;
    query.rate = draws_for(desk, task_.tolerance * task_.tolerance, trusted * trusted);
    // A query off all patches in what coordinates leave out is as far, wherever these lie.
    const bool unknown = query.residual * query.beside > kMostResidual * query.noise;
    if (unknown && (query.far || query.beside > kMostNoise)) return leave(q);
    if (!query.far) return;
    query.sampled = 0;
    for (int i = 0; i < desk.count; ++i) {
      if (desk.members[i] == 0)
        query.taken += members_of_[desk.strata[i]];
      else
        query.sampled += desk.wish[i];
    }
    if (query.taken * kShortCost > task_.alone) leave(q);
  }

  // A query is to be answered in full.
  void leave(std::int64_t q) {
    queries_[q].done = true;
    task_.draws[q] = -1;
  }

  // Divide the tolerance among a group of queries, the first of which is q, but for those that are
  // answered in full, and among both draws; all of them are where that costs less. With a variance of
  // A / n after n draws, the least draws in all that keep the mean variance are those at which each
  // query's variance goes with sqrt(A).
  void divide(std::int64_t q) {
    double mean = 0, cost = 0, residual = 0;
    int near = 0;
    for (std::int64_t i = q; i < q + task_.group; ++i) {
      if (queries_[i].done || queries_[i].far) continue;
      mean += std::sqrt(queries_[i].rate);
      residual += queries_[i].residual;
      ++near;
    }
    mean /= std::max(near, 1);
    for (std::int64_t i = q; i < q + task_.group; ++i) {
      auto& query = queries_[i];
      if (query.done) {
        cost += task_.alone;
        continue;
      }
      const double part =
          query.far ? kAim : std::min(kAim * std::sqrt(query.rate) / mean, kMostUneven);
      const double enough = (1 - kFirst) * part * task_.tolerance * task_.tolerance;
      query.rate = std::min(query.rate / (kFirst * part), task_.most);
      query.selection = query.total / (enough * query.mass * query.mass);
      const double first = query.rate * query.sampled + query.taken;
      const double second = std::min(query.selection * query.total, first);
      cost += first * kShortCost + second * (kFullCost + kFullByFloat * cells_ * task_.window_rows);
    }
    if (cost <= task_.dear && residual <= kMostResidual * static_cast<double>(task_.group)) return;
    for (std::int64_t i = q; i < q + task_.group; ++i) leave(i);
  }

  // The posterior mean of a query and its variance, from all that it has seen.
  void judge(std::int64_t q) {
    auto& query = queries_[q];
    Seen<C> seen;
    for (const auto& share : shares_) seen.add(share.seen[q]);
    query.few = !query.far && query.whole < kWholeOfFew && seen.mass * seen.mass < kFew * seen.heavy;
    double* mean = task_.mean + q * C;
    double variance = seen.energy;
    for (int c = 0; c < C; ++c) {
      mean[c] = seen.moment[c] / seen.mass;
      variance += mean[c] * (mean[c] * seen.square - 2 * seen.mixed[c]) / C;
    }
    const double expected = std::exp2(query.peak - seen.peak) / seen.mass;
    const double trusted = std::min(query.model, kBelief * seen.total) * expected;
    variance = std::max(variance, 0.0) / (seen.mass * seen.mass) +
               kModel * query.predicted * trusted * trusted;
    const double missed = query.missed * expected;
    task_.variance[q] = std::max(kCaution * kCaution * variance + missed * missed,
                                 kFloor * kFloor * task_.tolerance * task_.tolerance);
    query.mass = 1 / expected;
    task_.draws[q] = query.drawn;
  }

  // Which queries of a group, the first of which is q, are done, and what the others draw next.
  void settle(std::int64_t q, int round) {
    const double enough = task_.tolerance * task_.tolerance;
    // Few more draws are needed where those of the largest variance are drawn again.
    std::vector<double> ordered;
    for (std::int64_t i = q; i < q + task_.group; ++i)
      if (task_.draws[i] >= 0) ordered.push_back(task_.variance[i]);
    std::sort(ordered.begin(), ordered.end());
    double excess = 0, most = kWorst * enough;
    for (const double one : ordered) excess += one - enough;
    for (; excess > 0 && !ordered.empty(); ordered.pop_back()) {
      most = std::min(most, ordered.back());
      excess -= ordered.back() - kAim * enough;
    }
    for (std::int64_t i = q; i < q + task_.group; ++i) {
      auto& query = queries_[i];
      const double ratio = task_.variance[i] / enough;
      query.done = query.done || (!query.few && (task_.variance[i] < most || ratio <= kAim));
      if (query.done) continue;
      if (query.few) {
        query.whole = kWholeOfFew;
        continue;
      }
      const double more = std::clamp(1.5 * ratio, 1.5, 8.0);
      query.rate = query.rate * more < task_.most ? query.rate * more : kAll;
      query.selection *= round + 2 < kRounds ? more : 1e30;
    }
  }

  const Task& task_;
  const int cells_;                         // of a row of a window
  const int row_;                           // floats for one at hand
  std::vector<Query> queries_;
  Floats scores_;                           // (q, strata): log2 sqrt(E w^2) by the model
  std::vector<std::vector<Request>> requests_;  // of each kShelf queries
  std::vector<Request> sorted_;
  std::vector<std::int64_t> first_;         // of the sorted requests, by stratum
  std::vector<Desk> desks_;
  std::vector<Share> shares_;
  Floats members_of_, spread_, centre_;     // of the strata
};

template <int C>
int estimate(const Task& task) {
  try {
    return !Estimator<C>(task).run();
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

// 0: done; 1: out of memory; 2: a number of channels that is not compiled in.
extern "C" int els_estimate(const Task* task) {
  switch (task->channels) {
    case 1: return estimate<1>(*task);
    case 2: return estimate<2>(*task);
    case 3: return estimate<3>(*task);
    case 4: return estimate<4>(*task);
    default: return 2;
  }
}
