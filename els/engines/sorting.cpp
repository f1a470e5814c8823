// Sorting patches into strata of alike ones, each with a short code of what it looks like.
//
// A code is what a patch's first comparison needs (see strata.cpp): one byte for each coordinate
// along the principal components, relative to the centre of its stratum, one for all that these
// leave out, and its centre pixel as it is. Where a patch is so unlike its stratum that one of the
// former does not fit, the one for what they leave out is `kUnknown`.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "lanes.h"

// Laid out as `_Sorting` in strata_code.py. A region is a rectangle of every image, and a patch each
// of its windows.
struct Sorting {
  const std::uint8_t* images;   // (n h w c)
  const float* basis;           // (cells c, kWide): components, zeros, and the mean patch at the end
  const float* shift;           // (kWide,): inner products of those with the mean patch
  const float* branches;        // (d + 1, many): centres, and half their square below
  const float* leaves;          // (many, d + 1, few): the same for those of each branch
  const float* centres;         // (strata, d): of the leaves, once more
  const float* steps;           // (strata, d + 1): what a unit of a code stands for; the last for the
                                // root of the square of what coordinates leave out
  std::int32_t* stratum;        // (patches,): branch * few + leaf
  std::uint8_t* codes;          // (patches, d + 1 + c)
  float* lowest;                // (strata, d + 1): the least that was to be coded of those patches for
  float* highest;               // which one does not fit, in units of a code, and the largest
  std::int64_t count;           // n
  std::int32_t height, width, channels;
  std::int32_t first_row, first_column, rows, columns;    // of the region, and its windows
  std::int32_t window_rows, window_columns, centre_row, centre_column;
  std::int32_t components, many, few;
  std::int32_t threads;
};

namespace {

constexpr int kWide = 32;                // numbers in a row of the basis
constexpr int kMostChannels = 4;
constexpr int kParts = kWide / kLanes;
constexpr int kTogether = 12 / kParts;   // patches that are projected together
constexpr int kBlock = 64;               // members whose codes are turned over together

typedef std::int32_t whole __attribute__((vector_size(4 * kLanes)));
// Which of `count` centres, a multiple of `Some`, is nearest to a point: `Some` at a time, as sums
// that wait for one another are slow.
template <int Some>
int nearest_of(const float* point, int d, const float* centres, int count) {
  constexpr int kVectors = Some / kLanes;
  vec best = splat(-3e38f);
  whole which = {};
  for (int i = 0; i < count; i += Some) {
    vec likeness[kVectors];
    for (int v = 0; v < kVectors; ++v)
      likeness[v] = -load(centres + std::int64_t(d) * count + i + v * kLanes);
    for (int k = 0; k < d; ++k)
      for (int v = 0; v < kVectors; ++v)
        likeness[v] += splat(point[k]) * load(centres + std::int64_t(k) * count + i + v * kLanes);
    for (int v = 0; v < kVectors; ++v) {
      const auto better = likeness[v] > best;
      which = better ? whole{} + (i + v * kLanes) : which;
      best = better ? likeness[v] : best;
    }
  }
  int found = 0;
  for (int lane = 1; lane < kLanes; ++lane)
    if (best[lane] > best[found]) found = lane;
  return which[found] + found;
}

int nearest(const float* point, int d, const float* centres, int count) {
  return count % 64 ? nearest_of<16>(point, d, centres, count)
                    : nearest_of<64>(point, d, centres, count);
}

// One thread's view of an image.
class Sorter {
 public:
  Sorter(const Sorting& task, std::mutex& guard)
      : task_(task),
        guard_(guard),
        wide_((task.columns + task.window_columns - 1) * task.channels),
        high_(task.rows + task.window_rows - 1),
        levels_(static_cast<std::size_t>(high_) * wide_ + kTogether * task.channels),
        squares_(static_cast<std::size_t>(high_ + 1) * (wide_ + 1)) {}

  void sort(std::int64_t image) {
    read(image);
    const int code = task_.components + 1 + task_.channels;
    const std::int64_t first = image * task_.rows * task_.columns;
    for (int row = 0; row < task_.rows; ++row)
      for (int column = 0; column < task_.columns; column += kTogether) {
        float found[kTogether][kWide];
        project(row, column, found);
        const int count = std::min(kTogether, task_.columns - column);
        for (int i = 0; i < count; ++i) {
          const std::int64_t patch = first + row * task_.columns + column + i;
          std::uint8_t* out = task_.codes + patch * code;
          task_.stratum[patch] = encode(found[i], square(row, column + i), out);
          centre(image, row, column + i, out + task_.components + 1);
        }
      }
  }

