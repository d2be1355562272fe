import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from end_to_end import EndToEnd

from msr_d2.mask_scoring import MaskIoUHead, MaskScoringROIHeads, MaskScoringTTA, add_mask_scores
from msr_d2.testing import ROI_HEADS, rectangle_instances, tiny_batch, tiny_cfg

FIELDS = {"pred_boxes", "pred_classes", "scores", "pred_masks", "mask_iou", "mask_scores"}


class MaskScoring(EndToEnd):
    losses = {"loss_mask", "loss_maskiou"}

    @torch.no_grad()
    def test_fields(self, model):
        for output in model.eval()(self.make_batch()):
            instances = output["instances"]
            assert set(instances.get_fields()) == FIELDS
            torch.testing.assert_close(instances.mask_scores, instances.scores * instances.mask_iou)

    @torch.no_grad()
    def test_no_detections_keep_the_fields(self):
        model = build_model(self.make_cfg(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.1]))
        for output in model.eval()(self.make_batch()):
            assert len(output["instances"]) == 0
            assert set(output["instances"].get_fields()) == FIELDS
            assert output["instances"].mask_scores.shape == (0,)

    @torch.no_grad()
    def test_given_boxes(self, model):
        batch = self.make_batch()
        given = Instances((64, 96))
        given.pred_boxes = Boxes(torch.tensor([[4.0, 4, 30, 30], [10, 10, 60, 50]]))
        given.pred_classes = torch.tensor([0, 2])
        output = model.eval().inference(batch[:1], [given], do_postprocess=False)[0]
        assert output.mask_iou.shape == (2,)
        assert not output.has("mask_scores")  # nobody has given a class score

    def test_soft_nms_keeps_all_fields(self):
        cfg = self.make_cfg(["MODEL.ROI_HEADS.SOFT_NMS.METHOD", "gaussian"])
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        with torch.no_grad():
            instances = model(self.make_batch())[0]["instances"]
        assert set(instances.get_fields()) == FIELDS
        assert len(instances) == cfg.TEST.DETECTIONS_PER_IMAGE
        assert (instances.scores.diff() <= 0).all()

    def test_bitmasks_train_as_polygons_do(self, model):
        polygon = self.losses_of(model, tiny_batch("polygon"))
        bitmask = self.losses_of(model, tiny_batch("bitmask"))
        for name in self.losses:
            torch.testing.assert_close(polygon[name], bitmask[name], rtol=0.05, atol=0.01)

    def losses_of(self, model, batch):
        torch.manual_seed(1)
        return self.train_step(copy.deepcopy(model), batch)

    @pytest.mark.parametrize("target", ["all", "positive"])
    def test_targets_of_table_5(self, target):
        model = build_model(self.make_cfg(["MODEL.ROI_MASKIOU_HEAD.TARGET", target]))
        self.train_step(model, self.make_batch())
        self.assert_every_parameter_has_a_gradient(model)
        self.train_step(model, [self.without_objects(x) for x in self.make_batch()])

    def test_class_agnostic_masks(self):
        for target in ("gt_class", "all"):
            options = ["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True]
            cfg = self.make_cfg([*options, "MODEL.ROI_MASKIOU_HEAD.TARGET", target])
            model = build_model(cfg)
            self.train_step(model, self.make_batch())
            with torch.no_grad():
                assert model.eval()(self.make_batch())[0]["instances"].has("mask_scores")

    def test_without_maskiou_head_it_is_plain_mask_rcnn(self):
        cfg = self.make_cfg(["MODEL.MASKIOU_ON", False])
        torch.manual_seed(0)
        ours = build_model(cfg)
        cfg.MODEL.ROI_HEADS.NAME = ROI_HEADS[self.variant].replace("MaskScoring", "")
        if self.variant == "fpn":
            cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        torch.manual_seed(0)
        theirs = build_model(cfg)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        torch.manual_seed(1)
        expected = self.train_step(theirs, self.make_batch())
        torch.manual_seed(1)
        got = self.train_step(ours, self.make_batch())
        assert {k: v.item() for k, v in got.items()} == {k: v.item() for k, v in expected.items()}

    def test_mask_loss_equals_detectron2(self, model):
        """The shared raster must not change the mask loss, nor the head the box losses."""
        plain = build_model(self.make_cfg(["MODEL.MASKIOU_ON", False]))
        plain.load_state_dict(model.state_dict(), strict=False)
        expected = self.losses_of(plain, self.make_batch())
        got = self.losses_of(model, self.make_batch())
        assert {k: got[k].item() for k in expected} == {k: v.item() for k, v in expected.items()}

    @torch.no_grad()
    def test_augmented_inference_keeps_mask_scores(self, model):
        cfg = self.make_cfg(["TEST.AUG.MIN_SIZES", (64, 80), "TEST.AUG.MAX_SIZE", 128])
        outputs = MaskScoringTTA(cfg, model.eval())([dict(x) for x in self.make_batch()])
        for output in outputs:
            instances = output["instances"]
            assert set(instances.get_fields()) == FIELDS
            torch.testing.assert_close(instances.mask_scores, instances.scores * instances.mask_iou)


class TestFPN(MaskScoring):
    variant = "fpn"

    def make_cfg(self, opts=None):
        return tiny_cfg("fpn", opts=opts)

    @pytest.mark.parametrize("mode", ["multiply", "concat_all", "concat_hr", "mask_only"])
    def test_inputs_of_table_4(self, mode):
        model = build_model(self.make_cfg(["MODEL.ROI_MASKIOU_HEAD.INPUT", mode]))
        self.train_step(model, self.make_batch())
        self.assert_every_parameter_has_a_gradient(model)
        with torch.no_grad():
            assert model.eval()(self.make_batch())[0]["instances"].has("mask_scores")

    def test_train_on_predicted_boxes(self):
        model = build_model(self.make_cfg(["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True]))
        self.train_step(model, self.make_batch())

    def test_scalars(self, model):
        with EventStorage() as storage:
            model.train()(self.make_batch())
        names = {"mean_predicted", "mean_target", "correlation", "positive_share"}
        assert {f"maskiou/{name}" for name in names} <= set(storage.latest())
        assert 0 <= storage.latest()["maskiou/mean_target"][0] <= 1

    def test_no_positive_rois(self, model):
        """Sampled proposals without a single positive one, as one rank of a job may get."""
        heads = model.roi_heads.train()
        proposals = Instances((64, 96), proposal_boxes=Boxes(torch.tensor([[0.0, 0, 9, 9]])))
        proposals.gt_classes = torch.tensor([heads.num_classes])
        features = {f"p{k}": torch.rand(1, 32, 64 >> k, 96 >> k) for k in range(2, 6)}
        with EventStorage():
            losses = heads._forward_mask(features, [proposals])
        sum(losses.values()).backward()
        for module in (heads.mask_head, heads.maskiou_head):
            assert all((p.grad == 0).all() for p in module.parameters())
        assert losses["loss_maskiou"] == 0

    def test_tau_and_weight(self):
        high = build_model(self.make_cfg(["MODEL.ROI_MASKIOU_HEAD.TAU", 0.999]))
        losses = self.train_step(high, [self.make_batch()[0]])
        assert losses["loss_maskiou"] == 0
        torch.manual_seed(0)
        single = build_model(self.make_cfg())
        double = build_model(self.make_cfg(["MODEL.MASKIOU_LOSS_WEIGHT", 2.0]))
        double.load_state_dict(single.state_dict())
        first, second = (self.losses_of(m, self.make_batch()) for m in (single, double))
        assert float(second["loss_maskiou"]) == pytest.approx(2 * float(first["loss_maskiou"]))

    @torch.no_grad()
    def test_overwritten_scores(self, model):
        cfg = self.make_cfg(["MODEL.ROI_MASKIOU_HEAD.OVERWRITE_SCORES", True])
        other = build_model(cfg)
        other.load_state_dict(model.state_dict())
        plain = model.eval()(self.make_batch())[0]["instances"]
        swapped = other.eval()(self.make_batch())[0]["instances"]
        assert torch.equal(swapped.scores, plain.mask_scores)
        assert torch.equal(swapped.class_scores, plain.scores)

    @torch.no_grad()
    def test_column_of_the_predicted_class_is_read(self, model):
        model.roi_heads.maskiou_head.maskiou.weight.zero_()
        model.roi_heads.maskiou_head.maskiou.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        instances = model.eval()(self.make_batch())[0]["instances"]
        torch.testing.assert_close(instances.mask_iou, 0.1 * (instances.pred_classes + 1))

    def test_gradient_of_the_maskiou_loss_reaches_mask_head_and_backbone(self, model):
        model.train()
        with EventStorage():
            model(self.make_batch())["loss_maskiou"].backward()
        for module in (model.roi_heads.mask_head, model.backbone.bottom_up.stem):
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


class TestCascade(MaskScoring):
    variant = "cascade"

    def make_cfg(self, opts=None):
        return tiny_cfg("cascade", opts=opts)

    @torch.no_grad()
    def test_soft_nms_scores_are_the_mean_over_stages(self, model):
        """A decay that changes nothing must give detectron2's boxes and scores before NMS."""
        heads, batch = model.eval().roi_heads, self.make_batch()
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, None)
        boxes, scores = heads._predict_boxes(features, proposals)
        for predictor in heads.box_predictor:
            predictor.test_nms_thresh, predictor.test_topk_per_image = 1.0, -1
        expected = heads._forward_box(features, proposals)
        for image_scores, detections in zip(scores, expected):
            everything = image_scores[:, :-1].flatten().sort(descending=True).values
            torch.testing.assert_close(everything, detections.scores, rtol=1e-5, atol=1e-6)


class TestC4(MaskScoring):
    variant = "c4"

    def make_cfg(self, opts=None):
        return tiny_cfg("c4", opts=opts)

    def test_high_resolution_input_is_refused(self):
        with pytest.raises(ValueError, match="concat_hr"):
            build_model(self.make_cfg(["MODEL.ROI_MASKIOU_HEAD.INPUT", "concat_hr"]))


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.MASK_ON", False], "MODEL.MASK_ON must be True"),
        (["MODEL.ROI_MASK_HEAD.POOLER_TYPE", ""], "POOLER_TYPE is empty"),
        (["MODEL.ROI_MASKIOU_HEAD.TARGET", "none"], "TARGET is 'none'"),
        (["MODEL.ROI_MASKIOU_HEAD.SCORE", "sum"], "SCORE is 'sum'"),
        (["MODEL.ROI_MASKIOU_HEAD.TAU", 1.0], "TAU is 1.0"),
        (["MODEL.ROI_MASKIOU_HEAD.MASK_THRESHOLD", 0.0], "MASK_THRESHOLD is 0.0"),
        (["MODEL.ROI_HEADS.SOFT_NMS.METHOD", "softer"], "METHOD is 'softer'"),
        (
            ["MODEL.ROI_HEADS.SOFT_NMS.METHOD", "gaussian", "MODEL.ROI_HEADS.SOFT_NMS.SIGMA", 0.0],
            "SIGMA is 0.0",
        ),
    ],
)
def test_contradictions_name_the_key(opts, message):
    with pytest.raises(ValueError, match=message):
        build_model(tiny_cfg("fpn", opts=opts))


def test_mask_head_with_its_own_forward_is_refused():
    class OwnForward(torch.nn.Module):
        def forward(self, features, instances):
            return {}

    heads = build_model(tiny_cfg("fpn")).roi_heads
    arguments = dict(
        box_in_features=["p2"],
        box_pooler=heads.box_pooler,
        box_head=heads.box_head,
        box_predictor=heads.box_predictor,
        mask_in_features=["p2"],
        mask_pooler=heads.mask_pooler,
        num_classes=3,
        batch_size_per_image=16,
        positive_fraction=0.25,
        proposal_matcher=heads.proposal_matcher,
    )
    with pytest.raises(ValueError, match="OwnForward does not"):
        MaskScoringROIHeads(**arguments, mask_head=OwnForward(), maskiou_head=heads.maskiou_head)
    ours = MaskScoringROIHeads(  # without config, by keyword
        **arguments, mask_head=heads.mask_head, maskiou_head=heads.maskiou_head
    )
    assert ours.maskiou_on


def test_head_in_somebody_elses_roi_heads():
    """The recipe of the README: no config of ours, no ROI heads of ours."""

    class TheirROIHeads(StandardROIHeads):
        def _forward_mask(self, features, instances):
            features = [features[f] for f in self.mask_in_features]
            pooled = self.mask_pooler(features, [x.pred_boxes for x in instances])
            logits = self.mask_head.layers(pooled)
            classes = torch.cat([x.pred_classes for x in instances])
            mask_iou = self.maskiou_head(pooled, logits, classes)
            add_mask_scores(instances, mask_iou[torch.arange(len(classes)), classes])
            return self.mask_head(pooled, instances)

    cfg = tiny_cfg("fpn")
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    model = build_model(cfg).eval()
    model.roi_heads.__class__ = TheirROIHeads
    shape = ShapeSpec(channels=32, height=14, width=14)
    model.roi_heads.maskiou_head = MaskIoUHead(shape, num_classes=3)
    with torch.no_grad():
        assert model(tiny_batch())[0]["instances"].has("mask_scores")


def test_objects_without_area_train():
    batch = tiny_batch()
    batch[0]["instances"] = rectangle_instances([(8, 8, 9, 9), (0, 0, 96, 64)], [0, 1])
    EndToEnd().train_step(build_model(tiny_cfg("fpn")), batch)
