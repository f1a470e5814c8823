// Posteriors over training patches on the CPU, for every patch size in one pass.
//
// For a displacement s let e_s(u) = |x(u) - alpha y(u + s)|^2 / (2 sigma^2 ln 2), summed over the
// channels. Minus the binary logarithm of the weight of the k x k patch around u + s at place u is
// a k x k box sum of e_s, so one map of e_s serves every size: rows are stacked from a small window
// to the next larger one, and each stack is summed along the columns. No sum ever subtracts, so that
// a distant patch passed on the way leaves no rounding error behind. The lanes of a vector are
// different training images.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <type_traits>
#include <vector>

#include "lanes.h"

// The whole interface: laid out as `_Job` in engine_native.py.
struct Job {
  const float* x;               // queries (b c h w)
  const std::uint8_t* pixels;   // training images (n c h w)
  const double* alpha;          // (b,), positive
  const double* sigma;          // (b,), positive
  const std::int32_t* radii;    // (m,): k // 2 of every size, ascending
  const float* profiles;        // (m, largest radius + 1): weight of a window's rows and columns by
                                // their distance from its centre; null where all weigh 1
  const std::uint8_t* wanted;   // (b h w): the query places that are asked for; null for all
  double* peak;                 // (b m h w), merged into
  double* mass;                 // (b m h w), merged into
  double* moment;               // (b m c h w), merged into
  double* square;               // (b m h w), merged into; null if no details are asked for
  std::int64_t* best;           // (b m h w): (image * h + row) * w + column; null as square is
  double* top;                  // (b m h w): mass of the heaviest image, merged into; null as well
  double* second_peak;          // (b m h w): of all other images than that of best; null as well
  std::int64_t* second;         // (b m h w), as best
  double* energy;               // (b m h w): what patches lie behind the peak, weighed by their
                                // mass, in nats; merged into; null as square
  std::int64_t queries, images;
  std::int64_t first_image;     // the index by which patches name the first of the images
  std::int32_t channels, height, width, sizes, kind, threads;
  std::int32_t shift_rows, shift_columns;  // largest displacements
};

namespace {

constexpr int kBlock = 8;            // column displacements at a time
constexpr int kBand = 8;             // query rows at a time
constexpr int kApart = 2;            // up to so many sizes are stacked apart, in bands of rows
constexpr int kDirect = 2;           // largest radius at which columns are summed term by term
constexpr int kGroups = 64;          // lane-fulls of images summed in float32 before double
constexpr float kAbsent = 1e9f;      // what fills up the last lanes is so much farther: no weight
constexpr float kNegligible = 60.0f;  // a patch so many bits behind the best changes no sum
constexpr double kLn2 = 0.6931471805599453;

enum Kind { kLocal, kEquivariant, kBoundary };

inline bits pick(bits mask, bits a, bits b) { return (mask & a) | (~mask & b); }

// The least of `count` vectors, lane by lane.
inline __attribute__((always_inline)) vec least_of_all(const vec* values, int count) {
  vec least = values[0];
  for (int i = 1; i < count; ++i) least = least_of(values[i], least);
  return least;
}

// Vectors that start as zero.
class Buffer {
 public:
  explicit Buffer(std::size_t size)
      : data_(static_cast<vec*>(::operator new(size * sizeof(vec), kAlign))) {
    std::memset(static_cast<void*>(data_), 0, size * sizeof(vec));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete(data_, kAlign); }
  vec* at(std::size_t index) { return data_ + index; }

 private:
  static constexpr std::align_val_t kAlign{alignof(vec)};
  vec* data_;
};

struct Range {
  int begin, end;
  bool has(int i) const { return begin <= i && i < end; }
  int size() const { return std::max(0, end - begin); }
  Range within(Range o) const { return {std::max(begin, o.begin), std::min(end, o.end)}; }
};

// The one rule in which the machines differ, along one axis: query place u meets training place
// u + s. Where the query wraps round, u runs over negative places too and stands for `place(u)`.
class Axis {
 public:
  Axis(Kind kind, int length, int shift)
      : length_(length), wraps_(kind == kEquivariant), shift_(kind == kLocal ? 0 : shift) {}

  // The displacements that some place can use with a window of radius r.
  Range displacements(int r) const {
    if (wraps_) return {0, length_};
    const int farthest = std::min(shift_, std::max(0, length_ - 1 - 2 * r));
    return {-farthest, farthest + 1};
  }

  // The displacements that place u can use: windows that cross a border keep to their place.
  Range partners(int u, int r) const {
    const Range inside{r, length_ - r};
    if (!wraps_ && !inside.has(u)) return {0, 1};
    const Range all{inside.begin - u, inside.end - u};
    return wraps_ ? all : all.within({-shift_, shift_ + 1});
  }

