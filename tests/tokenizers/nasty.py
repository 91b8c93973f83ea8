"""Text that is hard to take apart, as much as is wanted, the same for the same seed."""

# ruff: noqa: RUF001  (letters that look like others are what it is about)

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SCRIPTS = (
    "ελληνικά αλφάβητο", "кириллица и ещё", "עברית וניקוד בְּרֵאשִׁית", "العربية والتشكيل كِتَابٌ",
    "हिन्दी देवनागरी", "ไทยไม่มีช่องว่าง", "汉字漢字假借", "ひらがなカタカナ", "한글 자모 ᄒᆞᆫ", "ქართული",
    "አማርኛ", "தமிழ்", "ភាសាខ្មែរ", "ᏣᎳᎩ", "𐌰𐌱𐌲", "𝔉𝔯𝔞𝔨𝔱𝔲𝔯", "ﬁ ﬂ ǆ ŉ", "İIıi ẞß ΣσςΌ",
)  # fmt: skip
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "’s", "'", "''s", "'x")
_SPACES = " \t\n\r\v\f\x1c\x85\u00a0\u1680\u2002\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u061c\u202a\u202e\u202c\u180e"
_EMOJI = (
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f4\U000e0067\U000e0062",
    "\U0001f1e8\U0001f1ed", "\u2764\ufe0f\u200d\U0001f525", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3",
)  # fmt: skip
_SPECIAL = (
    "<|endoftext|>", "<|endoftext", "<|fim_prefix|>", "<|im_start|>", " <|endoftext|> ", "< |end|>",
    "</s>", "[UNK]", "##ing", "\u2581word", "\u0120word", "\u010a", "Ġ Ċ",
)  # fmt: skip
_DIGITS = "0123456789٠١٢٣४५६７８９ⅠⅡ²³¼½፩፪"


def nasty_text(letters: int, seed: int) -> str:
    """Return a text of about so many letters, of every sort in turn and mixed."""
    chance = random.Random(seed)
    parts, count = [], 0
    sorts = list(_sorts(chance))
    while count < letters:
        part = chance.choice(sorts)()
        part += chance.choice(("", "", " ", "  ", "\n", chance.choice(_SPACES)))
        parts.append(part)
        count += len(part)
    return "".join(parts)


def texts_of_the_repository() -> str:
    """Return the sources and the documents of this repository, one after the other."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*"), *ROOT.glob("gpt/*"), *ROOT.glob("tests/*/*")]
    found += ROOT.glob("ckptstore/**/*.py")
    texts = [path for path in sorted(found) if path.suffix in (".md", ".py", ".txt", ".svg")]
    return "".join(path.read_text("utf-8") for path in texts)


def _sorts(chance: random.Random) -> Iterator[Callable[[], str]]:
    def some(letters: str, most: int) -> str:
        return "".join(chance.choices(letters, k=chance.randint(1, most)))

    def any_letter(lowest: int, highest: int) -> str:
        number = chance.randint(lowest, highest)
        return "\ufffd" if 0xD800 <= number < 0xE000 else chr(number)

    def of_plane(plane: int) -> Callable[[], str]:
        lowest = plane << 16
        return lambda: "".join(
            any_letter(lowest, lowest + 0xFFFF) for _ in range(chance.randint(1, 40))
        )

    words = texts_of_the_repository()[:200_000].split()
    for plane in (0, 0, 0, *range(17)):
        yield of_plane(plane)
    for highest in (0x7F, 0xFF, 0x24F):
        yield lambda highest=highest: "".join(  # type: ignore[misc]
            any_letter(0, highest) for _ in range(chance.randint(1, 60))
        )
    yield lambda: some(_SPACES, 30)
    yield lambda: some(" ", 200) + some("\n", 5) + some(" \n\t", 40)
    yield lambda: some(_INVISIBLE, 8)
    yield lambda: some("".join(map(chr, (*range(32), *range(0x7F, 0xA0)))), 20)
    yield lambda: some(_DIGITS, 40)
    yield lambda: f"{chance.uniform(-1e9, 1e9)!r},{chance.getrandbits(64):#x},{chance.random():.3e}"
    yield lambda: chance.choice(words) + chance.choice(_CONTRACTIONS) + some("stremvld'", 4)
    yield lambda: " ".join(chance.choices(words, k=chance.randint(1, 30)))
    yield lambda: chance.choice(words) * chance.randint(1, 9)
    yield lambda: chance.choice(words).swapcase() + some("!?.,;:_-*/\\|<>[]{}()=+&%$#@~^`\"'", 12)
    yield lambda: chance.choice(_SCRIPTS) + chance.choice(("", " ", "\u0301\u0308" * 3))
    yield lambda: chance.choice(_EMOJI) * chance.randint(1, 4)
    yield lambda: chance.choice(_SPECIAL)
    yield (
        lambda: (
            f"    def f_{some('xyz', 9)}(a, *b):\n\t\treturn {{'k': a[0]}}  # {some('-=', 60)}\n"
        )
    )
