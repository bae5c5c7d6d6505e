"""Loading: the decoder's own bytes for every picture, in order, each file read once, failures listed, never filled."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.data import disk
from striate.data.arrays import ArrayPlace
from striate.data.decode import decode, decode_fitted
from striate.data.disk import memory_allowance
from striate.data.loading import (
    Header,
    in_threads,
    load_pictures,
    read_header,
    read_headers,
)
from striate.data.preprocess import Preprocess
from striate.data.records import FilePlace, Record
from striate.errors import DataError

SMALL = Preprocess((16, 16), "crop", 3)


class Held:
    """A place in memory; `wrap` may count or fail."""

    path = None

    def __init__(self, content: bytes, wrap: Callable[[bytes], bytes] = bytes) -> None:
        self.content = content
        self.wrap = wrap

    def read(self) -> bytes:
        return self.wrap(self.content)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def picture(seed: int, size: tuple[int, int] = (24, 20), form: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def held(contents: Sequence[bytes]) -> list[Record]:
    return [Record(f"cat/{number}.png", "cat", Held(content)) for number, content in enumerate(contents)]


def on_disk(folder: Path, contents: dict[str, bytes]) -> list[Record]:
    records = []
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        records.append(Record(name, path.parent.name, FilePlace(path)))
    return records


# --- pictures ------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=20),
    st.sampled_from(["crop", "pad", "stretch"]),
    st.sampled_from([1, 3]),
    st.integers(1, 3),
)
def test_each_picture_is_what_the_decoder_makes_of_its_file(
    sizes: list[tuple[int, int]], fit: str, channels: int, threads: int
) -> None:
    contents = [picture(seed, size, mode=("RGB", "L")[seed % 2]) for seed, size in enumerate(sizes)]
    preprocess = Preprocess((9, 12), fit, channels)
    seen: list[tuple[int, int]] = []
    loaded = load_pictures(
        held(contents), preprocess, threads=threads, progress=lambda done, total: seen.append((done, total))
    )
    expected = [preprocess.geometry(decode(content, channels=channels)) for content in contents]
    assert np.array_equal(loaded.images, np.stack(expected)) and loaded.images.flags.c_contiguous
    assert loaded.images.dtype == np.uint8 and loaded.good.tolist() == list(range(len(sizes)))
    assert loaded.digests == [hashlib.sha256(content).hexdigest() for content in contents]
    assert loaded.failures == {} and loaded.cached == 0
    assert seen == sorted(seen) and seen[-1] == (len(sizes), len(sizes))


def test_a_bad_picture_is_listed_once_and_nothing_takes_its_place(tmp_path: Path) -> None:
    good = {f"cat/{number}.png": picture(number) for number in range(40)}
    contents = dict(good)
    for number, bad in {0: b"", 7: picture(7)[:60], 21: b"hello", 39: picture(39)[:-200]}.items():
        contents[f"cat/{number}.png"] = bad
    records = on_disk(tmp_path, contents)
    records[11] = Record("cat/gone.png", "cat", FilePlace(tmp_path / "cat" / "gone.png"))
    loaded = load_pictures(records, SMALL)
    assert sorted(loaded.failures) == [0, 7, 11, 21, 39]
    assert loaded.good.tolist() == [number for number in range(40) if number not in loaded.failures]
    assert len(loaded.images) == 35
    for row, number in zip(loaded.images, loaded.good, strict=True):
        assert np.array_equal(row, decode_fitted(good[f"cat/{number}.png"], SMALL))
    for number, error in loaded.failures.items():
        assert records[number].source in error.what and error.cause and error.fix
        assert "\n" not in error.what + error.cause + error.fix and error.__traceback__ is None
    assert [number for number, digest in enumerate(loaded.digests) if not digest] == [11]  # read, though not decoded


def test_all_bad_gives_no_picture() -> None:
    loaded = load_pictures(held([b"x", b"y"]), SMALL)
    assert loaded.images.shape == (0, 16, 16, 3) and len(loaded.failures) == 2 and loaded.good.dtype == np.int64
    assert load_pictures([], SMALL).images.shape == (0, 16, 16, 3)


def test_any_failure_of_a_place_is_told(tmp_path: Path) -> None:
    def fail(content: bytes) -> bytes:
        raise OSError(5, "Input/output error")

    records = [Record("a\nb.png", "cat", Held(picture(0), fail)), *held([picture(1)])]
    loaded = load_pictures(records, SMALL)
    error = loaded.failures[0]
    assert error.what == "a\\nb.png cannot be decoded" and error.cause == "Input/output error"
    assert loaded.good.tolist() == [1]


def test_notes_of_the_decoder_are_kept_for_every_record() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = [picture(0), picture(1, form="JPEG", exif=exif), picture(2, (300, 200), "JPEG"), picture(3, mode="RGBA")]
    contents[3] = picture(3)
    loaded = load_pictures(held(contents), SMALL)
    assert loaded.notes == [
        (),
        ("turned upright (EXIF orientation 6)",),
        ("decoded at 1/4 of 200×300",),
        (),
    ]


def test_arrays_are_taken_as_they_are() -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    records = [Record(f"set.npz#{i}", "cat", ArrayPlace(values, i)) for i in range(3)]
    loaded = load_pictures(records, SMALL)
    assert np.array_equal(loaded.images, np.stack([SMALL.geometry(value) for value in values]))
    assert len(set(loaded.digests)) == 3 and loaded.digests == load_pictures(records, SMALL).digests
    assert read_header(records[0]) == Header(24, 20, 3, "RGB", "array", 1)


def test_a_predictor_sees_the_same_bytes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from striate.predictor.torch_backend import predictor_of

    exif = Image.Exif()
    exif[0x0112] = 8
    contents = {
        "a/large.jpg": picture(0, (260, 330), "JPEG"),
        "a/turned.jpg": picture(1, (330, 260), "JPEG", exif=exif),
        "a/small.png": picture(2),
        "a/gray.bmp": picture(3, form="BMP", mode="L"),
    }
    records = on_disk(tmp_path, contents)
    for preprocess in (SMALL, Preprocess((40, 30), "pad", 1), Preprocess((30, 40), "stretch", 3)):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
        net(torch.zeros(1, preprocess.channels, *preprocess.size))
        predictor = predictor_of(net, preprocess, ["a", "b"])
        loaded = load_pictures(records, preprocess)
        assert any("decoded at" in note for notes in loaded.notes for note in notes)
        paths = [str(record.place.path) for record in records]
        for answers in (predictor.predict(paths), predictor.predict([Path(path).read_bytes() for path in paths])):
            for image, notes, answer in zip(loaded.images, loaded.notes, answers, strict=True):
                assert np.array_equal(answer.seen, image) and answer.steps[: len(notes)] == notes


# --- once, in bounds, and stopped when told ------------------------------------------------------------------------


def test_a_file_replaced_meanwhile_is_read_once(tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    path = tmp_path / "a.png"
    path.write_bytes(first)
    reads = []

    class Replaced(Held):
        def read(self) -> bytes:
            reads.append(path.read_bytes())
            path.write_bytes(second)
            return reads[-1]

    loaded = load_pictures([Record("a.png", "cat", Replaced(b""))], SMALL)
    assert reads == [first]
    assert np.array_equal(loaded.images[0], decode_fitted(first, SMALL))
    assert loaded.digests == [hashlib.sha256(first).hexdigest()]
    path.unlink()
    assert np.array_equal(loaded.images[0], decode_fitted(first, SMALL))  # nothing points at the file


def test_encoded_bytes_are_dropped_as_soon_as_they_are_decoded() -> None:
    lock, alive, most = threading.Lock(), 0, 0

    class Counted(bytes):
        def __new__(cls, content: bytes) -> Counted:
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)
            return super().__new__(cls, content)

        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    contents = [picture(number) if number % 3 else b"broken" for number in range(60)]
    records = [Record(str(number), "cat", Held(content, Counted)) for number, content in enumerate(contents)]
    loaded = load_pictures(records, SMALL, threads=3)
    assert len(loaded.failures) == 20
    assert 1 <= most <= 2 * 3 and alive == 0  # one a thread, and the one before it until the next is there


def test_large_pictures_are_not_all_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from striate.data import decode as decoder

    monkeypatch.setattr(decoder, "_MOST_IN_FLIGHT", 1000)
    lock, pixels, seen = threading.Lock(), 0, set()
    scale = decoder.to_eight_bits

    def watched(image: Image.Image, *arguments: Any) -> Any:
        nonlocal pixels
        with lock:
            pixels += image.width * image.height
            seen.add(pixels)
        time.sleep(0.002)
        try:
            return scale(image, *arguments)
        finally:
            with lock:
                pixels -= image.width * image.height

    monkeypatch.setattr(decoder, "to_eight_bits", watched)
    contents = [picture(seed, (20, 20)) for seed in range(40)] + [picture(99, (60, 60))]
    loaded = load_pictures(held(contents), SMALL, threads=6)
    assert len(loaded.good) == 41 and decoder._in_flight == 0
    assert seen <= {400, 800, 3600} and 3600 in seen  # two small ones together, or the large one alone


def test_a_set_above_the_allowance_lies_in_a_nameless_file(tmp_path: Path, cache: Path) -> None:
    contents = [picture(seed) if seed != 5 else b"" for seed in range(20)]
    told: list[str] = []
    in_memory = load_pictures(held(contents), SMALL)
    mapped = load_pictures(held(contents), SMALL, allowance=20 * 16 * 16 * 3 - 1, report=told.append)
    assert np.array_equal(in_memory.images, mapped.images) and mapped.images.flags.c_contiguous
    assert type(mapped.images) is np.ndarray and mapped.images.flags.writeable
    assert len(told) == 1 and "20 pictures of 16×16 take 0 MB: they lie on disk" in told[0]
    folder = cache.parent / "pictures"
    assert folder.is_dir() and list(folder.iterdir()) == []
    told.clear()
    load_pictures(held(contents), SMALL, allowance=20 * 16 * 16 * 3, report=told.append)
    assert told == []


def test_no_room_on_disk_is_told_before_anything_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "_reserve", full)
    with pytest.raises(DataError, match="No space left on device") as caught:
        load_pictures(held([picture(0)]), SMALL, allowance=0)
    assert "--size" in caught.value.fix


def test_the_room_on_disk_is_really_there(tmp_path: Path) -> None:
    for size in (1, 5_000_000):
        with open(tmp_path / "file", "w+b") as stream:
            disk._reserve(stream, size)
            status = os.fstat(stream.fileno())
            assert status.st_size == size and getattr(status, "st_blocks", size) * 512 >= size


def test_the_allowance_is_a_part_of_the_memory() -> None:
    assert 1 << 20 < memory_allowance() < 1 << 50


def test_work_stops_at_the_first_exception_and_at_ctrl_c() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        time.sleep(0.001)
        if item == 20:
            raise ValueError("twenty")
        return -item

    with pytest.raises(ValueError, match="twenty"):
        in_threads(work, range(5000), threads=2)
    assert len(done) < 200
    done.clear()

    def stop(count: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_threads(work, range(21, 5000), threads=2, progress=stop)
    assert len(done) < 200
    assert in_threads(lambda item: -item, range(100), threads=3) == [-item for item in range(100)]


SLOW = """
    import signal, time, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its children to ignore it
    from striate.data.loading import load_pictures
    from striate.data.preprocess import Preprocess
    from striate.data.records import Record

    class Slow:
        path = None
        def read(self):
            time.sleep(0.01)
            return b"no picture"

    records = [Record(str(number), "cat", Slow()) for number in range(COUNT)]
    print("ready", flush=True)
    loaded = load_pictures(records, Preprocess((8, 8)))
    print(len(loaded.failures), len(__import__("multiprocessing").active_children()), flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_real_ctrl_c_is_answered_at_once() -> None:
    program = textwrap.dedent(SLOW).replace("COUNT", "100_000")  # more than five minutes
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in err and process.returncode != 0


def test_it_needs_no_main_guard_and_starts_no_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    head = "import multiprocessing\nmultiprocessing.set_start_method('spawn')\n"
    script.write_text(head + textwrap.dedent(SLOW).replace("COUNT", "20"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ready\n20 0\n", "")


# --- headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_header_tells_what_decoding_gives(form: str, mode: str) -> None:
    content = picture(1, (24, 31), form, mode)
    header = read_header(held([content])[0])
    pixels = decode(content, channels=None)
    assert (header.height, header.width) == pixels.shape[:2] and header.format == form and header.orientation == 1
    if (form, mode) != ("GIF", "RGB"):  # a GIF's palette may have entries that no pixel uses
        assert header.channels == pixels.shape[2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_sizes_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = picture(1, (24, 31), "JPEG", exif=exif)
    header = read_header(held([content])[0])
    assert (header.height, header.width) == decode(content, channels=None).shape[:2]
    assert header.orientation == orientation


def test_headers_need_no_pixels_and_name_what_is_wrong() -> None:
    whole = picture(0, (200, 300), "PNG")
    contents = [whole, whole[:100], b"", b"text", picture(1, (40, 50)), picture(2, (40, 50), "JPEG")]
    contents.append(picture(3, (40, 50), "JPEG", progressive=True))
    seen: list[tuple[int, int]] = []
    headers = read_headers(
        held(contents), max_pixels=1999, threads=2, progress=lambda done, total: seen.append((done, total))
    )
    assert [isinstance(header, DataError) for header in headers] == [True, True, True, True, True, False, True]
    assert headers[5] == Header(50, 40, 3, "RGB", "JPEG", 1)  # is decoded scaled down
    assert "cat/4.png has 50×40 = 2,000 pixels" in str(headers[4]) and "--max-pixels 2000" in str(headers[4])
    assert read_headers(held(contents), threads=1)[0] == Header(300, 200, 3, "RGB", "PNG", 1)
    assert read_headers(held(contents), threads=1)[1] == Header(300, 200, 3, "RGB", "PNG", 1)  # cut off after it
    assert seen[-1] == (7, 7)


def test_sixteen_bits_and_palettes_in_headers() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert read_header(held([buffer.getvalue()])[0]).channels == 1
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    for colours, channels in (([1, 2, 3] * 12, 3), ([7, 7, 7] * 12, 1)):
        image.putpalette(colours)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        assert read_header(held([buffer.getvalue()])[0]).channels == channels


# --- the public odd and hostile pictures ---------------------------------------------------------------------------

HOSTILE = """
    import sys, time
    from pathlib import Path
    from striate.data.loading import load_pictures, read_headers
    from striate.data.preprocess import Preprocess
    from striate.data.records import FilePlace, Record

    root = Path(sys.argv[1])
    records = [
        Record(str(path.relative_to(root)), path.parent.name, FilePlace(path))
        for path in sorted(root.rglob("*")) if path.is_file()
    ]
    headers = read_headers(records)
    loaded = load_pictures(records, Preprocess((64, 64), "crop", 3))
    for number, error in loaded.failures.items():
        print("bad", records[number].source, "|", error.what, "|", error.cause, "|", error.fix)
    for number in loaded.good:
        print("good", records[number].source)
        assert not isinstance(headers[number], Exception), headers[number]
    status = Path("/proc/self/status").read_text()  # ru_maxrss would hold what the parent had
    print("peak", status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_all_odd_and_hostile_pictures_give_one_line_each(data_root: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(HOSTILE), str(data_root / "images")],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.stderr == ""  # nor a word from libtiff or Pillow
    assert int(lines.pop().removeprefix("peak ")) < 1_000_000  # kilobytes
    assert time.monotonic() - started < 180
    assert len(lines) == 882
    good = {line.removeprefix("good ") for line in lines if line.startswith("good ")}
    suite = {line.split(" ")[1] for line in lines if "pngsuite/" in line}
    valid = {source for source in suite if not source.removeprefix("pngsuite/").startswith("x")} - {
        source for source in suite if not source.endswith(".png")
    }
    assert {source for source in good if source.startswith("pngsuite/")} == valid and len(valid) >= 160
    bad = [line for line in lines if line.startswith("bad ")]
    assert len(bad) + len(good) == 882 and all(len(line.split(" | ")) == 4 for line in bad)


def test_remarks_of_pillow_are_kept_back() -> None:
    data = bytearray(picture(0, form="TIFF"))
    data[-8:] = b"\xff" * 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_pictures(held([bytes(data), picture(1)]), SMALL)
    assert 1 in loaded.good