  // The places that can use one of the displacements s.
  Range queries(Range s, int r) const {
    if (!wraps_ && s.has(0)) return {0, length_};
    const Range inside{r, length_ - r};
    const Range reached{inside.begin - (s.end - 1), inside.end - s.begin};
    return wraps_ ? reached : inside.within(reached);
  }

  // The places u for which u + s lies in the image for one of the displacements s.
  Range cells(Range s) const {
    const Range reached{1 - s.end, length_ - s.begin};
    return wraps_ ? reached : Range{0, length_}.within(reached);
  }

  int place(int u) const { return u < 0 ? u + length_ : u; }
  int length() const { return length_; }

 private:
  int length_;
  bool wraps_;
  int shift_;
};

// What is seen of a query place's patches when details are asked for; otherwise no time or space.
template <bool Detailed>
struct Details {
  void shrink(vec, vec, vec) {}
  void absorb(vec, vec, bits, std::uint32_t) {}
};

template <>
struct Details<true> {
  vec square = {};  // sum of squared weights
  vec energy = {};  // sum of weights, each times the bits that its patch is behind the best
  bits best = {};   // the patch with the largest weight

  // The best is so many bits better than it was, and sums shrink by the factor.
  void shrink(vec factor, vec better, vec mass) {
    square *= factor * factor;
    energy = (energy + better * mass) * factor;
  }
  void absorb(vec weight, vec behind, bits largest, std::uint32_t patch) {
    square += weight * weight;
    energy += weight * behind;
    best = pick(largest, bits{} + patch, best);
  }
};

// What has been seen of the patches of one query place, a lane for every image of a group.
template <int C, bool Detailed>
struct Sums : Details<Detailed> {
  vec least = splat(FLT_MAX);  // smallest -log2 weight
  vec mass = {};               // sum of weights relative to it
  vec moment[C] = {};          // the same times the centre pixels

  // From where on a patch changes nothing in any lane.
  float limit() const { return least[lowest_lane(least)] + kNegligible; }

  // And in each, by what it has seen itself and by a limit for all.
  vec limits(float all) const { return least_of(splat(all), least + kNegligible); }

  // Take in `count` patches with -log2 weights `box` and centre pixels y (count C), the first of
  // which goes by the number `patch`, if one of them is nearer than its lane's limit.
  inline __attribute__((always_inline)) void absorb(const vec* box, const vec* y, int count,
                                                    std::uint32_t patch, float limit) {
    const vec nearest = least_of_all(box, count);
    if (!any_below(nearest, limits(limit))) return;
    const vec lowest = least_of(nearest, least);
    const vec shrink = exp2_of(lowest - least);
    vec total = mass * shrink, sums[C];
    for (int c = 0; c < C; ++c) sums[c] = moment[c] * shrink;
    Details<Detailed> details = *this;
    details.shrink(shrink, least - lowest, mass);
    for (int i = 0; i < count; ++i) {
      const vec weight = exp2_of(lowest - box[i]);
      total += weight;
      for (int c = 0; c < C; ++c) sums[c] += weight * y[i * C + c];
      details.absorb(weight, box[i] - lowest, (bits)(box[i] <= lowest), patch + i);
    }
    least = lowest;
    mass = total;
    for (int c = 0; c < C; ++c) moment[c] = sums[c];
    static_cast<Details<Detailed>&>(*this) = details;
  }
};

// What has been seen of whole images at one query place. Each lane has seen some of them, one after
// the other, and knows the two that come nearest: `least` and `best` are the nearest one's.
template <int C>
struct Images : Sums<C, true> {
  vec top = {};                       // largest mass of one image, relative to `least` as mass is
  vec second_least = splat(FLT_MAX);  // of the nearest of the other images
  bits second = {};

  // Take in one image of every lane, without those lanes where it is not `present`.
  void fold(const Sums<C, true>& image, bits present) {
    const vec found = present ? image.least : splat(FLT_MAX);
    const vec lowest = least_of(found, this->least);
    const vec old_share = exp2_of(lowest - this->least);
    const vec share = present ? exp2_of(lowest - image.least) : vec{};
    const vec behind = present ? image.least - lowest : vec{};
    this->energy = (this->energy + (this->least - lowest) * this->mass) * old_share +
                   (image.energy + behind * image.mass) * share;
    this->mass = this->mass * old_share + image.mass * share;
    for (int c = 0; c < C; ++c)
      this->moment[c] = this->moment[c] * old_share + image.moment[c] * share;
    this->square = this->square * old_share * old_share + image.square * share * share;
    top = largest_of(top * old_share, image.mass * share);
    const bits first = (bits)(found < this->least), nearer = (bits)(found < second_least);
    second = pick(first, this->best, pick(nearer, image.best, second));
    second_least = first ? this->least : least_of(found, second_least);
    this->best = pick(first, image.best, this->best);
    this->least = lowest;
  }

