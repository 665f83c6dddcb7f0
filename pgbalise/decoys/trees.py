"""Distributions of one column given others: a tree whose leaves keep the values seen in them.

A classification and regression tree (Breiman et al., 1984) splits the rows until no split tells
more than chance would; a value is then drawn from the leaf that the others lead to. Reiter
(Journal of Official Statistics 21(3), 2005) uses this to publish synthetic microdata.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.number_looks import Look

MIN_LEAF = 20
"""Rows that a leaf has at least; nothing is drawn from fewer."""
_BINS = 128
_HEAP = 0.03
_DEPTH = 24
# A split of rows that have nothing to do with the target explains more than so many times the
# variance of a row once in a few hundred nodes: the largest of some hundred chi-squares.
_SIGNIFICANT = 14.0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Tree:
    """Nodes in arrays: the right child of a node follows the left one; ``left`` is -1 at a leaf.

    A row goes right where its ``feature`` is greater than ``threshold``. ``leaf`` numbers leaves.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    leaf: Ints
    depth: int

    def leaves(self, features: Floats) -> Ints:
        """Return the leaf of each row of ``features`` float64[n, f], int64[n]."""
        node = np.zeros(len(features), np.int64)
        rows = np.arange(len(features))
        for _ in range(self.depth):
            split = self.left[node]
            going = split >= 0
            if not going.any():
                break
            right = features[rows, self.feature[node]] > self.threshold[node]
            node = np.where(going, split + right, node)
        return self.leaf[node]

    def uses(self, feature: int) -> bool:
        """Say whether any split asks for that feature."""
        return bool((self.feature[self.left >= 0] == feature).any())


def grow(
    features: Floats, targets: Floats, min_leaf: int = MIN_LEAF, significant: float = _SIGNIFICANT
) -> Tree:
    """Return a tree that splits rows so that ``targets`` vary little within a leaf.

    ``features`` float64[n, f] without NaN (unknown is -inf), ``targets`` float64[n, c]. Each leaf
    has at least ``min_leaf`` rows, unless there are fewer in all. A split must explain more than
    ``significant`` times the variance of a row of its node.
    """
    count, width = features.shape
    edges = [_edges(features[:, place]) for place in range(width)]
    usable = [place for place in range(width) if len(edges[place])]
    bins = {
        place: np.searchsorted(edges[place], features[:, place], side="left") for place in usable
    }
    feature, threshold, left = [0], [0.0], [-1]
    level = np.array([0])
    node_of = np.zeros(count, np.int64)  # place in level, of the rows still to be split
    rows = np.arange(count)
    depth = 0
    targets = targets - targets.mean(axis=0)
    while len(level) and len(rows) and usable and depth < _DEPTH:
        found = _best_splits(
            bins, edges, usable, rows, node_of, len(level), targets[rows], min_leaf
        )
        split = found.gain > significant * found.spread
        if not split.any():
            break
        depth += 1
        base = len(left)
        order = np.cumsum(split) - 1
        for place in np.flatnonzero(split).tolist():
            node = int(level[place])
            feature[node] = int(found.feature[place])
            threshold[node] = float(edges[feature[node]][found.bin[place]])
            left[node] = base + 2 * int(order[place])
        grown = 2 * int(split.sum())
        feature += [0] * grown
        threshold += [0.0] * grown
        left += [-1] * grown
        kept = split[node_of]
        rows, node_of = rows[kept], node_of[kept]
        asked = found.feature[node_of]
        right = features[rows, asked] > np.array(threshold)[level[node_of]]
        node_of = 2 * order[node_of] + right
        level = base + np.arange(grown)
    lefts = np.array(left, np.int64)
    leaf = np.where(lefts < 0, np.cumsum(lefts < 0) - 1, -1)
    return Tree(np.array(feature, np.int64), np.array(threshold), lefts, leaf, depth)


@dataclass(frozen=True)
class _Splits:
    feature: Ints
    bin: Ints
    gain: Floats
    spread: Floats


