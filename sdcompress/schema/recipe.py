"""The recipe: the settings of an experiment. It holds no code, but may name a user's own function."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    PositiveFloat,
    field_validator,
    model_validator,
)

from sdcompress.schema.base import Fraction, Frozen
from sdcompress.schema.graphs import Ensemble
from sdcompress.schema.recipe_compression import Compress, Prune
from sdcompress.schema.recipe_values import (
    BelowOne,
    EachOnce,
    Entry,
    EntryName,
    NonNegative,
    NonNegativeInt,
    OpenSection,
    Options,
    PathText,
    PositiveInt,
    Some,
    Weight,
)
from sdcompress.schema.search import Tune

__all__ = [
    "Augmentation",
    "Bench",
    "Calibrate",
    "Data",
    "Exits",
    "Export",
    "MethodSection",
    "ModalitySection",
    "Model",
    "Optimizer",
    "Recipe",
    "Schedule",
    "TaskSection",
    "Train",
    "Tune",
]

# ``not_identifying`` of a section names keys that do not change the weights: where the data lies (its fingerprint
# identifies it), how steps are computed and watched, and what is done with the weights


class Data(Frozen):
    """Which data set, and how much of it."""

    not_identifying: ClassVar = frozenset({"dir", "download", "exclude"})

    name: str = Field(
        "digits", description="a data set of 'sdcompress list data', or module:function of your own, e.g. my_data:make"
    )
    dir: PathText | None = Field(None, description="folder that holds the data (or receives the download)")
    download: bool = Field(False, description="allow a torchvision set to be downloaded into dir")
    columns: tuple[str, ...] = Field(
        (),
        description="of tables: the columns of the examples; of texts one, or two for pairs, e.g. [sentence], where "
        "[text] is the default; else all columns but the label",
    )
    label: str = Field("label", description="of tables: the column of the labels; of numbers several with commas")
    validation: BelowOne = Field(0.1, description="share of the training samples held out where the set has no split")
    train_limit: PositiveInt | None = Field(None, description="use only the first N shuffled training samples")
    train_per_stratum: PositiveInt | None = Field(
        None, description="use only N shuffled training samples of each stratum, such as a class, or all that it has"
    )
    test_limit: PositiveInt | None = Field(None, description="use only the first N shuffled test samples")
    exclude: tuple[str, ...] = Field(
        (), description="examples to leave out, such as broken ones, by their names in messages, e.g. [train/cat/3.jpg]"
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Data:
        if self.train_limit is not None and self.train_per_stratum is not None:
            raise ValueError("train_limit and train_per_stratum both limit the training samples: choose one")
        return self

    def at(self, folder: object, *, download: bool = False) -> Data:
        """Return these settings for a folder here; nothing is downloaded unless the user allows it now.

        Args:
            folder: where it lies here; None: where the recipe says.
            download: the user allows a download now.
        """
        return self.model_copy(update={"dir": self.dir if folder is None else str(folder), "download": download})


class Model(Frozen):
    """Which backbone."""

    not_identifying: ClassVar = frozenset({"weights", "match"})

    name: str = Field("cifar:resnet8", description="family:name, e.g. cifar:resnet18, timm:resnet50, my_nets:make")
    pretrained: bool = Field(
        False,
        description="start from published weights: downloaded (timm, torchvision), or beside config.json (hf)",
    )
    weights: PathText | None = Field(
        None,
        description="start from these weights: a training, a file (.safetensors, .pt, .pth, .bin) or a folder as the "
        "Hugging Face hub has it",
    )
    match: Literal["name", "partial", "order"] = Field(
        "name",
        description="of a file's tensors: by name, where the classifier alone may be new; by name, where more may be "
        "new; by order and shape",
    )
    options: Options = Field({}, description="further keyword arguments of the backbone")

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if self.weights is not None and self.pretrained:
            raise ValueError("pretrained and weights both name the weights to start from: choose one")
        if self.match != "name" and self.weights is None:
            raise ValueError("match needs weights, a file of them")
        return self

    @property
    def untrained(self) -> Model:
        """Return the same network without anybody's weights, for what is built to get others."""
        named = {"checkpoint_path"} if self.name.startswith("timm:") else set()  # timm's option reads a file
        options = {key: value for key, value in self.options.items() if key not in named}
        return self.model_copy(update={"pretrained": False, "weights": None, "match": "name", "options": options})


