"""Authors' log-probs in a preference data set: read, checked against TRL's tokens, padded beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from datasets import Dataset

from entropilot.errors import UserError

OURS = ("chosen_logp", "rejected_logp")
REPO = ("chosen_logprob_with_token", "rejected_logprob_with_token")  # RePO's (arXiv:2606.09124) JSONL
# What the collator reads: one number per token of TRL's completion, nats; NaN where no author gave one.
AUTHOR = ("chosen_author_logp", "rejected_author_logp")
TOKENS = ("chosen_ids", "rejected_ids")  # TRL's
ROW, PROBLEM = "preference_row", "preference_problem"
ROUNDING = 1e-4  # a log-prob above 0 by less comes from rounding


def number_rows(dataset: Any) -> Any:
    """Return a data set whose rows know their number, before TRL leaves any of them out."""
    if not isinstance(dataset, Dataset) or ROW in dataset.column_names:
        return dataset
    return dataset.add_column(ROW, list(range(len(dataset))))


def attach_authors(dataset: Any, tokenizer: Any, name: str) -> Any:
    """Return a tokenised data set with the columns `AUTHOR`; without authors' log-probs it is returned as it is.

    A list may hold one log-prob for every token of TRL's completion, stop with the end token (chat templates add a blank
    behind it), or leave the end token out, as a sampler that was cut does. The end token is the last special one, with
    nothing but blanks behind it.

    Args:
        dataset: what `DPOTrainer._prepare_dataset` made of the output of `number_rows`.
        tokenizer: TRL's.
        name: of the data set, for messages.

    Raises:
        UserError: a column without its twin, both kinds of columns, a stream, rows that do not fit (all are looked at).
    """
    columns = author_columns(next(iter(dataset)))
    if columns is None:
        return dataset
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"The {name} data set is a stream, whose {columns[0]} can't be checked before training; give a data set that "
            "fits on the disk, or remove the columns, which is the Dirac label."
        )
    special = special_ids(tokenizer)

    def attach(row: dict[str, Any]) -> dict[str, Any]:
        try:
            found = pair_logp(row, columns, special, tokenizer.decode)
        except ValueError as error:
            return {AUTHOR[0]: [math.nan], AUTHOR[1]: [math.nan], PROBLEM: str(error)}
        return {AUTHOR[0]: found[0], AUTHOR[1]: found[1], PROBLEM: ""}

    dataset = dataset.map(attach, desc=f"Aligning authors' log-probs of the {name} data set")
    bad = [(row, text) for row, text in zip(dataset[ROW], dataset[PROBLEM], strict=True) if text]
    if bad:
        rows = ", ".join(str(row) for row, _ in bad[:10]) + (" ..." if len(bad) > 10 else "")
        raise UserError(
            f"{len(bad)} of {len(dataset)} rows of the {name} data set hold log-probs that do not fit (rows {rows}); "
            f"row {bad[0][0]}: {bad[0][1]}. Correct or drop these rows, or set {' and '.join(columns)} to None in them, "
            "which is the Dirac label."
        )
    return dataset.remove_columns(PROBLEM)


def author_columns(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the pair of columns that holds authors' log-probs, None without one.

    Raises:
        UserError: half of a pair, or both pairs.
    """
    names = set(names)
    found = [pair for pair in (OURS, REPO) if names & set(pair)]
    for pair in found:
        if missing := set(pair) - names:
            (have,) = set(pair) - missing
            raise UserError(
                f"The data has {have} but not {missing.pop()}; a constant on one side alone would move every pair's "
                "logit, so give both columns or none."
            )
    if len(found) > 1:
        raise UserError(f"The data has {OURS[0]} and {REPO[0]}; remove one pair of columns.")
    return found[0] if found else None


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of a tokenizer's special tokens, the named ones and those that were only added."""
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(tokenizer.all_special_ids) | {number for number, token in added if token.special}


def pair_logp(
    row: dict[str, Any],
    columns: tuple[str, str],
    special: frozenset[int],
    decode: Callable[[Sequence[int]], str],
) -> list[list[float]]:
    """Return the log-probs of both completions of a row, one per token of TRL's, NaN where there is none.

    Raises:
        ValueError: in words what does not fit.
    """
    given = [row[column] for column in columns]
    if given.count(None) == 1:
        raise ValueError(
            f"{columns[given.index(None)]} is missing and {columns[1 - given.index(None)]} is not"
        )
    found = []
    for column, name, value in zip(columns, TOKENS, given, strict=True):
        ids = row[name]
        values = [] if value is None else _numbers(value, column, ids)
        if value is not None and len(values) not in (lengths := accepted_lengths(ids, special, decode)):
            wanted = " or ".join(map(str, lengths))
            raise ValueError(
                f"{column} has {len(values)} log-probs, the completion as TRL tokenises it takes {wanted}"
            )
        found.append(values + [math.nan] * (len(ids) - len(values)))
    return found


def accepted_lengths(
    ids: Sequence[int], special: frozenset[int], decode: Callable[[Sequence[int]], str]
) -> list[int]:
    """Return how many log-probs a completion may have: up to its end token, with it, or with what follows it."""
    end = max((place for place, token in enumerate(ids) if token in special), default=None)
    if end is None or decode(ids[end + 1 :]).strip():
        return [len(ids)]
    return sorted({end, end + 1, len(ids)})


def _numbers(value: Any, column: str, ids: Sequence[int]) -> list[float]:
    """Return the log-probs of one completion, of our column or RePO's {"tokens": [...], "logprobs": [...]}."""
    if column in REPO:
        tokens, numbers = (
            (value.get("tokens"), value.get("logprobs")) if isinstance(value, dict) else (None, None)
        )
        if not isinstance(tokens, list) or not isinstance(numbers, list) or len(tokens) != len(numbers):
            raise ValueError(
                f'{column} is no {{"tokens": [...], "logprobs": [...]}} with two lists of one length'
            )
        # Texts of tokens differ between samplers; ids are ids.
        for place, (token, own) in enumerate(zip(tokens, ids, strict=False)):
            if isinstance(token, int) and token != own:
                raise ValueError(f"token {place} of {column} has the id {token}, TRL's has {own}")
        value = numbers
    if not isinstance(value, list) or not all(
        isinstance(x, (int, float)) and not isinstance(x, bool) for x in value
    ):
        raise ValueError(f"{column} is no list of numbers")
    for place, number in enumerate(value):
        if not math.isfinite(number) or number > ROUNDING:
            raise ValueError(f"log-prob {place} of {column} is {number:g}; it must be finite and at most 0")
    return [float(number) for number in value]


class AuthorCollator:
    """TRL's collator, beside whose tokens the authors' log-probs are padded: "author_logp", (2b, t), NaN if unknown.

    Args:
        collate: a collator of TRL's layout: the chosen rows, then the rejected, with "completion_mask"; what is too long is
            cut at its end.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collate(examples)
        if AUTHOR[0] in examples[0]:
            mask = batch["completion_mask"].bool()
            logp = torch.full(mask.shape, math.nan)
            rows = [example[name] for name in AUTHOR for example in examples]
            for row, values in enumerate(rows):
                logp[row, mask[row]] = torch.tensor(values[: int(mask[row].sum())])
            batch["author_logp"] = logp
        return batch