def _best_splits(
    bins: dict[int, Ints],
    edges: list[Floats],
    usable: list[int],
    rows: Ints,
    node_of: Ints,
    nodes: int,
    targets: Floats,
    min_leaf: int,
) -> _Splits:
    """Return the best split of each node: how much of the sum of squares it explains."""
    totals = np.bincount(node_of, minlength=nodes).astype(np.float64)
    sums = [np.bincount(node_of, targets[:, c], nodes) for c in range(targets.shape[1])]
    squares = np.bincount(node_of, (targets**2).sum(axis=1), nodes)
    before = sum(s**2 for s in sums) / np.maximum(totals, 1)
    spread = np.maximum((squares - before) / np.maximum(totals, 1), 1e-12)
    best = np.full(nodes, -1.0)
    best_feature, best_bin = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    for place in usable:
        width = len(edges[place]) + 1
        cell = node_of * width + bins[place][rows]
        lower = np.bincount(cell, minlength=nodes * width).reshape(nodes, width)
        lower = np.cumsum(lower, axis=1)[:, :-1]
        upper = totals[:, None] - lower
        explained = np.zeros(lower.shape)
        for c, total in enumerate(sums):
            part = np.bincount(cell, targets[:, c], nodes * width).reshape(nodes, width)
            part = np.cumsum(part, axis=1)[:, :-1]
            explained += part**2 / np.maximum(lower, 1)
            explained += (total[:, None] - part) ** 2 / np.maximum(upper, 1)
        explained[(lower < min_leaf) | (upper < min_leaf)] = -np.inf
        where = explained.argmax(axis=1)
        gain = explained[np.arange(nodes), where] - before
        better = gain > best
        best[better] = gain[better]
        best_feature[better], best_bin[better] = place, where[better]
    return _Splits(best_feature, best_bin, best, spread)


def _edges(values: Floats) -> Floats:
    """Return where a feature may be split: its values, or quantiles of them when there are many."""
    distinct = np.unique(values)
    if len(distinct) > _BINS:
        distinct = np.unique(
            np.quantile(values, np.linspace(0, 1, _BINS + 1), method="inverted_cdf")
        )
    return distinct[:-1]


@dataclass(frozen=True)
class Conditional:
    """Values by leaf: those of leaf i, sorted, are ``values[starts[i]:starts[i + 1]]``.

    ``codes`` holds, per feature that is a category, the place of each category in the order by
    which the tree splits it. ``origin`` float64[n, k] is what each value followed, and ``slope``
    float64[k] how much of a difference there is found again in the value.
    """

    tree: Tree
    starts: Ints
    values: Floats
    fixed: Bools
    look: Look | None
    codes: dict[int, Floats]
    origin: Floats | None = None
    slope: Floats | None = None

    def expected(self, features: Floats) -> Floats:
        """Return the mean of the leaf of each row of ``features``, float64[n]."""
        leaf = self.tree.leaves(_encoded(features, self.codes))
        means = np.add.reduceat(self.values, self.starts[:-1]) / np.diff(self.starts)
        found: Floats = means[leaf]
        return found

    def draw(self, features: Floats, chance: Floats, before: Floats | None = None) -> Floats:
        """Return a value per row of ``features`` float64[n, f], by ``chance`` float64[n] in (0, 1).

        A number that several entities have is given as it is, any other is moved between its
        neighbours in the leaf. Where ``before`` float64[n, k] is given, it moves along with that.
        """
        leaf = self.tree.leaves(_encoded(features, self.codes))
        start, size = self.starts[leaf], self.starts[leaf + 1] - self.starts[leaf]
        exact = chance * size
        step = np.minimum(exact.astype(np.int64), size - 1)
        place = start + step
        drawn: Floats = self.values[place]
        if self.look is None:
            return drawn
        loose = ~self.fixed[place]
        if loose.any():
            here, at = place[loose], exact[loose] - step[loose]
            other = np.where(step[loose] + 1 < size[loose], here + 1, np.maximum(here - 1, 0))
            moved = drawn[loose] + at * (self.values[other] - drawn[loose])
            drawn[loose] = self.look.written(moved)
        if before is not None and self.origin is not None and self.slope is not None:
            shift = (self.look.clipped(before) - self.origin[place]) @ self.slope
            if self.look.grid:
                shift = np.rint(shift / self.look.grid) * self.look.grid
            drawn = np.where(shift == 0, drawn, self.look.written(drawn + shift))
        return drawn


