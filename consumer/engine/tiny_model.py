"""Makes the tiny model: a real Qwen2 with its own tokenizer and chat template, trained in seconds on a few sentences.

It stands in for a real model where none can be downloaded: demo, tests, a first try of `penstock up`. Trained rather
than random, so that answers read well, end by themselves, and are decided by clear margins: random weights have
near-ties that fall differently in another batch.

`python -m consumer.engine.tiny_model DIR` makes it there and prints its path.
"""

# torch and transformers are typed for themselves, not for those who import them.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from consumer.engine.tiny_corpus import CONVERSATIONS, SYSTEM, TEXTS

NAME = "tiny"
CONTEXT_TOKENS = 2048

_VOCABULARY = 2048
_STEPS = 200
_ROWS = 14
_SEED = 7
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
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}


def ensure(models_dir: Path) -> Path:
    """The model's folder below `models_dir`, made now if it is not there. Safe when several processes ask at once."""
    folder = models_dir / f"{NAME}-{_version()}"
    if (folder / "config.json").exists():
        return folder
    models_dir.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=models_dir))
    try:
        _make(draft)
        try:
            draft.rename(folder)
        except OSError:
            # Another process was faster.
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _version() -> str:
    """Changes with everything the model is made from."""
    made_from = (_VOCABULARY, _STEPS, _ROWS, _SEED, CHAT_TEMPLATE, sorted(_SHAPE.items()), SYSTEM, CONVERSATIONS, TEXTS)
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]


def _make(folder: Path) -> None:
    tokenizer = _train_tokenizer(folder)
    _train_model(folder, tokenizer)


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
    tokenizer.train_from_iterator([SYSTEM, *TEXTS, *(text for pair in CONVERSATIONS for text in pair)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_END, pad_token=_END_OF_TEXT, model_max_length=CONTEXT_TOKENS
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def _train_model(folder: Path, tokenizer: Any) -> None:
    import torch  # noqa: PLC0415
    from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: PLC0415

    torch.manual_seed(_SEED)
    end, pad = tokenizer.convert_tokens_to_ids(_END), tokenizer.convert_tokens_to_ids(_END_OF_TEXT)
    # A round vocabulary: kernels like it, and the tokenizer may have found fewer merges.
    vocabulary = -(-len(tokenizer) // 64) * 64
    config = Qwen2Config(vocab_size=vocabulary, eos_token_id=end, bos_token_id=None, pad_token_id=pad, **_SHAPE)
    model = Qwen2ForCausalLM(config)
    rows = _rows(tokenizer, end)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=_STEPS, pct_start=0.1)
    order = torch.Generator().manual_seed(_SEED)
    model.train()
    loss = torch.zeros(())
    for _ in range(_STEPS):
        picked = [rows[index] for index in torch.randperm(len(rows), generator=order)[:_ROWS].tolist()]
        width = max(len(row) for row in picked)
        tokens = torch.full((len(picked), width), pad)
        for place, row in enumerate(picked):
            tokens[place, : len(row)] = torch.tensor(row)
        labels = tokens.masked_fill(tokens == pad, -100)
        loss = model(input_ids=tokens, attention_mask=(tokens != pad).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    model.generation_config.update(eos_token_id=[end, pad], pad_token_id=pad, do_sample=False)
    model.save_pretrained(folder)
    # Whoever reads the folder must see why it answers so little.
    (folder / "README.json").write_text(json.dumps({"made_by": "penstock", "loss": round(loss.item(), 4)}))


def _rows(tokenizer: Any, end: int) -> list[list[int]]:
    """Token ids of every training text."""
    rows: list[list[int]] = []
    for question, answer in CONVERSATIONS:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append(tokenizer(tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")).input_ids)
    rows += [[*tokenizer(text).input_ids, end] for text in TEXTS]
    return rows


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # noqa: TID251
    print(ensure(Path(sys.argv[1])))  # noqa: T201
