"""Build a character tokenizer with a chat template, for models small enough to train on a laptop."""

from __future__ import annotations

import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNK, END, USER, ASSISTANT, SYSTEM = (
    "<|pad|>",
    "<|unk|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
)
SPECIAL = (PAD, UNK, END, USER, ASSISTANT, SYSTEM)
CHARACTERS = tuple(string.digits + string.ascii_letters + string.punctuation + " \n")

# One turn is `<|role|>content`, an assistant turn is closed by `<|end|>`; the generation prompt is a bare
# `<|assistant|>`. The sandbox never sees a system turn in pretraining, but real benchmark files may carry one.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(model_max_length: int = 1024) -> PreTrainedTokenizerFast:
    """Return the sandbox tokenizer: every printable ASCII character is one token, anything else `<|unk|>`.

    Padding is on the left, as generation needs it. The vocabulary is fixed, so tiers added later
    share it and a model never has to be resized.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    # A class instead of the dot, which leaves the newline out: each character is isolated, none is dropped.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        padding_side="left",
        model_max_length=model_max_length,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