def learn_category(
    features: Floats, values: Ints, categorical: tuple[int, ...] = ()
) -> Conditional:
    """Learn categories ``values`` int64[n] given ``features`` float64[n, f]."""
    _, place = np.unique(values, return_inverse=True)
    frequent = np.argsort(-np.bincount(place))[:12]
    targets = (place[:, None] == frequent[None, :]).astype(np.float64)
    return _learn(
        features,
        values.astype(np.float64),
        np.ones(len(values), bool),
        targets,
        None,
        categorical,
        _SIGNIFICANT,
    )


def learn_number(
    features: Floats,
    values: Floats,
    look: Look,
    categorical: tuple[int, ...] = (),
    significant: float = _SIGNIFICANT,
    before: Floats | None = None,
) -> Conditional:
    """Learn numbers ``values`` float64[n] given ``features`` float64[n, f].

    Where ``before`` float64[n, k] is what they follow, leaves are made for how far they move from
    the first of these too.
    """
    values = look.clipped(values)
    # Ranks are not led astray by a wild value; their squares tell narrow leaves from wide ones.
    middle = _ranks(values)
    told = [middle, 2.0 * (middle**2 - 1 / 12)]
    if before is not None:
        step = _ranks(values - before[:, 0])
        told += [step, 2.0 * (step**2 - 1 / 12)]
    heaps = [values == value for value in _heaps(values)]
    targets = np.stack([*told, *(0.5 * heap for heap in heaps)], axis=1)
    learned = _learn(
        features, values, look.is_common(values), targets, look, categorical, significant
    )
    if before is None:
        return learned
    leaf = learned.tree.leaves(_encoded(features, learned.codes))
    order = np.lexsort((values, leaf))
    before = look.clipped(before)
    counts = np.bincount(leaf)
    means = [np.bincount(leaf, column) / np.maximum(counts, 1) for column in before.T]
    away = before - np.stack(means, axis=1)[leaf]
    fitted = np.linalg.lstsq(away, values, rcond=None)[0]
    # values that follow those before them by more than these differ would run away
    slope = np.asarray(fitted / max(1.0, float(np.abs(fitted).sum())), np.float64)
    return replace(learned, origin=before[order], slope=slope)


def _ranks(values: Floats) -> Floats:
    """Return ranks between -0.5 and 0.5, the same for equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - counts / 2)[inverse] / max(len(values), 1) - 0.5
    return ranks


def _heaps(values: Floats) -> Floats:
    """Return the few values that stand out, such as the 0 of a column that is mostly 0."""
    distinct, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts)[:4]
    return distinct[most][(counts[most] > _HEAP * len(values)) & (len(distinct) > 2)]


def _learn(
    features: Floats,
    values: Floats,
    fixed: Bools,
    targets: Floats,
    look: Look | None,
    categorical: tuple[int, ...],
    significant: float,
) -> Conditional:
    codes = {place: _code(features[:, place], targets[:, 0]) for place in categorical}
    encoded = _encoded(features, codes)
    tree = grow(encoded, targets, significant=significant)
    leaf = tree.leaves(encoded)
    order = np.lexsort((values, leaf))
    starts = np.searchsorted(leaf[order], np.arange(int(tree.leaf.max()) + 2))
    return Conditional(tree, starts, values[order], fixed[order], look, codes)


def _code(feature: Floats, target: Floats) -> Floats:
    """Return the order of a feature's categories by the target's mean; unknown is first."""
    known = np.isfinite(feature)
    place = feature[known].astype(np.int64)
    if not len(place):
        return np.zeros(1)
    counts = np.bincount(place)
    means = np.bincount(place, target[known]) / np.maximum(counts, 1)
    order = np.empty(len(means))
    order[np.argsort(means, kind="stable")] = np.arange(len(means))
    return order


def _encoded(features: Floats, codes: dict[int, Floats]) -> Floats:
    if not codes:
        return features
    features = features.copy()
    for place, code in codes.items():
        column = features[:, place]
        known = np.isfinite(column)
        column[known] = code[np.minimum(column[known].astype(np.int64), len(code) - 1)]
    return features
