"""Folders of generated pictures for the data doctor: a clean one, and one with faults whose findings are known."""

from __future__ import annotations

import io
import os
import socket
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 120, 90


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A colourful picture with as much detail as a photograph; no two seeds are alike."""
    cells = np.random.default_rng(seed).integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 92, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


class Folder:
    """A folder that is filled; every new picture has a seed of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seed = 0

    def image(self) -> Image.Image:
        self.seed += 1
        return picture(self.seed)

    def write(self, name: str, content: bytes) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def fill(self, folder: str, count: int) -> list[str]:
        return [self.write(f"{folder}/{number:02}.jpg", jpeg(self.image())) for number in range(count)]


def clean_folder(root: Path, splits: Iterable[str] = ("train", "val", "test")) -> Path:
    """Three classes of twelve pictures in each split, without a fault."""
    folder = Folder(root)
    for split in splits:
        for name in ("cat", "dog", "horse"):
            folder.fill(f"{split}/{name}" if split else name, 12)
    return root


def planted_folder(root: Path) -> dict[str, set[str]]:
    """Fill a folder with faults; return what must be found: {code: sources}, with copies as `one = other`."""
    folder = Folder(root)
    base = {split: {name: folder.fill(f"{split}/{name}", n) for name in ("cat", "dog", "horse")} for split, n in SIZES}
    return {
        **_bad_files(folder),
        **_odd_pictures(folder),
        **_copies(folder, base),
        **_classes(folder),
        **_special_files(folder),
    }


SIZES = (("train", 12), ("val", 4), ("test", 4))


