"""How a run proceeds: length, precision, checkpoints, evaluation, logging.

Every key can be set on the command line, e.g. `train.max_iter=1000 train.amp.enabled=true`.
"""

train = dict(
    output_dir="./output",
    # Weights to start from: a path, `detectron2://...` or `https://...`; "" keeps the model's own.
    init_checkpoint="",
    # Start even if they are only a part of the backbone's, the rest of which then stays random.
    allow_partial_backbone=False,
    max_iter=90000,
    # "auto" takes a GPU when there is one; otherwise "cpu", "cuda", "mps".
    device="auto",
    # A negative seed is drawn at the start and written to the log and to the checkpoints.
    seed=-1,
    # dtype: "bfloat16", "float16", or "auto": the first of the two that the device is good at.
    amp=dict(enabled=False, dtype="auto"),
    # Batches whose gradients are added up before one optimizer step.
    grad_accum_steps=1,
    clip_grad=dict(enabled=False, params=dict(max_norm=0.1, norm_type=2)),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    # A trial run: 20 iterations, evaluated every 10.
    fast_dev_run=dict(enabled=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    # Beside the periodic checkpoints: model_best.pth, by a metric of the evaluation.
    best_checkpoint=dict(enabled=True, metric="bbox/AP"),
    eval_period=5000,
    log_period=20,
    # Exponential moving average of the weights; `device` "" keeps it where the model is.
    model_ema=dict(enabled=False, decay=0.999, device="", use_ema_weights_for_eval_only=False),
    wandb=dict(
        enabled=False,
        params=dict(dir="./wandb_output", project="detrex", name="detrex_experiment"),
    ),
)