  // From where on a patch of another image changes nothing, neither a sum nor the two nearest.
  float limit() const {
    float first = FLT_MAX, other = FLT_MAX;
    for (int lane = 0; lane < kLanes; ++lane) {
      const float least = this->least[lane];
      other = std::min(other, std::max(first, least));
      first = std::min(first, least);
      other = std::min(other, second_least[lane]);
    }
    return std::max(first + kNegligible, other);
  }
};

// A share of the work: some images, some row displacements, one query.
struct Item {
  std::int64_t query, first_group, last_group;
  int first_row, row_step;
};

// How the work is cut into items: enough of them for all threads, few enough to merge cheaply.
class Plan {
 public:
  Plan(const Job& job, int row_displacements) : queries_(job.queries) {
    groups_ = (job.images + kLanes - 1) / kLanes;
    const std::int64_t wanted = job.threads > 1 ? 8 * job.threads : 1;
    const std::int64_t cuts = std::max((groups_ + kGroups - 1) / kGroups, ceil(wanted, queries_));
    cuts_ = std::min(cuts, groups_);
    const std::int64_t most = job.best ? 1 : row_displacements;  // details keep images whole
    rows_ = static_cast<int>(std::min<std::int64_t>(ceil(wanted, queries_ * cuts_), most));
  }

  std::int64_t size() const { return queries_ * cuts_ * rows_; }

  Item item(std::int64_t index) const {
    const std::int64_t part = index / rows_, cut = part % cuts_;
    return {part / cuts_, groups_ * cut / cuts_, groups_ * (cut + 1) / cuts_,
            static_cast<int>(index % rows_), rows_};
  }

 private:
  static std::int64_t ceil(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

  std::int64_t queries_, groups_, cuts_;
  int rows_;
};

// One thread's memory and loops, for C channels and W column displacements at a time.
template <int C, int W, bool Detailed>
class Worker {
 public:
  explicit Worker(const Job& job)
      : job_(job),
        rows_(static_cast<Kind>(job.kind), job.height, job.shift_rows),
        columns_(static_cast<Kind>(job.kind), job.width, job.shift_columns),
        places_(job.height * job.width),
        margin_(job.radii[job.sizes - 1]),
        nested_(job.sizes > kApart && !job.profiles),
        band_(nested_ ? 1 : kBand),
        depth_(std::min(job.height, 2 * margin_ + kBand)),
        row_cells_(stride((job.width + W) * W)),
        stack_cells_(stride((job.width + W + 2 * margin_) * W)),
        query_(static_cast<std::size_t>(places_) * C),
        wanted_(places_, 1),
        row_wanted_(job.height, 1),
        images_(static_cast<std::size_t>(places_) * C),
        ring_(static_cast<std::size_t>(depth_) * row_cells_),
        nothing_(row_cells_),
        stack_(static_cast<std::size_t>(kBand) * stack_cells_),
        tails_(static_cast<std::size_t>(2 * margin_ + 1) * W),
        sums_(static_cast<std::size_t>(job.sizes) * places_),
        limits_(sums_.size(), FLT_MAX),
        folded_(Detailed ? sums_.size() : 0) {
    terms_.reserve(2 * margin_ + kBand);
  }

  void run(const Item& item, std::mutex& merging) {
    load_query(item.query);
    std::fill(sums_.begin(), sums_.end(), Place());
    std::fill(folded_.begin(), folded_.end(), Images<C>());
    const Range down = rows_.displacements(job_.radii[0]);
    const Range across = columns_.displacements(job_.radii[0]);
    for (std::int64_t group = item.first_group; group < item.last_group; ++group) {
      load_images(group * kLanes);
      if constexpr (W > 1)  // with one displacement that would cost more than it saves
        for (std::size_t i = 0; i < sums_.size(); ++i) limits_[i] = total(i).limit();
      first_patch_ = static_cast<std::uint32_t>(group - item.first_group) * places_;
      for (int s = down.begin + item.first_row; s < down.end; s += item.row_step)
        if (scattered_)
          visit(s, across);
        else
          for (int begin = across.begin; begin < across.end; begin += W)
            sweep(s, {begin, std::min(begin + W, across.end)});
      if constexpr (Detailed) fold(group * kLanes);
    }
    const std::lock_guard<std::mutex> lock(merging);
    for (int size = 0; size < job_.sizes; ++size)
      for (int p = 0; p < places_; ++p)
        if (wanted_[p]) merge(item, item.query * job_.sizes + size, p);
  }

