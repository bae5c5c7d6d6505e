// Every sentence of the page in both languages, and what the server says turned into words.

export const WORDS = {
  en: {
    skip: "Skip to the drawing", drawTitle: "Draw", tools: "Drawing tools", undo: "Undo", clear: "Clear",
    thickness: "Thickness of the pen", colour: "Colour of the pen", choose: "Picture",
    inviteDraw: "Draw a digit here", inviteMore: "or drop, paste or choose a picture",
    invitePhoto: "Drop a photograph here", invitePhotoMore: "or paste or choose one; drawing works too",
    padLabel: "Drawing area. {what}", padEmpty: "Empty.", padDrawn: "{n} strokes.", padPicture: "Shows the picture {name}.",
    padKeys: "With the keyboard: arrow keys move the pen, Space sets it down or lifts it, Control Z takes a stroke back, Delete clears.",
    penDown: "Pen down", penUp: "Pen up", cleared: "Cleared",
    dropHere: "Drop the picture", language: "中文", languageLabel: "切换到中文", theme_light: "Light", theme_dark: "Dark",
    themeLabel: "Change to the {to} theme", to_light: "light", to_dark: "dark",
    models: "Models to ask", answers: "Answers", seen: "What the net saw", seenAlt: "The picture as {model} sees it: {size} pixels",
    nothing: "Draw, and the answer appears here.", noInk: "No ink found yet.",
    unknown: "I don’t know", unlike: "This looks unlike anything I was trained on.",
    unsure: "Not sure enough. The nearest is {label}, {p}.", maybe: "Unlike the training pictures",
    others: "and {n} more classes, {p} together", steps: "What was done to the picture",
    parameters: "{n} parameters", tested: "{p} on test pictures", said: "{model}: {label}, {p}", saidUnknown: "{model}: I don’t know",
    sureLabel: "Answers only when right", sure_0: "— or not: always", sure_n: "{p} of the time",
    
    insideTitle: "See inside the net", insideModel: "Look inside which model", flow: "Layers, in the order in which they run",
    hintEmpty: "Draw something and watch it pass through the layers.", hintDrawn: "Choose a layer, then any cell.",
    picture: "picture", whereTab: "where it looks", maps: "Maps", numbers: "Numbers", kernels: "Kernels", opening: "Opening the net …", views: "What to show of this layer",
    layerMaps: "{n} maps of {size}", layerUnits: "{n} numbers", mapLabel: "Map {n}", unitLabel: "Number {n}", kernelLabel: "Kernel {n}",
    more: "Show {n} more", lowHigh: "from {low} to {high}", mapHint: "Choose a cell of a map to see where its number comes from.",
    unitHint: "Choose a number to see where it comes from.", kernelHint: "Orange weights add, blue ones subtract.",
    kernelInput: "read from input map", kernelBias: "bias {b}",
    needPicture: "Maps appear with a picture. The kernels are here already.", 
    cellTitle: "One number, and where it comes from", cellAt: "map {c}, row {y}, column {x}", unitAt: "number {c}",
    cellKeys: "Map {c}, enlarged. Arrow keys choose the cell.", cellSaid: "Row {y}, column {x}: {v}",
    field: "It sees {h} × {w} pixels of the picture", fieldAll: "It sees the whole picture", fieldNone: "It hangs on no pixel",
    pictureField: "The picture; the frame marks what the number sees: rows {a} to {b}, columns {c} to {d}",
    inputs: "input", weights: "kernel", weightsUnit: "weights", products: "products", sumOf: "sum", fromMap: "map {n}", fromPicture: "picture",
    fromChannel: "channel {n}", strongest: "Strongest {n} of {all} input maps", strongestTerms: "Strongest {n} of {all} inputs",
    rest: "the other {n}", total: "{sum} + {bias} = {total}", totalLabel: "sum of all {n} products + bias",
    gridLabel: "{what}: {values}", termFrom: "map {c}, row {y}, column {x}", termNumber: "input {n}",
    rule_max: "The largest of these numbers:", rule_mean: "The mean of these numbers:", rule_each: "{kind} of this number alone:",
    noTerms: "{kind} joins what other layers made; its number is no single sum.",
    camTitle: "Where the picture speaks for", camLayer: "from layer {layer}", camNone: "This net has no maps, so no place of the picture can be told apart. A convolutional net has.",
    camZero: "Nothing in the picture speaks for this class.", camAlt: "The picture, with heat where it speaks for {label}",
    camMethod: "Method", camScore: "score {s}",
    missingTitle: "Looking inside needs the run and PyTorch", missingText: "This server answers from an exported model, which needs no PyTorch. To see kernels and maps, serve the run itself:",
    e_gone: "The server does not answer. Trying again …", e_back: "The server is back.", e_late: "The server takes too long. Try once more.",
    e_400: "The server did not understand the request.", e_401: "The server wants a token.", e_404: "The server does not know that.",
    e_413: "The picture is too large for this server.", e_415: "This kind of file is not taken.", e_422: "This is no picture that can be read.",
    e_429: "The server is busy. Trying again …", e_500: "The server failed.", e_501: "This server cannot look inside.", e_503: "The server is busy. Trying again …",
    noPicture: "There is no picture in what was given.", noModels: "No model is served.",
    tokenTitle: "Token", tokenText: "This server answers only with its token. Whoever started it has it.", tokenGo: "Go on", tokenWrong: "This token is not right.",
    footer: "Pictures go to this server alone.", serving: "{n} models",
  },
  zh: {
    skip: "跳到画板", drawTitle: "画", tools: "绘画工具", undo: "撤销", clear: "清除",
    thickness: "笔的粗细", colour: "笔的颜色", choose: "图片",
    inviteDraw: "在这里画一个数字", inviteMore: "也可以拖入、粘贴或选择图片",
    invitePhoto: "把照片拖到这里", invitePhotoMore: "也可以粘贴或选择一张；画也行",
    padLabel: "画板。{what}", padEmpty: "空白。", padDrawn: "{n} 笔。", padPicture: "显示图片 {name}。",
    padKeys: "键盘：方向键移动笔，空格键落笔或抬笔，Ctrl+Z 撤销一笔，Delete 键清除。",
    penDown: "落笔", penUp: "抬笔", cleared: "已清除",
    dropHere: "松开以放入图片", language: "English", languageLabel: "Switch to English", theme_light: "浅色", theme_dark: "深色",
    themeLabel: "切换到{to}主题", to_light: "浅色", to_dark: "深色",
    models: "询问哪些模型", answers: "回答", seen: "网络看到的", seenAlt: "{model} 看到的图片：{size} 像素",
    nothing: "画一笔，答案就会出现在这里。", noInk: "还没有找到笔迹。",
    unknown: "我不知道", unlike: "这和我训练时见过的都不像。",
    unsure: "把握不够。最接近的是 {label}，{p}。", maybe: "与训练图片不像",
    others: "以及另外 {n} 个类别，合计 {p}", steps: "对图片做了什么",
    parameters: "{n} 个参数", tested: "测试图片正确率 {p}", said: "{model}：{label}，{p}", saidUnknown: "{model}：我不知道",
    sureLabel: "回答所需的正确率：", sure_0: "不限", sure_n: "{p}",
    
    insideTitle: "看看网络内部", insideModel: "查看哪个模型的内部", flow: "各层，按运行的顺序",
    hintEmpty: "画点什么，看它怎样穿过每一层。", hintDrawn: "选择一层，再选任意一格。",
    picture: "图片", whereTab: "它在看哪里", maps: "特征图", numbers: "数", kernels: "卷积核", opening: "正在打开网络……", views: "显示这一层的什么",
    layerMaps: "{n} 张 {size} 的特征图", layerUnits: "{n} 个数", mapLabel: "特征图 {n}", unitLabel: "第 {n} 个数", kernelLabel: "卷积核 {n}",
    more: "再显示 {n} 个", lowHigh: "从 {low} 到 {high}", mapHint: "选择特征图中的一格，看这个数从何而来。",
    unitHint: "选择一个数，看它从何而来。", kernelHint: "橙色的权重相加，蓝色的相减。",
    kernelInput: "读取的输入图", kernelBias: "偏置 {b}",
    needPicture: "有了图片才有特征图。卷积核现在就能看。", 
    cellTitle: "一个数，以及它从何而来", cellAt: "特征图 {c}，第 {y} 行，第 {x} 列", unitAt: "第 {c} 个数",
    cellKeys: "放大的特征图 {c}。用方向键选择格子。", cellSaid: "第 {y} 行，第 {x} 列：{v}",
    field: "它看到图片的 {h} × {w} 个像素", fieldAll: "它看到整张图片", fieldNone: "它与任何像素都无关",
    pictureField: "图片；方框标出这个数看到的部分：第 {a} 到 {b} 行，第 {c} 到 {d} 列",
    inputs: "输入", weights: "卷积核", weightsUnit: "权重", products: "乘积", sumOf: "和", fromMap: "图 {n}", fromPicture: "图片",
    fromChannel: "通道 {n}", strongest: "{all} 张输入图中最强的 {n} 张", strongestTerms: "{all} 个输入中最强的 {n} 个",
    rest: "其余 {n} 个", total: "{sum} + {bias} = {total}", totalLabel: "全部 {n} 个乘积之和 + 偏置",
    gridLabel: "{what}：{values}", termFrom: "图 {c}，第 {y} 行，第 {x} 列", termNumber: "输入 {n}",
    rule_max: "这些数中最大的：", rule_mean: "这些数的平均：", rule_each: "只对这一个数做 {kind}：",
    noTerms: "{kind} 把其他层的结果合在一起，这个数不是单独的一个和。",
    camTitle: "图片的哪里支持", camLayer: "来自 {layer} 层", camNone: "这个网络没有特征图，所以分不出图片的位置。卷积网络才有。",
    camZero: "图片中没有支持这个类别的部分。", camAlt: "图片，热处支持 {label}",
    camMethod: "方法", camScore: "得分 {s}",
    missingTitle: "查看内部需要训练结果和 PyTorch", missingText: "这个服务用导出的模型回答，不需要 PyTorch。要看卷积核和特征图，请直接服务训练结果：",
    e_gone: "服务器没有回应，正在重试……", e_back: "服务器恢复了。", e_late: "服务器太慢了，请再试一次。",
    e_400: "服务器不明白这个请求。", e_401: "服务器需要令牌。", e_404: "服务器不认识这个。",
    e_413: "图片对这个服务器来说太大了。", e_415: "不接受这种文件。", e_422: "这不是能读取的图片。",
    e_429: "服务器忙，正在重试……", e_500: "服务器出错了。", e_501: "这个服务器不能查看内部。", e_503: "服务器忙，正在重试……",
    noPicture: "给出的内容里没有图片。", noModels: "没有可用的模型。",
    tokenTitle: "令牌", tokenText: "这个服务器只回答带令牌的请求。启动它的人知道令牌。", tokenGo: "继续", tokenWrong: "令牌不对。",
    footer: "图片只发送到这个服务器。", serving: "{n} 个模型",
  },
};

