"""Rules about a net's inside, from what health.json measured: dead ReLUs, saturated sigmoids, vanishing gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from striate.evaluation.evidence import Diagnosis, Evidence, Row, is_stuck, other_rate, percent

DEAD_SHARE, DEAD_SHARE_STUCK = 0.9, 0.5
SATURATED_SHARE, SAME_ANSWERS = 0.5, 0.005
VANISHED, VANISHED_SIGMOID = 1e-3, 0.1


def look_inside(evidence: Evidence) -> list[Diagnosis]:
    """Return what these rules find, also what was there for some epochs and is gone."""
    return [*_over_time(evidence, _dead), *_over_time(evidence, _saturated), *_over_time(evidence, _vanishing)]


def _over_time(evidence: Evidence, rule: Callable[[Evidence, Row, Row], Diagnosis | None]) -> list[Diagnosis]:
    """Ask a rule about each epoch that was measured; return the last that it found, and when that was gone."""
    rows = {row["epoch"]: row for row in evidence.epochs}
    seen: Diagnosis | None = None
    for measured in evidence.health:
        row = rows.get(measured["epoch"])
        if row is None:
            continue
        found = rule(evidence, row, measured)
        if found is not None:
            seen = found
        elif seen is not None and seen.gone is None:
            seen = replace(seen, gone=int(row["epoch"]))
    later = [row for row in evidence.epochs if seen is not None and row["epoch"] > seen.epoch]
    if seen is not None and seen.gone is None and seen.code != "dead-relu":
        # Between two looks the accuracy alone tells: what has begun to learn is not stuck.
        awake = next((row for row in later if not is_stuck(evidence, row)), None)
        seen = seen if awake is None else replace(seen, gone=int(awake["epoch"]))
    return [] if seen is None else [seen]


def _dead(evidence: Evidence, row: Row, measured: Row) -> Diagnosis | None:
    """Units that are 0 for every picture: 90 % of a layer, or half of one in a net that learns nothing."""
    relus = [one for one in measured["activations"] if one["kind"] in ("relu", "relu6")]
    if not relus:
        return None
    worst = max(relus, key=lambda one: one["dead"])
    # In a deep net where nothing gets through, units are dead because of that.
    cause = is_stuck(evidence, row) and _reach(measured)[0] >= VANISHED
    if worst["dead"] < (DEAD_SHARE_STUCK if cause else DEAD_SHARE):
        return None
    where, share, units = worst["layer"] or "a function", percent(worst["dead"]), worst["units"]
    return Diagnosis(
        "dead-relu",
        f"dead ReLUs: {share} of the {units} units of {where} answer 0 to every picture, so nothing passes through them"
        " and they can never learn again; a learning rate that was too high once is the usual cause",
        f"ReLU 死亡：{where} 的 {units} 个单元中有 {share} 对每张图片都输出 0，梯度无法通过，也不会再恢复；"
        "常见原因是学习率曾经过高",
        {"dead": worst["dead"], "train_accuracy": row["train_accuracy"]},
        flags=other_rate(evidence, 0.1),
        epoch=int(row["epoch"]),
    )


def _saturated(evidence: Evidence, row: Row, measured: Row) -> Diagnosis | None:
    """A net of sigmoids that learns nothing: its answers lie at their ends, or are the same for every picture."""
    curved = [one for one in measured["activations"] if one["kind"] in ("sigmoid", "tanh")]
    if not curved or not is_stuck(evidence, row):
        return None
    worst = max(curved, key=lambda one: one["saturated"])
    reach, first, last = _reach(measured)
    blank = min(curved, key=lambda one: one["spread"])
    at_ends = worst["saturated"] >= SATURATED_SHARE
    if not at_ends and not (blank["spread"] < SAME_ANSWERS and reach < VANISHED_SIGMOID):
        return None
    kind = "sigmoids" if worst["kind"] == "sigmoid" else "tanhs"
    stands, stands_zh = _at_chance(evidence, row)
    if at_ends:
        why = f"{percent(worst['saturated'])} of the answers of {worst['layer']} lie at an end, with next to no slope"
        why_zh = f"{worst['layer']} 有 {percent(worst['saturated'])} 的输出位于两端，那里斜率接近 0"
    else:
        why = f"the answers of {blank['layer']} differ by only {blank['spread']:.2g} from picture to picture"
        why_zh = f"{blank['layer']} 对不同图片的输出只相差 {blank['spread']:.2g}"
    return Diagnosis(
        "saturated-sigmoids",
        f"saturated {kind}: {stands}; {why}, and the gradient of {first} is {reach:.2g} of that of {last}."
        " Such a net may wake up after some epochs; with ReLUs it learns at once",
        f"{kind[:-1]} 饱和：{stands_zh}；{why_zh}，{first} 的梯度只有 {last} 的 {reach:.2g}。"
        "这样的网络可能在几轮之后才开始学习；换成 ReLU 会立刻开始",
        {
            "saturated": worst["saturated"],
            "spread": blank["spread"],
            "gradient": reach,
            "train_loss": row["train_loss"],
        },
        flags=_relu(evidence),
        epoch=int(row["epoch"]),
    )


def _vanishing(evidence: Evidence, row: Row, measured: Row) -> Diagnosis | None:
    """A net that learns nothing, whose first layer gets a thousandth of the gradient of its last one."""
    sigmoid = any(one["kind"] in ("sigmoid", "tanh") for one in measured["activations"])
    dead = max((one["dead"] for one in measured["activations"]), default=0.0) >= DEAD_SHARE
    reach, first, last = _reach(measured)
    if dead or not is_stuck(evidence, row) or reach >= VANISHED:
        return None
    if sigmoid and _saturated(evidence, row, measured) is not None:
        return None
    stands, stands_zh = _at_chance(evidence, row)
    return Diagnosis(
        "vanishing-gradients",
        f"vanishing gradients: {stands}; the gradient of {first} is {reach:.2g} of that of {last}, each against its"
        " weights. BatchNorm, skips or better first weights let it through",
        f"梯度消失：{stands_zh}；相对于各自的权重，{first} 的梯度只有 {last} 的 {reach:.2g}。"
        "加入 BatchNorm、跳跃连接或更好的初始权重",
        {"gradient": reach, "train_accuracy": row["train_accuracy"]},
        flags={"init": "kaiming-normal"},
        epoch=int(row["epoch"]),
    )


def _reach(measured: Row) -> tuple[float, str, str]:
    """Return the first layer's gradient against the last one's, each against its weights, and both names."""
    weights = [one for one in measured["weights"] if one["weight"] > 0]
    if len(weights) < 2:
        return 1.0, "", ""
    first, last = weights[0], weights[-1]
    size = last["gradient"] / last["weight"]
    reach = first["gradient"] / first["weight"] / size if size > 0 else 1.0
    return reach, str(first["layer"]), str(last["layer"])


def _at_chance(evidence: Evidence, row: Row) -> tuple[str, str]:
    loss, name = row["train_loss"], evidence.settings["loss"]
    if name == "cross-entropy":
        known = f"ln {evidence.classes} = {evidence.chance_loss:.3f}"
        return (
            f"the loss of epoch {row['epoch']} is {loss:.3f}, that of knowing nothing {known}",
            f"第 {row['epoch']} 轮的损失为 {loss:.3f}，一无所知时为 {known}",
        )
    accuracy = percent(row["train_accuracy"])
    return f"epoch {row['epoch']} gets {accuracy} right", f"第 {row['epoch']} 轮只有 {accuracy} 正确"


def _relu(evidence: Evidence) -> dict[str, str]:
    options = evidence.settings.get("model_option") or {}
    if "activation" in options or evidence.settings.get("model") == "lenet5":
        return {"model-option": "activation=relu"}
    return {"init": "xavier-uniform"}