 private:
  const std::uint8_t* row_of(std::int64_t image, int row) const {
    const std::int64_t above = image * task_.height + task_.first_row + row;
    return task_.images + (above * task_.width + task_.first_column) * task_.channels;
  }

  void read(std::int64_t image) {
    for (int row = 0; row < high_; ++row) {
      const std::uint8_t* bytes = row_of(image, row);
      float* out = levels_.data() + static_cast<std::size_t>(row) * wide_;
      double* below = squares_.data() + static_cast<std::size_t>(row + 1) * (wide_ + 1);
      const double* above = below - wide_ - 1;
      double sum = 0;
      for (int i = 0; i < wide_; ++i) {
        out[i] = bytes[i] - kMiddle;
        sum += static_cast<double>(out[i]) * out[i];
        below[i + 1] = above[i + 1] + sum;
      }
    }
  }

  // The squared norm of a patch.
  float square(int row, int column) const {
    const int left = column * task_.channels, right = left + task_.window_columns * task_.channels;
    const double* top = squares_.data() + static_cast<std::size_t>(row) * (wide_ + 1);
    const double* bottom = top + static_cast<std::size_t>(task_.window_rows) * (wide_ + 1);
    return static_cast<float>((bottom[right] - bottom[left]) - (top[right] - top[left]));
  }

  // Inner products of patches side by side with the columns of the basis.
  void project(int row, int column, float (*found)[kWide]) const {
    const int cells = task_.window_columns * task_.channels;
    vec sums[kTogether][kParts] = {};
    const float* basis = task_.basis;
    for (int y = 0; y < task_.window_rows; ++y) {
      const float* levels = levels_.data() + static_cast<std::size_t>(row + y) * wide_ +
                            column * task_.channels;
      for (int cell = 0; cell < cells; ++cell, basis += kWide) {
        vec columns[kParts];
        for (int k = 0; k < kParts; ++k) columns[k] = load(basis + k * kLanes);
        for (int i = 0; i < kTogether; ++i) {
          const vec level = splat(levels[i * task_.channels + cell]);
          for (int k = 0; k < kParts; ++k) sums[i][k] += level * columns[k];
        }
      }
    }
    std::memcpy(found, sums, sizeof(sums));
  }

  // The stratum of a patch, and its code but for the centre pixel.
  int encode(float* products, float square, std::uint8_t* out) const {
    const int d = task_.components;
    float inside = 0;
    const float norm = square - 2 * products[kWide - 1] + task_.shift[kWide - 1];
    for (int k = 0; k < d; ++k) {
      products[k] -= task_.shift[k];
      inside += products[k] * products[k];
    }
    const int branch = nearest(products, d, task_.branches, task_.many);
    const float* leaves = task_.leaves + static_cast<std::int64_t>(branch) * (d + 1) * task_.few;
    const int stratum = branch * task_.few + nearest(products, d, leaves, task_.few);
    const float* centre = task_.centres + static_cast<std::int64_t>(stratum) * d;
    const float* step = task_.steps + static_cast<std::int64_t>(stratum) * (d + 1);
    float values[kWide], least = 0, most = 0;
    for (int k = 0; k < d; ++k) {
      values[k] = (products[k] - centre[k]) / step[k] + 128.5f;
      least = std::min(least, values[k]);
      most = std::max(most, values[k]);
      out[k] = static_cast<std::uint8_t>(std::min(std::max(values[k], 0.0f), 255.0f));
    }
    values[d] = std::sqrt(std::max(norm - inside, 0.0f)) / step[d] + 0.5f;
    const bool fits = least >= 0 && most < 256 && values[d] < kUnknown;
    out[d] = fits ? static_cast<std::uint8_t>(values[d]) : kUnknown;
    if (!fits) widen(stratum, values);
    return stratum;
  }

  // Bounds of a stratum, by a patch whose code does not tell; few are.
  void widen(int stratum, const float* values) const {
    const std::lock_guard<std::mutex> alone(guard_);
    const std::int64_t first = std::int64_t(stratum) * (task_.components + 1);
    for (int k = 0; k <= task_.components; ++k) {
      task_.lowest[first + k] = std::min(task_.lowest[first + k], values[k]);
      task_.highest[first + k] = std::max(task_.highest[first + k], values[k]);
    }
  }

