"""The facts about the named public data sets: class names, counts, licences, addresses, digests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedFile:
    """One file as its maker serves it: `size` in bytes, digests as hex ("" where not known for certain)."""

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str = ""
    sha256: str = ""
    content_sha256: str = ""  # of the unpacked bytes


@dataclass(frozen=True)
class NamedSet:
    """A public data set. `train` and `test` count pictures, `shape` is (H, W, C), `folders` lie under a data root.

    `tried` says whether the addresses were tried where this was written; they are the ones their makers publish.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    classes_zh: tuple[str, ...]
    train: int
    test: int
    shape: tuple[int, int, int]
    licence: str
    homepage: str
    folders: tuple[str, ...] = ()
    files: tuple[NamedFile, ...] = ()
    tried: bool = False

    @property
    def kind(self) -> str:
        """The layout its maker gives: embedded (inside scikit-learn), idx or cifar."""
        if not self.files:
            return "embedded"
        return "idx" if self.files[0].name.endswith("-ubyte.gz") else "cifar"


IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10_BINARIES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR100_BINARIES = ("train.bin", "test.bin")
PARQUET_NAMES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")


def _idx_files(mirrors: tuple[str, ...], table: str) -> tuple[NamedFile, ...]:
    """Build the four files of an IDX set from lines of size, MD5, SHA-256, SHA-256 unpacked ("-": not known)."""
    files = []
    for stem, line in zip(IDX_NAMES, table.strip().splitlines(), strict=True):
        size, *digests = ("" if word == "-" else word for word in line.split())
        files.append(NamedFile(f"{stem}.gz", tuple(f"{mirror}{stem}.gz" for mirror in mirrors), int(size), *digests))
    return tuple(files)


_MNIST_FILES = _idx_files(
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    """
    9912422 f68b3c2dcbeaaa9fbdd348bbdeb94873 - ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
    28881 d53e105ee54ea40749a09fcbcd1e9432 - 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
    1648877 9fb629c4189551a2d022fa330f9573f3 - 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
    4542 ec29112dd5afa0611ce80d1b7f02629c - ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
    """,
)
_FASHION_FILES = _idx_files(
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    """
    26421880 8d4fb7e6c68d591d4c3dfef9ec88bf0d - c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
    29515 25c81989df183df01b3e8a0aad5dffbe - bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
    4422102 bef4ecab320f06d8554ea6380940ec79 - 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
    5148 bb300cfdad3c16e7a12a480ee83cd310 - 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34
    """,
)
_KMNIST_FILES = _idx_files(
    # Its maker's server is the only one known; the second address is for a certificate that has run out. The digest
    # decides what is kept, however it came.
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
    """
    18165135 bdb82020997e1d708af4cf47b453dcf7 51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4 -
    29497 e144d726b3acfaa3e44228e80efcd344 e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17 -
    3041136 5c965bf0a639b31b8f53240b1b52f4d7 edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5 -
    5120 7320c461ea6c1c855c0b718fb2a4b134 20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c -
    """,
)
_CIFAR10_FILE = NamedFile(
    "cifar-10-binary.tar.gz",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
    ),
    170052171,
    "c32a1d4ab5d03f1284b67883e8d87530",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_CIFAR100_FILE = NamedFile(
    "cifar-100-binary.tar.gz",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-100-binary.tar.gz",
    ),
    168513733,
    "03b5dce01913d631647c71ecec9e9cb8",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)

