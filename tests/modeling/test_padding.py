"""An image gives the same predictions alone and in a batch with larger images."""

from __future__ import annotations

import pytest
import torch
import zoo


@pytest.mark.parametrize("recipe", zoo.MODELS)
def test_alone_and_in_a_padded_batch(recipe):
    model = zoo.small_model(recipe).double().eval()
    small, wide, tall = (
        zoo.image(h, w, [], [], seed) for seed, (h, w) in enumerate([(61, 75), (70, 130), (96, 64)])
    )
    with torch.no_grad():
        batch = model([small, wide, tall])
        for inputs, together in zip((small, wide, tall), batch, strict=True):
            alone = model([inputs])[0]["instances"]
            together = together["instances"]
            assert len(alone) == len(together) > 0
            torch.testing.assert_close(
                together.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=1e-8
            )
            torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-10)
            assert torch.equal(together.pred_classes, alone.pred_classes)


def test_padding_is_seen_as_padding():
    model = zoo.small_model("dab_deformable_detr/dab_deformable_detr_r50_50ep.py").eval()
    batch = [zoo.image(64, 64, [], []), zoo.image(64, 128, [], [])]
    levels = model.features(model.preprocess(batch))
    assert levels.padded
    for level, mask in zip(levels.maps, levels.masks, strict=True):
        assert level.shape[-2:] == mask.shape[-2:]
        width = -(-mask.shape[-1] // 2)
        assert mask[0, :, width:].all() and not mask[0, :, :width].any()
        assert not mask[1].any()
        assert not level[0, :, :, width:].any()