 private:
  using Place = Sums<C, Detailed>;
  using Total = std::conditional_t<Detailed, Images<C>, Place>;

  const Total& total(std::size_t i) const {
    if constexpr (Detailed)
      return folded_[i];
    else
      return sums_[i];
  }

  // A row of cells and what keeps the next rows out of the same cache sets.
  static int stride(int cells) { return (cells + 63) / 64 * 64 + 3; }

  // The query and the levels of the images' pixels, scaled so that box sums are -log2 weights.
  void load_query(std::int64_t query) {
    const double unit = 1 / (job_.sigma[query] * std::sqrt(2 * kLn2));
    const float* x = job_.x + query * C * places_;
    float farthest = 0;
    for (int c = 0; c < C; ++c)
      for (int p = 0; p < places_; ++p) {
        const float value = static_cast<float>(x[c * places_ + p] * unit);
        query_[p * C + c] = value;
        farthest = std::max(farthest, std::fabs(value));
      }
    scale_ = job_.alpha[query] * unit;
    absent_ = kAbsent + 4 * (farthest + static_cast<float>(scale_));
    for (int level = 0; level < 256; ++level)
      levels_[level] = static_cast<float>((level / 127.5 - 1) * scale_);
    if (job_.wanted) load_wanted(job_.wanted + query * places_);
  }

  // Where few places are asked for, windows summed one by one cost less than all shared sums: from
  // k = 3 to 17, measured below a third to a fortieth of the places.
  void load_wanted(const std::uint8_t* wanted) {
    std::copy(wanted, wanted + places_, wanted_.begin());
    std::int64_t count = 0, alone = 0, shared = 0;
    for (int row = 0; row < job_.height; ++row) {
      const auto begin = wanted_.begin() + row * job_.width;
      const auto in_row = std::count(begin, begin + job_.width, 1);
      row_wanted_[row] = in_row > 0;
      count += in_row;
    }
    for (int size = 0; size < job_.sizes; ++size) {
      const int k = 2 * job_.radii[size] + 1;
      alone += 2 * C * k * k;
      shared += 2 * C + 2 * k + 6;
    }
    scattered_ = !job_.profiles && count * alone < places_ * shared;
  }

  // How many of the lanes have an image when that in the first lane is number `first`.
  int present(std::int64_t first) const {
    return static_cast<int>(std::min<std::int64_t>(kLanes, job_.images - first));
  }

  void load_images(std::int64_t first) {
    const std::uint8_t* source[kLanes];
    const int present = this->present(first);
    for (int lane = 0; lane < kLanes; ++lane)
      source[lane] = job_.pixels + (first + std::min(lane, present - 1)) * C * places_;
    for (int c = 0; c < C; ++c)
      for (int p = 0; p < places_; ++p) {
        float values[kLanes];
        for (int lane = 0; lane < kLanes; ++lane)
          values[lane] = lane < present ? levels_[source[lane][c * places_ + p]] : absent_;
        std::memcpy(images_.at(p * C + c), values, sizeof(values));
      }
  }

  // The images at hand are through, the first of which is number `first`: make room for the next.
  void fold(std::int64_t first) {
    bits lanes = {};
    for (int lane = 0; lane < present(first); ++lane) lanes[lane] = ~0u;
    for (std::size_t i = 0; i < sums_.size(); ++i)
      if (wanted_[i % places_]) {
        folded_[i].fold(sums_[i], lanes);
        sums_[i] = Place();
      }
  }

  // All patches at row displacement s and column displacements `across`.
  void sweep(int s, Range across) {
    int sizes = 0;
    while (sizes < job_.sizes && rows_.queries({s, s + 1}, job_.radii[sizes]).size() &&
           columns_.queries(across, job_.radii[sizes]).size())
      ++sizes;
    if (!sizes) return;
    down_ = rows_.cells({s, s + 1});
    span_ = columns_.cells(across);
    const Range places = rows_.queries({s, s + 1}, job_.radii[0]);
    const int bands = (places.size() + band_ - 1) / band_, reach = job_.radii[sizes - 1];
    int next = down_.begin;
    for (int band = 0; band < bands; ++band) {
      const Range rows{places.begin + places.size() * band / bands,
                       places.begin + places.size() * (band + 1) / bands};
      for (; next < std::min(rows.end + reach, down_.end); ++next) squares(next, s, across);
      for (int size = 0; size < sizes; ++size)
        absorb_rows(size, rows.within(rows_.queries({s, s + 1}, job_.radii[size])), s, across);
    }
  }

