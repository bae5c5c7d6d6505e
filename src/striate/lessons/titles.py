"""The lessons by name, with a title and a sentence each; no more is imported for a list of them."""

from __future__ import annotations

from striate.lessons.lesson import Text

# name → title, and what it is about
TITLES: dict[str, tuple[Text, Text]] = {
    "conv": (
        Text("Convolution", "卷积"),
        Text(
            "A small kernel slides over the input; at each place the products are added up.",
            "小小的卷积核在输入上滑动，每到一处就把对应元素的乘积相加。",
        ),
    ),
    "pool": (
        Text("Pooling", "池化"),
        Text(
            "A window slides over each channel and keeps one number of it: the largest, the mean or the sum.",
            "窗口在每个通道上滑动，每处只留下一个数：最大值、平均值或总和。",
        ),
    ),
    "linear-as-conv": (
        Text("A fully connected layer is a convolution", "全连接层就是卷积层"),
        Text(
            "A kernel as large as the whole map fits in one place only, and the sum in it is the row of a matrix.",
            "与整张特征图一样大的卷积核只有一个位置可放，那里的求和正是矩阵的一行。",
        ),
    ),
    "head": (
        Text("The head: fully connected or global average pooling", "分类头：全连接，还是全局平均池化"),
        Text(
            "What turns the last maps into class scores decides how many parameters a net has and which sizes it"
            " takes.",
            "最后的特征图怎样变成各类得分，决定了网络有多少参数、能接受多大的输入。",
        ),
    ),
    "activation": (
        Text("Activations", "激活函数"),
        Text(
            "What stands between two linear layers makes a net more than one linear map, and decides how far"
            " gradients reach.",
            "夹在线性层之间的激活函数，使网络不止是一个线性变换，也决定了梯度能传多远。",
        ),
    ),
    "step": (
        Text("One step of learning", "学习的一步"),
        Text(
            "y = wx + b: forward, loss, backward, and a step of gradient descent, worked out by hand.",
            "y = wx + b：前向、损失、反向、一步梯度下降，全部手算。",
        ),
    ),
    "batchnorm": (
        Text("Batch normalisation", "批量归一化"),
        Text(
            "In training each batch is measured by itself; afterwards the running statistics stand in for it.",
            "训练时用每一批自己的均值和方差；之后改用一路累积下来的统计量。",
        ),
    ),
}