class Exits(Frozen):
    """Where the exits are and what they are made of."""

    count: PositiveInt = Field(3, description="how many exits to place by themselves, evenly by MACs, before the last")
    modules: tuple[str, ...] = Field((), description="names of the modules to tap instead of placing count exits")
    head: str = Field("bottleneck", description="of 'sdcompress list heads'")
    width_cap: PositiveInt = Field(512, description="most channels that a head may have")
    gradient_scaling: Literal["none", "equilibrium"] = Field(
        "none",
        description="of the exits' gradients in the backbone; equilibrium: their sum does not grow with the exits",
    )
    pool: Literal["auto", "mean", "token"] = Field("auto", description="token maps: mean over tokens or class token")


class ModalitySection(Entry):
    """What goes into the network, with the modality's own parameters beside its name."""

    name: EntryName | None = Field(
        None, description="of 'sdcompress list modalities', which shows the parameters too; default: the data set's"
    )


class TaskSection(Entry):
    """What the targets and the network's outputs mean, with the task's own parameters beside its name."""

    name: EntryName = Field("classification", description="of 'sdcompress list tasks'; that of the data set's targets")


class MethodSection(Entry):
    """A method of self-distillation by name, with its own parameters beside the name."""

    not_identifying: ClassVar = frozenset({"file", "teacher"})

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(\+[A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=100)
    ] = Field(
        "byot",
        description="of 'sdcompress list methods'; A+B is A on the labels of B, whose numbers stand under 'labels'",
    )
    file: PathText | None = Field(None, description="Python file that holds the method, if it is one of your own")
    teacher: PathText | None = Field(
        None, description="a finished training whose network teaches, for methods such as trained_teacher"
    )
    preset: str | None = Field(
        None,
        max_length=100,
        description="the method's parameters under this name, of 'sdcompress list methods'; those beside it win",
    )