// What striate says it did to a picture; a phrase that is not here is shown as it came.
export const STEPS = [
  [/^no ink found$/, "没有找到笔迹"],
  [/^inverted: the ink is dark$/, "反相：笔迹是深色"],
  [/^inverted: the ink is light$/, "反相：笔迹是浅色"],
  [/^ink told from paper by its colour$/, "按颜色区分笔迹和纸"],
  [/^paper evened: its level changes from place to place$/, "均匀了纸的明暗"],
  [/^noise of the paper removed$/, "去除了纸的噪点"],
  [/^frame removed$/, "去除了边框"],
  [/^lines at the border removed$/, "去除了边缘的线"],
  [/^specks removed: (\d+)$/, "去除了 $1 个斑点"],
  [/^cropped to (\d+×\d+) at (.+)$/, "裁剪为 $1，位于 $2"],
  [/^thickened from ([\d.]+) to ([\d.]+) pixels$/, "笔画从 $1 像素加粗到 $2 像素"],
  [/^thinned from ([\d.]+) to ([\d.]+) pixels$/, "笔画从 $1 像素变细到 $2 像素"],
  [/^scaled into (\d+×\d+)$/, "缩放到 $1 以内"],
  [/^centred by mass$/, "按重心居中"],
  [/^centred by box$/, "按外框居中"],
  [/^colour to gray$/, "彩色变为灰度"],
  [/^gray to colour$/, "灰度变为彩色"],
  [/^stretched from (\S+) to (\S+)$/, "从 $1 拉伸到 $2"],
  [/^cropped and scaled from (\S+) to (\S+)$/, "从 $1 裁剪并缩放到 $2"],
  [/^scaled and padded from (\S+) to (\S+)$/, "从 $1 缩放并补边到 $2"],
  [/^first frame of (\d+)$/, "取 $1 帧中的第一帧"],
  [/^turned upright \(EXIF orientation (\d)\)$/, "按 EXIF 方向 $1 转正"],
  [/^decoded at 1\/(\d) of (\S+)$/, "按 $2 的 1/$1 解码"],
  [/^alpha over white$/, "透明部分铺在白色上"],
  [/^alpha over what the ink stands out from$/, "透明部分铺在衬出笔迹的底色上"],
];