  void centre(std::int64_t image, int row, int column, std::uint8_t* out) const {
    const std::uint8_t* bytes = row_of(image, row + task_.centre_row);
    bytes += (column + task_.centre_column) * task_.channels;
    for (int c = 0; c < task_.channels; ++c) out[c] = bytes[c];
  }

  const Sorting& task_;
  std::mutex& guard_;
  const int wide_, high_;        // of the region: floats in a row, and rows
  std::vector<float> levels_;
  std::vector<double> squares_;  // summed over all above and to the left
};

}  // namespace

// Find the stratum and the code of every patch; 0 when memory ran out.
extern "C" int els_encode(const Sorting* task) {
  std::mutex guard;
  return on_threads(task->threads, task->count, [&](int, const auto& take) {
    Sorter sorter(*task, guard);
    for (std::int64_t image; (image = take()) >= 0;) sorter.sort(image);
  });
}

// Patches by stratum, in the order in which steps of `step` (modulo n, without a common factor) come
// by. `at` begins as the places where strata begin.
extern "C" void els_sort(const std::int32_t* stratum, std::int64_t n, std::int64_t step,
                         std::int64_t* at, std::int32_t* order) {
  std::int64_t patch = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    order[at[stratum[patch]]++] = static_cast<std::int32_t>(patch);
    patch += step;
    if (patch >= n) patch -= n;
  }
}

// Put codes (patches, bytes) in order: those of a stratum lie together, one byte of all its members
// after another. `order` becomes the index of each patch's first pixel among all pixels. Also finds
// the sums of the bytes of each stratum, and of their squares, and the least and the largest of them
// (strata, bytes); 255 and 0 where it is empty. 0 when memory ran out.
extern "C" int els_arrange(const Sorting* task, std::int32_t strata, const std::int64_t* start,
                            std::int32_t* order, std::uint8_t* arranged, std::int64_t* sums,
                            std::int64_t* squares, std::uint8_t* least, std::uint8_t* largest) {
  const int bytes = task->components + 1 + task->channels;
  const std::int64_t places = static_cast<std::int64_t>(task->rows) * task->columns;
  const auto pixel = [&](std::int64_t patch) {
    const std::int64_t image = patch / places, place = patch % places;
    const std::int64_t row = image * task->height + task->first_row + place / task->columns;
    return row * task->width + task->first_column + place % task->columns;
  };
  const auto arrange = [&](std::int64_t s) {
    const std::int64_t members = start[s + 1] - start[s];
    std::int32_t* own = order + start[s];
    std::uint8_t* out = arranged + start[s] * bytes;
    std::uint8_t turned[kWide + kMostChannels][kBlock];
    for (std::int64_t first = 0; first < members; first += kBlock) {
      const int count = static_cast<int>(std::min<std::int64_t>(kBlock, members - first));
      for (int i = 0; i < count; ++i)
        __builtin_prefetch(task->codes + std::int64_t(own[first + i]) * bytes);
      for (int i = 0; i < count; ++i) {
        const std::uint8_t* code = task->codes + std::int64_t(own[first + i]) * bytes;
        for (int b = 0; b < bytes; ++b) turned[b][i] = code[b];
        own[first + i] = static_cast<std::int32_t>(pixel(own[first + i]));
      }
      for (int b = 0; b < bytes; ++b)
        std::memcpy(out + b * members + first, turned[b], count);
    }
    for (int b = 0; b < bytes; ++b) {
      std::int64_t sum = 0, square = 0;
      std::uint8_t low = 255, high = 0;
      for (std::int64_t i = 0; i < members; ++i) {
        const std::uint8_t byte = out[b * members + i];
        const std::int64_t value = byte;
        sum += value;
        square += value * value;
        low = std::min(low, byte);
        high = std::max(high, byte);
      }
      sums[s * bytes + b] = sum;
      squares[s * bytes + b] = square;
      least[s * bytes + b] = low;
      largest[s * bytes + b] = high;
    }
  };
  return on_threads(task->threads, strata, [&](int, const auto& take) {
    for (std::int64_t s; (s = take()) >= 0;) arrange(s);
  });
}
