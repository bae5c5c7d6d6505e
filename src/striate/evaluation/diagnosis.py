"""What goes wrong in a training, in plain words: rules over numbers, each with its limits and what to try next.

`diagnose` takes what a run recorded of itself (`Evidence`) and touches no file and no net. docs/report.md states the
rules; their limits stand here and in inside.py, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from striate.evaluation.evidence import Diagnosis, Evidence, is_stuck, other_rate, percent, rate_of
from striate.evaluation.inside import look_inside
from striate.evaluation.metrics import wilson

POOR_SKILL = 0.5
GOOD_ACCURACY = 0.95  # of the train pictures: nothing is left to gain there
OVERFIT_GAP, OVERFIT_WIDE_GAP, OVERFIT_RISE = 0.08, 0.2, 1.25
ABOVE_CHANCE, FAR_ABOVE_CHANCE, JUMP = 1.1, 2.0, 2.0
FEW_EPOCHS = 4  # under it the losses of the steps are looked at
SLOW_LOSS, SLOW_FALL, STEADY = 0.85, 0.0005, 0.4
FLAT_EPOCHS, FLAT_FALL, UNCHANGED_RATE = 6, 0.02, 0.5
MEMORISED_FALL, MEMORISED_RISE = 0.05, 0.1
CONFLICTS = 0.01
LEAKED, LEAKED_PERFECT, PERFECT = 0.05, 0.01, 0.97


def diagnose(evidence: Evidence) -> list[Diagnosis]:
    """Return what the rules find, the likeliest cause first; [] for a healthy run.

    Rules that explain others come first: of a net whose units are dead it is not also said that its labels are wrong.
    """
    found: list[Diagnosis] = []
    if evidence.broke:
        found.append(_broke(evidence))
    if evidence.epochs:
        inner = look_inside(evidence)
        found += inner
        found += _first(evidence, (_too_high,)) if not evidence.broke else []
        now = [one for one in found if one.gone is None]
        if not now:
            # A net that woke up late looks like one that learns too slowly.
            slow = () if any(one.code == "saturated-sigmoids" for one in inner) else (_too_low,)
            found += _first(evidence, (*slow, _labels, _overfitting, _plateau, _underfitting))
    return found + _first(evidence, (_leak,))


def _first(evidence: Evidence, rules: Sequence[Callable[[Evidence], Diagnosis | None]]) -> list[Diagnosis]:
    """Return what the first rule that finds something says."""
    for rule in rules:
        found = rule(evidence)
        if found is not None:
            return [found]
    return []


def _broke(evidence: Evidence) -> Diagnosis:
    return Diagnosis(
        "lr-too-high",
        f"learning rate too high: {evidence.broke}; with lr {rate_of(evidence):g} the weights ran away",
        f"学习率过高：{evidence.broke}；学习率 {rate_of(evidence):g} 使权重发散",
        {"lr": rate_of(evidence)},
        flags=other_rate(evidence, 0.1),
        epoch=int(evidence.last["epoch"]) if evidence.epochs else 0,
    )


def _too_high(evidence: Evidence) -> Diagnosis | None:
    """A train loss above that of knowing nothing after the first epoch, or one that jumps up again."""
    chance, losses = evidence.chance_loss, [row["train_loss"] for row in evidence.epochs]
    last, best = losses[-1], min(losses)
    above = last > (ABOVE_CHANCE if len(losses) > 1 else FAR_ABOVE_CHANCE) * chance
    jumped = last > JUMP * best and last > chance / 2
    if not above and not jumped:
        return None
    if above:
        why = f"the train loss is {last:.4g}, and a net that knows nothing has {chance:.3f}"
        why_zh = f"训练损失为 {last:.4g}，而一无所知的网络是 {chance:.3f}"
    else:
        why, why_zh = (
            f"the train loss went from {best:.3f} back to {last:.4g}",
            f"训练损失从 {best:.3f} 回升到 {last:.4g}",
        )
    return Diagnosis(
        "lr-too-high",
        f"learning rate too high: {why}; each step of lr {rate_of(evidence):g} leaps over the valley",
        f"学习率过高：{why_zh}；学习率 {rate_of(evidence):g} 的每一步都越过了谷底",
        {"train_loss": last, "best": best, "chance_loss": chance, "lr": rate_of(evidence)},
        flags=other_rate(evidence, 0.1),
        epoch=int(evidence.last["epoch"]),
    )


def _too_low(evidence: Evidence) -> Diagnosis | None:
    """A loss that is still high, and falls as steadily in the second half as in the first."""
    series = [row["train_loss"] for row in evidence.epochs]
    series = series if len(series) >= FEW_EPOCHS else _means(evidence.step_losses, 8)
    if len(series) < FEW_EPOCHS or not evidence.is_late:
        return None
    chance = evidence.chance_loss
    first, middle, last = (
        fmean(series[: len(series) // 4]),
        fmean(_middle(series)),
        fmean(series[-(len(series) // 4) :]),
    )
    early, late = (first - middle) / chance, (middle - last) / chance
    if last < SLOW_LOSS * chance or late < SLOW_FALL or late < STEADY * early:
        return None
    held = [row["val_loss"] for row in evidence.epochs if row["val_loss"] is not None]
    if len(evidence.epochs) >= FEW_EPOCHS and held and held[0] - held[-1] < (first - last) / 2:
        return None  # what is learned is of no use for other pictures: that is not slowness
    return Diagnosis(
        "lr-too-low",
        f"learning rate too low: the train loss is still {last:.3f} of {chance:.3f} for knowing nothing, and falls as"
        f" steadily as at first; lr {rate_of(evidence):g} takes steps that are too small",
        f"学习率过低：训练损失仍为 {last:.3f}（一无所知时为 {chance:.3f}），下降速度与开始时一样；"
        f"学习率 {rate_of(evidence):g} 的步子太小",
        {"train_loss": last, "first": first, "chance_loss": chance, "lr": rate_of(evidence)},
        flags=other_rate(evidence, 10),
        epoch=int(evidence.last["epoch"]),
    )


def _labels(evidence: Evidence) -> Diagnosis | None:
    """Labels that have nothing to do with the pictures, or some that are wrong."""
    if not evidence.is_late:
        return None
    rows, count = evidence.epochs, evidence.validated
    train = evidence.last["train_accuracy"]
    validated = [row["val_accuracy"] for row in rows if row["val_accuracy"] is not None]
    numbers = {"train_accuracy": train}
    what = what_zh = ""
    if validated and count >= 30:
        now = fmean(validated[-3:])
        noise = 2 * math.sqrt(evidence.commonest * (1 - evidence.commonest) / count)
        spread = 2 * math.sqrt(max(validated) * (1 - max(validated)) / count)
        at_peak = next(row for row in rows if row["val_accuracy"] == max(validated))
        fall, rise = max(validated) - now, train - at_peak["train_accuracy"]
        numbers |= {"val_accuracy": now, "best": max(validated)}
        at_chance = max(now, validated[-1]) < evidence.commonest + noise  # it may have begun to learn just now
        if at_chance and is_stuck(evidence, evidence.last):
            what = (
                f"shuffled labels suspected: after {len(rows)} epochs neither the train pictures ({percent(train)}) nor"
                f" the validation pictures ({percent(now)}) are answered better than by always naming the commonest"
                " class, though gradients flow"
            )
            what_zh = (
                f"疑似标签被打乱：{len(rows)} 轮之后，训练图片（{percent(train)}）和验证图片（{percent(now)}）"
                "的结果都不比总答最常见的类别更好，而梯度正常"
            )
        elif at_chance:
            what = (
                f"shuffled labels suspected: {percent(now)} of the validation pictures are answered as labelled, and"
                f" always answering the commonest class gives {percent(evidence.commonest)}, while the train"
                f" pictures reach {percent(train)} by heart"
            )
            what_zh = (
                f"疑似标签被打乱：验证图片只有 {percent(now)} 与标签一致，总答最常见的类别也有"
                f" {percent(evidence.commonest)}，而训练图片靠死记达到 {percent(train)}"
            )
        elif fall >= max(MEMORISED_FALL, spread) and rise >= MEMORISED_RISE:
            what = (
                f"noisy labels suspected: the validation accuracy fell from {percent(max(validated))} to"
                f" {percent(now)} while that on the train pictures rose to {percent(train)}: the net learns by heart"
                " what it had understood better before"
            )
            what_zh = (
                f"疑似标签有噪声：验证准确率从 {percent(max(validated))} 降到 {percent(now)}，而训练准确率升到"
                f" {percent(train)}：网络在死记原本理解得更好的内容"
            )
    if not what and evidence.trained and evidence.conflicts >= CONFLICTS * evidence.trained:
        numbers["conflicts"] = evidence.conflicts
        what = f"noisy labels suspected: {evidence.conflicts:,} pictures carry two different labels"
        what_zh = f"疑似标签有噪声：{evidence.conflicts:,} 张图片带有两个不同的标签"
    if not what:
        return None
    return Diagnosis("labels-suspect", what, what_zh, numbers, verb="check", epoch=int(evidence.last["epoch"]))


def _overfitting(evidence: Evidence) -> Diagnosis | None:
    """A gap between train and validation with a validation loss that rises, or a wide one."""
    train, held, where, where_zh = evidence.last["train_accuracy"], None, "validation", "验证"
    losses = [row["val_loss"] for row in evidence.epochs if row["val_loss"] is not None]
    rise = losses[-1] / max(1e-9, min(losses)) if losses else 1.0
    if evidence.last["val_accuracy"] is not None:
        held = evidence.last["val_accuracy"]
        spread = 2 * math.sqrt(max(0.0, held * (1 - held)) / max(1, evidence.validated))
    elif evidence.test is not None:
        held, where, where_zh = evidence.test["value"], "test", "测试"
        spread = evidence.test["high"] - held
    if held is None:
        return None
    gap = train - held
    wide = gap >= max(OVERFIT_WIDE_GAP, spread)
    if not wide and not (gap >= max(OVERFIT_GAP, spread) and rise >= OVERFIT_RISE):
        return None
    rising = f", and the validation loss rose to {rise:.1f} times its lowest" if rise >= OVERFIT_RISE else ""
    rising_zh = f"，验证损失升到最低值的 {rise:.1f} 倍" if rise >= OVERFIT_RISE else ""
    flags = {"weight-decay": "0.01"}
    if evidence.settings.get("augment") in (None, "none"):
        flags = {"augment": "shift:2"}
    return Diagnosis(
        "overfitting",
        f"overfitting: {percent(train)} of the train pictures are right and {percent(held)} of the {where} pictures"
        f"{rising}: the net learns its pictures by heart. More pictures help most, then augmentation",
        f"过拟合：训练图片正确 {percent(train)}，{where_zh}图片正确 {percent(held)}{rising_zh}："
        "网络在死记图片。增加图片最有效，其次是数据增强",
        {"train_accuracy": train, f"{where}_accuracy": held, "val_loss_rise": rise},
        flags=flags,
        epoch=int(evidence.last["epoch"]),
    )


def _plateau(evidence: Evidence) -> Diagnosis | None:
    """A train loss that stands still well above 0 while the learning rate has stayed high."""
    rows = evidence.epochs
    if len(rows) < 2 * FLAT_EPOCHS or rows[-1]["train_accuracy"] >= GOOD_ACCURACY:
        return None
    losses = [row["train_loss"] for row in rows]
    before, after = fmean(losses[-2 * (FLAT_EPOCHS // 2) : -(FLAT_EPOCHS // 2)]), fmean(losses[-(FLAT_EPOCHS // 2) :])
    held = rows[-1]["lr"] >= UNCHANGED_RATE * max(row["lr"] for row in rows)
    if not held or (before - after) / max(before, 1e-9) >= FLAT_FALL or is_stuck(evidence, rows[-1]):
        return None
    return Diagnosis(
        "plateau",
        f"plateau: for {FLAT_EPOCHS} epochs the train loss has stayed at {after:.3f} with lr still"
        f" {rows[-1]['lr']:g}; a rate that falls gets lower",
        f"停滞：训练损失连续 {FLAT_EPOCHS} 轮停在 {after:.3f}，而学习率仍为 {rows[-1]['lr']:g}；让学习率下降可继续改进",
        {"train_loss": after, "before": before, "lr": rows[-1]["lr"]},
        flags={"schedule": "cosine"},
        epoch=int(rows[-1]["epoch"]),
    )


def _underfitting(evidence: Evidence) -> Diagnosis | None:
    """A finished training that gets less than half of the way on its own train pictures, and no more on others."""
    last = evidence.last
    held = last["val_accuracy"] if last["val_accuracy"] is not None else (evidence.test or {}).get("value")
    if not evidence.finished or evidence.skill(last["train_accuracy"]) >= POOR_SKILL:
        return None
    if held is not None and evidence.skill(held) >= POOR_SKILL:
        return None
    losses = [row["train_loss"] for row in evidence.epochs]
    third = max(1, len(losses) // 3)
    gained = last["train_accuracy"] - evidence.epochs[-min(len(losses), 1 + third)]["train_accuracy"]
    falling = len(losses) < 3 or gained > 0.02 or losses[-1 - third] - losses[-1] > 0.05 * losses[-1 - third]
    reason = "it was still getting better" if falling else "it no longer gets better: a larger net may"
    reason_zh = "结束时仍在进步" if falling else "已不再进步：可换更大的网络"
    return Diagnosis(
        "underfitting",
        f"underfitting: only {percent(last['train_accuracy'])} of the net's own train pictures are right; {reason}",
        f"欠拟合：训练图片只有 {percent(last['train_accuracy'])} 正确；{reason_zh}",
        {"train_accuracy": last["train_accuracy"], "train_loss": losses[-1]},
        verb="resume" if falling else "train",
        flags={"epochs": f"+{len(losses)}"} if falling else {"model": "resnet20"},
        epoch=int(last["epoch"]),
    )


def _leak(evidence: Evidence) -> Diagnosis | None:
    """Test pictures that were trained on, or a test that goes better than train or validation, beyond chance."""
    test, again = evidence.test, evidence.train_again
    if test is None:
        return None
    share = evidence.copies / max(1, evidence.tested)
    validated = [row["val_accuracy"] for row in evidence.epochs if row["val_accuracy"] is not None]
    held = (max(validated), _high(max(validated), evidence.validated)) if validated and evidence.validated else None
    if share >= LEAKED or (share >= LEAKED_PERFECT and test["value"] >= PERFECT):
        why = f"{evidence.copies:,} of the {evidence.tested:,} test pictures are among the train pictures"
        why_zh = f"{evidence.tested:,} 张测试图片中有 {evidence.copies:,} 张也在训练图片中"
    elif again is not None and test["low"] > again["high"]:
        why = f"the test pictures go better ({percent(test['value'])}) than the train pictures"
        why += f" ({percent(again['value'])}), beyond chance"
        why_zh = f"测试图片（{percent(test['value'])}）比训练图片（{percent(again['value'])}）更好，超出偶然范围"
    elif held is not None and test["low"] > held[1] and test["value"] >= held[0] + LEAKED:
        why = f"the test pictures go far better ({percent(test['value'])}) than the validation pictures"
        why += f" ({percent(held[0])}), though the net has seen neither"
        why_zh = f"测试图片（{percent(test['value'])}）远好于验证图片（{percent(held[0])}），而两者都不应被网络见过"
    else:
        return None
    return Diagnosis(
        "leak-suspected",
        f"leak suspected: {why}; the test accuracy says too much about new pictures",
        f"疑似泄漏：{why_zh}；测试准确率高估了对新图片的效果",
        {"copies": evidence.copies, "tested": evidence.tested, "test_accuracy": test["value"]},
        verb="check",
        epoch=int(evidence.last["epoch"]) if evidence.epochs else 0,
    )


def _high(share: float, count: int) -> float:
    return wilson(round(share * count), count)[1]


def _means(values: Sequence[float], parts: int) -> list[float]:
    """Return the means of so many equal stretches; [] for fewer than four values each."""
    each = len(values) // parts
    return [fmean(values[i * each : (i + 1) * each]) for i in range(parts)] if each >= 4 else []


def _middle(series: Sequence[float]) -> Sequence[float]:
    quarter = max(1, len(series) // 8)
    return series[len(series) // 2 - quarter : len(series) // 2 + quarter]