  // The same for scattered places: each window is a sum of its own, given up when it is too far.
  void visit(int s, Range across) {
    down_ = rows_.cells({s, s + 1});
    for (int size = 0; size < job_.sizes; ++size) {
      const int r = job_.radii[size];
      const Range rows = rows_.queries({s, s + 1}, r), places = columns_.queries(across, r);
      for (int u = rows.begin; u < rows.end; ++u) {
        if (!row_wanted_[rows_.place(u)]) continue;
        start_row(size, u, s);
        for (int i = places.begin; i < places.end; ++i)
          if (is_wanted(i)) visit_windows<W>(u, i, s, r, across.within(columns_.partners(i, r)));
      }
    }
  }

  // M column displacements at a time while there are so many, then half as many.
  template <int M>
  void visit_windows(int u, int i, int s, int r, Range across) {
    for (; across.size() >= M; across.begin += M) visit_windows<M>(u, i, s, r, across.begin);
    if constexpr (M > 1)
      if (across.size()) visit_windows<M / 2>(u, i, s, r, across);
  }

  // The windows around place (u, i) at M column displacements from `first` on.
  template <int M>
  void visit_windows(int u, int i, int s, int r, int first) {
    const Range cells = Range{i - r, i + r + 1}.within(columns_.cells({first, first + M}));
    const Range rows = Range{u - r, u + r + 1}.within(down_);
    const int width = columns_.length();
    Place& sums = sums_row_[columns_.place(i)];
    const float limit = limits_row_[columns_.place(i)];
    const vec limits = sums.limits(limit);
    vec box[M] = {};
    for (int row = rows.begin; row < rows.end; ++row) {
      const float* x = query_.data() + rows_.place(row) * width * C;
      const vec* y = images_.at(((row + s) * width + first) * C);
      for (int cell = cells.begin; cell < cells.end; ++cell)
        for (int c = 0; c < C; ++c) {
          const vec centre = splat(x[columns_.place(cell) * C + c]);
          for (int j = 0; j < M; ++j) {
            const vec difference = centre - y[(cell + j) * C + c];
            box[j] += difference * difference;
          }
        }
      if (!any_below(least_of_all(box, M), limits)) return;
    }
    const int v = training_row_ + i + first;
    sums.absorb(box, images_.at(v * C), M, first_patch_ + v, limit);
  }

  // The query rows `rows`, at most band_ of them, at one size.
  void absorb_rows(int size, Range rows, int s, Range across) {
    const int r = job_.radii[size], step = std::min(band_, 2 * r + 1);
    for (int begin = rows.begin; begin < rows.end; begin += step) {
      const int count = std::min(step, rows.end - begin);
      if (!any_row_wanted({begin, begin + count})) continue;
      if (nested_ && size)
        for (int d = job_.radii[size - 1] + 1; d <= r; ++d) widen(begin, s, d);
      else if (job_.profiles)
        stack_weighted(begin, count, s, r, profile(size));
      else
        stack(begin, count, s, r);
      for (int i = 0; i < count; ++i)
        if (row_wanted_[rows_.place(begin + i)]) absorb_row(size, begin + i, s, across, i);
    }
  }

  // What all places of query row u share.
  void start_row(int size, int u, int s) {
    const int row = rows_.place(u) * columns_.length();
    const std::size_t at = static_cast<std::size_t>(size) * places_ + row;
    sums_row_ = sums_.data() + at;
    limits_row_ = limits_.data() + at;
    wanted_row_ = wanted_.data() + row;
    training_row_ = (u + s) * columns_.length();
  }

  bool any_row_wanted(Range rows) const {
    for (int u = rows.begin; u < rows.end; ++u)
      if (row_wanted_[rows_.place(u)]) return true;
    return false;
  }

  bool is_wanted(int u) const { return wanted_row_[columns_.place(u)]; }

  vec* ring_row(int v) { return ring_.at(static_cast<std::size_t>(v % depth_) * row_cells_); }

  const vec* squares_row(int u, int s) {
    return down_.has(u) ? ring_row(u + s) : nothing_.at(0);
  }

  // e_s along query row u, as (u W).
  void squares(int u, int s, Range across) {
    const float* x = query_.data() + rows_.place(u) * columns_.length() * C;
    const vec* y = images_.at((u + s) * columns_.length() * C);
    vec* out = ring_row(u + s);
    for (int i = span_.begin; i < span_.end; ++i, out += W) {
      const Range valid = across.within({-i, columns_.length() - i});
      vec centre[C];
      for (int c = 0; c < C; ++c) centre[c] = splat(x[columns_.place(i) * C + c]);
      for (int j = valid.begin; j < valid.end; ++j) {
        const vec first = centre[0] - y[(i + j) * C];
        vec sum = first * first;
        for (int c = 1; c < C; ++c) {
          const vec difference = centre[c] - y[(i + j) * C + c];
          sum += difference * difference;
        }
        out[j - across.begin] = sum;
      }
    }
  }