// Class names of the public data sets.
export const CLASSES = {
  "T-shirt/top": "T恤", "Trouser": "裤子", "Pullover": "套头衫", "Dress": "连衣裙", "Coat": "外套", "Sandal": "凉鞋", "Shirt": "衬衫",
  "Sneaker": "运动鞋", "Bag": "包", "Ankle boot": "短靴", airplane: "飞机", automobile: "汽车", bird: "鸟", cat: "猫", deer: "鹿",
  dog: "狗", frog: "青蛙", horse: "马", ship: "船", truck: "卡车", apple: "苹果", "aquarium_fish": "观赏鱼", baby: "婴儿", bear: "熊",
  beaver: "河狸", bed: "床", bee: "蜜蜂", beetle: "甲虫", bicycle: "自行车", bottle: "瓶子", bowl: "碗", boy: "男孩", bridge: "桥", bus:
  "公共汽车", butterfly: "蝴蝶", camel: "骆驼", can: "罐头", castle: "城堡", caterpillar: "毛毛虫", cattle: "牛", chair: "椅子",
  chimpanzee: "黑猩猩", clock: "时钟", cloud: "云", cockroach: "蟑螂", couch: "沙发", crab: "螃蟹", crocodile: "鳄鱼", cup: "杯子",
  dinosaur: "恐龙", dolphin: "海豚", elephant: "大象", flatfish: "比目鱼", forest: "森林", fox: "狐狸", girl: "女孩", hamster: "仓鼠",
  house: "房子", kangaroo: "袋鼠", keyboard: "键盘", lamp: "灯", "lawn_mower": "割草机", leopard: "豹", lion: "狮子", lizard: "蜥蜴",
  lobster: "龙虾", man: "男人", "maple_tree": "枫树", motorcycle: "摩托车", mountain: "山", mouse: "老鼠", mushroom: "蘑菇",
  "oak_tree": "橡树", orange: "橙子", orchid: "兰花", otter: "水獭", "palm_tree": "棕榈树", pear: "梨", "pickup_truck": "皮卡",
  "pine_tree": "松树", plain: "平原", plate: "盘子", poppy: "罂粟花", porcupine: "豪猪", possum: "负鼠", rabbit: "兔子", raccoon: "浣熊",
  ray: "鳐鱼", road: "道路", rocket: "火箭", rose: "玫瑰", sea: "海", seal: "海豹", shark: "鲨鱼", shrew: "鼩鼱", skunk: "臭鼬",
  skyscraper: "摩天大楼", snail: "蜗牛", snake: "蛇", spider: "蜘蛛", squirrel: "松鼠", streetcar: "有轨电车", sunflower: "向日葵",
  "sweet_pepper": "甜椒", table: "桌子", tank: "坦克", telephone: "电话", television: "电视", tiger: "老虎", tractor: "拖拉机", train:
  "火车", trout: "鳟鱼", tulip: "郁金香", turtle: "乌龟", wardrobe: "衣柜", whale: "鲸", "willow_tree": "柳树", wolf: "狼", woman:
  "女人", worm: "蠕虫",
};

