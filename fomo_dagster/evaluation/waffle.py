"""WaffleCLIP's prompts: a dataset's own with random words and random characters appended.

Roth et al. 2023, arXiv 2306.07282, section 3.2. Averaged over enough of them, random descriptors do
about as well as a language model's. The paper takes the length of a descriptor from those that a
language model wrote for the dataset; here it is a setting. All classes share the descriptors.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

import numpy as np

CHARACTERS_PER_WORD = (4, 8)
CHARACTERS = string.ascii_lowercase + string.digits + "!#$%&*+-.:;?@^~"  # no braces


def waffle_templates(own_prompt: str, pairs: int, words: int, seed: int) -> tuple[str, ...]:
    """2·`pairs` templates: `own_prompt`, "which has", and random words or random characters.

    The words of a pair's first template are whole words of CLIP's vocabulary; its second has random
    characters in words of the same lengths. The same seed gives the same templates, whatever the
    number of pairs before them.
    """
    vocabulary = _vocabulary()
    ended = own_prompt.endswith(".")
    stem = own_prompt.removesuffix(".")
    templates = []
    for pair in range(pairs):
        rng = np.random.Generator(np.random.Philox(key=[seed, pair]))
        chosen = [vocabulary[place] for place in rng.integers(len(vocabulary), size=words)]
        noise = ["".join(rng.choice(list(CHARACTERS), size=len(word))) for word in chosen]
        templates += [
            f"{stem}, which has {' '.join(descriptor)}{'.' if ended else ''}"
            for descriptor in (chosen, noise)
        ]
    return tuple(templates)


@lru_cache(maxsize=1)
def _vocabulary() -> list[str]:
    """Whole words of CLIP's tokeniser, by frequency."""
    # Only here, because it loads PyTorch with it.
    from open_clip.tokenizer import SimpleTokenizer

    shortest, longest = CHARACTERS_PER_WORD
    whole = re.compile(rf"([a-z]{{{shortest},{longest}}})</w>")
    found = (whole.fullmatch(token) for token in SimpleTokenizer().encoder)
    return [match[1] for match in found if match]
