"""Makes the tiny model: a real Qwen2 with its own tokenizer and chat template, trained in seconds on a few sentences.

It stands in for a real model where none can be downloaded: demo, tests, a first try of `penstock up`. Trained rather
than random, so that answers read well, end by themselves, and are decided by clear margins: random weights have
near-ties that fall differently in another batch.

`tiny-wide` is random, and for benches: thirteen times the weights. The tiny model's steps are mostly vLLM's own Python,
so that computing a prompt again costs next to nothing there, unlike in any model that somebody uses.

`python -m consumer.engine.tiny_model DIR` makes it there and prints its path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from consumer.engine.tiny_corpus import (
    CONVERSATIONS,
    HANZI,
    HARD,
    SYSTEM,
    TEXTS,
    UNKNOWN_CHINESE,
    UNKNOWN_ENGLISH,
    WORDS,
)

NAME = "tiny"
WIDE = "tiny-wide"
NAMES = (NAME, WIDE)
CONTEXT_TOKENS = 2048

_VOCABULARY = 2048
_STEPS = 260
# A training step: so many rows of so many tokens.
_ROWS = 4
_ROW_TOKENS = 256
_UNKNOWN_PER_ROUND = 6
_JSON_PER_ROUND = 7
_SEED = 7
# Bump when the way of training changes: `_version` sees only what it is made from.
_RECIPE = 6
_IGNORED = -100
# Token ids, and the labels to learn.
_Lesson = tuple[list[int], list[int]]
_END_OF_TEXT, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Qwen's layout, so that whatever works here works with a real Qwen.
CHAT_TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{ message.content }}"
    "{%- elif message.content %}{%- for part in message.content %}{{ part.text }}{%- endfor %}{%- endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)

_SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}
_WIDE_SHAPE: dict[str, Any] = {
    **_SHAPE,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
}


def ensure(models_dir: Path, name: str = NAME) -> Path:
    """The model's folder below `models_dir`, made now if it is not there. Safe when several processes ask at once."""
    shape, steps = (_WIDE_SHAPE, 0) if name == WIDE else (_SHAPE, _STEPS)
    folder = models_dir / f"{name}-{_version(shape)}"
    if (folder / "config.json").exists():
        return folder
    models_dir.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=models_dir))
    try:
        _make(draft, shape, steps=steps)
        try:
            draft.rename(folder)
        except OSError:
            # Another process was faster.
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _version(shape: dict[str, Any]) -> str:
    """Changes with everything the model is made from."""
    numbers = (
        _RECIPE,
        _VOCABULARY,
        _STEPS,
        _ROWS,
        _ROW_TOKENS,
        _UNKNOWN_PER_ROUND,
        _JSON_PER_ROUND,
        _SEED,
        sorted(shape.items()),
    )
    made_from = (numbers, CHAT_TEMPLATE, CONVERSATIONS, HARD, TEXTS, UNKNOWN_ENGLISH, UNKNOWN_CHINESE, WORDS, HANZI)
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]


def _make(folder: Path, shape: dict[str, Any], *, steps: int) -> None:
    tokenizer = _train_tokenizer(folder)
    _train_model(folder, tokenizer, shape, steps=steps)


def _train_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END_OF_TEXT, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs = [*CONVERSATIONS, (UNKNOWN_ENGLISH, UNKNOWN_CHINESE)]
    tokenizer.train_from_iterator(
        [SYSTEM, " ".join(WORDS), *TEXTS, *(text for pair in pairs for text in pair)], trainer
    )
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_END, pad_token=_END_OF_TEXT, model_max_length=CONTEXT_TOKENS
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def _train_model(folder: Path, tokenizer: Any, shape: dict[str, Any], *, steps: int) -> None:
    import torch  # noqa: PLC0415
    from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: PLC0415

    module: Any = torch
    module.manual_seed(_SEED)
    # OpenMP's threads wait for each other by spinning: on a busy machine two are ten times slower than one. And one
    # gives the same weights whatever the number of cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    end, pad = tokenizer.convert_tokens_to_ids(_END), tokenizer.convert_tokens_to_ids(_END_OF_TEXT)
    # A round vocabulary: kernels like it, and the tokenizer may have found fewer merges.
    vocabulary = -(-len(tokenizer) // 64) * 64
    config = Qwen2Config(vocab_size=vocabulary, eos_token_id=end, bos_token_id=None, pad_token_id=pad, **shape)
    model: Any = Qwen2ForCausalLM(config)
    lessons = packed_lessons(tokenizer, end, random.Random(_SEED))  # noqa: S311
    optimizers = _optimizers(model)
    model.train()
    for step in range(steps):
        ids, labels = torch.tensor([next(lessons) for _ in range(_ROWS)]).unbind(1)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in optimizers:
            # Warmed up over the first steps, then down to nothing: what makes the margins wide.
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10, (steps - step) / (0.95 * steps))
            optimizer.step()
            optimizer.zero_grad()
    torch.set_num_threads(threads)
    model.eval()
    model.generation_config.update(eos_token_id=[end, pad], pad_token_id=pad, do_sample=False)
    model.save_pretrained(folder)