  // The sums of 2 r + 1 rows around each of `count` query rows from u on.
  void stack(int u, int count, int s, int r) {
    terms_.clear();
    for (int row = u - r; row < u + count + r; ++row) terms_.push_back(squares_row(row, s));
    switch (count) {
      case 1: return stack_band<1>(2 * r + 1);
      case 2: return stack_band<2>(2 * r + 1);
      case 3: return stack_band<3>(2 * r + 1);
      case 4: return stack_band<4>(2 * r + 1);
      case 5: return stack_band<5>(2 * r + 1);
      case 6: return stack_band<6>(2 * r + 1);
      case 7: return stack_band<7>(2 * r + 1);
      default: return stack_band<8>(2 * r + 1);
    }
  }

  // M <= k neighbouring windows of k rows: each is a tail of the first and a head of what follows.
  template <int M>
  void stack_band(int k) {
    const vec* const* terms = terms_.data();
    vec* out = stack_.at(margin_ * W);
    const int cells = span_.size() * W;
    for (int i = 0; i < cells; ++i) {
      vec tail[M];
      tail[M - 1] = terms[M - 1][i];
      for (int t = M; t < k; ++t) tail[M - 1] += terms[t][i];
      for (int j = M - 1; j > 0; --j) tail[j - 1] = tail[j] + terms[j - 1][i];
      out[i] = tail[0];
      vec head = {};
      for (int j = 1; j < M; ++j) {
        head += terms[k + j - 1][i];
        out[i + j * stack_cells_] = tail[j] + head;
      }
    }
  }

  const float* profile(int size) const { return job_.profiles + size * (margin_ + 1); }

  // The weighted sums of 2 r + 1 rows around each of `count` query rows from u on.
  void stack_weighted(int u, int count, int s, int r, const float* weights) {
    const int cells = span_.size() * W;
    for (int i = 0; i < count; ++i) {
      vec* out = stack_.at(i * stack_cells_ + margin_ * W);
      const vec* centre = squares_row(u + i, s);
      for (int cell = 0; cell < cells; ++cell) out[cell] = centre[cell] * weights[0];
      for (int d = 1; d <= r; ++d) {
        const vec *above = squares_row(u + i - d, s), *below = squares_row(u + i + d, s);
        for (int cell = 0; cell < cells; ++cell) out[cell] += (above[cell] + below[cell]) * weights[d];
      }
    }
  }

  // Add the two rows at a distance d from query row u to the sum of those that are nearer.
  void widen(int u, int s, int d) {
    const vec *above = squares_row(u - d, s), *below = squares_row(u + d, s);
    vec* out = stack_.at(margin_ * W);
    const int cells = span_.size() * W;
    for (int i = 0; i < cells; ++i) out[i] += above[i] + below[i];
  }

  // Box sums along query row u at one size, each absorbed at once.
  void absorb_row(int size, int u, int s, Range across, int band_row) {
    const int r = job_.radii[size];
    stack_row_ = stack_.at(band_row * stack_cells_ + margin_ * W);
    start_row(size, u, s);
    const Range places = columns_.queries(across, r);
    if (job_.profiles) return absorb_weighted(places, r, across, profile(size));
    if (r == 0) return absorb_directly<0>(places, across);
    if (r == 1) return absorb_directly<1>(places, across);
    if (r == kDirect) return absorb_directly<kDirect>(places, across);
    for (int i = places.begin; i < places.end; i += 2 * r + 1)
      absorb_run({i, std::min(i + 2 * r + 1, places.end)}, r, across);
  }

  const vec* stacked(int u) { return stack_row_ + (u - span_.begin) * W; }

  template <int R>
  void absorb_directly(Range places, Range across) {
    for (int u = places.begin; u < places.end; ++u) {
      if (!is_wanted(u)) continue;
      const vec* column = stacked(u);
      vec box[W];
      for (int j = 0; j < W; ++j) {
        vec sum = column[j - R * W];
        for (int d = 1 - R; d <= R; ++d) sum += column[j + d * W];
        box[j] = sum;
      }
      absorb(u, R, across, box);
    }
  }