def _bad_files(folder: Folder) -> dict[str, set[str]]:
    whole, broken = jpeg(folder.image()), bytearray(png(folder.image()))
    broken[len(broken) // 2] ^= 0xFF
    return {
        "unreadable": {
            folder.write("train/cat/truncated.jpg", whole[: len(whole) // 2]),
            folder.write("train/dog/damaged.png", bytes(broken)),
        },
        "not-a-picture": {
            folder.write("train/cat/page.jpg", b"<!DOCTYPE html><html><body>404</body></html>"),
            folder.write("train/cat/empty.jpg", b""),
            folder.write("train/dog/phone.heic", b"\0\0\0\x18ftypheic" + bytes(40)),
        },
        "other-file": {folder.write("train/readme.txt", b"about these pictures")},
        "hidden": {
            folder.write("train/cat/.secret.jpg", whole),
            folder.write("train/cat/Thumbs.db", b"\xd0\xcf\x11\xe0"),
            folder.write("train/.ipynb_checkpoints/a.jpg", whole).rpartition("/")[0],
        },
        "wrong-extension": {
            folder.write("train/dog/really.jpg", png(folder.image())),
            folder.write("train/dog/picture.txt", jpeg(folder.image())),
        },
        "misplaced": {folder.write("train/loose.jpg", jpeg(folder.image()))},
        "beside-split": {folder.write("vaild/cat/a.jpg", jpeg(folder.image())).split("/")[0]},
    }


def _odd_pictures(folder: Folder) -> dict[str, set[str]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    gray16 = Image.fromarray(np.asarray(folder.image().convert("L")).astype(np.uint16) * 257)
    transparent = folder.image().convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    animation = io.BytesIO()
    folder.image().save(animation, "GIF", save_all=True, append_images=[folder.image()])
    deep, gray = (
        folder.write("train/horse/deep.png", png(gray16)),
        folder.write("train/horse/gray.jpg", jpeg(folder.image().convert("L"))),
    )
    moving = folder.write("train/horse/moving.gif", animation.getvalue())
    return {
        "sideways": {folder.write("train/horse/sideways.jpg", jpeg(folder.image(), exif=exif))},
        "deep": {deep},
        "mixed-channels": {deep, gray},
        "alpha": {folder.write("train/horse/alpha.png", png(transparent))},
        "colour-space": {folder.write("train/horse/print.jpg", jpeg(folder.image().convert("CMYK")))},
        "animated": {moving},
        "odd-format": {moving},
        "blank": {folder.write("train/horse/blank.jpg", jpeg(Image.new("RGB", (WIDTH, HEIGHT), (250, 250, 250))))},
        "odd-size": {
            folder.write("train/horse/thumbnail.jpg", jpeg(picture(9001, 32, 24))),
            folder.write("train/horse/poster.jpg", jpeg(picture(9002, 640, 480))),
        },
        "odd-shape": {folder.write("train/horse/banner.jpg", jpeg(picture(9003, 280, 60)))},
    }


def _copies(folder: Folder, base: dict[str, dict[str, list[str]]]) -> dict[str, set[str]]:
    def again(source: str, name: str, near: bool = False) -> str:
        content = (folder.root / source).read_bytes()
        if near:
            image = Image.open(io.BytesIO(content))
            content = jpeg(image.resize((image.width // 2 * 2 - 2, image.height - 2)), 70)
        folder.write(name, content)
        return " = ".join(sorted((source, name)))

    train, test, val = base["train"], base["test"], base["val"]
    pixels = folder.write("train/dog/same_pixels.png", png(Image.open(folder.root / train["dog"][1])))
    return {
        "duplicates": {
            again(train["dog"][0], "train/dog/copy.jpg"),
            " = ".join(sorted((train["dog"][1], pixels))),
        },
        "near-duplicates": {again(train["dog"][2], "train/dog/smaller.jpg", near=True)},
        "label-conflict": {again(train["dog"][3], "train/horse/was_a_dog.jpg")},
        "near-label-conflict": {again(train["dog"][4], "train/horse/nearly_a_dog.jpg", near=True)},
        "leak": {again(test["dog"][0], "train/dog/of_the_test.jpg")},
        "near-leak": {again(val["dog"][0], "train/dog/nearly_of_val.jpg", near=True)},
    }


def _classes(folder: Folder) -> dict[str, set[str]]:
    folder.fill("train/Cat", 10)
    folder.fill("train/owl ", 10)
    for form in ("NFC", "NFD"):
        folder.fill("train/" + unicodedata.normalize(form, "émeu"), 5)
    folder.fill("train/newt", 2)
    folder.fill("val/lynx", 10)
    (folder.root / "train" / "void").mkdir()
    folder.write("runs/config.yaml", b"epochs: 1\n")
    folder.write("runs/command.txt", b"striate train\n")
    folder.write("runs/status.json", b"{}")
    return {
        "similar-classes": {"Cat = cat"},
        "misnamed-folder": {"'owl '"},
        "unicode-names": {"émeu"},
        "tiny-class": {"newt"},
        "imbalance": {"horse", "newt"},
        "untrained-class": {"lynx"},
        "untested-class": {"Cat", "owl ", "émeu", "newt"},
        "empty-folder": {"train/void"},
        "run-folder": {"runs"},
    }


def _special_files(folder: Folder) -> dict[str, set[str]]:
    outside = folder.root.parent / "outside.jpg"
    outside.write_bytes(jpeg(folder.image()))
    cats = folder.root / "train" / "cat"
    os.symlink(outside, cats / "outside.jpg")
    os.symlink("nothing.jpg", cats / "dangling.jpg")
    os.symlink("..", cats / "up")
    os.mkfifo(cats / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as plug:
        here = os.getcwd()
        os.chdir(cats)  # a socket's path may have 107 bytes
        try:
            plug.bind("socket.jpg")
        finally:
            os.chdir(here)
    return {
        "outside-root": {"train/cat/outside.jpg"},
        "dangling-link": {"train/cat/dangling.jpg"},
        "link-loop": {"train/cat/up"},
        "special-file": {"train/cat/pipe.jpg", "train/cat/socket.jpg"},
    }