export const language = () => (document.documentElement.lang.startsWith("zh") ? "zh" : "en");

/** The sentence of a key in the language of the page, with {names} filled in. */
export function t(key, values = {}) {
  const text = WORDS[language()][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function setLanguage(name) {
  document.documentElement.lang = name;
  try { localStorage.setItem("striate-language", name); } catch { /* private windows may keep nothing */ }
  translate();
  dispatchEvent(new Event("language"));
}

/** Fill in the elements that name their sentence: data-t for the text, data-t-label for the label. */
export function translate() {
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
}

export function stepInWords(step) {
  if (language() === "en") return step;
  const known = STEPS.find(([pattern]) => pattern.test(step));
  return known ? step.replace(known[0], known[1]) : step;
}

export const className = (name) => (language() === "zh" && Object.hasOwn(CLASSES, name) ? `${CLASSES[name]} ${name}` : name);

export const percent = (share) => {
  const digits = share >= 0.9995 || share < 0.0005 ? 0 : 1;
  return share > 0.9995 && share < 1 ? "> 99.9 %" : `${(share * 100).toFixed(digits)} %`;
};

export const count = (number) => number.toLocaleString(language() === "zh" ? "zh-CN" : "en-US");

/** A number in four digits, with a true minus. */
export function short(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (value === 0) return "0";
  const text = size < 0.001 || size >= 1e5 ? value.toExponential(2) : value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
  return text.replace(/^-/, "−").replace("e-", "e−");
}