_DIGITS = tuple("0123456789")
_CIFAR_LICENCE = "none stated; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_CIFAR100_PAIRS = """
apple 苹果 aquarium_fish 观赏鱼 baby 婴儿 bear 熊 beaver 河狸 bed 床 bee 蜜蜂 beetle 甲虫 bicycle 自行车 bottle 瓶子
bowl 碗 boy 男孩 bridge 桥 bus 公共汽车 butterfly 蝴蝶 camel 骆驼 can 罐头 castle 城堡 caterpillar 毛毛虫 cattle 牛
chair 椅子 chimpanzee 黑猩猩 clock 时钟 cloud 云 cockroach 蟑螂 couch 沙发 crab 螃蟹 crocodile 鳄鱼 cup 杯子
dinosaur 恐龙 dolphin 海豚 elephant 大象 flatfish 比目鱼 forest 森林 fox 狐狸 girl 女孩 hamster 仓鼠 house 房子
kangaroo 袋鼠 keyboard 键盘 lamp 灯 lawn_mower 割草机 leopard 豹 lion 狮子 lizard 蜥蜴 lobster 龙虾 man 男人
maple_tree 枫树 motorcycle 摩托车 mountain 山 mouse 老鼠 mushroom 蘑菇 oak_tree 橡树 orange 橙子 orchid 兰花
otter 水獭 palm_tree 棕榈树 pear 梨 pickup_truck 皮卡 pine_tree 松树 plain 平原 plate 盘子 poppy 罂粟花
porcupine 豪猪 possum 负鼠 rabbit 兔子 raccoon 浣熊 ray 鳐鱼 road 道路 rocket 火箭 rose 玫瑰 sea 海 seal 海豹
shark 鲨鱼 shrew 鼩鼱 skunk 臭鼬 skyscraper 摩天大楼 snail 蜗牛 snake 蛇 spider 蜘蛛 squirrel 松鼠 streetcar 有轨电车
sunflower 向日葵 sweet_pepper 甜椒 table 桌子 tank 坦克 telephone 电话 television 电视 tiger 老虎 tractor 拖拉机
train 火车 trout 鳟鱼 tulip 郁金香 turtle 乌龟 wardrobe 衣柜 whale 鲸 willow_tree 柳树 wolf 狼 woman 女人 worm 蠕虫
"""
_CIFAR100_NAMES = _CIFAR100_PAIRS.split()

NAMED: dict[str, NamedSet] = {
    named.name: named
    for named in (
        NamedSet(
            "digits", "Optical recognition of handwritten digits, inside scikit-learn", _DIGITS, _DIGITS, 1797, 0,
            (8, 8, 1), "CC BY 4.0 (E. Alpaydin, C. Kaynak, UCI)",
            "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        ),
        NamedSet(
            "mnist", "MNIST, handwritten digits", _DIGITS, _DIGITS, 60000, 10000, (28, 28, 1),
            "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges)", "https://yann.lecun.com/exdb/mnist/",
            ("MNIST/raw", "mnist", "mnist/raw"), _MNIST_FILES,
        ),
        NamedSet(
            "fashion-mnist", "Fashion-MNIST, articles of clothing",
            ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            ("T恤", "裤子", "套头衫", "连衣裙", "外套", "凉鞋", "衬衫", "运动鞋", "包", "短靴"),
            60000, 10000, (28, 28, 1), "MIT (Zalando SE)", "https://github.com/zalandoresearch/fashion-mnist",
            ("FashionMNIST/raw", "fashion-mnist", "fashion-mnist/raw"), _FASHION_FILES,
        ),
        NamedSet(
            "kmnist", "Kuzushiji-MNIST, cursive Japanese",
            ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), tuple("おきすつなはまやれを"),
            60000, 10000, (28, 28, 1), "CC BY-SA 4.0 (CODH, ROIS)", "https://codh.rois.ac.jp/kmnist/",
            ("KMNIST/raw", "kmnist", "kmnist/raw"), _KMNIST_FILES,
        ),
        NamedSet(
            "cifar10", "CIFAR-10, small photographs",
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            ("飞机", "汽车", "鸟", "猫", "鹿", "狗", "青蛙", "马", "船", "卡车"),
            50000, 10000, (32, 32, 3), _CIFAR_LICENCE, "https://www.cs.toronto.edu/~kriz/cifar.html",
            ("cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin", "cifar10/plain_text"), (_CIFAR10_FILE,),
        ),
        NamedSet(
            "cifar100", "CIFAR-100, small photographs, fine labels",
            tuple(_CIFAR100_NAMES[::2]), tuple(_CIFAR100_NAMES[1::2]),
            50000, 10000, (32, 32, 3), _CIFAR_LICENCE, "https://www.cs.toronto.edu/~kriz/cifar.html",
            ("cifar-100-binary", "cifar100", "cifar100/cifar-100-binary"), (_CIFAR100_FILE,),
        ),
    )
}  # fmt: skip
