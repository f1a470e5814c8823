"""The estimator of strata.cpp once more: in float64, query by query, to be read beside it.

It takes what the compiled code takes, makes the same random numbers, and shares nothing else with
it but the constants, which are read from its source.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import els.engines

_SOURCE = Path(els.engines.__path__[0]) / "strata.cpp"
_MIDDLE, _UNKNOWN = 127.5, 255
_HASHED = np.uint64(0xFFFFFFFF)
_FAR = -24  # a stratum so many bits behind the best has no part in the first guess

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


def _constants() -> dict[str, float]:
    """What the compiled estimator is tuned with, by name."""
    found: dict[str, float] = {}
    for line in re.findall(r"^constexpr [\w:]+ ([^;]+);", _SOURCE.read_text(), re.MULTILINE):
        for name, value in re.findall(r"(k\w+) = ([^,]+)", line):
            with suppress(NameError):  # the compiler's lanes, which nothing here knows
                found[name] = eval(re.sub(r"(?<=\d)f\b", "", value), {}, found)
    return found


K = _constants()


class Drawn(NamedTuple):
    """What a query is compared with: members of strata, by their place in the order.

    Attributes:
        member: its index (n,).
        chance: with which it was drawn (n,).
        lot: its random number of the second draw (n,), in [0, 1).
    """

    member: Whole
    chance: Array
    lot: Array


@dataclass
class Query:
    """What is known of one; the names are those of `Query` in strata.cpp."""

    along: Array
    constant: float
    beside: float
    noise: float
    mean: Array
    rate: float
    whole: int
    peak: float = 0.0
    mass: float = 0.0
    total: float = 0.0
    residual: float = 0.0
    selection: float = 0.0
    model: float = 0.0
    predicted: float = 0.0
    drawn: float = 0.0
    variance: float = math.inf
    missed: float = 0.0
    sampled: float = 1.0
    taken: float = 0.0
    far: bool = False
    few: bool = False
    done: bool = False

    def leave(self) -> None:
        """To be answered in full."""
        self.done, self.drawn, self.variance = True, -1, 0


class Wish(NamedTuple):
    """What a query wants of the strata that it may draw from: see `Estimator.weigh`."""

    strata: Whole
    share: Array
    wish: Array
    members: Array
    scale: float  # binary logarithm


class Estimator:
    """All queries of a task, given as to `els.engines.strata_code.estimate`."""

    def __init__(self, tensors: dict[str, Tensor], **numbers: float) -> None:
        self.given = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
        self.of = numbers
        given, d, c = self.given, int(numbers["components"]), int(numbers["channels"])
        self.start = given["start"]
        self.size = np.diff(self.start)
        strata = len(self.size)
        stratum = np.repeat(np.arange(strata), self.size)
        codes = np.empty((len(stratum), d + 1 + c))
        for begin, end in pairwise(self.start):
            some = given["codes"][begin * (d + 1 + c) : end * (d + 1 + c)]
            codes[begin:end] = some.reshape(d + 1 + c, -1).T
        steps = given["steps"].reshape(strata, d + 1)[stratum]
        centres = given["centres"].reshape(strata, d)[stratum]
        self.coordinates = centres + steps[:, :d] * (codes[:, :d] - 128)
        self.unknown = codes[:, d] == _UNKNOWN
        root = steps[:, d] * np.where(self.unknown, K["kUsual"], codes[:, d])
        self.open = self.of["unit"] * root**2
        self.pixel = codes[:, d + 1 :] - _MIDDLE
        self.patches = self._patches(given["images"], given["order"], int(numbers["width"]))
        self.scores = given["features"].astype(float) @ given["terms_of"]
        self.queries = [self._query(q) for q in range(int(numbers["count"]))]
        self.windows = self._windows(given["x"], given["at"])

    def _patches(self, images: NDArray[np.uint8], order: Whole, width: int) -> Array:
        cells = self._cells(width)
        pixels = images[: len(images) // self.channels * self.channels].astype(float) - _MIDDLE
        return pixels.reshape(-1, self.channels)[order[:, None] + cells].reshape(len(order), -1)

    def _windows(self, x: Array, at: Whole) -> Array:
        pixels = x[: len(x) // self.channels * self.channels].astype(float)
        first = at[:, None] // self.channels + self._cells(int(self.of["x_width"]))
        return pixels.reshape(-1, self.channels)[first].reshape(len(at), -1)

    def _bounds(self, features: Array) -> tuple[Array, bool]:
        """The squared distance that no patch of a stratum is nearer than, and whether the query is
        far from all of them."""
        d, scale = int(self.of["components"]), self.of["scale"]
        along, rest = features[d : 2 * d], features[2 * d] * (self.patches.shape[1] > d)
        low, high = (self.given[name].reshape(d, -1).T for name in ("lowest", "highest"))
        off = np.maximum(np.maximum(low - along, along - high), 0)
        away = (off**2).sum(axis=1)
        beyond = np.maximum(math.sqrt(rest) - self.given["reach"], 0)
        noise = math.sqrt((self.patches.shape[1] - d) / (2 * math.log(2) * scale))
        nearest = (away + np.maximum(beyond - noise, 0) ** 2).argmin()
        steepness = self.slope**2 * (off[nearest] ** 2 * self._variances()[nearest]).sum()
        return away + beyond**2, bool(steepness > K["kSteep"])

    @property
    def slope(self) -> float:
        """One over the variance of the noise."""
        return 2 * math.log(2) * float(self.of["scale"])

    @property
    def channels(self) -> int:
        return int(self.of["channels"])

    def _cells(self, width: int) -> Whole:
        rows, columns = int(self.of["window_rows"]), int(self.of["window_columns"])
        return (np.arange(rows)[:, None] * width + np.arange(columns)).flatten()

    def _query(self, q: int) -> Query:
        d, scale = int(self.of["components"]), self.of["scale"]
        features = self.given["features"][q].astype(float)
        inner, rest, norm = features[:d].sum(), features[2 * d], features[2 * d + 1]
        left = self.patches.shape[1] - d
        beside = rest * self.slope / left if left else 0.0
        distance, far = self._bounds(features)
        score = self.scores[q] = np.minimum(self.scores[q], scale * (norm - distance))
        near = score >= score.max() + _FAR
        huge = bool(scale * norm > K["kMostBits"])
        weight = np.where(near, 2 ** np.maximum(score - score.max(), _FAR), 0) * self.size
        return Query(
            along=features[d : 2 * d],
            constant=scale * (norm - inner - rest),
            beside=beside,
            noise=min(beside, K["kMostNoise"]),
            mean=weight @ self.given["centre"] / weight.sum(),
            rate=K["kPilot"],
            whole=int(K["kWhole"] if far else K["kWholePilot"]),
            far=far,
            drawn=-1.0 if huge else 0.0,
            variance=0.0 if huge else math.inf,
            done=huge,
        )

    def run(self) -> None:
        """Answer all queries but those that are left to be answered in full."""
        group = int(self.of["group"])
        groups = [self.queries[q : q + group] for q in range(0, len(self.queries), group)]
        for turn in range(int(K["kRounds"])):
            left = [q for q, query in enumerate(self.queries) if not query.done]
            if not left:
                break
            for q in left:
                drawn = self.plan(q)
                if turn:
                    self.judge(q, drawn)
                else:
                    self.scout(q, drawn)
            for one in groups:
                some = [query for query in one if query.drawn >= 0]
                if some and turn:
                    self.settle(some, turn)
                elif some:
                    cost = self.divide(some) + self.of["alone"] * (len(one) - len(some))
                    residual = sum(query.residual for query in some if not query.far) / len(one)
                    if cost > self.of["dear"] or residual > K["kMostResidual"]:
                        for query in some:
                            query.leave()

    def weigh(self, q: int) -> Wish:
        """N sqrt(E w^2) by the model times how far centres are from the mean, and its root.

        Of a query far from all patches, once something has been seen: the strata that count, those
        whole whose patches weigh too unlike each other.
        """
        query, score, size = self.queries[q], self.scores[q], self.size
        away = self.given["spread"] + K["kDull"]
        away = np.sqrt(away + ((self.given["centre"] - query.mean) ** 2).mean(axis=1))
        power = 2.0 ** ((score - score.max()) / 2)
        model, cautious = size * power**2 * away, size * power
        trusting, careful = 1 - K["kDefensive"], K["kDefensive"]
        wish = trusting * model / model.sum() + careful * cautious / cautious.sum()
        means = self.given["means"].reshape(len(query.along), -1)
        off = (means.T - query.along) ** 2
        distance = self._bounds(self.given["features"][q].astype(float))[0]
        whole = self.nearest(query, distance if query.far else off.sum(axis=1))
        some = wish >= K["kLeastShare"]
        if query.far and query.mass > 0:
            some = self.counting(q, distance, away) | whole
            whole |= self.slope**2 * (off * self._variances()).sum(axis=1) > K["kMostUnlike"]
        strata = np.flatnonzero(some)
        members = np.where(whole, 0, size)
        scale = score.max() + math.log2(model.sum())
        wish = np.maximum(wish[strata], K["kLeastShare"])
        return Wish(strata, model[strata] / model.sum(), wish, members[strata], scale)

    def _variances(self) -> Array:
        return self.given["variances"].reshape(int(self.of["components"]), -1).T.astype(float)

    def counting(self, q: int, distance: Array, away: Array) -> NDArray[np.bool_]:
        """The strata without which an answer could be wrong by more than is allowed."""
        query, scale = self.queries[q], self.of["scale"]
        norm = float(self.given["features"][q, 2 * int(self.of["components"]) + 1])
        power = np.clip(scale * (norm - distance) - query.peak, -125, K["kMostPower"])
        missed = self.size * away * 2.0**power
        least = most = K["kMissed"] * self.of["tolerance"] * query.mass
        while missed[missed < least].sum() > most:
            least /= 2
        query.missed = float(missed[missed < least].sum())
        return np.asarray(missed >= least)

    def nearest(self, query: Query, distance: Array) -> NDArray[np.bool_]:
        """The nearest strata that together have `whole` members; one at least."""
        distance = np.where(self.size > 0, distance, np.inf)
        order = distance.argsort()
        within = self.size[order].cumsum() <= query.whole
        within[0] = True
        chosen = np.zeros(len(order), dtype=bool)
        chosen[order] = within
        return chosen

    def predicted(self, wish: Wish, draws: float) -> float:
        """The variance after so many draws, in squares of the model's scale."""
        wanted = draws * wish.wish
        return float(np.where(2 * wanted >= wish.members, 0, wish.share**2 / wanted).sum())

    def plan(self, q: int) -> Drawn:
        """The first draw of a query."""
        query, wish = self.queries[q], self.weigh(q)
        with np.errstate(over="ignore"):
            query.model = float(np.exp2(wish.scale - query.peak))
        query.predicted = self.predicted(wish, query.rate)
        size = self.size[wish.strata]
        wanted = np.where(wish.members > 0, query.rate * wish.wish, size)
        random = _uniforms(_mixed(int(self.given["keys"][q])), wish.strata)
        drawn = (wanted >= 1) | (random < wanted)
        to = np.where(2 * wanted >= size, size, np.ceil(wanted)).astype(np.int64)
        chance = np.minimum(wanted, 1) * to / size
        query.drawn = float(to[drawn].sum())
        return self._runs(wish.strata[drawn], to[drawn], chance[drawn])

    def _runs(self, strata: Whole, to: Whole, chance: Array) -> Drawn:
        """The first `to` members of each stratum's run."""
        seed, members, lots = int(self.of["seed"]), [], []
        for s, count in zip(strata.tolist(), to.tolist(), strict=True):
            at = _mixed(seed ^ _mixed(s)) % int(self.size[s])
            places = np.arange(count)
            members.append(self.start[s] + (at + places) % self.size[s])
            lots.append(_uniforms(_mixed(seed ^ _mixed(~s)), places))
        return Drawn(np.concatenate(members), np.repeat(chance, to), np.concatenate(lots))

    def by_coordinates(self, query: Query, member: Whole) -> Array:
        """Binary log-weights as if coordinates left nothing out."""
        coordinates = self.coordinates[member]
        products = 2 * self.of["alpha"] * self.of["scale"] * (coordinates @ query.along)
        squares = self.of["unit"] * (coordinates**2).sum(axis=1)
        return np.asarray(query.constant + products - squares)

    def away(self, query: Query, member: Whole) -> Array:
        """How far centre pixels are from the mean."""
        return K["kNear"] + np.abs(self.pixel[member] - query.mean).mean(axis=1)

    def scout(self, q: int, drawn: Drawn) -> None:
        """What coordinates alone tell, and how many draws that asks for."""
        query, opened = self.queries[q], self.open[drawn.member]
        logs = self.by_coordinates(query, drawn.member) - (1 - query.noise) * opened
        query.peak = float(logs.max())
        weight = 2 ** (logs - query.peak) / drawn.chance
        more = query.noise * opened
        query.mass = float(weight.sum())
        promised = weight * 2 ** np.minimum(more, K["kMostPower"])
        query.total = float((promised * self.away(query, drawn.member)).sum())
        query.residual = 2 * math.log(2) * float((weight * more).sum()) / query.mass
        query.mean = weight @ self.pixel[drawn.member] / query.mass
        query.whole = int(K["kWhole"])
        wish = self.weigh(q)
        model = 2.0 ** (wish.scale - query.peak)
        trusted = min(model, K["kDoubt"] * query.total) / query.mass
        query.rate = self.draws_for(wish, trusted)
        unknown = query.residual * query.beside > K["kMostResidual"] * query.noise
        left = unknown and (query.far or query.beside > K["kMostNoise"])
        if query.far and not left:
            whole = wish.members == 0
            query.sampled = float(wish.wish[~whole].sum())
            query.taken = float(self.size[wish.strata][whole].sum())
            left = query.taken * K["kShortCost"] > self.of["alone"]
        if left:
            query.leave()

    def draws_for(self, wish: Wish, trusted: float) -> float:
        """The draws at which the model predicts the variance that is allowed."""
        draws = K["kPilot"]
        for _ in range(8):
            ratio = self.predicted(wish, draws) * (trusted / self.of["tolerance"]) ** 2
            draws = min(draws * float(np.clip(ratio, 0.02, 50)), self.of["most"])
            if abs(ratio - 1) < 0.05:
                break
        return draws

    def divide(self, group: list[Query]) -> float:
        """The tolerance among queries, by the roots of their needs, and among both draws."""
        near = [math.sqrt(query.rate) for query in group if not query.far]
        mean = np.mean(near) if near else 1.0
        cost = 0.0
        for query in group:
            part = min(K["kAim"] * math.sqrt(query.rate) / mean, K["kMostUneven"])
            part = K["kAim"] if query.far else part
            enough = (1 - K["kFirst"]) * part * self.of["tolerance"] ** 2
            query.rate = min(query.rate / (K["kFirst"] * part), self.of["most"])
            query.selection = query.total / (enough * query.mass**2)
            first = query.rate * query.sampled + query.taken
            second = min(query.selection * query.total, first)
            floats = self.patches.shape[1]
            cost += first * K["kShortCost"]
            cost += second * (K["kFullCost"] + K["kFullByFloat"] * floats)
        return cost

    def doubt(self, query: Query, member: Whole) -> Array:
        """How far binary log-weights may be off because codes are rounded."""
        off = self.given["means"].reshape(len(query.along), -1).T - query.along
        steps = self.given["steps"].reshape(len(self.size), -1)[:, :-1].astype(float)
        sums = (off**2 * steps**2).sum(axis=1)
        doubt = K["kWorstCase"] * 2 * self.of["scale"] * self.of["alpha"] * np.sqrt(sums / 12)
        return np.repeat(doubt, self.size)[member]

    def judge(self, q: int, drawn: Drawn) -> None:
        """The second draw, in full, and the variance of both."""
        query, opened = self.queries[q], self.open[drawn.member]
        more = 2 * query.noise * opened
        if query.far:
            worst = K["kWorstCase"] * np.sqrt(2 * query.beside * opened / math.log(2))
            more = np.maximum(more, worst) + self.doubt(query, drawn.member)
        logs = self.by_coordinates(query, drawn.member) - opened + more
        powers = np.clip(logs - query.peak, -125, K["kMostPower"])
        promised = 2**powers * self.away(query, drawn.member)
        total = float((promised / drawn.chance).sum())
        wanted = np.clip(query.selection / drawn.chance * promised, K["kLeastChance"], 1)
        wanted = np.where(self.unknown[drawn.member], 1, wanted)
        kept = drawn.lot < wanted
        member, chance = drawn.member[kept], (drawn.chance * wanted)[kept]
        patches, centre = self.patches[member], self.pixel[member]
        logs = 2 * self.of["alpha"] * self.of["scale"] * (patches @ self.windows[q])
        logs -= self.of["unit"] * (patches**2).sum(axis=1)
        weight = 2 ** (logs - logs.max()) / chance
        square = weight**2 * (1 - chance)
        mass, heavy = weight.sum(), (weight**2 * chance).sum()
        query.few = query.whole < K["kWholeOfFew"] and mass**2 < K["kFew"] * heavy
        query.few &= not query.far
        query.mean = weight @ centre / mass
        spread = ((centre - query.mean) ** 2).mean(axis=1)
        expected = 2.0 ** (query.peak - logs.max()) / mass
        trusted = min(query.model, K["kBelief"] * total) * expected
        variance = (square * spread).sum() / mass**2
        variance += K["kModel"] * query.predicted * trusted**2
        least = (K["kFloor"] * self.of["tolerance"]) ** 2
        variance = K["kCaution"] ** 2 * float(variance) + (query.missed * expected) ** 2
        query.variance = max(variance, least)
        query.mass = 1 / expected

    def settle(self, group: list[Query], turn: int) -> None:
        """Which queries are done, and what the others draw next."""
        enough = self.of["tolerance"] ** 2
        excess = sum(query.variance - enough for query in group)
        most = K["kWorst"] * enough
        for variance in sorted((query.variance for query in group), reverse=True):
            if excess <= 0:
                break
            most = min(most, variance)
            excess -= variance - K["kAim"] * enough
        for query in group:
            ratio = query.variance / enough
            small = query.variance < most or ratio <= K["kAim"]
            query.done = query.done or (not query.few and small)
            if query.done:
                continue
            if query.few:
                query.whole = int(K["kWholeOfFew"])
                continue
            more = float(np.clip(1.5 * ratio, 1.5, 8))
            rate = query.rate * more
            query.rate = rate if rate < self.of["most"] else K["kAll"]
            query.selection *= more if turn + 2 < K["kRounds"] else 1e30


def _mixed(z: int) -> int:
    """Steele, Lea & Flood 2014: a random number of 64 bits for every number."""
    most = 2**64 - 1
    z = (z + 0x9E3779B97F4A7C15) & most
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & most
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & most
    return z ^ (z >> 31)


def _uniforms(key: int, places: Whole) -> Array:
    """Wellons 2018, lowbias32: random numbers in [0, 1) for some numbers."""
    z = (places.astype(np.uint64) * np.uint64(0x9E3779B9) + np.uint64(key & 0xFFFFFFFF)) & _HASHED
    z = (z ^ (z >> np.uint64(16))) * np.uint64(0x7FEB352D) & _HASHED
    z = (z ^ (z >> np.uint64(15))) * np.uint64(0x846CA68B) & _HASHED
    z ^= z >> np.uint64(16)
    return (z >> np.uint64(8)).astype(np.float64) * 2.0**-24
