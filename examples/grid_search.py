"""Choose a net and its learning rate by cross-validation, as with any scikit-learn classifier."""

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

import striate

digits = load_digits()
images, names = digits.images / 16, digits.target_names.astype(str)[digits.target]  # floats 0-1 (1797, 8, 8)
train_images, test_images, train_names, test_names = train_test_split(
    images, names, test_size=0.2, stratify=names, random_state=0
)

search = GridSearchCV(
    striate.ImageClassifier(epochs=10, validation=0),  # the folds validate
    {"model": ["mlp", "three-conv"], "lr": [0.002, 0.01]},
    cv=2,
)
search.fit(train_images, train_names)

for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
    print(f"{parameters['model']:<12}{parameters['lr']:<8}{score:.1%}")
print(f"best: {search.best_params_}, on the test pictures {search.score(test_images, test_names):.1%}")
