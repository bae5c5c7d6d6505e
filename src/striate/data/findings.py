"""What can be found in a set of pictures: a code, a rank, what it means and what to do, in English and Chinese."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Rank = Literal["error", "warning", "note"]
RANKS: tuple[Rank, ...] = ("error", "warning", "note")

EXAMPLES = 3


@dataclass(frozen=True)
class Kind:
    """One kind of finding. An error must be decided by a person; a note needs nothing done."""

    rank: Rank
    what: str
    fix: str
    what_zh: str
    fix_zh: str


@dataclass(frozen=True)
class Finding:
    """One finding in a set of pictures.

    `count` of pictures, files, folders or classes. `examples`: a few lines for people. `sources`: all that it is about.
    `groups`: sets of sources that belong together, such as copies of one picture. `what` and `fix` are sentences.
    """

    code: str
    rank: Rank
    count: int
    what: str
    fix: str
    examples: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "code": self.code,
            "rank": self.rank,
            "count": self.count,
            "what": self.what,
            "fix": self.fix,
            "sources": list(self.sources),
            "groups": [list(group) for group in self.groups],
        }


def finding(
    code: str,
    sources: Iterable[str],
    *,
    reasons: Sequence[str] = (),
    detail: str = "",
    groups: Iterable[Sequence[str]] = (),
    joined_by: str = " = ",
) -> Finding:
    """Build a finding of a known kind; without `sources` its count is 0, and `found` drops it.

    `reasons`: one for each source, shown behind it in the examples. `detail`: added to what the kind says.
    `groups`: shown in the examples instead of the sources, each joined by `joined_by`, and counted instead of them.
    """
    kind, sources, sets = KINDS[code], tuple(sources), tuple(tuple(group) for group in groups)
    if sets:
        examples = [joined_by.join(group[:3]) + (" …" if len(group) > 3 else "") for group in sets[:EXAMPLES]]
    elif reasons:
        examples = [f"{source}: {reason}" for source, reason in list(zip(sources, reasons, strict=True))[:EXAMPLES]]
    else:
        examples = list(sources[:EXAMPLES])
    what = f"{kind.what}: {detail}" if detail else kind.what
    return Finding(code, kind.rank, len(sets or sources), what, kind.fix, tuple(examples), sources, sets)


def found(findings: Iterable[Finding]) -> list[Finding]:
    """Drop what was not found, and put the rest into order: errors first, within a rank as the kinds stand here."""
    order = list(KINDS)
    return sorted(
        (one for one in findings if one.count), key=lambda one: (RANKS.index(one.rank), order.index(one.code))
    )


def must_be_decided(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that a person must decide about: those of rank error."""
    return [one for one in findings if one.rank == "error"]


_MEND = "mend it, or leave it out: drop in the fixes file"
_MEND_ZH = "修复文件，或在修正文件中写 drop"
_NOTHING, _NOTHING_ZH = "nothing need be done", "无需处理"

