"""An article's own loop as a side of time_to_accuracy.py: see peers/protocol.py.

It has torchvision's transforms on one picture at a time and a DataLoader without workers, in fp32, for as many epochs
as the article trains.
"""

from __future__ import annotations

import argparse

import torch
from articles import make_article, train_steps
from peers.protocol import Race
from peers.torch_pictures import Pictures, predict
from torch.utils.data import DataLoader


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", required=True)
    race = Race.of_command_line(parser)
    torch.manual_seed(race.seed)
    article = make_article(parser.parse_args().net)
    first = slice(article.train_pictures)
    train = Pictures(race.train_images[first], race.train_labels[first], article.transform)
    test = Pictures(race.test_images, race.test_labels, article.transform)
    loader = DataLoader(train, batch_size=article.batch_size, shuffle=True)
    race.start()
    for _ in range(article.epochs):
        if any(race.step(pictures) for pictures in train_steps(article, loader)):
            break
        if race.judge(lambda: predict(article.net, test)):
            break
    race.finish(lambda: predict(article.net, test), torch=torch.__version__)


if __name__ == "__main__":
    main()
