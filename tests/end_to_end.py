"""One set of end-to-end checks for every system: a test class inherits it and names its config."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from msr_d2.testing import rectangle_instances, tiny_batch


class EndToEnd:
    """Subclasses define `make_cfg` (a tiny config) and `losses` (names that must be returned)."""

    losses: set

    def make_cfg(self):
        raise NotImplementedError("a test class must name its config")

    def make_batch(self):
        return tiny_batch()

    def without_objects(self, item):
        size = item["instances"].image_size
        return {**item, "instances": rectangle_instances([], [], size)}

    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return build_model(self.make_cfg())

    def train_step(self, model, batch):
        model.train()
        model.zero_grad()
        with EventStorage():
            losses = model(batch)
        sum(losses.values()).backward()
        assert all(value.dim() == 0 for value in losses.values())
        assert all(torch.isfinite(value) for value in losses.values()), losses
        return losses

    def assert_every_parameter_has_a_gradient(self, model):
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)

    def test_training_step(self, model):
        assert self.losses <= set(self.train_step(model, self.make_batch()))
        self.assert_every_parameter_has_a_gradient(model)

    def test_no_objects_in_one_image(self, model):
        first, second = self.make_batch()
        self.train_step(model, [self.without_objects(first), second])
        self.assert_every_parameter_has_a_gradient(model)

    def test_no_objects_at_all(self, model):
        losses = self.train_step(model, [self.without_objects(x) for x in self.make_batch()])
        assert self.losses <= set(losses)
        self.assert_every_parameter_has_a_gradient(model)

    def test_autocast(self, model):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = self.train_step(model, self.make_batch())
        assert all(losses[name].dtype == torch.float32 for name in self.losses)

    def test_ten_steps_lower_the_loss(self, model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        batch, history = self.make_batch(), []
        for _ in range(10):
            history.append(float(sum(x.detach() for x in self.train_step(model, batch).values())))
            optimizer.step()
        assert sum(history[-3:]) < sum(history[:3])

    @torch.no_grad()
    def test_inference_returns_a_list(self, model):
        batch = self.make_batch()
        outputs = model.eval()(batch)
        assert isinstance(outputs, list) and len(outputs) == len(batch)

    @torch.no_grad()
    def test_batched_inference_equals_one_by_one(self, model):
        batch = self.make_batch()
        model.eval()
        alone = [model([item])[0]["instances"] for item in batch]
        for one, together in zip(alone, model(batch)):
            together = together["instances"]
            assert len(one) == len(together)
            torch.testing.assert_close(one.scores, together.scores, rtol=1e-3, atol=1e-4)
