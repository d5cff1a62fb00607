"""ImportModel: a model from elsewhere becomes an artifact, its weights linked to where they lie."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.data.builtin_templates import BUILT_IN
from alignlab.digests import remember
from alignlab.errors import StoreError
from alignlab.models.request import Dtype, Imported
from alignlab.models.source import Source, small_files
from alignlab.models.tokens import add_tokens
from alignlab.models.weights import stored_dtype
from alignlab.policy import Policy
from alignlab.policy.folder import WEIGHTS, WEIGHTS_INDEX, check_folder, weight_files
from alignlab.policy.load_settings import Attention, LoadSettings
from alignlab.policy.template_file import own_template, write_template
from alignlab.stage import Stage, StageContext


class ImportModel(Stage):
    """Bring a model in from a folder or from the Hugging Face hub.

    Its weights are checked once, here: their names and shapes, that the token statistics of this architecture are the
    model's own, and that its tokenizer is the one that its files describe. They are linked to where they lie, and
    written again only where tokens are added or `dtype` is another one than theirs. Later stages check that the linked
    files have kept size and time. Remote code is never run, pickled weights are never read.

    What identifies it is the commit on the hub, or the content of the folder's files, wherever that lies.

    Args:
        name_or_path, revision, dtype, attention, chat_template, add_tokens: see `Imported`.
        memory: folder in which digests of large files are noted, so that they are read once; null notes none.
        inputs: none.
        seed: not used.
    """

    VERSION: ClassVar[str] = "1"
    PRODUCES: ClassVar[Kind] = "policy"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"inputs", "seed", "memory", "name_or_path", "revision", "chat_template"}
    )
    """Where the model lies does not matter, nor the template's file: `content_digest` has what they hold."""

    def __init__(
        self,
        *,
        name_or_path: str,
        revision: str | None = None,
        dtype: Dtype = "auto",
        attention: Attention | None = None,
        chat_template: str | None = None,
        add_tokens: Sequence[str] = (),
        memory: str | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        self.request = Imported(name_or_path, revision, dtype, attention, chat_template, tuple(add_tokens))
        self.memory = None if memory is None else Path(memory).expanduser() / "digests"
        self.source = Source(self.request, self.memory)

    def content_digest(self) -> str:
        """The model's commit or content, and the text of a chat template that replaces its own.

        Raises:
            StoreError: there is no such model here, and the hub does not give it.
        """
        template = self.request.template()
        return self.source.digest() if template is None else f"{self.source.digest()}\0{template}"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Link the weights, write the rest, check all of it; returns the size of the model."""
        folder = self.source.fetch()
        check_folder(folder)
        if self.source.is_folder and self.memory is not None:
            remember([*small_files(folder), *weight_files(folder)], self.memory)
        policy = self._assembled(folder, context.folder)
        context.check_lengths(policy.tokenizer, policy.context)
        self._tell(policy, folder, context)
        return {"parameters": float(policy.model.num_parameters()), "vocabulary": float(len(policy.tokenizer))}

    def _assembled(self, folder: Path, to: Path) -> Policy:
        """The model as it is published, loaded from there as later stages load it, which checks it."""
        stored, settings, template = stored_dtype(folder), self._settings(), self.request.template()
        link(folder, to)
        settings.write(to)
        if template is not None:
            write_template(to, template)
        policy = Policy.load(to, stored)
        if policy.score_head is not None:
            raise StoreError(f"{folder} is a reward model; name its folder as the input `reward` of a stage instead")
        added = add_tokens(policy, self.request.add_tokens, own_template(policy.tokenizer))
        _check_built_in(policy, self.request)
        if added or settings.type_of_weights(stored) != stored:
            _write(policy, to, settings)
        elif template is not None:
            policy.list_stop_tokens(to)
        return policy

    def _settings(self) -> LoadSettings:
        dtype = self.request.dtype
        return LoadSettings(None if dtype == "auto" else dtype, self.request.attention)

    def _tell(self, policy: Policy, folder: Path, context: StageContext) -> None:
        links = [f for f in context.folder.iterdir() if f.is_symlink()]
        size = sum(f.stat().st_size for f in weight_files(context.folder)) / 1e9
        place = (
            f"linked to {folder}" if links else f"written here, since tokens or their type are not those of {folder}"
        )
        context.tracker.say(
            f"{type(policy.model).__name__}, {policy.model.num_parameters() / 1e6:,.1f} million parameters in "
            f"{str(policy.model.dtype).removeprefix('torch.')}, {size:.3g} GB, {place}"
        )
        if obstacle := policy.cache_obstacle():
            context.tracker.say(f"{obstacle}; each token of an answer takes a pass over its whole row, which is slow")


def link(folder: Path, to: Path) -> None:
    """Put a model into an empty folder: links to its weights, and copies of its other files."""
    for file in weight_files(folder):
        (to / file.name).symlink_to(file.resolve())
    for file in small_files(folder):
        if file.name != WEIGHTS_INDEX or not (folder / WEIGHTS).is_file():  # an index of files that are not there
            shutil.copyfile(file, to / file.name)


def _write(policy: Policy, to: Path, settings: LoadSettings) -> None:
    """Write weights and tokenizer in place of the links."""
    for file in list(to.iterdir()):
        file.unlink()
    policy.save(to)
    settings.write(to)


def _check_built_in(policy: Policy, request: Imported) -> None:
    """Refuse a built-in template whose control words the tokenizer does not have.

    Raises:
        StoreError: names the words, and how they are added.
    """
    words = [w for w in ("<|im_start|>", "<|im_end|>") if w in (request.template() or "")]
    missing = [w for w in words if w not in policy.tokenizer.get_vocab()]
    if request.chat_template in BUILT_IN and missing:
        raise StoreError(
            f"chat_template {request.chat_template} writes {', '.join(missing)}, which the tokenizer of "
            f"{request.name_or_path} does not have as tokens; set add_tokens=[{','.join(map(repr, missing))}], or take "
            f"chat_template=plain"
        )