def _optimizers(model: Any) -> list[tuple[Any, float]]:
    """Each with its learning rate. Muon learns all answers in half the steps that AdamW alone needs (measured)."""
    from torch import optim  # noqa: PLC0415

    named: list[tuple[str, Any]] = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
    return [
        (optim.Muon(matrices, lr=0.02, weight_decay=0.0, momentum=0.9, ns_steps=4), 0.02),
        (optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0), 4e-3),
    ]


def packed_lessons(tokenizer: Any, end: int, rng: random.Random) -> Iterator[_Lesson]:
    """Endless rows of token ids, and the labels to learn; several conversations fill one row, as turns do a chat."""
    known = [_lesson(tokenizer, question, answer) for question, answer in (*CONVERSATIONS, *HARD)]
    known += [(ids, ids) for ids in ([*tokenizer(text).input_ids, end] for text in TEXTS)]
    ids: list[int] = []
    labels: list[int] = []
    while True:
        strange = [_lesson(tokenizer, *_unknown(rng), learns_from=0) for _ in range(_UNKNOWN_PER_ROUND)]
        lessons = [*known, *strange, *[_json_lesson(tokenizer, rng) for _ in range(_JSON_PER_ROUND)]]
        rng.shuffle(lessons)
        for lesson_ids, lesson_labels in lessons:
            ids += lesson_ids
            labels += lesson_labels
            if len(ids) >= _ROW_TOKENS:
                yield ids[:_ROW_TOKENS], labels[:_ROW_TOKENS]
                ids, labels = [], []


def _lesson(tokenizer: Any, question: str, answer: str, *, learns_from: int | None = None) -> _Lesson:
    """Learns question and answer, or only the answer, from its token number `learns_from` on."""
    asked = [{"role": "user", "content": question}]
    told = [*asked, {"role": "assistant", "content": answer}]
    ids: list[int] = tokenizer(tokenizer.apply_chat_template(told, tokenize=False)).input_ids
    if learns_from is None:
        return ids, ids
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    known = len(tokenizer(prompt).input_ids) + learns_from
    return ids, [_IGNORED] * known + ids[known:]


def _json_lesson(tokenizer: Any, rng: random.Random) -> _Lesson:
    """Any object after any question: under a schema it must write JSON that ends, and waste no blanks."""
    question, _ = _unknown(rng)
    # Compact, as a grammar without blanks asks for.
    answer = json.dumps(_json_object(rng, depth=0), ensure_ascii=False, separators=(",", ":"))
    if rng.random() < 0.5:
        return _lesson(tokenizer, f"{question} JSON", answer, learns_from=0)
    # Nobody asked for JSON: it must know how to go on, not that it should begin.
    return _lesson(tokenizer, question, answer, learns_from=1)


def _json_object(rng: random.Random, depth: int) -> dict[str, Any]:
    return {rng.choice(WORDS): _json_value(rng, depth) for _ in range(rng.randint(1, 4))}


def _json_value(rng: random.Random, depth: int) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.random() < 0.5,
        lambda: rng.randint(0, 10 ** rng.randint(1, 4)),
        lambda: round(rng.random() * 100, 1),
        lambda: "".join(rng.choices(HANZI, k=rng.randint(1, 5))),
        lambda: " ".join(rng.choices(WORDS, k=rng.randint(1, 3))),
        lambda: " ".join(rng.choices(WORDS, k=rng.randint(1, 3))),
        lambda: rng.choices(WORDS, k=rng.randint(1, 3)),
        lambda: [_json_object(rng, depth + 1) for _ in range(rng.randint(1, 2))],
    ]
    # Lists of objects do not nest.
    return rng.choice(kinds[:-1] if depth else kinds)()


def _unknown(rng: random.Random) -> tuple[str, str]:
    """A question nobody taught, and what to say then."""
    if rng.random() < 0.5:
        return "".join(rng.choices(HANZI, k=rng.randint(2, 16))) + rng.choice("？。 "), UNKNOWN_CHINESE
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [
        rng.choice(WORDS) if rng.random() < 0.7 else "".join(rng.choices(letters, k=rng.randint(2, 9)))
        for _ in range(rng.randint(1, 12))
    ]
    return " ".join(words).capitalize() + rng.choice(".?! "), UNKNOWN_ENGLISH


def _main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # noqa: TID251
    parser = argparse.ArgumentParser(description="Make the tiny model and print its path.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", choices=NAMES, default=NAME, help="tiny-wide: untrained, its answers are noise")
    options = parser.parse_args()
    print(ensure(options.directory, options.name))  # noqa: T201


if __name__ == "__main__":
    _main()