  void absorb_weighted(Range places, int r, Range across, const float* weights) {
    for (int u = places.begin; u < places.end; ++u) {
      if (!is_wanted(u)) continue;
      const vec* column = stacked(u);
      vec box[W];
      for (int j = 0; j < W; ++j) box[j] = column[j] * weights[0];
      for (int d = 1; d <= r; ++d)
        for (int j = 0; j < W; ++j)
          box[j] += (column[j - d * W] + column[j + d * W]) * weights[d];
      absorb(u, r, across, box);
    }
  }

  // At most 2 r + 1 neighbouring windows: each is a tail of the first and a head of what follows.
  void absorb_run(Range places, int r, Range across) {
    while (places.size() && !is_wanted(places.begin)) ++places.begin;
    while (places.size() && !is_wanted(places.end - 1)) --places.end;
    if (!places.size()) return;
    const int count = places.size();
    vec sum[W] = {};
    for (int i = 2 * r; i >= 0; --i) {
      const vec* column = stacked(places.begin - r + i);
      for (int j = 0; j < W; ++j) sum[j] += column[j];
      if (i < count)
        for (int j = 0; j < W; ++j) *tails_.at(i * W + j) = sum[j];
    }
    vec head[W] = {};
    for (int i = 0; i < count; ++i) {
      vec box[W];
      for (int j = 0; j < W; ++j) box[j] = head[j] + *tails_.at(i * W + j);
      if (is_wanted(places.begin + i)) absorb(places.begin + i, r, across, box);
      const vec* column = stacked(places.begin + i + r + 1);
      if (i + 1 < count)
        for (int j = 0; j < W; ++j) head[j] += column[j];
    }
  }

  inline __attribute__((always_inline)) void absorb(int u, int r, Range across, const vec* box) {
    const Range valid = across.within(columns_.partners(u, r));
    Place& sums = sums_row_[columns_.place(u)];
    const float limit = limits_row_[columns_.place(u)];
    const int v = training_row_ + u + valid.begin;
    const vec* y = images_.at(v * C);
    if (W == 1 || valid.size() == W)
      return sums.absorb(box, y, W, first_patch_ + v, limit);  // a loop to be unrolled
    sums.absorb(box + (valid.begin - across.begin), y, valid.size(), first_patch_ + v, limit);
  }

  // Add one place's lanes to the totals of slot = (query, size), in double.
  void merge(const Item& item, std::int64_t slot, int place) {
    const auto& sums = total((slot % job_.sizes) * places_ + place);
    int nearest = lowest_lane(sums.least);
    if constexpr (Detailed) nearest = first_lane(item, sums.least, sums.best);
    const float least = sums.least[nearest];
    if (least == FLT_MAX) return;
    const vec weight = exp2_of(splat(least) - sums.least);
    const std::int64_t at = slot * places_ + place;
    const double peak = job_.peak[at], mine = -least * kLn2, both = std::max(peak, mine);
    const double old_share = std::exp(peak - both), share = std::exp(mine - both);
    if constexpr (Detailed) merge_energy(sums, weight, least, at, peak - both, mine - both);
    add(job_.mass[at], old_share, share, sums.mass, weight);
    for (int c = 0; c < C; ++c)
      add(job_.moment[(slot * C + c) * places_ + place], old_share, share / scale_,
          sums.moment[c], weight);
    if constexpr (Detailed) {
      add(job_.square[at], old_share * old_share, share * share, sums.square, weight * weight);
      const vec tops = sums.top * weight;
      const float top = tops[lowest_lane(-tops)];
      job_.top[at] = std::max(job_.top[at] * old_share, top * share);
      merge_best_two(item, sums, nearest, at);
    }
    job_.peak[at] = both;
  }

  // Before the mass is merged: what the sums of both lie behind their own peaks, and these behind
  // the peak of both, in nats.
  void merge_energy(const Images<C>& sums, vec weight, float least, std::int64_t at, double before,
                    double now) {
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      const double mass = sums.mass[lane], behind = (double(sums.least[lane]) - least) * kLn2 - now;
      if (mass > 0) sum += weight[lane] * (sums.energy[lane] * kLn2 + behind * mass);
    }
    const double old = job_.mass[at] > 0 ? job_.energy[at] - before * job_.mass[at] : 0;
    job_.energy[at] = old * std::exp(before) + sum * std::exp(now);
  }

