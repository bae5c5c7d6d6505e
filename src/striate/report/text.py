"""What a run says of itself in plain lines: numbers come in as plain data, lines go out."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from striate.report import words_zh


def opening(facts: Mapping[str, Any]) -> list[str]:
    """Return the lines before training: machine, data, net, hyper-parameters, plan."""
    environment, data, net, settings = (facts[name] for name in ("environment", "data", "net", "settings"))
    counts = data["counts"]
    height, width = data["picture"]["size"]
    seen = "" if tuple(net["input_size"]) == (height, width) else f", seen at {_size(net['input_size'])}"
    numbers = ", ".join(f"{mean / 255:.4f} ± {std / 255:.4f}" for mean, std in zip(data["mean"], data["std"]))
    lines = [
        f"machine   {environment['device_name']}, {environment['device']}, torch {environment['torch']}",
        f"data      {data['name']}: {counts['train']:,} train, {counts['validation']:,} validation,"
        f" {counts['test']:,} test; {len(data['classes'])} classes",
        f"pictures  {_size((height, width))}, {_channels(data['picture']['channels'])}{seen};"
        f" mean ± std of 0-1: {numbers}",
        *(f"chosen    {reason}" for reason in data["geometry"]),
        *_found(data["findings"], len(data["left_out"])),
        f"net       {net['name']}: {size_of(net)}",
        f"training  {hyper_parameters(settings)}",
        f"plan      {_length(settings)} of {count(facts['steps_per_epoch'], 'step')},"
        f" {facts['plan']['precision']}, {count(facts['plan']['threads'], 'thread')} ({facts['plan']['reason']})",
    ]
    return lines + [f"note      {note}" for note in facts["notes"]]


def size_of(net: Mapping[str, Any]) -> str:
    """Return a net's parameters and multiply-adds in words; a layer of unknown cost leaves the second unknown."""
    macs = net.get("macs")
    told = "multiply-adds unknown" if macs is None else f"{human(macs)} multiply-adds a picture"
    return f"{net['parameters']:,} parameters, {told}"


def _found(findings: Sequence[Mapping[str, Any]], left_out: int) -> list[str]:
    """Say in a line each what was left out, and what the doctor found beyond notes."""
    lines = [f"left out  {count(left_out, 'file')}; data.json lists each"] if left_out else []
    told = [f"{found['code']} ({found['count']:,})" for found in findings if found["rank"] != "note"]
    return lines + ([f"found     {', '.join(told)}; see: striate check"] if told else [])


def hyper_parameters(settings: Mapping[str, Any]) -> str:
    """Return optimizer, learning rate, batch, loss and schedule in one line."""
    return ", ".join(english for english, _ in _hyper_parts(settings))


def hyper_parameters_zh(settings: Mapping[str, Any]) -> str:
    """Return the same line in Chinese."""
    return "，".join(chinese for _, chinese in _hyper_parts(settings))


def _hyper_parts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    momentum = f"{settings['momentum']:g}"
    rule = (settings["optimizer"],) * 2
    if settings["optimizer"] == "sgd":
        more = ", nesterov" if settings["nesterov"] else ""
        rule = f"sgd (momentum {momentum}{more})", f"sgd（动量 {momentum}{more}）"
    elif settings["optimizer"] == "muon":
        side = f"{settings['side_momentum']:g}"
        rule = f"muon (momentum {momentum}, of the others {side})", f"muon（动量 {momentum}，其余 {side}）"
    schedule, loss = settings["schedule"], settings["loss"]
    parts = [rule, (f"lr {settings['lr']:g}", f"学习率 {settings['lr']:g}")]
    parts.append((f"{schedule} schedule", words_zh.SCHEDULES[schedule]))
    if settings["weight_decay"]:
        apart, decay = settings["decoupled"], f"{settings['weight_decay']:g}"
        told = f"weight decay {decay} {'decoupled' if apart else 'coupled'}"
        parts.append((told, f"权重衰减 {decay}（{'单独施加' if apart else '加到梯度'}）"))
    parts += [(f"batch {settings['batch_size']}", f"批大小 {settings['batch_size']}"), (loss, words_zh.LOSSES[loss])]
    for name, text in _TOLD.items():
        if settings[name]:
            parts.append((f"{text} {settings[name]:g}", f"{words_zh.SETTINGS[name][0]} {settings[name]:g}"))
    for name, text, quiet in (("balance", "balance by", ("auto", "none")), ("augment", "augment", ("none",))):
        if settings[name] not in quiet:
            parts.append((f"{text} {settings[name]}", f"{words_zh.SETTINGS[name][0]} {settings[name]}"))
    return parts


_TOLD = {
    "bias_lr": "lr of biases",
    "head_lr": "lr of the head",
    "label_smoothing": "label smoothing",
    "clip": "clip",
    "ema": "average of weights",
    "lookahead": "lookahead",
}

ROW_HEADER = "epoch      loss  train acc   val loss    val acc         lr  pictures/s    seconds"