class Optimizer(Frozen):
    """The optimiser; weight decay spares biases and norms."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 0.1
    head_lr: PositiveFloat | None = Field(
        None, description="of heads, the network's own classifier and the method's adapters; default: lr"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="factor of the rate from each block of the backbone to the one before it, e.g. 0.75"
    )
    momentum: Fraction = 0.9
    nesterov: bool = True
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NonNegative = 5e-4


class Schedule(Frozen):
    """The learning rate over time; steps, not epochs, are the clock."""

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    warmup_epochs: NonNegative = Field(0.0, description="of linear warm-up")
    milestones: tuple[PositiveFloat, ...] = Field(
        (), description="multistep: epochs of a phase (most methods have one) at which the rate is multiplied by gamma"
    )
    gamma: PositiveFloat = 0.1
    final_lr_ratio: Fraction = Field(0.0, description="cosine: last rate as a share of the first")

    @model_validator(mode="after")
    def _steps_somewhere(self) -> Schedule:
        if self.name == "multistep" and not self.milestones:
            raise ValueError("multistep needs milestones, e.g. [60, 120]; without them the rate is constant")
        return self


class Augmentation(OpenSection):
    """What is done to training examples, on whole batches: mixup, and the parameters of the modality."""

    mixup: NonNegative = Field(
        0.0,
        description="alpha of the Beta distribution, 0 = off; beside it stand the modality's own parameters, see "
        "'sdcompress list modalities'",
    )


class Train(Frozen):
    """The training run."""

    # the number of threads decides the bits of sums; a run keeps it, or warns that it changes
    not_identifying: ClassVar = frozenset(
        {"threads", "processes", "strategy", "device", "data_on_device", "workers"}
        | {"evaluate_every", "checkpoint_every", "checkpoint_steps", "feature_cache_gb"}
    )

    epochs: PositiveInt = 30
    backbone: Literal["tuned", "frozen"] = Field(
        "tuned", description="frozen: heads and the network's own classifier alone learn, from trained weights"
    )
    feature_cache_gb: NonNegative = Field(
        8.0,
        description="of a frozen backbone: most of what heads see that is kept on disk, computed once for all epochs, "
        "0 = off",
    )
    batch_size: PositiveInt = Field(128, description="samples a step, over all processes")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augmentation = Augmentation()
    accumulate: PositiveInt = Field(1, description="batches whose gradients are added up to one step of batch_size")
    label_smoothing: Fraction = 0.0
    class_weights: Literal["none", "balanced"] | Annotated[tuple[Weight, ...], Field(min_length=2)] = Field(
        "none",
        description="of the labels' cross-entropy: balanced (samples / (classes x samples of the class)), or a list",
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="balanced: every class as often in an epoch, whatever the number of its samples"
    )
    ema_decay: BelowOne = Field(
        0.0, description="of the moving average of the weights, which is evaluated and exported, 0 = off"
    )
    clip_grad: NonNegative = Field(0.0, description="largest gradient norm, 0 = off")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = False
    compile: bool = Field(False, description="torch.compile the network (losses stay outside)")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: PositiveInt | None = Field(
        None, description="of a CPU, for each process; default: as the run began, or what the machine has free"
    )
    processes: PositiveInt = Field(
        1, description="of the training, one for each device; start more than one with torchrun"
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="of several processes: each holds all weights, or a share of them (needs less memory)"
    )
    data_on_device: bool | None = Field(
        None, description="keep the training examples on the device; default: on a GPU with room for them"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="threads that fetch batches ahead (folders of files)"
    )
    evaluate_every: PositiveInt = Field(1, description="epochs between evaluations on the validation split")
    checkpoint_every: PositiveInt = Field(1, description="epochs between checkpoints")
    checkpoint_steps: NonNegativeInt = Field(0, description="also checkpoint every N steps, 0 = off")


class Export(Frozen):
    """The ONNX files."""

    layouts: Some[Literal["single", "cascade", "all"]] = ("single", "cascade")
    truncate_at: Some[str] = Field(
        ("final",), description="single: one network for each exit named here, truncated at it"
    )
    keep_exits: tuple[str, ...] = Field(
        (), description="cascade and all: exits to keep beside the last; the heads of others are removed; default: all"
    )
    opset: Annotated[int, Field(ge=16, le=23)] = Field(
        18, description="of ONNX's operators; 16 or 17 (IR version 8) for older runtimes, e.g. TensorRT 8.5"
    )
    parity_max_batch: Annotated[int, Field(ge=8, le=2**13)] = Field(32, description="largest batch of the parity gate")
    parity_samples: Annotated[int, Field(ge=256, lt=2**31)] = Field(
        256, description="real held-out samples of the parity gate; all of them where there are fewer"
    )
    atol: PositiveFloat = Field(1e-4, description="absolute tolerance on outputs")
    rtol: PositiveFloat = Field(1e-4, description="tolerance relative to the largest output")
    ensemble: Ensemble | None = Field(
        None, description="geometric: an exit's outputs are the geometric mean over the exits so far"
    )


class Quantize(Frozen):
    """Lower precisions, in which 'run' makes and measures every artifact once more."""

    precisions: EachOnce[str] = Field((), description="of 'sdcompress list precisions', e.g. [uint8]; default: none")
    max_drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="of the metric, that every exit may lose by it"
    )
    calibration_samples: PositiveInt | None = Field(
        None, description="training samples that give the ranges of int8, uint8, fp8; default: 512, or all there are"
    )


class Calibrate(Frozen):
    """The exit thresholds, chosen on the validation split of the exported artifact."""

    policy: str = Field("max_prob", description="of 'sdcompress list policies'")
    max_drop: Fraction = Field(
        0.01, description="of the metric, that may be lost against the last exit, 0.01 = 1 point"
    )
    fit_temperature: bool = Field(
        True, description="try a fitted temperature at each exit, and keep it where it makes early exit cheaper"
    )
    drop_slow_exits: bool = Field(
        True,
        description="no sample takes an exit that costs more time than it saves, by times measured here; where the "
        "whole network is faster, none exits early",
    )
    confidence: Annotated[float, Field(ge=0.5, lt=1)] | None = Field(
        None, description="certify max_drop with this confidence, e.g. 0.95; null: no guarantee"
    )
    extra_drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="further drops to certify on the same path; all of them hold together with the confidence"
    )
    unlabelled: bool = Field(
        False, description="certify disagreement with the last exit, which needs no labels and bounds the drop"
    )
    in_expectation: bool = Field(
        False, description="keep the drop in the mean over calibrations (conformal risk control); certifies nothing"
    )
    group_by: Literal["exit", "stratum"] | None = Field(
        None,
        description="certify in every group: 'stratum' (a class), or 'exit' (the samples that exited there or before); "
        "null: over all",
    )
    budget_ms: PositiveFloat | None = Field(
        None, description="the safest certified thresholds that take at most this mean time; null: the fastest"
    )

    @model_validator(mode="after")
    def _only_with_confidence(self) -> Calibrate:
        if self.confidence is None and (self.extra_drops or self.group_by or self.budget_ms is not None):
            raise ValueError("extra_drops, group_by and budget_ms need a confidence, e.g. 0.95")
        if self.confidence is None and self.unlabelled and not self.in_expectation:
            raise ValueError("unlabelled needs a confidence, e.g. 0.95, or in_expectation")
        if self.confidence is not None and self.in_expectation:
            raise ValueError("a confidence certifies single calibrations, in_expectation does not: choose one")
        if self.group_by == "stratum" and self.unlabelled:
            raise ValueError("strata are known by targets: group_by 'stratum' and unlabelled exclude each other")
        if (self.confidence is not None or self.in_expectation) and not 0 < self.max_drop < 1:
            raise ValueError("a drop of 0 or 1 cannot be certified: set max_drop between them, e.g. 0.01")
        return self


class Bench(Frozen):
    """How latency is measured."""

    scenarios: Some[Literal["single-stream", "offline"]] = ("single-stream", "offline")
    batch_sizes: Some[PositiveInt] = Field((8, 32), description="of the offline scenario")
    threads: PositiveInt = Field(
        1, description="intra-op threads; one is the only repeatable count on a shared machine"
    )
    backend: str = Field(
        "onnxruntime",
        description="of 'sdcompress list backends'; several with commas between them; or all: those that run here",
    )
    device: Literal["cpu", "cuda"] = "cpu"
    warmup_ms: PositiveFloat = 200.0
    duration_s: PositiveFloat = 10.0
    rounds: Annotated[int, Field(ge=5, le=10_000)] = Field(
        10, description="interleaved rounds, from which ratios get intervals"
    )
    percentiles: Some[Annotated[float, Field(ge=50, lt=100)]] = (50.0, 90.0, 95.0, 99.0)
    clock: Literal["wall", "thread"] = Field(
        "wall",
        description="wall: what a user waits; thread: processor time of the calling thread, for comparisons on a "
        "machine that other work keeps busy; needs one thread on the CPU",
    )

    @model_validator(mode="after")
    def _one_thread_has_the_whole_time(self) -> Bench:
        if self.clock == "thread" and (self.threads > 1 or self.device != "cpu"):
            raise ValueError("the processor time of a thread leaves out other threads and devices: use clock=wall")
        return self

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the names in ``backend``, each once, in their order."""
        return tuple(dict.fromkeys(name.strip() for name in self.backend.split(",")))


class Recipe(Frozen):
    """One experiment: everything that decides its outcome."""

    not_identifying: ClassVar = frozenset(
        {"schema_version", "name", "controls", "tune", "prune", "export", "quantize", "calibrate", "compress", "bench"}
    )

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    data: Data = Data()
    modality: ModalitySection = ModalitySection()
    task: TaskSection = TaskSection()
    model: Model = Model()
    exits: Exits = Exits()
    method: MethodSection = MethodSection()
    controls: tuple[MethodSection, ...] = Field((), description="methods trained the same way, to compare with ('run')")
    train: Train = Train()
    tune: Tune = Tune()
    prune: Prune = Prune()
    export: Export = Export()
    quantize: Quantize = Quantize()
    calibrate: Calibrate = Calibrate()
    compress: Compress = Compress()
    bench: Bench = Bench()

    @field_validator("controls")
    @classmethod
    def _controls_differ(cls, controls: tuple[MethodSection, ...]) -> tuple[MethodSection, ...]:
        names = [control.name for control in controls]
        if len(set(names)) != len(names):
            raise ValueError("each control may be named once")
        return controls
