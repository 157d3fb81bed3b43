"""The configuration that all training runs share: frozen dataclasses, checked when built.

Knows nothing of codecs or language models, whose configurations add theirs to `RunConfig`. How
`key=value` texts change a configuration is `overrides.py`'s.
"""

from dataclasses import dataclass, field

from .overrides import check_types, require

DEVICES = ("auto", "cpu", "cuda")
SCHEDULES = ("linear", "cosine")
# Seeds are spread over the generators' 64 bits (micro_batches.py).
_LARGEST_SEED = 1 << 40


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule: linear warm-up, a plateau, decay to zero.

    Attributes:
        learning_rate: the learning rate of the plateau.
        betas: the betas of AdamW.
        weight_decay: the weight decay of all parameters.
        warmup_steps: the number of steps until the plateau.
        decay_fraction: the share of the run, at its end, over which the learning rate falls.
        schedule: how it falls: "linear", or "cosine", which spares the warm-up: with a
            ``decay_fraction`` of 1 nothing is left of the plateau.
    """

    learning_rate: float = 1.5e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay_fraction: float = 0.4
    schedule: str = "linear"

    def __post_init__(self) -> None:
        check_types(self)
        require(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        require(all(0 <= beta < 1 for beta in self.betas), self, "betas", "two numbers in [0, 1)")
        require(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        require(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        require(0 <= self.decay_fraction <= 1, self, "decay_fraction", "0 to 1")
        require(self.schedule in SCHEDULES, self, "schedule", "'linear' or 'cosine'")


@dataclass(frozen=True)
class ValidationSchedule:
    """How often to validate, and on how much; what is measured is each kind of run's.

    Attributes:
        every: the number of steps between validations.
        clips: the number of clips of the split "valid", spread evenly over it; 0 for no validation.
    """

    every: int = 1000
    clips: int = 24

    def __post_init__(self) -> None:
        check_types(self)
        require(self.every >= 1, self, "every", "at least 1")
        require(self.clips >= 0, self, "clips", "0 or more")


@dataclass(frozen=True)
class RunConfig:
    """What every run has; the configuration of a kind of run is a subclass with a `kind`.

    Attributes:
        kind: what is trained, for recipe.json; a constant of the class, not a key.
        output: the folder of the run.
        max_steps: the number of optimizer steps.
        seed: the seed that everything random follows from, together with the step.
        device: "auto" takes a GPU where there is one; "cpu" or "cuda".
        precision: "fp32" or "bf16" (autocast; losses stay in float32).
        threads: the number of CPU threads; 0 leaves PyTorch's choice.
        accumulate: the number of parts that the batch of a step is computed in, one by one.
        shard: whether weights, gradients and optimizer state are sharded over the processes
            (FSDP2) instead of copied (DDP).
        peak_tflops: the peak of one device, for the utilization; 0 measures it.
        wandb: the project on Weights & Biases to log to; empty for none.
        checkpoint_every: the number of steps between checkpoints.
        log_every: the number of steps between lines of progress; a line comes at least every ten
            seconds in any case.
        keep_checkpoints: the number of newest checkpoints that are kept.
        keep_best: whether the checkpoint of the best validation is kept too.
        optimizer: the optimizer of everything that trains.
        validation: how often to validate; each kind of run has a subclass here.
    """

    output: str = ""
    max_steps: int = 20_000
    seed: int = 0
    device: str = "auto"
    precision: str = "bf16"
    threads: int = 0
    accumulate: int = 1
    shard: bool = False
    peak_tflops: float = 0.0
    wandb: str = ""
    checkpoint_every: int = 1000
    log_every: int = 50
    keep_checkpoints: int = 2
    keep_best: bool = True
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationSchedule = field(default_factory=ValidationSchedule)

    # Without an annotation it is not a field, nor a key that a user could set.
    kind = ""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.precision in ("fp32", "bf16"), self, "precision", "'fp32' or 'bf16'")
        require(self.device in DEVICES, self, "device", "'auto', 'cpu' or 'cuda'")
        names = ("max_steps", "checkpoint_every", "log_every", "keep_checkpoints", "accumulate")
        for name in names:
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.peak_tflops >= 0, self, "peak_tflops", "0 or more")
        require(0 <= self.seed <= _LARGEST_SEED, self, "seed", "0 to 2**40")
        require(self.threads >= 0, self, "threads", "0 or more")
