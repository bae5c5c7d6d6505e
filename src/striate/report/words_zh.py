"""The Chinese words of a run's page for what is named in English: settings, the environment, the numbers of rules."""

from __future__ import annotations

import re

#: Of each setting of `train`: a short name, and what its description says.
SETTINGS: dict[str, tuple[str, str]] = {
    "data": ("数据", "数据集的名称，或图片文件夹、表格、压缩包"),
    "data_root": ("数据目录", "存放数据集的文件夹"),
    "download": ("下载", "本机没有公开数据集时下载"),
    "class_names": ("类别名语言", "公开数据集类别名的语言"),
    "model": ("网络", "网络的名称，或 net.py:MyNet"),
    "model_option": ("网络选项", "网络的选项，名称=值"),
    "init_from": ("起始权重", "起始权重：某次运行的、文件的、torchvision；none：随机；auto：timm:NAME 用其公布的"),
    "freeze": ("冻结", "只训练末层的轮数，或 all：一直冻结"),
    "recipe": ("配方", "作为起点的一组命名设置"),
    "size": ("尺寸", "网络看到的高和宽：96 或 96x128"),
    "fit": ("适配方式", "怎样把图片变为该尺寸"),
    "max_pixels": ("像素上限", "自备图片：超过则拒绝（JPEG 缩小解码）"),
    "fixes": ("修正表", "自备图片：要丢弃、改标签或合并的表（见 check）"),
    "follow_links": ("跟随链接", "自备图片：也跟随指向文件夹之外的链接"),
    "strict": ("严格", "自备图片：有待决定的发现时拒绝训练"),
    "memory": ("图片内存", "图片最多占用的内存，如 2gb；更多的放在磁盘；默认为内存的四分之一"),
    "order": ("打乱方式", "whole：整体打乱；blocks：按块打乱；auto：在磁盘上时按块"),
    "cache": ("缓存", "自备图片：保留解码结果供下次使用"),
    "mean": ("均值", "从图片中减去，以 0–1 为单位；默认取训练集的"),
    "std": ("标准差", "用来除图片，以 0–1 为单位；默认取训练集的"),
    "augment": ("数据增强", "例如 shift:2,flip"),
    "validation": ("验证集", "训练图片中的比例（< 1）或张数（>= 1）；0：没有"),
    "test": ("测试集", "没有官方测试集时的比例或张数"),
    "group": ("分组", "自备图片：表格的列或路径的正则表达式；同组不拆分"),
    "train_range": ("训练范围", "使用的训练图片，起:止"),
    "validation_range": ("验证范围", "用于验证的训练图片，起:止"),
    "test_range": ("测试范围", "使用的测试图片，起:止"),
    "epochs": ("轮数", "训练图片被用几遍"),
    "time": ("时长", "改为训练这么久：90s、10m、1.5h"),
    "batch_size": ("批大小", "每一步的图片数"),
    "accumulate": ("分批累积", "一批分几次通过网络，以节省内存"),
    "optimizer": ("优化器", "改变权重的规则"),
    "lr": ("学习率", "学习率（变化时指其峰值）"),
    "bias_lr": ("偏置学习率", "偏置和 BatchNorm 缩放的学习率；默认同学习率"),
    "head_lr": ("末层学习率", "最后一个线性层的学习率；默认同学习率"),
    "whitening_epochs": ("白化轮数", "airnet 第一层的偏置参与训练的轮数"),
    "momentum": ("动量", "sgd 的动量；muon 用于卷积核和矩阵"),
    "side_momentum": ("其余动量", "muon 用于偏置和末层"),
    "nesterov": ("Nesterov 动量", "sgd 向前看一步"),
    "betas": ("beta 系数", "adam 和 adamw 的系数"),
    "weight_decay": ("权重衰减", "把权重拉向零的力度"),
    "weight_decay_mode": ("衰减方式", "coupled：加到梯度上（L2）；decoupled：单独施加；auto：adamw 单独施加"),
    "schedule": ("学习率计划", "学习率随步数怎样变化"),
    "warmup": ("预热", "学习率升到峰值所用步数的比例"),
    "step_epochs": ("阶梯间隔", "step 计划：两次下降之间的轮数"),
    "step_factor": ("阶梯因子", "step 计划：每次下降乘以的因子"),
    "loss": ("损失函数", "binary-cross-entropy 和 mean-squared-error 用 sigmoid 对独热编码"),
    "label_smoothing": ("标签平滑", "目标中分给所有类别的比例"),
    "balance": ("类别平衡", "少见类别权重更大（loss）或出现更多（sampler）；auto：不均衡时用 loss"),
    "clip": ("梯度裁剪", "梯度的最大范数"),
    "ema": ("权重平均", "权重滑动平均的衰减，之后使用该平均"),
    "lookahead": ("前瞻", "慢权重的衰减，网络每 5 步接管一次"),
    "early_stop": ("提前停止", "这么多轮验证没有变好就停止"),
    "init": ("初始化", "卷积和线性层的初始权重；default：同 torch 或网络自己的"),
    "recompute_batchnorm": ("重算 BatchNorm", "训练后重新测量 BatchNorm 统计；auto：批小于 8 时"),
    "validate_every": ("验证间隔", "两次验证之间的轮数；0：只在最后"),
    "tta": ("测试时增强", "最终测试中单独的一行"),
    "seed": ("随机种子", "种子和机器相同，结果逐位相同"),
    "device": ("设备", "auto、cpu、cuda、cuda:1、mps"),
    "precision": ("精度", "运算的数字格式"),
    "threads": ("线程数", "0：自动选择"),
    "timeout": ("等待时限", "在 torchrun 下：一个进程等待另一个多久"),
    "track": ("跟踪", "同时写入 tensorboard、mlflow 或两者；none：都不"),
    "save_every": ("保存间隔", "一轮之内也保存：200（步）、60s 或 none；auto：占时不到 1 %"),
}