KINDS: dict[str, Kind] = {
    # files
    "unreadable": Kind("error", "files cannot be decoded", _MEND, "文件无法解码", _MEND_ZH),
    "not-a-picture": Kind(
        "error",
        "files are named like pictures and are none",
        "convert or delete them, or leave them out: drop in the fixes file",
        "文件名像图片，但内容不是图片",
        "转换或删除，或在修正文件中写 drop",
    ),
    "no-permission": Kind(
        "error",
        "files or folders may not be read",
        "allow it: chmod -R u+rX",
        "没有读取权限",
        "修改权限：chmod -R u+rX",
    ),
    "missing-file": Kind(
        "error",
        "rows of the table name files that are not there",
        "mend the paths in the table",
        "表中的文件不存在",
        "修正表中的路径",
    ),
    # folders and names
    "beside-split": Kind(
        "error",
        "folders next to train are no split, and their pictures are not used",
        "rename a misspelt one to val or test, or move it away",
        "与 train 并列的文件夹不是已知划分，其中图片未使用",
        "把拼错的名字改为 val 或 test，或移走该文件夹",
    ),
    "split-name": Kind(
        "error",
        "classes are named almost like a split",
        "rename the folder to train, val or test if it is one",
        "类别名与划分名（train、val、test）几乎相同",
        "若确为划分，请改名为 train、val 或 test",
    ),
    "similar-classes": Kind(
        "error",
        "classes have names that are equal but for case, spaces or Unicode form",
        "rename a folder, or write a merge line into the fixes file",
        "类别名仅大小写、空格或 Unicode 形式不同",
        "改名，或在修正文件中写 merge",
    ),
    "single-class": Kind(
        "error",
        "there are not two classes to tell apart",
        "add a folder of pictures of another class",
        "类别不足两个",
        "再加一个类别的图片文件夹",
    ),
    "untrained-class": Kind(
        "error",
        "classes are in validation or test and not in train",
        "add pictures of them to train, or leave them out",
        "某些类别只在验证集或测试集中",
        "在 train 中补充这些类别，或移除它们",
    ),
    "no-label": Kind("error", "rows have no label", "fill in the label column", "表中有行缺少标签", "补全标签列"),
    "conflicting-rows": Kind(
        "error",
        "rows of the table give one picture different labels",
        "leave one row for each picture",
        "表中同一图片有不同标签",
        "每张图片只保留一行",
    ),
    # the same picture twice
    "label-conflict": Kind(
        "error",
        "the same picture is in several classes",
        "decide on one class: drop or relabel in the fixes file",
        "同一图片出现在多个类别中",
        "确定一个类别：在修正文件中写 drop 或 relabel",
    ),
    "near-label-conflict": Kind(
        "error",
        "nearly the same picture is in several classes",
        "decide on one class: drop or relabel in the fixes file",
        "几乎相同的图片出现在多个类别中",
        "确定一个类别：在修正文件中写 drop 或 relabel",
    ),
    "leak": Kind(
        "error",
        "the same picture is in several splits, which makes the test too easy",
        "leave it in one split: drop in the fixes file",
        "同一图片出现在多个划分中，会使测试结果偏高",
        "只保留在一个划分中：在修正文件中写 drop",
    ),
    "near-leak": Kind(
        "error",
        "nearly the same picture is in several splits, which makes the test too easy",
        "leave it in one split: drop in the fixes file",
        "几乎相同的图片出现在多个划分中，会使测试结果偏高",
        "只保留在一个划分中：在修正文件中写 drop",
    ),
    # warnings
    "duplicates": Kind(
        "warning",
        "the same picture is there more than once",
        "drop the copies; a split never parts them",
        "同一图片重复出现",
        "删除副本；划分时它们不会被分开",
    ),
    "tiny-class": Kind(
        "warning",
        "classes have few pictures",
        "add pictures; a class of one trains and cannot be tested",
        "类别图片过少",
        "增加图片；只有一张图片的类别可训练但无法测试",
    ),
    "imbalance": Kind(
        "warning",
        "classes are of very different size",
        "read the macro-F1, not only the accuracy; --balance evens them out",
        "类别数量相差悬殊",
        "除准确率外请看宏平均 F1；可用 --balance 平衡",
    ),
    "untested-class": Kind(
        "warning",
        "classes are in train and not in the given validation or test pictures",
        "add pictures of them there",
        "某些类别不在给定的验证集或测试集中",
        "在其中补充这些类别的图片",
    ),
    "blank": Kind(
        "warning",
        "pictures show nothing: all their pixels are alike",
        "look at them; drop them in the fixes file",
        "空白图片：所有像素几乎相同",
        "查看后在修正文件中写 drop",
    ),
    "wrong-extension": Kind(
        "warning",
        "pictures are named as another format than they are; they are read all the same",
        "rename them",
        "扩展名与实际格式不符（仍可读取）",
        "改正扩展名",
    ),
    "misnamed-folder": Kind(
        "warning",
        "class names begin or end with a space, or hold characters that cannot be seen",
        "rename the folder",
        "类别名首尾有空格或含不可见字符",
        "给文件夹改名",
    ),
    "unicode-names": Kind(
        "warning",
        "folders differ only in how Unicode writes their names, and are read as one class",
        "give them one name",
        "文件夹名仅 Unicode 写法不同，按同一类别读取",
        "统一名称",
    ),
    "empty-folder": Kind(
        "warning", "folders hold no picture", "fill or delete them", "文件夹中没有图片", "补充图片或删除"
    ),
    "misplaced": Kind(
        "warning",
        "pictures lie in no class folder and are not used",
        "move each into the folder of its class",
        "图片不在任何类别文件夹中，未使用",
        "移入所属类别的文件夹",
    ),
    "dangling-link": Kind(
        "warning", "links lead to nothing", "mend or delete them", "链接指向不存在的文件", "修复或删除"
    ),
    "link-loop": Kind("warning", "links lead round in a circle", "delete them", "链接循环", "删除"),
    "outside-root": Kind(
        "warning",
        "links lead out of the folder and are not followed",
        "--follow-links follows them",
        "链接指向文件夹之外，未跟随",
        "如需跟随，使用 --follow-links",
    ),
    "special-file": Kind(
        "warning", "pipes, sockets or devices lie among the files", "delete them", "含管道、套接字或设备文件", "删除"
    ),
    "path-escape": Kind(
        "warning", "names in the archive lead out of it", "pack it anew", "压缩包内的路径指向外部", "重新打包"
    ),
    "duplicate-member": Kind("warning", "the archive holds a name twice", "pack it anew", "压缩包内有重名", "重新打包"),
    "duplicate-row": Kind(
        "warning", "the table names a picture twice", "leave one row for each", "表中同一图片重复", "每张只留一行"
    ),
    "left-out": Kind("warning", "files are left out", "read the reasons", "部分文件未使用", "查看原因"),
    # notes
    "near-duplicates": Kind(
        "note",
        "pictures are nearly the same as others of their class",
        "nothing: a split never parts them",
        "同类中有几乎相同的图片",
        "无需处理：划分时它们不会被分开",
    ),
    "sideways": Kind(
        "note",
        "pictures lie on their side, by their EXIF block",
        "nothing: they are turned upright",
        "EXIF 标明图片方向不正",
        "无需处理：读取时自动转正",
    ),
    "damaged-exif": Kind(
        "note",
        "pictures have a damaged EXIF block",
        "check that they stand upright",
        "EXIF 信息损坏",
        "检查方向是否正确",
    ),
    "deep": Kind(
        "note",
        "pictures have 16 or 32 bits a sample",
        "nothing: they are scaled to 8 bits",
        "图片为 16 位或 32 位",
        "无需处理：缩放为 8 位",
    ),
    "alpha": Kind(
        "note",
        "pictures are transparent in parts",
        "nothing: they are laid over white",
        "图片含透明部分",
        "无需处理：以白色为底",
    ),
    "colour-space": Kind(
        "note",
        "pictures are CMYK or in another colour space",
        "nothing: they are turned into RGB",
        "图片为 CMYK 等色彩空间",
        "无需处理：转换为 RGB",
    ),
    "animated": Kind(
        "note", "files hold several pictures", "nothing: the first is taken", "文件含多帧", "无需处理：取第一帧"
    ),
    "odd-size": Kind(
        "note",
        "pictures are much larger or smaller than the others",
        "look at them: small ones are often thumbnails or icons",
        "尺寸与其他图片相差悬殊",
        "检查是否为缩略图或图标",
    ),
    "odd-shape": Kind(
        "note",
        "pictures are much wider or narrower than the others",
        "look at them: much of them is cut off, padded or squeezed",
        "长宽比与其他图片相差悬殊",
        "检查：裁剪、填充或拉伸会使其失真",
    ),
    "odd-format": Kind(
        "note",
        "pictures are of another format than nearly all others",
        "look at them: they are often of another origin, such as a page's 'not found' picture",
        "格式与绝大多数图片不同",
        "检查来源，例如网页的“未找到”图片",
    ),
    "mixed-channels": Kind(
        "note",
        "some pictures are gray and some in colour",
        "check that colour does not give the class away",
        "灰度图与彩色图混合",
        "检查颜色是否与类别相关",
    ),
    "hidden": Kind("note", "hidden files are left out", _NOTHING, "隐藏文件未使用", _NOTHING_ZH),
    "other-file": Kind("note", "other files lie among the pictures", _NOTHING, "含其他文件", _NOTHING_ZH),
    "run-folder": Kind("note", "folders of trainings are left out", _NOTHING, "训练结果文件夹未使用", _NOTHING_ZH),
    "linked-twice": Kind(
        "note", "links lead to a folder that was read already", _NOTHING, "链接指向已读的文件夹", _NOTHING_ZH
    ),
    "link": Kind("note", "links in the archive are left out", _NOTHING, "压缩包内的链接未使用", _NOTHING_ZH),
    "not-in-table": Kind("note", "pictures are named by no row of the table", _NOTHING, "图片未列入表中", _NOTHING_ZH),
    "other-split": Kind("note", "tables of other splits are left out", _NOTHING, "其他划分的表未使用", _NOTHING_ZH),
}
