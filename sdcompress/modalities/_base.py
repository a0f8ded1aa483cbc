"""The contract of a modality: what a network is given, and how raw examples become that."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter

from sdcompress.errors import InputError, UsageError
from sdcompress.modalities._augmentation import Augment, AugmentationSettings
from sdcompress.modalities._form import Form
from sdcompress.modalities._inputs import Array, Inputs, checked_inputs
from sdcompress.modalities._settings import check_names, checked
from sdcompress.schema import recipe
from sdcompress.schema.graphs import FileEntry, Tensor
from sdcompress.schema.manifest import RegistryEntry
from sdcompress.storage import sha256_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Modality"]


@dataclass(frozen=True)
class Modality(ABC):
    """What goes into a network. One subclass a file; its fields are what a manifest records of it.

    An *example* is one sample as a data set holds it once it fits the network: for images uint8 [H, W, C]. A *raw*
    example is what users have: a file, its bytes, an image of any size. *Inputs* are the arrays that graphs take.

    Importing a modality needs numpy and what prepares inputs at inference, never torch.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)  # of fields, wherever they are from
    suffixes: ClassVar[frozenset[str]] = frozenset()
    """Endings of files, in lower case with the dot, that are raw examples or hold some; none: it has no files."""
    from_weights: ClassVar[tuple[str, ...]] = ()
    """Settings that a training takes over from the weights that it starts from, unless its recipe sets them."""
    mask: ClassVar[str | None] = None
    """Name of the input that says where padding is, see ``Inputs``; None: inputs are never padded."""
    _folder: ClassVar[Path | None] = None  # where its files lie; set for each of them by located
    augmentation: ClassVar[type[AugmentationSettings]] = AugmentationSettings

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Return the parameters that a recipe may set beside the modality's name, here all fields."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def build(cls, parameters: Mapping[str, Any]) -> Modality:
        """Make the modality of a recipe's parameters alone, for data sets that have none of their own.

        Args:
            parameters: names of ``setting_names`` only, their values unchecked.

        Raises:
            RecipeError: if one is missing, or a value cannot be used.
        """
        return checked(TypeAdapter(cls), parameters, "modality")

    def with_settings(self, parameters: Mapping[str, Any]) -> Modality:
        """Return the modality with what a recipe sets in the place of the data set's own.

        Args:
            parameters: names of ``setting_names`` only, their values unchecked.

        Raises:
            RecipeError: if a value cannot be used.
        """
        return self.build({**self.parameters, **parameters}) if parameters else self

    def settings_of_weights(self, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - for those that have some
        """Return those of ``from_weights`` that a record of published weights names.

        Args:
            config: ``pretrained_cfg`` of a network, in the words of timm.
        """
        return {}

    def own_settings(self, like: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - likewise
        """Return the values in use of those of ``from_weights`` that can be replaced by other weights' values.

        Args:
            like: values of the weights by name; one that prepares examples as this modality does is returned as it is.
        """
        return {}

    @property
    def parameters(self) -> dict[str, Any]:
        """Its fields, as manifests write them."""
        written: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return written

    @property
    def record(self) -> RegistryEntry:
        """What a manifest writes of it; the name is that of its module."""
        return RegistryEntry(name=type(self).__module__.rpartition(".")[2], parameters=self.parameters)

    def located(self, folder: Path) -> Self:
        """The same modality, whose files lie in this folder: what opens a checkpoint or an artifact calls it."""
        located = copy(self)
        object.__setattr__(located, "_folder", folder.absolute())  # where a file lies is no parameter
        return located

    def path(self, entry: FileEntry) -> Path:
        """Where a file of its parameters lies.

        Raises:
            UsageError: if it was made from a manifest alone.
        """
        if self._folder is None:
            raise UsageError(
                f"The modality '{self.record.name}' needs its file {entry.file}, and nothing says where it lies.",
                next_step="open the artifact or the checkpoint: sdcompress.open(FOLDER)",
            )
        return self._folder / entry.file

    def with_own_files(self, section: recipe.ModalitySection) -> recipe.ModalitySection:
        """Return a recipe's section that names files of this content: its own, or the copies that came along.

        A stored recipe names files of the machine that it was trained on.
        """
        moved = {
            name: str(self.path(entry))
            for name, entry in self.record.files.items()
            if name in section.parameters and not _holds(Path(str(section.parameters[name])), entry)
        }
        return section.model_copy(update=moved)

    def copy_files(self, folder: Path) -> None:
        """Copy the files of its parameters, which checkpoints and artifacts carry along."""
        for entry in self.record.files.values():
            shutil.copyfile(self.path(entry), folder / entry.file)

    @property
    def fingerprint_text(self) -> str:
        """The text that stands for the preparation of examples in the fingerprints of data."""
        return json.dumps(self.parameters)

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs of a graph: names, dtypes, shapes; axes that vary are names, the first of them ``batch``."""

    def prepare(self, raw: Any) -> Inputs:
        """Raw examples as inputs, at inference.

        Args:
            raw: a sequence of B of them.

        Raises:
            InputError: names the first that cannot be used, and why.
        """
        if len(raw) == 0:
            return self.collate(np.stack([next(iter(self.edge_cases().values()))]))[:0]
        return self.collate(np.stack([self._one_of_batch(one, at) for at, one in enumerate(raw)]))

    @abstractmethod
    def example(self, raw: Any) -> Array:
        """One raw example as an example.

        Args:
            raw: what users have, such as the path of a file or its bytes.

        Raises:
            InputError: if it cannot be used.
        """

    def examples(self, raw: Sequence[Any]) -> Any:
        """All examples of a data set whose raw examples lie in memory; rows are taken by ``examples[indices]``.

        Args:
            raw: N raw examples that ``check_raw`` takes.
        """
        return np.stack([self.example(one) for one in raw])

    def raw_examples(self, file: Path) -> Iterable[tuple[str, Any]]:
        """The raw examples of a file, each with a name for messages; here the file itself is one.

        Args:
            file: ends in one of ``suffixes``, or the user says that it holds raw examples.

        Raises:
            DataError: if the file cannot be read as a list of raw examples.
        """
        return [(str(file), file)]

    def labelled_rows(self, file: Path, label: str) -> Iterable[tuple[str, Any, Any]]:  # noqa: ARG002 - for tables
        """The raw examples of a table, each with a name for messages and its label as the file has it.

        Args:
            file: a table.
            label: the column of the labels.

        Raises:
            UsageError: if files of this modality have no rows.
            DataError: if the table cannot be read.
        """
        raise UsageError(
            f"{file} is a file, and a file of the modality '{self.record.name}' says no label.",
            allowed="a folder that holds a folder for each class, by its name",
            next_step="name the folder",
        )

    def raw_from_bytes(self, content: bytes, *, most_bytes: int) -> Any:  # noqa: ARG002 - for those that decode
        """One raw example of the bytes that a client sent, which never name a file; here the bytes are one.

        Args:
            content: as in a file, or a text in UTF-8.
            most_bytes: that the example may take once it is decoded.

        Raises:
            InputError: if it takes more, or is no raw example of this modality.
        """
        return content

    @property
    def form(self) -> Form:
        """How a person enters a raw example, for pages such as the demo of a service; here by choosing a file."""
        return Form("file", suffixes=tuple(sorted(self.suffixes)))

    def entered(self, example: Any) -> tuple[str, ...] | None:  # noqa: ARG002 - for those with fields
        """What a person would enter in the fields of ``form`` to get an example; None: it cannot be told.

        Args:
            example: one of them, as ``example`` makes it.
        """
        return None

    def decode(self, raw: Any) -> Any:
        """One raw example as a program that calls the network has it in memory, from which preparation is timed.

        What it returns is a raw example too.
        """
        return raw

    def preparation_text(self, raw: Sequence[Any] | None) -> str:
        """What a timed preparation starts from, in words, for reports.

        Args:
            raw: from ``decode``; None: examples, which are only collated.
        """
        return "from examples of the data set" if raw is None else "from raw examples in memory"

    def check_raw(self, raw: Any) -> None:
        """Refuse a raw example that cannot be used, as far as a short look tells.

        Raises:
            InputError: says why.
        """
        self.example(raw)

    @abstractmethod
    def collate(self, examples: Any) -> Inputs:
        """Examples as inputs: what training, export and evaluation feed.

        Args:
            examples: B of them, as ``Samples.examples`` gives them.

        Raises:
            DataError: if they do not fit the network.
        """

    @property
    def varies(self) -> bool:
        """Whether inputs have named axes beside the batch, so that examples of one batch are padded to one size."""
        return any(isinstance(axis, str) for tensor in self.tensors for axis in tensor.shape[1:])

    def lengths(self, examples: Any) -> npt.NDArray[np.int64]:
        """How long each example is along the axes that vary, int64 [B]; batches of like lengths waste no padding.

        Args:
            examples: B of them.
        """
        return np.zeros(len(examples), np.int64)

    def padded(self, inputs: Inputs, length: int) -> Inputs:  # noqa: ARG002 - for those that vary
        """The inputs padded to a length along the axes that vary, so that batches can be joined; here as they are.

        Args:
            inputs: at most so long.
            length: along every named axis beside the batch.
        """
        return inputs

    def check(self, inputs: Any) -> Inputs:
        """The inputs of a call, C-contiguous.

        Args:
            inputs: ``Inputs``, or arrays by name; the array alone where there is one input.

        Raises:
            InputError: if a name, a dtype or a shape is another.
        """
        return checked_inputs(inputs, self.tensors, self.mask)

    def ordered(self, inputs: Inputs) -> tuple[Array, ...]:
        """The arrays in the order of ``tensors``, in which networks take them."""
        return tuple(inputs.arrays[tensor.name] for tensor in self.tensors)

    def augmentation_settings(self, settings: recipe.Augmentation) -> AugmentationSettings:
        """Return what a recipe's ``train.augment`` sets beside mixup, checked.

        Raises:
            RecipeError: if the modality has no such parameter, or a value cannot be used; names what is allowed.
        """
        check_names(settings.parameters, self.augmentation.model_fields, "train.augment", self.record.name, "mixup")
        return checked(TypeAdapter(self.augmentation), settings.parameters, "train.augment")

    def augment(self, settings: recipe.Augmentation, *, rank: int = 0, world: int = 1) -> Augment:  # noqa: ARG002 - for those that draw
        """Return what makes inputs of training examples. It needs torch.

        Args:
            settings: of the recipe.
            rank: of this process.
            world: number of processes that share a step.

        Raises:
            RecipeError: if a setting is for examples of another modality.
            MissingExtraError: if a setting needs a package that is not installed.
        """
        from sdcompress.modalities._mixing import Unaugmented

        self.augmentation_settings(settings)
        return Unaugmented(settings.mixup, self)

    @abstractmethod
    def edge_cases(self) -> Mapping[str, Any]:
        """Examples that real data rarely holds, by what they are: blank, saturated, noise. Parity gates see them.

        They are of one shape, so that ``numpy.stack`` makes a batch of them; two at least.
        """

    @property
    def limits_text(self) -> str:
        """What the edge cases reach, in words, for the error about a network that cannot take them."""
        return "its edge cases"

    @property
    def packed(self) -> Mapping[str, tuple[str, int]]:
        """Name -> dtype and number of axes of each array that ``pack`` gives; here of one array of examples."""
        example = np.asarray(next(iter(self.edge_cases().values())))
        return {"examples": (example.dtype.name, example.ndim + 1)}

    def pack(self, examples: Any) -> Mapping[str, Array]:
        """Examples as the arrays that golden.npz holds, each [B, ...]."""
        return {"examples": examples}

    def unpack(self, arrays: Mapping[str, Array]) -> Any:
        """The inverse of ``pack``."""
        return arrays["examples"]

    def drawn(self, examples: Any) -> npt.NDArray[np.uint8] | None:
        """Examples [N, ...] as pictures, uint8 [N, H, W, 3]; None: they are none."""
        del examples
        return None

    def card_text(self) -> str:
        """How a raw example becomes the inputs, in words, for the artifact's card."""
        return f"prepared as the modality {self.record.name} of sdcompress does"

    def card_code(self) -> str:
        """Python source without sdcompress for the artifact's card: imports, and ``inputs_of(argument)``.

        ``inputs_of`` takes what ``card_argument`` says, such as a file's path, and returns the inputs by name, each
        [1, ...]. It runs in the artifact's folder. Empty: the card has no program.
        """
        return ""

    @property
    def card_argument(self) -> str:
        """What the program of the card is called with, as its usage says; ``inputs_of`` takes it."""
        return "FILE"

    def _one_of_batch(self, raw: Any, at: int) -> Array:
        """One raw example of a batch; an error says which."""
        try:
            return self.example(raw)
        except InputError as error:
            path = f" ('{raw}')" if isinstance(raw, str | Path) else ""
            raise InputError(
                f"{type(self).__name__} {at}{path} cannot be used: {error.problem}",
                allowed=error.allowed,
                next_step=error.next_step,
            ) from error


def _holds(path: Path, entry: FileEntry) -> bool:
    """Whether a file, or the one of the entry's name in a folder, is that of the entry."""
    file = path / entry.file if path.is_dir() else path
    return file.is_file() and file.stat().st_size == entry.bytes and sha256_of(file) == entry.sha256
