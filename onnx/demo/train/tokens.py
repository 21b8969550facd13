"""A tokenizer in CLIP's format whose merges make one token of each word of the captions.

The base alphabet is that of CLIP (every byte, inside a word and at its end), so any text has tokens.
"""

import collections
import json
import pathlib
import random
import re
import string

import torch

import footage
from config import TEXT

START, END = "<|startoftext|>", "<|endoftext|>"
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


def byte_characters():
    """The printable character that stands for each byte, in the order of CLIP's vocabulary."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in own]
    return {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(others)}


def join(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def split_word(word, characters):
    symbols = [characters[b] for b in word.encode()]
    return symbols[:-1] + [symbols[-1] + "</w>"]


def learn_merges(characters):
    """Byte-pair merges until each word is a single token; ties go to the pair that sorts first."""
    spelled, merges = [split_word(w, characters) for w in footage.words()], []
    while any(len(s) > 1 for s in spelled):
        pairs = collections.Counter(p for s in spelled for p in zip(s, s[1:]))
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        spelled = [join(s, best) for s in spelled]
    return merges


class Tokenizer:
    """Text to token ids, as CLIP does it: lower case, byte-pair encoding, padded with the end token."""

    def __init__(self):
        self.characters = byte_characters()
        self.merges = learn_merges(self.characters)
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        base = [*self.characters.values()]
        tokens = [*base, *(c + "</w>" for c in base), *("".join(p) for p in self.merges), START, END]
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.known = {}

    def __len__(self):
        return len(self.ids)

    def word(self, word):
        if word not in self.known:
            symbols = split_word(word, self.characters)
            while True:
                ranked = [(self.rank[p], p) for p in zip(symbols, symbols[1:]) if p in self.rank]
                if not ranked:
                    break
                symbols = join(symbols, min(ranked)[1])
            self.known[word] = [self.ids[s] for s in symbols]
        return self.known[word]

    def encode(self, text):
        """`TEXT.tokens` ids."""
        ids = [i for w in SPLIT.findall(text.lower()) for i in self.word(w)][: TEXT.tokens - 2]
        return [self.ids[START], *ids] + [self.ids[END]] * (TEXT.tokens - 1 - len(ids))

    def batch(self, texts):
        return torch.tensor([self.encode(t) for t in texts])

    def save(self, folder):
        """Writes `vocab.json`, `merges.txt` and the small files beside them."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(self.ids))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in self.merges))
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
        settings = {"model_max_length": TEXT.tokens, **special, "do_lower_case": True, "add_prefix_space": False,
                    "tokenizer_class": "CLIPTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def with_strange_words(texts, share, seed):
    """Puts made-up words into a share of the captions, so that the model learns to pass over what it does not know."""
    pick = random.Random(seed)
    strange = ["".join(pick.choices(string.ascii_lowercase, k=pick.randint(2, 8))) for _ in range(4000)]
    out = []
    for text in texts:
        if pick.random() < share:
            parts = text.split(" ")
            for _ in range(pick.randint(1, 3)):
                parts.insert(pick.randint(0, len(parts)), pick.choice(strange))
            text = " ".join(parts)
        out.append(text)
    return out