#: Of env.json.
ENVIRONMENT = {
    "system": "系统",
    "processor": "处理器",
    "capability": "指令集",
    "cores": "核心数",
    "device": "设备",
    "device_name": "设备名称",
    "plan": "运行方案",
}

#: Of what a rule of the diagnosis went by.
NUMBERS = {
    "lr": "学习率",
    "train_loss": "训练损失",
    "train_accuracy": "训练准确率",
    "val_accuracy": "验证准确率",
    "validation_accuracy": "验证准确率",
    "test_accuracy": "测试准确率",
    "val_loss_rise": "验证损失回升",
    "best": "最好",
    "first": "开始时",
    "before": "之前",
    "chance_loss": "一无所知时的损失",
    "conflicts": "标签冲突",
    "copies": "重复图片",
    "tested": "测试图片数",
    "dead": "死亡单元",
    "saturated": "饱和的输出",
    "spread": "各图片输出之差",
    "gradient": "梯度",
}

#: In the line of hyper-parameters.
SCHEDULES = {
    "constant": "学习率不变",
    "step": "学习率阶梯下降",
    "linear": "学习率线性下降",
    "cosine": "学习率余弦下降",
    "one-cycle": "one-cycle 学习率",
    "triangular": "三角形学习率",
}
LOSSES = {"cross-entropy": "交叉熵", "binary-cross-entropy": "二元交叉熵", "mean-squared-error": "均方误差"}

#: Why two runs are not compared.
_REASONS = (
    (r"they were trained on different data", "训练数据不同"),
    (r"they were tested on different pictures", "测试图片不同"),
    (r"the same pictures had different labels", "相同的图片有不同的标签"),
    (r"one was tested on ([\d,]+) pictures, the other on ([\d,]+)", r"一个在 \1 张图片上测试，另一个在 \2 张上"),
    (r"(.+) is missing: the run was not tested", r"缺少 \1：运行没有测试"),
)


def reason(text: str) -> str:
    """Return in Chinese why two runs are not compared; what is not known as it came."""
    for pattern, chinese in _REASONS:
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found:
            return found.expand(chinese)
    return text
