"""Single images of a validation set, by their names."""

from types import SimpleNamespace

import pytest

from mmrkkd.evaluation import image_scores
from mmrkkd.evaluation.image_scores import ScoredImages


class Images:
    """A data set that lists one image twice."""

    metainfo = dict(classes=('cat',))
    paths = ('/a.jpg', '/a.jpg', '/b.jpg', '/c.jpg')

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=self.paths[index])

    def __getitem__(self, index):
        return self.paths[index]


@pytest.fixture
def scored(monkeypatch):
    """Of a model that says which image it was given."""
    loader = SimpleNamespace(dataset=Images(), collate_fn=lambda items: items)
    for name, value in (
        ('held_out_loader', lambda config: loader),
        ('student_classes', lambda *arguments: ('cat',)),
        ('_compared', lambda *arguments: ['cat']),
    ):
        monkeypatch.setattr(image_scores, name, value)
    monkeypatch.setattr(
        ScoredImages, '_scored', lambda self, path, batch, detect: batch
    )
    model = SimpleNamespace(
        match_student_classes=lambda names: None,
        reader=SimpleNamespace(
            scores=lambda student: SimpleNamespace(activation='softmax')
        ),
        student=None,
    )
    model.eval = lambda: model
    return ScoredImages(model, None, {})


def test_images_are_found_behind_one_that_is_there_twice(scored):
    paths = ['/b.jpg', '/c.jpg', '/a.jpg']
    assert list(scored.score(paths)) == [[path] for path in paths]


def test_an_image_that_is_there_twice_is_scored_once(scored):
    assert scored.evenly(4) == ['/a.jpg', '/b.jpg', '/c.jpg']


def test_an_image_of_another_set_is_refused(scored):
    with pytest.raises(ValueError, match='/d.jpg is none of the 3 images'):
        next(scored.score(['/d.jpg']))
