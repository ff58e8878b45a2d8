"""Train Picto's byte-pair tokenizer on its own captions and save it in the format of CLIP's.

Run it with `uv run --group picto python picto/tokenizer.py`, after corpus.py.
"""

from __future__ import annotations

import json
import random

import numpy as np
from captions import icon_caption, scene_caption
from packed import BUILD, read_pictures
from scenes import MAKERS, make
from tokenizers import Regex as Pattern
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY = 6144
CONTEXT = 32
START, END = "<|startoftext|>", "<|endoftext|>"
SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def caption_texts(pictures: list) -> list[str]:
    rng = random.Random(0)
    texts = [icon_caption(rng, record)[0] for record, _ in pictures for _ in range(4)]
    for which in MAKERS:
        for index in range(2000):
            _, kind, name = make(which, index, pictures)
            texts += [scene_caption(rng, kind, name)[0] for _ in range(2)]
    texts += [word for record, _ in pictures for word in record.get("words", [])]
    return texts


def train(texts: list[str]) -> None:
    """CLIP's scheme: lower case, bytes as letters, `</w>` at the end of a word, each digit a word."""
    alphabet = list(bytes_to_unicode().values())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Pattern(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Pattern(SPLIT), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2 - 2 * len(alphabet),
        initial_alphabet=[],
        end_of_word_suffix="</w>",
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    # Every byte in both of its forms comes first, so that no text can meet an unknown token.
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    tokens += [
        token
        for token, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])
        if token not in set(tokens)
    ]
    tokens += [START, END]
    merges = [tuple(merge) for merge in learned["merges"]]
    made = CLIPTokenizer(
        vocab={token: k for k, token in enumerate(tokens)},
        merges=merges,
        model_max_length=CONTEXT,
        pad_token=END,
    )
    made.save_pretrained(BUILD / "tokenizer")


if __name__ == "__main__":
    texts = caption_texts(read_pictures())
    print(len(texts), "captions, such as", texts[:: len(texts) // 12])
    train(texts)
    loaded = CLIPTokenizer.from_pretrained(BUILD / "tokenizer")
    lengths = [len(ids) for ids in loaded(texts[::7])["input_ids"]]
    print(len(loaded), "tokens; caption lengths at 50, 99, 100 %:", np.percentile(lengths, [50, 99, 100]))
    for text in ('a photo of the number: "7".', "Three Cats, ünknown ☃ token!", "the flag of côte d'ivoire"):
        ids = loaded(text)["input_ids"]
        print(
            text, "->", loaded.convert_ids_to_tokens(ids), "->", loaded.decode(ids, skip_special_tokens=True)
        )