  // The nearest two images, which are others than those seen before. Of equal ones the first in
  // the set counts as the nearer, whatever the order in which threads come here.
  void merge_best_two(const Item& item, const Images<C>& sums, int lane, std::int64_t at) {
    float least = sums.least[lane];
    std::uint32_t number = sums.best[lane];
    const auto beats = [&](double peak, std::int64_t other) {
      const double mine = -least * kLn2;
      return mine > peak || (mine == peak && patch(item, number, lane) < other);
    };
    if (beats(job_.peak[at], job_.best[at])) {
      job_.second_peak[at] = job_.peak[at];
      job_.second[at] = job_.best[at];
      job_.best[at] = patch(item, number, lane);
      vec others = sums.least;
      others[lane] = sums.second_least[lane];
      bits numbers = sums.best;
      numbers[lane] = sums.second[lane];
      lane = first_lane(item, others, numbers);
      least = others[lane];
      number = numbers[lane];
    }
    if (least == FLT_MAX || !beats(job_.second_peak[at], job_.second[at])) return;
    job_.second_peak[at] = -least * kLn2;
    job_.second[at] = patch(item, number, lane);
  }

  // Of the lanes with the lowest value, that whose patch is the first in the set.
  int first_lane(const Item& item, vec values, bits numbers) const {
    int first = lowest_lane(values);
    for (int lane = first + 1; lane < kLanes; ++lane)
      if (values[lane] == values[first] &&
          patch(item, numbers[lane], lane) < patch(item, numbers[first], first))
        first = lane;
    return first;
  }

  static void add(double& total, double old_share, double share, vec part, vec weight) {
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += double(weight[lane]) * part[lane];
    total = total * old_share + sum * share;
  }

  // The patch among those of all images that is number `patch` in one lane of the item.
  std::int64_t patch(const Item& item, std::uint32_t patch, int lane) const {
    const std::int64_t image = (item.first_group + patch / places_) * kLanes + lane;
    return (job_.first_image + image) * places_ + patch % places_;
  }

  const Job& job_;
  const Axis rows_, columns_;
  const int places_, margin_;
  const bool nested_;               // whether sums of rows grow from each size to the next
  const int band_;                  // query rows at a time
  const int depth_, row_cells_, stack_cells_;
  double scale_ = 0;                // of the images' pixels
  float absent_ = kAbsent;          // scaled pixels of no image
  float levels_[256];               // what a pixel's byte stands for, scaled
  bool scattered_ = false;          // whether few places are wanted
  std::vector<float> query_;        // (h w c), scaled
  std::vector<std::uint8_t> wanted_;      // (h w)
  std::vector<std::uint8_t> row_wanted_;  // (h,)
  Buffer images_;                   // (h w c), scaled
  Buffer ring_;                     // the latest rows of e_s, (row u W)
  Buffer nothing_;                  // a row outside the image
  Buffer stack_;                    // sums of rows, (kBand, margin + u + margin, W)
  Buffer tails_;                    // (k W)
  std::vector<Place> sums_;         // (m h w); with details, of the images at hand alone
  std::vector<float> limits_;       // (m h w): of what is seen when the images at hand come
  std::vector<Images<C>> folded_;   // (m h w), of the images before; empty without details
  std::vector<const vec*> terms_;   // rows to add up
  Range down_{}, span_{};           // rows and columns with e_s at the displacements at hand
  const vec* stack_row_ = nullptr;  // of the query row at hand
  Place* sums_row_ = nullptr;       // of the size and query row at hand
  const float* limits_row_ = nullptr;  // of the same
  const std::uint8_t* wanted_row_ = nullptr;  // of the query row at hand
  int training_row_ = 0;            // place where the training row at hand begins
  std::uint32_t first_patch_ = 0;   // number of the first patch of the images at hand
};

// Work through all items on all threads; false when memory ran out.
template <int C, int W, bool Detailed>
bool run(const Job& job) {
  const Axis rows(static_cast<Kind>(job.kind), job.height, job.shift_rows);
  const Plan plan(job, rows.displacements(job.radii[0]).size());
  std::mutex merging;
  return on_threads(job.threads, plan.size(), [&](int, const auto& take) {
    Worker<C, W, Detailed> worker(job);
    for (std::int64_t i; (i = take()) >= 0;) worker.run(plan.item(i), merging);
  });
}

template <int C, bool Detailed>
bool run_columns(const Job& job) {
  const Axis columns(static_cast<Kind>(job.kind), job.width, job.shift_columns);
  return columns.displacements(job.radii[0]).size() > 1 ? run<C, kBlock, Detailed>(job)
                                                        : run<C, 1, Detailed>(job);
}

template <int C>
bool run_channels(const Job& job) {
  return job.best ? run_columns<C, true>(job) : run_columns<C, false>(job);
}

}  // namespace

// 0: done; 1: out of memory; 2: a number of channels that is not compiled in.
extern "C" int els_patch_posteriors(const Job* job) {
  switch (job->channels) {
    case 1: return !run_channels<1>(*job);
    case 2: return !run_channels<2>(*job);
    case 3: return !run_channels<3>(*job);
    case 4: return !run_channels<4>(*job);
    default: return 2;
  }
}