def epoch_row(result: Mapping[str, Any], epochs: int | None) -> str:
    """Return one line for an epoch of results.csv, of so many epochs (None: not known yet)."""
    val_loss = f"{result['val_loss']:.4f}" if result["val_loss"] is not None else "-"
    val_accuracy = percent(result["val_accuracy"]) if result["val_accuracy"] is not None else "-"
    of = "?" if epochs is None else str(epochs)
    return (
        f"{result['epoch']:>3}/{of:<3}{result['train_loss']:>8.4f}{percent(result['train_accuracy']):>11}"
        f"{val_loss:>11}{val_accuracy:>11}{result['lr']:>11.3g}{result['images_per_second']:>12,.0f}"
        f"{result['seconds']:>11.1f}"
    )


def closing(facts: Mapping[str, Any]) -> list[str]:
    """Return the lines after training: best, train, test, speed, where to look, what to type next."""
    last = facts["results"][-1]
    best, evaluation, folder = facts["best_epoch"], facts["evaluation"], facts["folder"]
    lines = []
    if last["val_accuracy"] is not None:
        chosen = next(row for row in facts["results"] if row["epoch"] == best)
        lines.append(
            f"best      epoch {best}: validation {percent(chosen['val_accuracy'])}, loss {chosen['val_loss']:.4f}"
        )
    else:
        lines.append(f"best      epoch {best}, the last (no validation set was asked for)")
    lines.append(f"train     loss {last['train_loss']:.4f}, accuracy {percent(last['train_accuracy'])} (running)")
    if evaluation is not None:
        lines.append(f"test      {accuracy_text(evaluation)}")
        augmented = evaluation.get("top1_tta")
        if augmented is not None:
            lines.append(
                f"tta       accuracy {percent(augmented['value'])} with test-time augmentation ({augmented['kind']})"
            )
        shown = [row for row in evaluation["per_class"] if row["samples"]]
        lines += commonest_warning(evaluation)
        weakest = min(shown, key=lambda row: (row["f1"], row["class"]))
        lines.append(
            f"weakest   class {weakest['class']}: precision {percent(weakest['precision'])},"
            f" recall {percent(weakest['recall'])}"
        )
    lines += [
        f"speed     {last['images_per_second']:,.0f} pictures/s, {duration(facts['seconds'])} in all,"
        f" {last['peak_memory_mb']:,.0f} MB at most",
        f"saved     {folder} ({', '.join(facts['pictures'])})",
        *(f"{word:10}{command}" for word, command in zip(("next", ""), facts["next"])),
    ]
    return lines


def commonest_doubt(evaluation: Mapping[str, Any]) -> tuple[str, float, bool] | None:
    """Return the commonest class of the test, its share, and whether a net does no better at all than answering it.

    None where the net is surely better.
    """
    commonest = max(evaluation["per_class"], key=lambda row: row["samples"])
    share = commonest["samples"] / evaluation["samples"]
    if evaluation["top1"]["low"] > share:
        return None
    return commonest["class"], share, evaluation["top1"]["value"] <= share


def commonest_warning(evaluation: Mapping[str, Any]) -> list[str]:
    """Return a warning where always answering the commonest class may do as well."""
    doubt = commonest_doubt(evaluation)
    if doubt is None:
        return []
    name, share, no_better = doubt
    said = "no better" if no_better else "not surely better"
    return [f"warning   {said} than always answering {name}, which is right for {percent(share)}"]


def accuracy_text(evaluation: Mapping[str, Any]) -> str:
    """Return a test accuracy with its 95 % interval."""
    top1 = evaluation["top1"]
    return (
        f"accuracy {percent(top1['value'])} (95 % interval {percent(top1['low'])} to {percent(top1['high'])},"
        f" {evaluation['samples']:,} pictures)"
    )


def typed_net(command: str, name: str) -> str:
    """Return a net of the user's own as a run's command named it, `file.py:Name`; net.py:Name where it does not say."""
    for line in command.splitlines():
        try:
            words = shlex.split(line)
        except ValueError:  # a line of Python
            continue
        for word in words:
            if word.endswith(f".py:{name}"):
                return word.removeprefix("--model=")
    return f"net.py:{name}"


def percent(fraction: float) -> str:
    """Return 0.98765 as 98.77 %."""
    return f"{100 * fraction:.2f} %"


def human(number: float) -> str:
    """Return a large number with a word: 416.5 thousand, 1.2 million."""
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.4g} {word}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _length(settings: Mapping[str, Any]) -> str:
    if settings["time"] is None:
        return count(settings["epochs"], "epoch")
    return f"{settings['time']} of training, the steps counted after 3 % of it; epochs"


def _size(size: Sequence[int]) -> str:
    return f"{size[1]}×{size[0]} pixels"


def _channels(channels: int) -> str:
    return {1: "gray", 3: "colour"}.get(channels, f"{channels} channels")


def cell_width(text: str) -> int:
    """Return the columns that text fills on a terminal: two for a Chinese character, none for a combining mark."""
    width = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width
