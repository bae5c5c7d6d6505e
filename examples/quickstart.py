"""Train a net on the digits inside scikit-learn, look at its numbers, and ask it. No file and no network needed.

python examples/quickstart.py
"""

import striate

run = striate.train("digits")
top1 = run.evaluation["top1"]
print(f"test accuracy {top1['value']:.2%}, 95 % interval {top1['low']:.2%} to {top1['high']:.2%}")

weakest = min(run.evaluation["per_class"], key=lambda row: row["f1"])
print(f"weakest class {weakest['class']}: precision {weakest['precision']:.2%}, recall {weakest['recall']:.2%}")

digits = striate.load_named("digits").train
predictor = striate.load(run.folder, device="cpu")
for index in range(3):
    answer = predictor.predict(digits.images[index])
    truth = digits.classes[digits.labels[index]]
    print(f"picture {index} is a {truth}: answered {answer.label} with {answer.probability:.2%}")

print(f"curves, confusion matrix and mistakes are in {run.folder}")
