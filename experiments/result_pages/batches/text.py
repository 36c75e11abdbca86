"""Text with a given number of tokens, for batch files that anybody can generate again."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes random words of three letters and a space: with ``bytes:4`` a word is a token."""

    rng: np.random.Generator

    def words(self, count: int) -> str:
        """Return a text of ``count`` words, which shares a prefix with others only by chance."""
        letters = _LETTERS[self.rng.integers(0, 26, size=(max(int(count), 1), 3))]
        return " ".join("".join(word) for word in letters.tolist()) + " "

    def lognormal(
        self, mean: float, spread: float, least: int, most: int, count: int
    ) -> npt.NDArray[np.int64]:
        """Return ``count`` lengths; ``spread``: standard deviation of the logarithm."""
        mu = np.log(mean) - spread**2 / 2
        drawn = np.rint(self.rng.lognormal(mu, spread, count)).astype(np.int64)
        return np.asarray(np.clip(drawn, least, most))
