"""A tiny random model with a tokenizer and a chat template, made on the spot, and its batch."""

import json
import random
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parents[2] / "configs" / "validate" / "tiny-llama"
TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = [
    *("the", "order", "of", "requests", "decides", "what", "a", "cache", "holds", "and"),
    *("how", "long", "batch", "them", "takes"),
]
NAME = "tiny"
ENGINE_ARGS = [
    *("--served-model-name", NAME, "--dtype", "float32", "--enforce-eager"),
    *("--max-model-len", "1024", "--block-size", "32", "--num-gpu-blocks-override", "80"),
    *("--kv-cache-memory-bytes", "20000000", "--max-num-batched-tokens", "256"),
    *("--max-num-seqs", "16"),
]


def model_folder(folder: Path) -> Path:
    """Fill ``folder`` with a config, a byte-level BPE tokenizer, a chat template and weights.

    The vocabulary of the model is that of the tokenizer, so that every output is text; weights
    are large enough that the most likely token is so by far, whatever the batch it is computed in.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from torch import manual_seed
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{a} {b}" for a in WORDS for b in WORDS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((MODEL / "config.json").read_text())
    config |= {"vocab_size": tokenizer.get_vocab_size(), "num_hidden_layers": 2}
    manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**config, initializer_range=0.3))
    model.save_pretrained(folder)
    return folder


def chat(index: int, content: str, **body: Any) -> dict[str, Any]:
    """Return a chat line at temperature 0."""
    messages = [{"role": "user", "content": content}]
    settings = {"model": NAME, "messages": messages, "temperature": 0, "max_tokens": 12}
    return {
        "custom_id": f"c{index}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {**settings, **body},
    }


def document_questions(requests: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return shuffled questions about six documents, with caps of 4 to 24 tokens."""
    rng = random.Random(seed)
    documents = [" ".join(rng.choices(WORDS, k=120)) for _ in range(6)]
    return [
        chat(i, f"{rng.choice(documents)} {i}?", max_tokens=rng.randint(4, 24))
        for i in range(requests)
    ]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write a batch file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an output file by custom_id; each may be there only once."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = {row["custom_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def text_of(row: dict[str, Any]) -> str:
    """Return what the model said."""
    choice = row["response"]["body"]["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]
